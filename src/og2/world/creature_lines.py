"""Creatures drawn with a dark line along the inside of every part: how wide and how dark the line is.

Part of the scorer. A line belongs to the part it runs along and has its colour, darker by one factor, so a
small part, all line, still tells its colour. Lengths are working pixels; a tone is the factor on sRGB values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from og2.world.background import View
from og2.world.palette import lab_to_srgb, srgb_to_lab
from og2.world.pixels import BoolArray, FloatArray, dilate, distance, erode, medians, quantile

_MUCH_DARKER = 0.72  # of the lightness of what is inside and behind; limbs are darker too, but less
_OWN_LIGHTNESS = 0.6  # quantile of the lightness of a part that lines are compared with
_MIN_AROUND = 0.5  # of the outline; of creatures with lines it is 0.72 at least
_BEYOND_PX = (3.5, 6.0)  # where there is no line any more
_MIN_THIN = 0.20  # share that is dark on the line less that beyond; lines of 1.2 px have 0.23 at least
_DEEPEST_PX, _LINE_PX = 7.0, 4.0  # how deep in the body light is compared, and a line's middle lies at most
_MIN_RING_PX = 7
_MIN_STEP = 0.15  # of the lightness that a line takes away
_LIGHTEST = 0.9  # quantile of the light of a part that its line is most of
_FROM_BLACK = np.array([16.0, 0.0, 0.0])
_LIGHTNESS_TO_SRGB = 3.0 / 2.2  # L + 16 goes with the cube root of the light, sRGB with its 2.2th root


@dataclass(frozen=True)
class Line:
    """Its width in working pixels and its tone."""

    width: float
    tone: float

    def of(self, color: FloatArray) -> FloatArray:
        """The line's colour along a part of that colour.   Shapes: CIELAB (..., 3) -> (..., 3)."""
        return toned(color, self.tone)


def toned(color: FloatArray, tone: float) -> FloatArray:
    """A CIELAB colour with its sRGB values times that factor."""
    return srgb_to_lab(np.clip(lab_to_srgb(color), 0.0, 1.0) * tone)


def is_lined(view: View, part: BoolArray) -> bool:
    """Whether a part is much darker along its outline than inside and behind, all around but not deep."""
    lightness = view.lab[..., 0]
    own = quantile(lightness[part], _OWN_LIGHTNESS)
    dark = part & (lightness < _MUCH_DARKER * np.minimum(view.background[..., 0], own))
    inner = erode(part, 1.0)
    edge = part & ~inner
    if float((edge & dilate(dark, 1.5)).sum()) < _MIN_AROUND * float(edge.sum()):
        return False
    line, deeper = inner & ~erode(part, 2.0), erode(part, _BEYOND_PX[0]) & ~erode(part, _BEYOND_PX[1])
    if not line.any() or not deeper.any():
        return False
    # Of a narrow line the outermost pixels are most, of a wide one they are mixed with what is behind.
    share = max(float(dark[edge].mean()), float(dark[line].mean()))
    return share - float(dark[deeper].mean()) > _MIN_THIN


def line_inside(lab: FloatArray, skin: FloatArray, depth: FloatArray) -> Line | None:
    """The line along the inside of a body, from how light each depth under its outline is.

    skin: the body's colour (3,); depth: of every pixel below the outline, negative outside.
    """
    whole, fine = _rings(lab, depth, 1.0, _DEEPEST_PX), _rings(lab, depth, 0.5, _LINE_PX)
    if not whole or not fine:
        return None
    darkest, own = min(fine), max(whole)
    lightness = max(float(skin[0]), 1.0)
    if darkest > own - _MIN_STEP * lightness:
        return None
    missing = [(own - light) / (own - darkest) for light in whole[1:]]
    width = 1.0 + sum(m for m in missing if m > _MIN_STEP)
    return Line(width, ((darkest + 16.0) / (own + 16.0)) ** _LIGHTNESS_TO_SRGB)


def _rings(lab: FloatArray, depth: FloatArray, step: float, deepest: float) -> list[float]:
    """The usual lightness of each depth, down to the deepest; none where a depth has too few pixels.

    A line is seldom a whole pixel wide: half a pixel at a time its darkest depth is not mixed with others.
    """
    rings = [lab[..., 0][(depth >= low) & (depth < low + step)] for low in np.arange(0.0, deepest, step)]
    return [quantile(ring, 0.5) for ring in rings] if min(map(len, rings)) >= _MIN_RING_PX else []


def lightest(values: FloatArray) -> FloatArray:
    """The colour of a small part from pixels of it and its line.   Shapes: CIELAB (N, 3) -> (3,).

    All are one colour in more or less light, which scales L + 16, a and b; the part's own is the lightest.
    """
    from_black = values + _FROM_BLACK
    light = from_black[:, 0]
    clear = light >= quantile(light, 0.5)
    return medians(from_black[clear] / light[clear, None]) * quantile(light, _LIGHTEST) - _FROM_BLACK


def depth_in(x: FloatArray, y: FloatArray, a: float, b: float) -> FloatArray:
    """How far points lie inside the outline of an upright ellipse of those half axes around the origin."""
    level = np.hypot(x / a, y / b)
    steepness = np.hypot(x / a**2, y / b**2) / np.maximum(level, 1e-6)
    return (1.0 - level) / np.maximum(steepness, 1e-6)


def between(lab: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    """Distance of colours from the nearest mixture of two (dE).   Shapes: (..., 3) -> (...)."""
    along = other - one
    share = ((lab - one) * along).sum(axis=-1) / np.maximum((along * along).sum(axis=-1), 1e-6)
    return distance(lab, one + np.clip(share, 0.0, 1.0)[..., None] * along)
