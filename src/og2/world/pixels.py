"""Reading any picture, and plain operations on pixels and masks.

Numpy only; part of the scorer, so nothing here knows how pictures are drawn. Working resolution: a picture
whose shorter side exceeds WORK_SIDE_PX is reduced to it; lengths that follow are in working pixels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from og2.errors import ImageError

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

WORK_SIDE_PX = 128
MIN_SIDE_PX = 32
MAX_ASPECT = 4.0
MAX_PIXELS = 64_000_000
_OVERSHOOT = 0.1


def read_pixels(image: Any) -> FloatArray:
    """A picture as (H, W, 3) sRGB in [0, 1].

    image: PIL, the path of a picture file, numpy (H, W), (H, W, 1|3|4) or (3|4, H, W), or a torch tensor of
    such shape; uint8, bool or float in [0, 1] (up to 0.1 outside is clipped). Transparent pixels are shown on
    white.
    Raises: ImageError for anything else, for a file that cannot be read, for values that are not finite or
    out of range, and for sizes and aspects not handled.
    """
    array = _as_array(image)
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[-1] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ImageError(f"not a picture: shape {array.shape}; use (H, W), (H, W, 3) or (H, W, 4)")
    _check_size(*array.shape[:2])
    pixels = _in_unit_range(array)
    if pixels.shape[-1] == 4:
        pixels = pixels[..., :3] * pixels[..., 3:] + 1.0 - pixels[..., 3:]
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def working_pixels(image: Any, side: int = WORK_SIDE_PX) -> tuple[FloatArray, float]:
    """The picture as sRGB (H, W, 3) of at most that shorter side, and given pixels per working pixel.

    Raises: ImageError when it cannot be read.
    """
    pixels = read_pixels(image)
    scale = max(1.0, min(pixels.shape[:2]) / side)
    return (_reduce(pixels, scale) if scale > 1.0 else pixels), scale


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


def denoised(image: FloatArray, limit: float) -> FloatArray:
    """Every pixel as the mean of those of its 3 x 3 neighbourhood that differ from it by less than the limit.

    Evens out grain and keeps edges and thin lines.   Shapes: (H, W, 3) -> same.   Source: the sigma filter
    (Lee 1983).
    """
    height, width = image.shape[:2]
    total, count = image.copy(), np.ones((height, width))
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        left, right = max(0, -dx), width - max(0, dx)
        here = (slice(0, height - dy), slice(left, right))
        there = (slice(dy, height), slice(left + dx, right + dx))
        step = image[there] - image[here]
        near = (step**2).sum(axis=-1) < limit * limit
        total[here] += image[there] * near[..., None]
        total[there] += image[here] * near[..., None]
        count[here] += near
        count[there] += near
    return total / count[..., None]


def blurred(values: FloatArray, sigma_px: float) -> FloatArray:
    """Gaussian blur along the first two axes, edges repeated.   Shapes: (H, W, ...) -> same."""
    reach = max(1, math.ceil(3.0 * sigma_px))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(values.ndim)]
        padded = np.pad(values, padding, mode="edge")
        length = values.shape[axis]
        values = sum(
            (w * np.take(padded, range(i, i + length), axis) for i, w in enumerate(kernel)),
            np.zeros_like(values),
        )
    return values


def box_mean(values: FloatArray, reach: int) -> FloatArray:
    """Mean over a square window of that half width, cut off at the rim.   Shapes: (H, W, ...) -> same."""
    for axis in (0, 1):
        length = values.shape[axis]
        total = np.cumsum(values, axis=axis)
        zero = np.zeros_like(np.take(total, [0], axis))
        total = np.concatenate([zero, total], axis=axis)
        start = np.maximum(np.arange(length) - reach, 0)
        stop = np.minimum(np.arange(length) + reach + 1, length)
        shape = [-1 if a == axis else 1 for a in range(values.ndim)]
        count = (stop - start).reshape(shape)
        values = (np.take(total, stop, axis) - np.take(total, start, axis)) / count
    return values


def local_maximum(values: FloatArray, reach: int) -> FloatArray:
    """The largest value within `reach` pixels along both axes.   Shapes: (H, W) -> same."""
    for axis in (0, 1):
        length = values.shape[axis]
        padded = np.pad(values, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        values, width, wanted = np.moveaxis(padded, axis, 0), 1, 2 * reach + 1
        while 2 * width <= wanted:  # the maximum over twice the width is that of two neighbours
            values, width = np.maximum(values[:-width], values[width:]), 2 * width
        rest = wanted - width
        values = np.maximum(values[:length], values[rest : rest + length])
        values = np.moveaxis(values, 0, axis)
    return values


def closed(values: FloatArray, reach: int) -> FloatArray:
    """Values with dark cracks narrower than twice the reach filled (largest, then smallest of a window)."""
    return -local_maximum(-local_maximum(values, reach), reach)


def dilate(mask: BoolArray, radius: float) -> BoolArray:
    """The mask grown by a disc of that radius in pixels."""
    reach = int(radius)
    if radius >= reach * 1.4143 and reach == 1:  # a disc that holds the corners of its square: two passes
        return _grown_by_one(_grown_by_one(mask, 0), 1)
    height, width = mask.shape
    padded = np.zeros((height + 2 * reach, width + 2 * reach), dtype=np.bool_)
    padded[reach : reach + height, reach : reach + width] = mask
    grown = np.zeros_like(mask)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= radius * radius:
                grown |= padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
    return grown


def _grown_by_one(mask: BoolArray, axis: int) -> BoolArray:
    grown = mask.copy()
    before, after = (slice(None, -1), slice(1, None)) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
    grown[after] |= mask[before]
    grown[before] |= mask[after]
    return grown


def erode(mask: BoolArray, radius: float) -> BoolArray:
    """The mask shrunk by a disc of that radius in pixels; outside the picture counts as inside."""
    return ~dilate(~mask, radius)


def components(mask: BoolArray, diagonal: bool = True, smallest: float = 1.0) -> list[BoolArray]:
    """The connected parts of a mask of at least `smallest` pixels, the largest first.

    diagonal: pixels that touch at a corner are connected too.
    """
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
    sizes: dict[int, int] = {}
    for i, (_, start, end) in enumerate(runs):
        root = _root(parent, i)
        sizes[root] = sizes.get(root, 0) + end - start
    order = sorted(sizes, key=lambda root: -sizes[root])
    parts = {root: np.zeros_like(mask) for root in order if sizes[root] >= smallest}
    for i, (row, start, end) in enumerate(runs):
        root = _root(parent, i)
        if root in parts:
            parts[root][row, start:end] = True
    return list(parts.values())


def fill_holes(mask: BoolArray) -> BoolArray:
    """The mask with every enclosed background part filled."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not rows.size:
        return mask.copy()
    where = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    padded = np.pad(~mask[where], 1, constant_values=True)
    outside = next(part for part in components(padded, diagonal=False) if part[0, 0])
    filled = mask.copy()
    filled[where] = ~outside[1:-1, 1:-1]
    return filled


