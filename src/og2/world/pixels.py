"""Reading any picture, and plain operations on pixels and masks.

Numpy only; part of the scorer, so nothing here knows how pictures are drawn. Working resolution: a picture
whose shorter side exceeds WORK_SIDE_PX is reduced to it; lengths that follow are in working pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from og2.errors import ImageError
from og2.world.palette import srgb_to_lab

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

WORK_SIDE_PX = 128
MIN_SIDE_PX = 32
MAX_ASPECT = 4.0
MAX_PIXELS = 64_000_000
_OVERSHOOT = 0.1
# By axis: all but the first, all but the last, the first, the last.
_FROM_1, _TO_1 = (np.s_[1:], np.s_[:, 1:]), (np.s_[:-1], np.s_[:, :-1])
_FIRST, _LAST = (np.s_[:1], np.s_[:, :1]), (np.s_[-1:], np.s_[:, -1:])


def read_pixels(image: Any) -> FloatArray:
    """A picture as (H, W, 3) sRGB in [0, 1].

    image: PIL, the path of a picture file, numpy (H, W), (H, W, 1|3|4) or (3|4, H, W), or a torch tensor of
    such shape; uint8, bool or float in [0, 1] (up to 0.1 outside is clipped). Transparent pixels are shown on
    white.
    Raises: ImageError for anything else, for a file that cannot be read, for values that are not finite or
    out of range, and for sizes and aspects not handled.
    """
    array = _checked(image)
    if array.dtype == np.uint8 and array.shape[-1] == 3:
        return array / 255.0
    pixels = _in_unit_range(array)
    if pixels.shape[-1] == 4:
        pixels = pixels[..., :3] * pixels[..., 3:] + 1.0 - pixels[..., 3:]
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def working_lab(image: Any, side: int = WORK_SIDE_PX) -> tuple[FloatArray, float]:
    """The picture as CIELAB (H, W, 3) of at most that shorter side, and given pixels per working pixel.

    Raises: ImageError when it cannot be read.
    """
    array = _checked(image)
    scale = max(1.0, min(array.shape[:2]) / side)
    if array.dtype == np.uint8 and array.shape[-1] == 3 and scale == 1.0:
        return srgb_to_lab(array), scale
    pixels = read_pixels(image)
    return srgb_to_lab(_reduced(pixels, scale) if scale > 1.0 else pixels), scale


def _checked(image: Any) -> NDArray[Any]:
    """The picture's values (H, W, 1|3|4) as they were given."""
    array = _as_array(image)
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[-1] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ImageError(f"not a picture: shape {array.shape}; use (H, W), (H, W, 3) or (H, W, 4)")
    _check_size(*array.shape[:2])
    return array


def distance(a: FloatArray, b: FloatArray) -> FloatArray:
    """CIE76 difference of CIELAB colours.   Shapes: (..., 3) and (..., 3) -> (...)."""
    step = a[..., 0] - b[..., 0]  # channel by channel: numpy is slow along an axis of three
    total = step * step
    for i in (1, 2):
        step = a[..., i] - b[..., i]
        total = total + step * step
    return np.sqrt(total)


def quantile(values: FloatArray, share: float) -> float:
    """The value that so large a share lies below, straight between two of them; NaN of none."""
    last = values.size - 1
    if last < 0:
        return math.nan
    low = int(share * last)
    high, rest = min(low + 1, last), share * last - low
    ordered = np.partition(values, (low, high), axis=None)
    a, b = float(ordered[low]), float(ordered[high])
    return a + (b - a) * rest if rest < 0.5 else b - (b - a) * (1.0 - rest)


def medians(values: FloatArray) -> FloatArray:
    """The median of every column; NaN of none.   Shapes: (N, C) -> (C,)."""
    number = len(values)
    if not number:
        return np.full(values.shape[1:], math.nan)
    low, high = (number - 1) // 2, number // 2
    ordered = np.partition(np.ascontiguousarray(values.T), (low, high), axis=1)
    return (ordered[:, low] + ordered[:, high]) * 0.5


