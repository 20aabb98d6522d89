"""Pictures in and out: reading what a user has, the one resize rule, pixels to and from model range.

Sizes are (height, width) in pixels. Model range is [-1, 1]; finished pictures are in [0, 1]. Not here: the
pictures that the vision-language model looks at (vlm.py), which follow its own processor.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as nnf
from PIL import Image
from torch import Tensor

from og2.conditioning.reading import MAX_PIXELS, MAX_SIDE, PictureInput, list_images, load_image
from og2.conditioning.sizes import SIZE_STEP, fit_size
from og2.errors import ImageError

__all__ = [
    "MAX_PIXELS",
    "MAX_SIDE",
    "SIZE_STEP",
    "PictureInput",
    "fit_image",
    "fit_size",
    "list_images",
    "load_image",
    "postprocess",
    "preprocess",
    "resize_output",
    "to_pil",
    "to_uint8",
]


def preprocess(image: Image.Image, max_pixels: int, max_side: int | None = None) -> Tensor:
    """The picture (1, 3, H, W), float32 in [-1, 1], at its `fit_size`, resized with Lanczos.

    Takes an RGB picture, as `load_image` returns it.
    """
    unit_HWC = np.asarray(fit_image(image, max_pixels, max_side), dtype=np.float32) / 255.0
    return torch.from_numpy(unit_HWC).permute(2, 0, 1).unsqueeze(0).contiguous() * 2.0 - 1.0


def fit_image(image: Image.Image, max_pixels: int, max_side: int | None = None) -> Image.Image:
    """The 8-bit RGB picture at its `fit_size`, resized with Lanczos; `preprocess` takes it unchanged."""
    if image.mode != "RGB":
        raise ImageError(f"only RGB pictures can be sized, got {image.mode}; read them with load_image")
    height, width = fit_size(image.height, image.width, max_pixels, max_side)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def resize_output(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The decoded picture (B, 3, H, W) at the requested (height, width): bilinear, no antialiasing."""
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    return nnf.interpolate(pixels, size=tuple(size), mode="bilinear", align_corners=False)


def postprocess(pixels: Tensor) -> Tensor:
    """The picture of model range [-1, 1] as float32 in [0, 1], clamped; same shape."""
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


def to_uint8(pixels: Tensor) -> np.ndarray:
    """The picture (B, 3, H, W) of [0, 1] as uint8 (B, H, W, 3), rounded to the nearest level."""
    levels_BHWC = (pixels.detach().float().cpu().permute(0, 2, 3, 1) * 255).round()
    return levels_BHWC.to(torch.uint8).numpy()


def to_pil(pixels: Tensor) -> list[Image.Image]:
    """The pictures (B, 3, H, W) of [0, 1] as 8-bit RGB pictures."""
    return [Image.fromarray(picture) for picture in to_uint8(pixels)]
