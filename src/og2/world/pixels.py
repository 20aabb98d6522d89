"""Pixels to regions: reading any picture, its plain background, and the connected things in front of it.

Numpy only; part of the scorer, so nothing here knows how pictures are drawn. Working resolution: a picture
whose shorter side exceeds WORK_SIDE_PX is reduced to it; lengths that follow are in working pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from og2.errors import ImageError
from og2.world.palette import srgb_to_lab

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

WORK_SIDE_PX = 128
MIN_SIDE_PX = 32
MAX_ASPECT = 4.0
FOREGROUND_DELTA = 9.0
_HALF_CONTRAST = 0.45
_NOISE_TO_SMOOTH = 1.2
_MIN_RIM_INLIERS = 0.75
_MIN_INLIERS = 0.30


@dataclass(frozen=True)
class View:
    """A picture taken apart: CIELAB pixels (H, W, 3), the background behind each, dE from it, foreground.

    scale: given pixels per working pixel. noise: robust standard deviation of the background's dE.
    """

    lab: FloatArray
    background: FloatArray
    delta: FloatArray
    mask: BoolArray
    noise: float
    scale: float


def read_pixels(image: Any) -> FloatArray:
    """A picture as (H, W, 3) sRGB in [0, 1].

    image: PIL, numpy (H, W), (H, W, 1|3|4) or (3|4, H, W), or a torch tensor of such shape; uint8 or float in
    [0, 1]. Transparent pixels are shown on white.
    Raises: ImageError for anything else, for values that are not finite, and for sizes and aspects not
    handled.
    """
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGBA"))
    elif hasattr(image, "detach"):
        image = image.detach().cpu().float().numpy() if image.is_floating_point() else image.cpu().numpy()
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[-1] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or array.dtype == object:
        raise ImageError(f"not a picture: shape {np.shape(image)}; use (H, W), (H, W, 3) or (H, W, 4)")
    _check_size(*array.shape[:2])
    pixels = array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)
    if not np.isfinite(pixels).all():
        raise ImageError("the picture holds values that are not finite")
    pixels = np.clip(pixels, 0.0, 1.0)
    if pixels.shape[-1] == 4:
        pixels = pixels[..., :3] * pixels[..., 3:] + 1.0 - pixels[..., 3:]
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def working_pixels(image: Any) -> tuple[FloatArray, float]:
    """The picture as sRGB (H, W, 3) at working resolution, and given pixels per working pixel.

    Raises: ImageError when it cannot be read.
    """
    pixels = read_pixels(image)
    scale = max(1.0, min(pixels.shape[:2]) / WORK_SIDE_PX)
    return (_reduce(pixels, scale) if scale > 1.0 else pixels), scale


def window(view: View, part: BoolArray, margin: int = 5) -> tuple[View, tuple[slice, slice]]:
    """The view around a part, and where that window lies in it."""
    rows, columns = np.nonzero(part.any(axis=1))[0], np.nonzero(part.any(axis=0))[0]
    where = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin),
    )
    cut = (view.lab[where], view.background[where], view.delta[where], view.mask[where])
    return View(*cut, view.noise, view.scale), where


def take_apart(image: Any) -> View:
    """The picture as background and foreground.

    Raises: ImageError when it cannot be read or shows no plain background (a photo, noise, a half-done
    denoising).
    """
    pixels, scale = working_pixels(image)
    lab = srgb_to_lab(pixels)
    background, inliers = _fit_background(lab)
    delta = distance(lab, background)
    noise = float(np.median(delta[inliers]))
    if noise > _NOISE_TO_SMOOTH:
        lab = srgb_to_lab(smooth(pixels))
        background, inliers = _fit_background(lab)
        delta = distance(lab, background)
    near = local_maximum(delta, max(2, round(3 * min(delta.shape) / 64)))
    mask = delta > np.maximum(FOREGROUND_DELTA, _HALF_CONTRAST * near)
    return View(lab, background, delta, mask, noise, scale)


def distance(a: FloatArray, b: FloatArray) -> FloatArray:
    """CIE76 difference of CIELAB colours.   Shapes: (..., 3) and (..., 3) -> (...)."""
    d = a - b
    return np.sqrt(d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2)


def smooth(image: FloatArray) -> FloatArray:
    """The picture under a 1-2-1 kernel along both axes, edges repeated.   Shapes: (H, W, ...) -> same."""
    for axis in (0, 1):
        before = np.concatenate(
            [np.take(image, [0], axis), np.take(image, range(image.shape[axis] - 1), axis)], axis
        )
        after = np.concatenate(
            [np.take(image, range(1, image.shape[axis]), axis), np.take(image, [-1], axis)], axis
        )
        image = (before + 2.0 * image + after) / 4.0
    return image


def local_maximum(values: FloatArray, reach: int) -> FloatArray:
    """The largest value within `reach` pixels along both axes.   Shapes: (H, W) -> same."""
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis)
        values = windows.max(axis=-1)
    return values


def dilate(mask: BoolArray, radius: float) -> BoolArray:
    """The mask grown by a disc of that radius in pixels."""
    reach = int(radius)
    height, width = mask.shape
    padded = np.pad(mask, reach)
    grown = np.zeros_like(mask)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= radius * radius:
                grown |= padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
    return grown


def erode(mask: BoolArray, radius: float) -> BoolArray:
    """The mask shrunk by a disc of that radius in pixels; outside the picture counts as inside."""
    return ~dilate(~mask, radius)


def components(mask: BoolArray, diagonal: bool = True) -> list[BoolArray]:
    """The connected parts of a mask, the largest first; `diagonal` joins pixels that touch at a corner."""
    runs = _runs(mask)
    parent = list(range(len(runs)))
    slack = 1 if diagonal else 0
    first = 0
    for i, (row, start, end) in enumerate(runs):
        while runs[first][0] < row - 1:
            first += 1
        for j in range(first, i):
            other_row, other_start, other_end = runs[j]
            if other_row == row:
                break
            if other_start < end + slack and start < other_end + slack:
                parent[_root(parent, i)] = _root(parent, j)
    parts: dict[int, BoolArray] = {}
    for i, (row, start, end) in enumerate(runs):
        root = _root(parent, i)
        if root not in parts:
            parts[root] = np.zeros_like(mask)
        parts[root][row, start:end] = True
    return sorted(parts.values(), key=lambda part: -int(part.sum()))


def fill_holes(mask: BoolArray) -> BoolArray:
    """The mask with every enclosed background part filled."""
    padded = np.pad(~mask, 1, constant_values=True)
    outside = next(part for part in components(padded, diagonal=False) if part[0, 0])
    return ~outside[1:-1, 1:-1]


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE_PX:
        raise ImageError(
            f"picture of {width}x{height} px is too small to judge; use {MIN_SIDE_PX} px or more"
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(
            f"picture of {width}x{height} px is too elongated to judge; use at most {MAX_ASPECT}:1"
        )


def _reduce(pixels: FloatArray, scale: float) -> FloatArray:
    height, width = (round(n / scale) for n in pixels.shape[:2])
    as_bytes = Image.fromarray((pixels * 255.0 + 0.5).astype(np.uint8))
    return np.asarray(as_bytes.resize((width, height), Image.Resampling.BOX)) / 255.0


def _fit_background(lab: FloatArray) -> tuple[FloatArray, BoolArray]:
    """A plane per channel through the pixels that agree with the rim, refitted on its inliers."""
    height, width = lab.shape[:2]
    rim = np.zeros((height, width), dtype=bool)
    rim[:2], rim[-2:], rim[:, :2], rim[:, -2:] = True, True, True, True
    background = np.broadcast_to(np.median(lab[rim], axis=0), lab.shape)
    ys, xs = np.mgrid[0:height, 0:width]
    design = np.stack([np.ones(height * width), xs.ravel() / width - 0.5, ys.ravel() / height - 0.5], axis=1)
    inliers = rim
    for limit in (14.0, 10.0, 10.0):
        inliers = distance(lab, background) < limit
        if inliers[rim].mean() < _MIN_RIM_INLIERS or inliers.mean() < _MIN_INLIERS:
            raise ImageError("no plain background: the rim of the picture is not of one colour")
        chosen = design * inliers.reshape(-1, 1)
        weights = np.linalg.solve(chosen.T @ chosen + 1e-6 * np.eye(3), chosen.T @ lab.reshape(-1, 3))
        background = (design @ weights).reshape(lab.shape)
    return background, inliers


def _runs(mask: BoolArray) -> list[tuple[int, int, int]]:
    """Horizontal runs of foreground: (row, start, end), in reading order."""
    steps = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