@lru_cache(maxsize=4)
def design(height: int, width: int) -> FloatArray:
    """One, x and y of every pixel, in fractions from the middle.   Shapes: -> (H, W, 3)."""
    ys, xs = np.arange(height) / height - 0.5, np.arange(width) / width - 0.5
    found = np.stack(np.broadcast_arrays(1.0, xs[None, :], ys[:, None]), axis=-1)
    found.setflags(write=False)
    return found


def plane(weights: FloatArray, height: int, width: int) -> FloatArray:
    """`design` times weights.   Shapes: weights (3, C) -> (H, W, C)."""
    ys, xs = np.arange(height) / height - 0.5, np.arange(width) / width - 0.5
    found = np.empty((height, width, weights.shape[1]))
    for i, (middle, across, down) in enumerate(weights.T):
        np.add.outer(ys * down, middle + xs * across, out=found[..., i])
    return found


def smooth(image: FloatArray) -> FloatArray:
    """The picture under a 1-2-1 kernel along both axes, edges repeated.   Shapes: (H, W, ...) -> same."""
    for axis in (0, 1):
        total = 2.0 * image
        for here, there in ((_FROM_1, _TO_1), (_FIRST, _FIRST), (_TO_1, _FROM_1), (_LAST, _LAST)):
            total[here[axis]] += image[there[axis]]
        image = np.multiply(total, 0.25, out=total)
    return image


def denoised(image: FloatArray, limit: float) -> FloatArray:
    """Every pixel as the mean of those of its 3 x 3 neighbourhood that differ from it by less than the limit.

    Evens out grain and keeps edges and thin lines.   Shapes: (H, W, 3) -> same.   Source: the sigma filter
    (Lee 1983).
    """
    height, width = image.shape[:2]
    total, count = np.zeros_like(image), np.ones((height, width))
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        left, right = max(0, -dx), width - max(0, dx)
        here = (slice(0, height - dy), slice(left, right))
        there = (slice(dy, height), slice(left + dx, right + dx))
        step = image[there] - image[here]
        near = np.einsum("...i,...i", step, step) < limit * limit
        step *= near[..., None]
        total[here] += step
        total[there] -= step
        count[here] += near
        count[there] += near
    total /= count[..., None]
    total += image
    return total


def blurred(values: FloatArray, sigma_px: float) -> FloatArray:
    """Gaussian blur along the first two axes, edges repeated.   Shapes: (H, W, ...) -> same."""
    reach = max(1, math.ceil(3.0 * sigma_px))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(values.ndim)]
        padded = np.pad(values, padding, mode="edge")
        length = values.shape[axis]
        values = np.zeros_like(values)
        for i, weight in enumerate(kernel):
            values += weight * padded[_along(axis, i, i + length)]
    return values


def box_mean(values: FloatArray, reach: int) -> FloatArray:
    """Mean over a square window of that half width, cut off at the rim.   Shapes: (H, W, ...) -> same."""
    for axis in (0, 1):
        length = values.shape[axis]
        near = min(reach, length - 1)
        total = _running_sum(values, axis)
        places = np.arange(length)
        count = np.minimum(places + near + 1, length) - np.maximum(places - near, 0)
        values = np.empty_like(total)
        values[_along(axis, 0, length - near)] = total[_along(axis, near, length)]
        values[_along(axis, length - near, length)] = total[_along(axis, length - 1, length)]
        values[_along(axis, near + 1, length)] -= total[_along(axis, 0, length - near - 1)]
        values /= count.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return values


def _running_sum(values: FloatArray, axis: int) -> FloatArray:
    if axis == 1:
        return np.cumsum(values, axis=1)
    total = np.array(values)  # down the rows numpy's own is several times slower
    for above, row in pairwise(total):
        row += above
    return total


def local_maximum(values: NDArray[Any], reach: int) -> NDArray[Any]:
    """The largest value within `reach` pixels along the first two axes; of a mask, it grown by a square.

    Shapes: (H, W, ...) -> same.
    """
    return _largest_along(_largest_along(values, reach, 0), reach, 1)


def closed(values: FloatArray, reach: int) -> FloatArray:
    """Values with dark cracks narrower than twice the reach filled (largest, then smallest of a window)."""
    return -local_maximum(-local_maximum(values, reach), reach)


