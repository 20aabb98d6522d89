"""Lines drawn around things: thin, nearly all around, darker than what they enclose and what lies behind.

Such a line belongs to the thing and says nothing of its colour. Part of the scorer. Lengths are working
pixels.
"""

from __future__ import annotations

import numpy as np

from og2.world.background import View
from og2.world.creature_lines import toned
from og2.world.pixels import BoolArray, FloatArray, dilate, erode, quantile

_DARKER = 5.0  # CIELAB L below both the thing's and the background's
_MIN_AROUND = 0.7  # of the outline
_REACH = 0.025  # of the picture's shorter side: how far inside the outline a line may lie
_MIN_REACH_PX = 2.0
_MIN_WITHIN = 0.2  # of the part beyond that reach, to know its own lightness by
_DEEP_SHARE = 0.25
_MIN_INSIDE = (0.30, 0.20)  # of the part, after the wider and the narrower distance to the line
_LEAST_MIXED = 0.6  # quantile of lightness of what is not line, in a thin thing
_MAX_DEPTH = 60
_LINE_PX = 2.5  # from the outline: beyond, a thing with a line has its own colour
_LINE_TONE = 0.45  # of the light (sRGB) of what it runs along, at least


def find_rim(view: View, part: BoolArray, side: int) -> BoolArray | None:
    """The pixels of the line around a part, or None when there is none.   Units: side of the picture in
    px."""
    lightness, reach = view.lab[..., 0], max(_MIN_REACH_PX, _REACH * side)
    within = erode(part, reach)
    inner = within if within.sum() >= _MIN_WITHIN * part.sum() else deepest(part)
    own = quantile(lightness[inner], 0.1)
    dark = part & (lightness < np.minimum(view.background[..., 0], own) - _DARKER)
    edge = part & ~erode(part, 1.0)
    if float((edge & dilate(dark, 1.5)).sum()) < _MIN_AROUND * float(edge.sum()):
        return None
    rim = dark & ~within
    return rim if float(rim.sum()) >= 0.5 * float(dark.sum()) else None


def inside_of(view: View, part: BoolArray, rim: BoolArray) -> BoolArray:
    """What a line encloses, without the pixels that are mixed with it.

    Of a thin thing, the lightest of what is not line: the least mixed.
    """
    for away, enough in zip((1.5, 1.0), _MIN_INSIDE, strict=True):
        inside = erode(part & ~rim, away)
        if inside.sum() >= enough * part.sum():
            return inside
    inside = erode(part, 1.0) & ~rim
    if not inside.any():
        return deepest(part)
    lightness = view.lab[..., 0]
    return inside & (lightness >= quantile(lightness[inside], _LEAST_MIXED))


def solid_of(view: View, part: BoolArray) -> BoolArray:
    """A part without its soft edge, and without the line along it where there is one."""
    has_line = find_rim(view, part, min(part.shape)) is not None
    return erode(part, _LINE_PX if has_line else 1.0)


def is_thin(part: BoolArray, rim: BoolArray) -> bool:
    """Whether a line leaves so little of a part that what it encloses is mixed with it."""
    return float(erode(part & ~rim, 1.5).sum()) < _MIN_INSIDE[0] * float(part.sum())


def without_line(values: FloatArray, color: FloatArray) -> FloatArray:
    """How far pixels are from a colour, apart from what a line of that colour, darker, adds to them.

    Shapes: CIELAB (N, 3), (3,) -> (N, 3), differences.
    """
    away, toward = values - color, toned(color, _LINE_TONE) - color
    share = np.clip(away @ toward / max(float(toward @ toward), 1e-6), 0.0, 1.0)
    return away - share[:, None] * toward


def deepest(part: BoolArray) -> BoolArray:
    """The pixels farthest from the outline: about a quarter of the part, more where it is thin."""
    for depth in range(_MAX_DEPTH):
        worn = erode(part, 1.5 if depth % 2 else 1.0)
        if worn.sum() < _DEEP_SHARE * part.sum():
            break
        part = worn
    return part
