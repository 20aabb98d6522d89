"""A picture as a background and what lies in front of it.

Two models. A plain picture: the background is a plane per colour channel, fitted to the pixels that agree
with the rim and refitted to its own inliers. A picture with a backdrop (gradient, landscape, tiles, rough
paper): what has a legal backdrop colour, a middle lightness of little chroma, is background, filled in under
everything else from what surrounds it. Part of the scorer: nothing here knows how pictures are drawn. Lengths
are working pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from og2.errors import ImageError
from og2.world.palette import BACKDROP_CHROMA, BACKDROP_LIGHTNESS
from og2.world.pixels import (
    WORK_SIDE_PX,
    BoolArray,
    FloatArray,
    box_mean,
    denoised,
    design,
    dilate,
    distance,
    local_maximum,
    medians,
    plane,
    quantile,
    smooth,
    working_lab,
)

FOREGROUND_DELTA = 9.0
_HALF_CONTRAST = 0.45
_GRAINY = 1.2  # noise (dE) from which a picture is denoised before it is judged
_VERY_GRAINY = 2.5  # and from which even denoised pixels say little one by one
_DENOISE = 3.0  # differences of so much noise are grain, larger ones are edges
_LEFT = 0.2  # of the noise that denoising and the mean of 5 x 5 pixels leave
_EVEN = 0.5  # noise up to which areas are even as they are
_PLAIN = 1.2  # dE from the plane that a plain background may have without noise
_PLAIN_NOISE = 1.2  # and how much more for each dE of noise
_MIN_RIM_INLIERS = 0.75
_CERTAIN_RIM = 0.98
_MIN_INLIERS = 0.30
_LIMITS = (14.0, 10.0, 10.0)
_OUTSIDE = 5.0  # dE beyond the legal backdrop colours
_BARELY_OUTSIDE = 1.8  # enough close to what is clearly outside,
_OUTSIDE_NOISE = 0.3  # and so much more for each dE of noise in a grainy picture
_NEAR = 0.055  # of the shorter side
_MIN_LEGAL_RIM = 0.85
_MIN_LEGAL = 0.35
_FILL_IN = (3, 8, 24)  # half widths of the windows that lend a background colour, in 128ths of the side


@dataclass(frozen=True)
class View:
    """A picture taken apart: CIELAB pixels (H, W, 3), the background behind each, dE from it, foreground.

    scale: given pixels per working pixel. noise: robust size of differences from pixel to pixel (dE).
    is_plain: the background is one plane of colour.
    """

    lab: FloatArray
    background: FloatArray
    delta: FloatArray
    mask: BoolArray
    noise: float
    scale: float
    is_plain: bool = True


def take_apart(image: Any, side: int = WORK_SIDE_PX) -> View:
    """The picture as background and foreground, reduced to that shorter side if it is larger.

    Raises: ImageError when it cannot be read or shows no background of this world (a photo, noise, a
    half-done denoising).
    """
    lab, scale = working_lab(image, side)
    noise = _noise(lab)
    if noise > _GRAINY:
        lab = denoised(lab, _DENOISE * noise)
    left = noise if noise <= _GRAINY else _LEFT * noise
    fit = _fit_plane(lab if noise <= _GRAINY else box_mean(lab, 2))
    if fit is not None and fit.rim_share >= _CERTAIN_RIM and fit.off <= _PLAIN + _PLAIN_NOISE * left:
        return _on_plane(lab, fit.background, noise, scale)
    try:
        return _with_backdrop(lab, noise, scale)
    except ImageError:
        if fit is None:
            raise
    return _on_plane(lab, fit.background, noise, scale)


def window(view: View, part: BoolArray, margin: int = 5) -> tuple[View, tuple[slice, slice]]:
    """The view around a part, and where that window lies in it."""
    rows, columns = np.nonzero(part.any(axis=1))[0], np.nonzero(part.any(axis=0))[0]
    where = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )
    cut = (view.lab[where], view.background[where], view.delta[where], view.mask[where])
    return View(*cut, view.noise, view.scale, view.is_plain), where


def share_toward(view: View, color: FloatArray) -> FloatArray:
    """How far every pixel's colour is from the background's (0) toward that one (1).

    Shapes: (3,) -> (H, W).
    """
    along, length = 0.0, 0.0
    for i in range(3):
        behind = view.background[..., i]
        toward = color[i] - behind
        along = along + (view.lab[..., i] - behind) * toward
        length = length + toward * toward
    return along / np.maximum(length, 1.0)


def even(view: View) -> FloatArray:
    """The view's colours with what is left of the grain evened out, for judging areas."""
    return smooth(view.lab) if _EVEN < view.noise <= _GRAINY else view.lab


def beyond_backdrops(lab: FloatArray) -> FloatArray:
    """How far colours lie from every colour a backdrop may have (dE).   Shapes: (..., 3) -> (...)."""
    low, high = BACKDROP_LIGHTNESS
    chroma = np.maximum(np.sqrt(lab[..., 1] ** 2 + lab[..., 2] ** 2) - BACKDROP_CHROMA, 0.0)
    lightness = np.maximum(np.maximum(low - lab[..., 0], lab[..., 0] - high), 0.0)
    return np.sqrt(lightness**2 + chroma**2)


