"""Objects seen in a picture: shape, colour, size, place and mask of everything in front of the background.

Part of the scorer: pixels in, words out, `None` with a reason where a word would be a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from og2.errors import ImageError
from og2.world import palette
from og2.world.outline import MAX_RESIDUAL, name_outline, radial_profile
from og2.world.pixels import (
    BoolArray,
    FloatArray,
    View,
    components,
    dilate,
    distance,
    erode,
    fill_holes,
    smooth,
    take_apart,
    window,
)

# What "nominal radius" means: the area of a shape of nominal radius 1 (for a ring, hole included).
UNIT_AREA: dict[str, float] = {
    "circle": math.pi,
    "square": 3.24,
    "triangle": 2.20,
    "star": 2.11,
    "cross": 2.83,
    "ring": 3.66,
}
_SPECK_SHARE = 14.0 / 64**2  # smaller things are dirt, not objects
_MAX_COLOR_DISTANCE = 24.0
_MIN_COLOR_MARGIN = 7.0
_FAINT = (4.0, 0.5)  # allowed distance from a prototype: this many dE plus this share of the contrast
_MAX_SPREAD = 11.0
_MAX_TREND = 17.0
_MIN_FILL = 0.90
_RING_HOLE = (0.10, 0.62)  # area of the hole over the area of the disc


@dataclass(frozen=True)
class Detected:
    """One thing seen in front of the background.

    shape, color, size, position: words, or None when the pixels do not decide (then `reason` says why).
    box: (left, top, right, bottom) in pixels of the given picture; area in its pixels; confidence in [0, 1];
    mask: (H, W) at working resolution; center: of the box, as fractions of width and height.
    """

    shape: str | None
    color: str | None
    size: str | None
    position: str
    box: tuple[float, float, float, float]
    area: float
    confidence: float
    reason: str
    mask: BoolArray
    center: tuple[float, float]
    lab: tuple[float, float, float]


@dataclass(frozen=True)
class Reading:
    """All things seen in a picture, or none and the reason why the picture cannot be judged."""

    objects: tuple[Detected, ...]
    background: str | None
    view: View | None
    reason: str


def detect(image: Any) -> list[Detected]:
    """The things seen, the largest first; none when the picture is blank or cannot be judged (see `read`)."""
    return list(read(image).objects)


def read(image: Any) -> Reading:
    """The things seen and the background's name, or why the picture cannot be judged. Never raises."""
    try:
        view = take_apart(image)
    except ImageError as error:
        return Reading((), None, None, str(error))
    smallest = _SPECK_SHARE * min(view.mask.shape) ** 2
    parts = [part for part in components(view.mask) if part.sum() >= smallest]
    objects = tuple(_describe(view, part) for part in parts)
    return Reading(objects, _name_background(view), view, "")


def _describe(view: View, part: BoolArray) -> Detected:
    around, where = window(view, part)
    part = part[where]
    lab, spread = _core_color(around, part)
    coverage = _coverage(around, part, lab)
    mask = coverage >= 0.5
    if mask.sum() < 4:
        mask, coverage = part, part.astype(np.float64)
    shape, confidence, reason = _name_shape(coverage, mask)
    contrast = math.dist(lab, np.median(around.background[part], axis=0))
    color, color_reason = _name_color(lab, spread, contrast)
    filled = fill_holes(mask) if shape == "ring" else mask
    area = float(np.maximum(coverage, filled & ~mask).sum())
    whole = np.zeros_like(view.mask)
    whole[where] = mask
    height, width = whole.shape
    left, top, right, bottom = _box(whole)
    center = ((left + right) / 2 / width, (top + bottom) / 2 / height)
    return Detected(
        shape=shape,
        color=color,
        size=_name_size(shape, area, min(height, width)),
        position=_name_position(*center),
        box=(left * view.scale, top * view.scale, right * view.scale, bottom * view.scale),
        area=area * view.scale**2,
        confidence=confidence if color else 0.0,
        reason="; ".join(r for r in (reason, color_reason) if r),
        mask=whole,
        center=center,
        lab=(float(lab[0]), float(lab[1]), float(lab[2])),
    )


