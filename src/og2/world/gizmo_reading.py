"""Gizmos seen in a picture: a body with a cap on top and an emblem in its middle, kept as a small picture.

Part of the scorer. A gizmo never turns, so two are compared as pictures of one size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from og2.world import palette
from og2.world.background import View
from og2.world.detect import Detected, box_of
from og2.world.pixels import BoolArray, FloatArray, distance, fill_holes

SIDE = 56  # rows of the small picture; columns in proportion, at most as many
_ASPECT = (1.02, 1.75)  # height over width
_MIN_AREA_PX = 160


@dataclass(frozen=True)
class SeenGizmo:
    """A gizmo: box in pixels of the given picture, centre as fractions, mask, and itself as a small picture.

    patch: (SIDE, SIDE, 3) CIELAB; inside: where the gizmo is in it. color: of the body, None when unclear.
    """

    box: tuple[float, float, float, float]
    center: tuple[float, float]
    mask: BoolArray
    patch: FloatArray
    inside: FloatArray
    color: str | None
    radius: float


def read_gizmo(view: View, part: BoolArray, whole: Detected) -> SeenGizmo | None:
    """The gizmo that a connected part is, or None when it is none: higher than wide, of three colours or
    more."""
    if whole.shape is not None and whole.color is not None:
        return None
    solid = fill_holes(part)
    left, top, right, bottom = box_of(solid)
    width, height = right - left, bottom - top
    if solid.sum() < _MIN_AREA_PX or not _ASPECT[0] <= height / width <= _ASPECT[1]:
        return None
    values = view.lab[part]
    if _colors(values) < 2:
        return None
    upper = solid[int(top) : int(top + 0.2 * height), int(left) : int(right)]
    lower = solid[int(bottom - 0.45 * height) : int(bottom), int(left) : int(right)]
    if upper.mean() > 0.8 * lower.mean():
        return None
    patch = _resampled(view.lab, (left, top, width, height))
    inside = _resampled(solid.astype(np.float64)[..., None], (left, top, width, height))[..., 0]
    box = (left * view.scale, top * view.scale, right * view.scale, bottom * view.scale)
    rows, columns = part.shape
    middle_y = bottom - 0.5 * width
    center = ((left + right) / 2 / columns, middle_y / rows)
    return SeenGizmo(
        box, center, part, patch, inside, _body_color(patch, inside), width / 2 / min(rows, columns)
    )


def _colors(values: FloatArray) -> int:
    """How many colours of the palette each cover 6 % or more."""
    labs = np.array(list(palette.COLORS.values()))
    nearest = np.argmin(np.stack([distance(values, lab) for lab in labs]), axis=0)
    return int((np.bincount(nearest, minlength=len(labs)) >= 0.06 * len(values)).sum())


def _body_color(patch: FloatArray, inside: FloatArray) -> str | None:
    low = patch[int(0.55 * SIDE) :][inside[int(0.55 * SIDE) :] > 0.9]
    if len(low) < 10:
        return None
    names = tuple(palette.COLORS)
    away = np.stack([distance(low, np.asarray(lab)) for lab in palette.COLORS.values()])
    counts = np.bincount(np.argmin(away, axis=0), minlength=len(names))
    return names[int(np.argmax(counts))] if counts.max() >= 0.35 * len(low) else None


def _resampled(values: FloatArray, box: tuple[float, float, float, float]) -> FloatArray:
    """The inside of a box at SIDE x SIDE points."""
    left, top, width, height = box
    ys = np.clip(top + (np.arange(SIDE) + 0.5) / SIDE * height - 0.5, 0, values.shape[0] - 1.001)
    xs = np.clip(left + (np.arange(SIDE) + 0.5) / SIDE * width - 0.5, 0, values.shape[1] - 1.001)
    y, x = ys.astype(int), xs.astype(int)
    fy, fx = (ys - y)[:, None, None], (xs - x)[None, :, None]
    upper = values[y][:, x] * (1 - fx) + values[y][:, x + 1] * fx
    lower = values[y + 1][:, x] * (1 - fx) + values[y + 1][:, x + 1] * fx
    return upper * (1 - fy) + lower * fy