def _on_plane(lab: FloatArray, behind: FloatArray, noise: float, scale: float) -> View:
    delta = distance(lab, behind)
    coloured = _beyond_doubt(lab, noise) & (delta > FOREGROUND_DELTA)
    return View(lab, behind, delta, _in_front(delta) | coloured, noise, scale)


def _with_backdrop(lab: FloatArray, noise: float, scale: float) -> View:
    core = _beyond_doubt(lab, noise)
    rim = np.concatenate([core[:2].ravel(), core[-2:].ravel(), core[:, :2].ravel(), core[:, -2:].ravel()])
    if 1.0 - rim.mean() < _MIN_LEGAL_RIM or 1.0 - core.mean() < _MIN_LEGAL:
        raise ImageError("no background of this world: too much of the picture or its rim is coloured")
    background = _filled_in(lab, ~dilate(core, 2.0))
    delta = distance(lab, background)
    mask = (_in_front(delta) & dilate(core, 1.5)) | (core & (delta > FOREGROUND_DELTA))
    return View(lab, background, delta, mask, noise, scale, is_plain=False)


def _beyond_doubt(lab: FloatArray, noise: float) -> BoolArray:
    """What no backdrop's colour explains: clearly outside of them, or barely so and close to what is."""
    beyond, barely = beyond_backdrops(lab), _BARELY_OUTSIDE
    core = beyond > _OUTSIDE
    if noise > _GRAINY:  # a single pixel far outside may be grain
        evened = beyond_backdrops(smooth(lab))
        core = evened > _OUTSIDE
        barely += _OUTSIDE_NOISE * noise
        beyond = evened if noise > _VERY_GRAINY else beyond
    return core | (beyond > barely) & _near(core, max(2, round(_NEAR * min(core.shape))))


def _near(mask: BoolArray, reach: int) -> BoolArray:
    return local_maximum(mask, reach)


def _in_front(delta: FloatArray) -> BoolArray:
    near = local_maximum(delta, max(2, round(3 * min(delta.shape) / 64)))
    return delta > np.maximum(FOREGROUND_DELTA, _HALF_CONTRAST * near)


def _filled_in(lab: FloatArray, known: BoolArray) -> FloatArray:
    """The known pixels, and under all others the mean of the known ones around, from near to far.

    Worked out at half the resolution: a background has no finer detail than that.
    """
    few, is_known = lab[::2, ::2], known[::2, ::2]
    if not is_known.any():
        few, is_known = lab, known
    weighted = np.concatenate([few, np.ones_like(few[..., :1])], axis=-1) * is_known[..., None]
    filled = np.empty_like(few)
    filled[:] = medians(few[is_known])
    for share in reversed(_FILL_IN):
        reach = max(1, round(share * min(is_known.shape) / 128))
        near = box_mean(weighted, reach)
        enough, amount = near[..., 3] > 0.08, np.maximum(near[..., 3], 1e-6)
        for i in range(3):
            filled[..., i] = np.where(enough, near[..., i] / amount, filled[..., i])
    if filled.shape == lab.shape:
        return filled
    return filled.repeat(2, axis=0).repeat(2, axis=1)[: lab.shape[0], : lab.shape[1]]


@dataclass(frozen=True)
class _Plane:
    background: FloatArray
    rim_share: float  # of the rim that lies on the plane
    off: float  # median dE of its own pixels from the plane


def _noise(lab: FloatArray) -> float:
    """Robust size of what differs from pixel to pixel (dE), whatever the background's structure."""
    return quantile(distance(lab, smooth(lab)), 0.5) / 0.8


def _fit_plane(lab: FloatArray) -> _Plane | None:
    """A plane per channel behind the picture, or None when the rim is not of one colour.

    Fitted at half the resolution of a larger picture, but to the whole of its rim.
    """
    height, width = lab.shape[:2]
    step = 2 if min(height, width) > 48 else 1
    inner, columns, rim = _designs(height, width, step)
    values, rim_values = lab[::step, ::step].reshape(-1, 3), _of_rim(lab)
    middle = medians(rim_values)
    background, of_rim = np.broadcast_to(middle, values.shape), middle
    chosen, rim_share, weights = np.zeros(0, dtype=bool), 0.0, np.zeros((3, 3))
    for limit in _LIMITS:
        chosen = distance(values, background) < limit
        rim_share = float((distance(rim_values, of_rim) < limit).mean())
        if rim_share < _MIN_RIM_INLIERS or chosen.mean() < _MIN_INLIERS:
            return None
        known = columns * chosen
        weights = np.linalg.solve(known @ inner + 1e-6 * np.eye(3), known @ values)
        background, of_rim = inner @ weights, rim @ weights
    off = quantile(distance(values, background)[chosen], 0.5)
    return _Plane(plane(weights, height, width), rim_share, off)


@lru_cache(maxsize=8)
def _designs(height: int, width: int, step: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One, x and y of every pixel of the coarser grid, by pixel and by column, and of the rim.

    Shapes: -> (N, 3), (3, N), (M, 3).
    """
    every = design(height, width)
    inner = np.ascontiguousarray(every[::step, ::step]).reshape(-1, 3)
    return inner, np.ascontiguousarray(inner.T), _of_rim(every)


def _of_rim(values: FloatArray) -> FloatArray:
    """The outermost two rows and columns.   Shapes: (H, W, n) -> (m, n)."""
    sides = (values[:2], values[-2:], values[2:-2, :2], values[2:-2, -2:])
    return np.concatenate([side.reshape(-1, values.shape[-1]) for side in sides])