def _box(mask: BoolArray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _core_color(view: View, part: BoolArray) -> tuple[FloatArray, float]:
    """Median colour of the inside of a part, and how much it is not one colour (dE).

    The latter is the distance of its tenth-largest share from the median, or how far the colour runs from one
    side to the other (scaled to the same limit), whichever is more.
    """
    core = erode(part, 1.0)
    if core.sum() < 0.25 * part.sum():
        core = part & (view.delta >= np.quantile(view.delta[part], 0.6))
    lab = np.median(view.lab[core], axis=0)
    even = smooth(view.lab) if view.noise > 0.5 else view.lab
    inner = erode(part, 2.0)
    inner = inner if inner.sum() >= 12 else core
    spread = float(np.quantile(distance(even[inner], lab), 0.9))
    return lab, max(spread, _trend(view.lab, inner) * _MAX_SPREAD / _MAX_TREND)


def _trend(lab: FloatArray, inner: BoolArray) -> float:
    """How far a straight run of colour takes it from one end of the mask to the other (dE)."""
    ys, xs = np.nonzero(inner)
    place = np.stack([xs - xs.mean(), ys - ys.mean()], axis=1)
    colors = lab[inner] - lab[inner].mean(axis=0)
    slope = np.linalg.solve(place.T @ place + 1e-3 * np.eye(2), place.T @ colors)
    return 2.0 * float(np.quantile(distance(place @ slope, np.zeros(3)), 0.98))


def _coverage(view: View, part: BoolArray, lab: FloatArray) -> FloatArray:
    """How much of each pixel the part covers: its place between the background's and the part's colour."""
    direction = lab - view.background
    length = np.maximum((direction**2).sum(axis=-1), 1.0)
    share = ((view.lab - view.background) * direction).sum(axis=-1) / length
    return np.clip(share, 0.0, 1.0) * dilate(part, 1.5)


def _name_shape(coverage: FloatArray, mask: BoolArray) -> tuple[str | None, float, str]:
    filled = fill_holes(mask)
    solid = np.where(filled & ~mask, 1.0, coverage)
    weight = solid.sum()
    ys, xs = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]]
    center = (float((solid * xs).sum() / weight), float((solid * ys).sum() / weight))
    profile = radial_profile(solid, center)
    outline = name_outline(profile)
    if outline.shape is None:
        return None, 0.0, outline.reason
    confidence = max(0.0, 1.0 - outline.residual / MAX_RESIDUAL) ** 0.5
    enclosed = math.pi * float((profile**2).mean())
    if weight < _MIN_FILL * enclosed:
        return None, 0.0, f"a bitten {outline.shape}: {weight / enclosed:.2f} of its outline is filled"
    hole = float((1.0 - coverage)[erode(filled, 1.0)].sum() / weight) if (filled & ~mask).any() else 0.0
    if hole < 0.03:
        return outline.shape, confidence, ""
    inner = filled & ~mask
    offset = math.hypot(float(xs[inner].mean()) - center[0], float(ys[inner].mean()) - center[1])
    concentric = offset < 0.15 * float(profile.mean())
    if outline.shape == "circle" and _RING_HOLE[0] <= hole <= _RING_HOLE[1] and concentric:
        return "ring", confidence, ""
    return None, 0.0, f"a {outline.shape} with a hole of {hole:.2f} of its area"


def _name_color(lab: FloatArray, spread: float, contrast: float) -> tuple[str | None, str]:
    if spread > _MAX_SPREAD:
        return None, f"several colours in one object (spread {spread:.1f} dE)"
    ranked = sorted((math.dist(lab, prototype), name) for name, prototype in palette.COLORS.items())
    (first, name), (second, _) = ranked[:2]
    if first > _MAX_COLOR_DISTANCE:
        return None, f"no colour of this world ({first:.0f} dE from {name})"
    if first > _FAINT[0] + _FAINT[1] * contrast:
        return None, f"a faint {name} ({first:.0f} dE from it, {contrast:.0f} from the background)"
    if second - first < _MIN_COLOR_MARGIN:
        return None, f"between two colours ({name} and {ranked[1][1]})"
    return name, ""


def _name_size(shape: str | None, area: float, side: int) -> str | None:
    if shape is None:
        return None
    radius = math.sqrt(area / UNIT_AREA[shape]) / side
    names = tuple(palette.SIZES)
    for name, larger in pairwise(names):
        if radius < (palette.SIZES[name][1] + palette.SIZES[larger][0]) / 2:
            return name
    return names[-1]


def _name_position(x: float, y: float) -> str:
    column, row = _band(palette.COLUMNS, x), _band(palette.ROWS, y)
    return next(name for name, cell in palette.POSITIONS.items() if cell == (column, row))


def _band(bands: dict[str, tuple[float, float]], value: float) -> str:
    names = tuple(bands)
    for name, following in pairwise(names):
        if value < (bands[name][1] + bands[following][0]) / 2:
            return name
    return names[-1]


def _name_background(view: View) -> str | None:
    lab = view.background.reshape(-1, 3).mean(axis=0)
    ranked = sorted((math.dist(lab, prototype), name) for name, prototype in palette.BACKGROUNDS.items())
    return ranked[0][1] if ranked[0][0] <= 8.0 and ranked[1][0] - ranked[0][0] >= 2.0 else None
