"""The one resize rule of the project, without heavy imports: plans need it before any model is loaded."""

from __future__ import annotations

import math

from og2.errors import ImageError, RequestError

SIZE_STEP = 16
"""Sides are multiples of this many pixels: the VAE's factor 8 times the transformer's patch size 2."""


def fit_size(height: int, width: int, max_pixels: int, max_side: int | None = None) -> tuple[int, int]:
    """The size (height, width) a picture is worked on at: shrunk to fit, never enlarged, multiples of 16.

    The one resize rule of the project, for references (with `max_side`) and for outputs (without).
    Units: pixels. Rounding is downward, also where nothing has to shrink, so proportions move by less than 16
    px a side.
    Raises: ImageError if a side comes out below 16 px; RequestError for limits that are not positive.
    Source: the official implementation's image processor.
    """
    if not (max_pixels > 0 and (max_side is None or max_side > 0)):
        raise RequestError(f"max_pixels={max_pixels} and max_side={max_side} must be positive")
    if height < 1 or width < 1:
        raise ImageError(f"a picture of {width}x{height} has no pixels; sides start at {SIZE_STEP} px")
    ratio = min(math.sqrt(max_pixels / (height * width)), 1.0)
    if max_side is not None:
        ratio = min(ratio, max_side / max(height, width))
    fitted = tuple(int(side * ratio) // SIZE_STEP * SIZE_STEP for side in (height, width))
    if min(fitted) < SIZE_STEP:
        limits = f"max_pixels={max_pixels}" + (f" and max_side={max_side}" if max_side is not None else "")
        raise ImageError(
            f"{width}x{height} (width x height) under {limits} leaves a side below {SIZE_STEP} px; "
            "use a larger or less elongated picture, or raise the limits"
        )
    return fitted[0], fitted[1]