def _as_array(image: Any) -> NDArray[Any]:
    if isinstance(image, (str, Path)):
        try:
            with Image.open(image) as opened:
                return np.asarray(opened.convert("RGBA"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ImageError(f"the file {image} cannot be read as a picture: {error}") from error
    if isinstance(image, Image.Image):
        try:
            return np.asarray(image.convert("RGBA"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"the picture cannot be decoded: {error}") from error
    if hasattr(image, "detach"):
        return image.detach().cpu().float().numpy() if image.is_floating_point() else image.cpu().numpy()
    try:
        return np.asarray(image)
    except ValueError as error:
        raise ImageError(f"not a picture: {error}") from error


def _in_unit_range(array: NDArray[Any]) -> FloatArray:
    if array.dtype == np.uint8:
        return array / 255.0
    if array.dtype == np.bool_:
        return array.astype(np.float64)
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"values of type {array.dtype}; use uint8 in 0 to 255 or float in 0 to 1")
    pixels = array.astype(np.float64)
    if not np.isfinite(pixels).all():
        raise ImageError("the picture holds values that are not finite")
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_OVERSHOOT or high > 1.0 + _OVERSHOOT:
        raise ImageError(f"float values from {low:.3g} to {high:.3g}; use 0 to 1, or uint8 in 0 to 255")
    return np.clip(pixels, 0.0, 1.0)


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE_PX:
        raise ImageError(
            f"picture of {width}x{height} px is too small to judge; use {MIN_SIDE_PX} px or more"
        )
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"picture of {width}x{height} px is too large to judge; use at most {MAX_PIXELS // 10**6} MP"
        )
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageError(
            f"picture of {width}x{height} px is too elongated to judge; use at most {MAX_ASPECT}:1"
        )


def _reduce(pixels: FloatArray, scale: float) -> FloatArray:
    height, width = (round(n / scale) for n in pixels.shape[:2])
    as_bytes = Image.fromarray((pixels * 255.0 + 0.5).astype(np.uint8))
    return np.asarray(as_bytes.resize((width, height), Image.Resampling.BOX)) / 255.0


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
