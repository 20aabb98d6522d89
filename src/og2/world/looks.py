"""Looks of a whole picture: manners of drawing and tones, and the grain of the second render style.

Not imported by the scorer. Tones are one affine map of all CIELAB colours: lightness about a pivot, chroma
scaled and shifted.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from og2.world.palette import lab_to_srgb, srgb_to_lab

_PIVOT = 60.0
# Scale and shift of lightness, scale of chroma, shift of a and b.
_TONES: dict[str, tuple[float, float, float, float, float]] = {
    "night": (0.62, -24.0, 0.70, 0.0, -12.0),
    "warm": (1.0, 0.0, 1.0, 6.0, 17.0),
    "cool": (1.0, 0.0, 1.0, -3.0, -17.0),
    "high contrast": (1.45, -2.0, 1.30, 0.0, 0.0),
    "faded": (0.55, 9.0, 0.50, 0.0, 0.0),
}
_SEPIA = (5.0, 22.0)
_BLOCKS = 24  # pixels of a pixelated picture along its shorter side
_DOTS = 32  # cells of a halftone along its shorter side
_GRAIN = 0.022


def apply_look(picture: Tensor, style: str | None, tone: str | None) -> Tensor:
    """The picture (uint8 (H, W, 3)) in a style ("pixelated", "halftone", "sepia") and a tone, if any."""
    pixels = picture.cpu().numpy() / 255.0
    if tone is not None:
        pixels = _toned(pixels, tone)
    if style == "sepia":
        lab = srgb_to_lab(pixels)
        lab[..., 1], lab[..., 2] = _SEPIA
        pixels = lab_to_srgb(lab)
    elif style == "pixelated":
        pixels = _pixelated(pixels)
    elif style == "halftone":
        pixels = _halftone(pixels)
    done = (np.clip(pixels, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return torch.from_numpy(done).to(picture.device)


def add_grain(canvas: Tensor) -> None:
    """Fixed noise of the paper, added in place to pictures (B, 3, H, W) in [0, 1]."""
    height, width = canvas.shape[2:]
    rng = np.random.default_rng(7)
    grain = rng.normal(0.0, _GRAIN, (height, width)).astype(np.float32)
    canvas.add_(torch.from_numpy(grain).to(canvas.device)).clamp_(0.0, 1.0)


def _toned(pixels: np.ndarray, tone: str) -> np.ndarray:
    scale, shift, chroma, a, b = _TONES[tone]
    lab = srgb_to_lab(pixels)
    lab[..., 0] = (lab[..., 0] - _PIVOT) * scale + _PIVOT + shift
    lab[..., 1:] = lab[..., 1:] * chroma + (a, b)
    return lab_to_srgb(lab)


def _pixelated(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    block = max(2, round(min(height, width) / _BLOCKS))
    rows, columns = np.arange(height) // block, np.arange(width) // block
    sums = np.add.reduceat(
        np.add.reduceat(pixels, np.arange(0, height, block), 0), np.arange(0, width, block), 1
    )
    counts = np.outer(np.bincount(rows), np.bincount(columns))[..., None]
    return (sums / counts)[rows][:, columns]


def _halftone(pixels: np.ndarray) -> np.ndarray:
    """Dots of the picture's own colour, deepened, on pale paper; their area follows the darkness."""
    height, width = pixels.shape[:2]
    cell = max(3.0, min(height, width) / _DOTS)
    ys, xs = (np.mgrid[0:height, 0:width] + 0.5) / cell
    s, t = (xs + ys) * np.sqrt(0.5), (ys - xs) * np.sqrt(0.5)
    away = np.hypot(s - np.floor(s) - 0.5, t - np.floor(t) - 0.5) * cell
    lab = srgb_to_lab(pixels)
    radius = cell * np.sqrt(np.clip((104.0 - lab[..., 0]) / 104.0, 0.06, 1.0) * 0.62)
    share = np.clip(radius - away + 0.5, 0.0, 1.0)[..., None]
    deep = lab * np.array([0.82, 1.15, 1.15])
    pale = lab * np.array([0.15, 0.22, 0.22]) + np.array([80.0, 0.0, 0.0])
    return np.clip(lab_to_srgb(pale), 0, 1) * (1 - share) + np.clip(lab_to_srgb(deep), 0, 1) * share
