"""The visible vocabulary of the mini-world: names of colours, shapes, sizes, positions and backgrounds.

This is public language (what the word "red" or "left" means), shared by the renderer, the scorer and the
grammar. It holds no drawing code and no measuring code. Lengths are fractions of the shorter side of the
picture, x grows to the right and y downward, both in [0, 1]. Colours are CIELAB (D65, 2 degrees).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Lab = tuple[float, float, float]

# The plain world has six; the full world all eight.
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")
ALL_SHAPES: tuple[str, ...] = (*SHAPES, "crescent", "hexagon")
# How an object's area is painted: its colour alone, or with a second tone of the same hue.
FILLS: tuple[str, ...] = ("flat", "stripes", "dots", "checker")

# Prototypes of GenEval's ten colour names (arXiv 2310.11513); an object's colour is a prototype plus jitter.
COLORS: dict[str, Lab] = {
    "red": (47.0, 65.0, 44.0),
    "orange": (68.0, 36.0, 66.0),
    "yellow": (84.0, -2.0, 72.0),
    "green": (56.0, -46.0, 34.0),
    "blue": (42.0, 24.0, -60.0),
    "purple": (38.0, 46.0, -43.0),
    "pink": (70.0, 42.0, -8.0),
    "brown": (37.0, 18.0, 29.0),
    "black": (11.0, 0.0, 0.0),
    "white": (98.0, 0.0, 0.0),
}
COLOR_SIGMA: dict[str, float] = {"black": 1.5, "white": 1.0}
DEFAULT_COLOR_SIGMA = 4.0
RIVAL_DISTANCE = 12.0
RIVAL_MARGIN = 12.0  # how much nearer its own prototype a colour must be

# Backgrounds: chroma at most 12 and at least dE 18 away from white, so that every object stands out.
BACKGROUNDS: dict[str, Lab] = {
    "light grey": (79.0, 0.0, 0.0),
    "grey": (65.0, 0.0, 0.0),
    "cream": (80.0, 0.5, 11.0),
    "pale blue": (77.0, -3.0, -10.0),
    "pale green": (78.0, -10.0, 5.0),
    "pale pink": (77.0, 10.5, 1.0),
}
BACKGROUND_SIGMA = 1.0

# Families of backdrops. Whatever is behind the subjects, hills, trees and sun included, lies within these
# limits; whatever is in front, patterns and creatures included, outside of at least one of them.
BACKDROPS: tuple[str, ...] = ("plain", "gradient", "landscape", "tiles", "noise")
BACKDROP_LIGHTNESS: tuple[float, float] = (53.0, 81.5)
BACKDROP_CHROMA = 13.5
# Landscapes: the colours of sky and ground. Hills and trees lie between and near the ground's.
LANDSCAPES: dict[str, tuple[Lab, Lab]] = {
    "meadow": ((79.0, -3.0, -8.5), (70.0, -9.0, 7.0)),
    "desert": ((78.5, 0.0, -4.0), (72.0, 4.0, 10.5)),
    "snow": ((65.0, -1.0, -8.0), (79.0, -0.5, -1.5)),
    "sunset": ((74.0, 9.5, 4.5), (61.0, 2.5, 5.0)),
    "seaside": ((79.0, -1.5, -4.0), (66.0, -6.0, -9.0)),
    "dusk": ((70.0, 5.5, -9.5), (61.5, 0.5, -4.0)),
}

# What a creature does. Arms: degrees above the horizontal. Left and right are the viewer's.
ARM_ANGLES_DEG: dict[str, tuple[float, float]] = {
    "up": (34.0, 52.0),
    "out": (-10.0, 10.0),
    "down": (-68.0, -45.0),
}
MOUTHS: tuple[str, ...] = ("open", "closed")
DIRECTIONS: tuple[str, ...] = ("left", "front", "right")
POSE_WORDS: dict[str, tuple[str, ...]] = {
    "left_arm": tuple(ARM_ANGLES_DEG),
    "right_arm": tuple(ARM_ANGLES_DEG),
    "mouth": MOUTHS,
    "facing": DIRECTIONS,
    "gaze": DIRECTIONS,
}
# Looks of a whole picture: a manner of drawing, and a change of all its colours.
STYLES: tuple[str, ...] = ("outline", "pixelated", "halftone", "sepia")
TONES: tuple[str, ...] = ("night", "warm", "cool", "high contrast", "faded")

# Nominal radius (radius of a circle of that size) as a fraction of the shorter side.
SIZES: dict[str, tuple[float, float]] = {
    "small": (7.5 / 64, 9.0 / 64),
    "medium": (10.5 / 64, 12.5 / 64),
    "large": (14.5 / 64, 16.5 / 64),
}

# Intervals of the centre of an object's box; the gaps between them keep the names unambiguous.
COLUMNS: dict[str, tuple[float, float]] = {
    "left": (0.0, 0.38),
    "center": (0.455, 0.545),
    "right": (0.62, 1.0),
}
ROWS: dict[str, tuple[float, float]] = {"top": (0.0, 0.38), "middle": (0.455, 0.545), "bottom": (0.62, 1.0)}
POSITIONS: dict[str, tuple[str, str]] = {
    "top left": ("left", "top"),
    "top": ("center", "top"),
    "top right": ("right", "top"),
    "left": ("left", "middle"),
    "middle": ("center", "middle"),
    "right": ("right", "middle"),
    "bottom left": ("left", "bottom"),
    "bottom": ("center", "bottom"),
    "bottom right": ("right", "bottom"),
}
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
MIN_GAP = 4.0 / 64
EDGE_MARGIN = 1.5 / 64

_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ)
_WHITE = _RGB_TO_XYZ.sum(axis=1)
_EPSILON = (6.0 / 29.0) ** 3


def srgb_to_lab(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """CIELAB of sRGB colours.

    Shapes: rgb (..., 3) in [0, 1], or bytes -> (..., 3).   Source: IEC 61966-2-1 and CIE 15, white point D65.
    """
    rgb = np.asarray(rgb)
    xyz = (_LINEAR_BYTES[rgb] if rgb.dtype == np.uint8 else _linear(rgb)) @ _RGB_TO_XYZ.T
    xyz /= _WHITE
    f = np.cbrt(xyz)
    dark = xyz <= _EPSILON
    if dark.any():
        f[dark] = xyz[dark] * (841.0 / 108.0) + 4.0 / 29.0
    lab = np.empty_like(f)
    np.subtract(116.0 * f[..., 1], 16.0, out=lab[..., 0])
    np.multiply(f[..., 0] - f[..., 1], 500.0, out=lab[..., 1])
    np.multiply(f[..., 1] - f[..., 2], 200.0, out=lab[..., 2])
    return lab


def _linear(rgb: NDArray[Any]) -> NDArray[np.float64]:
    rgb = np.asarray(rgb, dtype=np.float64)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4)


_LINEAR_BYTES = _linear(np.arange(256) / 255.0)


def lab_to_srgb(lab: NDArray[np.floating] | Lab) -> NDArray[np.float64]:
    """sRGB of CIELAB colours, not clipped: a colour outside the gamut leaves [0, 1].

    Shapes: lab (..., 3) -> (..., 3).
    """
    lab = np.asarray(lab, dtype=np.float64)
    fy = (lab[..., 0] + 16.0) / 116.0
    f = np.stack([fy + lab[..., 1] / 500.0, fy, fy - lab[..., 2] / 200.0], axis=-1)
    xyz = np.where(f > 6.0 / 29.0, f**3, (f - 4.0 / 29.0) * (108.0 / 841.0)) * _WHITE
    linear = xyz @ _XYZ_TO_RGB.T
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1.0 / 2.4) - 0.055
    )
