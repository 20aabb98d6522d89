"""Gizmos seen in a picture: a body with a cap on top and an emblem in its middle, kept as a small picture.

Part of the scorer. A gizmo never turns, so two are compared as pictures of one size: the body's width and
its lower edge, found to a fraction of a pixel, say where every part of the small picture lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from og2.world import palette
from og2.world.background import View, window
from og2.world.creature_lines import is_lined
from og2.world.detect import box_of
from og2.world.pixels import BoolArray, FloatArray, dilate, distance, erode, local_maximum, smooth

STEPS = 32  # of the small picture per half width of the body
_SIDEWARD, _UPWARD = 1.1, 3.1  # what it shows: half widths to either side of the middle, and above the bottom
_ASPECT = (1.02, 1.75)  # height over width
_MIN_AREA_PX = 160
_LINE_STEPS, _BODY_STEPS = 5, 8  # at the bottom of the body: the line lies in the first, beyond them so many


@dataclass(frozen=True)
class SeenGizmo:
    """A gizmo: box in pixels of the given picture, centre as fractions, mask, and itself as a small picture.

    patch: (rows, columns, 3) CIELAB; inside: how much of each of its points is gizmo. color: of the body,
    None when unclear. radius: half the body's width, as a fraction of the shorter side. line: where dark
    lines run along the parts, how dark they are: their L + 16, a and b as a share of the part's own.
    """

    box: tuple[float, float, float, float]
    center: tuple[float, float]
    mask: BoolArray
    patch: FloatArray
    inside: FloatArray
    color: str | None
    radius: float
    line: float | None = None


def read_gizmo(view: View, part: BoolArray, solid: BoolArray) -> SeenGizmo | None:
    """The gizmo that a connected part is, or None when it is none: higher than wide, narrower on top, of two
    colours or more.   solid: the part with its holes filled."""
    left, top, right, bottom = box_of(solid)
    width, height = right - left, bottom - top
    if solid.sum() < _MIN_AREA_PX or not _ASPECT[0] <= height / width <= _ASPECT[1]:
        return None
    if _colors(view.lab[part]) < 2:
        return None
    upper = solid[int(top) : int(top + 0.2 * height), int(left) : int(right)]
    lower = solid[int(bottom - 0.45 * height) : int(bottom), int(left) : int(right)]
    if upper.mean() > 0.8 * lower.mean():
        return None
    around, where = window(view, part)
    whole, has_line = solid[where], is_lined(around, solid[where])
    if has_line:  # pictures with lines are grainy: grains beside a part are none of it
        whole = dilate(erode(whole, 1.5), 1.5)
    patch, inside, half = _small_picture(around, whole)
    box = (left * view.scale, top * view.scale, right * view.scale, bottom * view.scale)
    rows, columns = part.shape
    center = ((left + right) / 2 / columns, (bottom - 0.5 * width) / rows)
    color, line = _body_color(patch, inside), _line_of(patch) if has_line else None
    return SeenGizmo(box, center, part, patch, inside, color, half / min(rows, columns), line)


def _colors(values: FloatArray) -> int:
    """How many colours of the palette each cover 5 % or more."""
    labs = np.array(list(palette.COLORS.values()))
    nearest = np.argmin(np.stack([distance(values, lab) for lab in labs]), axis=0)
    return int((np.bincount(nearest, minlength=len(labs)) >= 0.05 * len(values)).sum())


def _small_picture(view: View, solid: BoolArray) -> tuple[FloatArray, FloatArray, float]:
    """The gizmo at STEPS points per half width of its body, how much of each point it covers, and that half
    width in working pixels."""
    share = view.delta / np.maximum(local_maximum(view.delta, 1), 1.0)
    cover = np.where(erode(solid, 1.0), 1.0, np.clip(share, 0.0, 1.0) * (local_maximum(solid * 1.0, 1) > 0.5))
    left, _, right, bottom = (int(edge) for edge in box_of(solid))
    width = right - left
    body = cover[max(0, int(bottom - 0.75 * width)) : max(1, int(bottom - 0.25 * width))].max(axis=0)
    middle = (left + right) // 2
    from_left, to_right = middle - body[:middle].sum(), middle + body[middle:].sum()
    half, x = (to_right - from_left) / 2, (from_left + to_right) / 2
    start = bottom - width // 2
    low = start + cover[start:, left:right].max(axis=1).sum()
    lab = smooth(view.lab) if half > 1.5 * STEPS else view.lab
    columns = (np.arange(-round(_SIDEWARD * STEPS), round(_SIDEWARD * STEPS)) + 0.5) / STEPS * half + x
    rows = low - (np.arange(round(_UPWARD * STEPS), -3, -1) - 0.5) / STEPS * half
    return _resampled(lab, rows, columns), _resampled(cover[..., None], rows, columns)[..., 0], half


def _body_color(patch: FloatArray, inside: FloatArray) -> str | None:
    low = patch[-STEPS:][inside[-STEPS:] > 0.9]
    if len(low) < 10:
        return None
    names = tuple(palette.COLORS)
    away = np.stack([distance(low, np.asarray(lab)) for lab in palette.COLORS.values()])
    counts = np.bincount(np.argmin(away, axis=0), minlength=len(names))
    return names[int(np.argmax(counts))] if counts.max() >= 0.35 * len(low) else None


def _line_of(patch: FloatArray) -> float:
    """How dark the line along the body's lower edge is against the body above it, in [0, 1]."""
    middle = round(_SIDEWARD * STEPS)
    shown = patch[:-3, middle - STEPS // 4 : middle + STEPS // 4, 0] + 16.0
    line = shown[-_LINE_STEPS:].min(axis=0)
    body = np.median(shown[-_LINE_STEPS - _BODY_STEPS : -_LINE_STEPS], axis=0)
    return min(1.0, float(np.median(line / np.maximum(body, 1.0))))


def _resampled(values: FloatArray, ys: FloatArray, xs: FloatArray) -> FloatArray:
    """Values at rows ys and columns xs, whose pixels span [0, H) and [0, W); 0 outside.   Shapes: (H, W, C)
    -> (len(ys), len(xs), C)."""
    known = ((ys >= 0) & (ys < values.shape[0]))[:, None] & ((xs >= 0) & (xs < values.shape[1]))[None, :]
    ys, xs = np.clip(ys - 0.5, 0, values.shape[0] - 1.001), np.clip(xs - 0.5, 0, values.shape[1] - 1.001)
    y, x = ys.astype(int), xs.astype(int)
    fy, fx = (ys - y)[:, None, None], (xs - x)[None, :, None]
    upper = values[y][:, x] * (1 - fx) + values[y][:, x + 1] * fx
    lower = values[y + 1][:, x] * (1 - fx) + values[y + 1][:, x + 1] * fx
    return (upper * (1 - fy) + lower * fy) * known[..., None]