def dilate(mask: BoolArray, radius: float) -> BoolArray:
    """The mask grown by a disc of that radius in pixels."""
    grown, wide, half = np.zeros_like(mask), mask, 0
    for dy in range(int(radius), -1, -1):  # from the disc's narrowest rows to its middle
        reach = math.isqrt(int(radius * radius - dy * dy))
        wide, half = _largest_along(wide, reach - half, 1), reach
        if dy == 0:
            grown |= wide
        else:
            grown[dy:] |= wide[:-dy]
            grown[:-dy] |= wide[dy:]
    return grown


def _largest_along(values: NDArray[Any], reach: int, axis: int) -> NDArray[Any]:
    """The largest value within `reach` places along one axis, window upon window."""
    done = 0
    while done < reach:
        step = min(max(1, done), reach - done)
        later, earlier = _along(axis, step, None), _along(axis, None, -step)
        grown = values.copy()
        np.maximum(grown[later], values[earlier], out=grown[later])
        np.maximum(grown[earlier], values[later], out=grown[earlier])
        values, done = grown, done + step
    return values


def _along(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    """The index of a range of rows or of columns."""
    return (slice(start, stop),) if axis == 0 else (slice(None), slice(start, stop))


def erode(mask: BoolArray, radius: float) -> BoolArray:
    """The mask shrunk by a disc of that radius in pixels; outside the picture counts as inside."""
    return ~dilate(~mask, radius)


def components(mask: BoolArray, diagonal: bool = True, smallest: float = 1.0) -> list[BoolArray]:
    """The connected parts of a mask of at least `smallest` pixels, the largest first.

    diagonal: pixels that touch at a corner are connected too.
    """
    numbers, sizes = _numbered(mask, diagonal)
    order = np.argsort(-sizes, kind="stable")
    return [numbers == i for i in order.tolist() if sizes[i] >= max(smallest, 1.0)]


def _numbered(mask: BoolArray, diagonal: bool) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """For every pixel of a mask the number of its connected part, in reading order of their first pixels, -1
    elsewhere; and by number how many pixels a part has (0: no part has that number)."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    steps = padded[:, 1:] - padded[:, :-1]
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    slack, pitch = int(diagonal), mask.shape[1] + 2
    above = (rows - 1) * pitch
    # The runs of the row above that touch a run are one after the other.
    first = np.searchsorted(rows * pitch + ends, above + starts - slack, side="right")
    number = np.maximum(np.searchsorted(rows * pitch + starts, above + ends + slack) - first, 0)
    lower = np.repeat(np.arange(len(rows)), number)
    upper = np.arange(len(lower)) + np.repeat(first - (np.cumsum(number) - number), number)
    own = np.arange(len(rows))  # a run of the same part, in the end its first
    one, other = lower, upper
    while (one != other).any():
        np.minimum.at(own, np.maximum(one, other), np.minimum(one, other))
        while ((far := own[own]) != own).any():
            own = far
        one, other = own[lower], own[upper]
    numbers = np.full(mask.shape, -1, dtype=np.int32)
    numbers[mask] = np.repeat(own, ends - starts)
    return numbers, np.bincount(own, weights=ends - starts, minlength=1)


def fill_holes(mask: BoolArray) -> BoolArray:
    """The mask with every enclosed background part filled."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not rows.size:
        return mask.copy()
    where = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    gaps = ~mask[where]
    framed = np.ones((gaps.shape[0] + 2, gaps.shape[1] + 2), dtype=np.bool_)
    framed[1:-1, 1:-1] = gaps
    numbers, _ = _numbered(framed, diagonal=False)
    outside = numbers == numbers[0, 0]
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


def _reduced(pixels: FloatArray, scale: float) -> FloatArray:
    height, width = (round(n / scale) for n in pixels.shape[:2])
    as_bytes = Image.fromarray((pixels * 255.0 + 0.5).astype(np.uint8))
    return np.asarray(as_bytes.resize((width, height), Image.Resampling.BOX)) / 255.0
