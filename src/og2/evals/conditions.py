"""What happens to the pictures of a certificate: conditions that a model's pictures bring along, and shifts.

A corruption changes pixels (blur, noise, half resolution, JPEG, a round trip through a VAE); a shift changes
what is drawn (colours and sizes moved), and a second manner of drawing changes who draws. Pictures are uint8
(H, W, 3).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from og2.evals.certificate import CLEAN
from og2.evals.controls import through_vae
from og2.world.scenes import Scene

Picture = NDArray[np.uint8]
Corruption = Callable[[Picture, Generator], Picture]
_SHIFT_DE = 5.0
_SHIFT_SIZE = 1.03


def clean(picture: Picture, _rng: Generator) -> Picture:
    """The picture as it is."""
    return picture


def blurred(sigma_px: float) -> Corruption:
    """Gaussian blur of that standard deviation."""

    def corrupt(picture: Picture, _rng: Generator) -> Picture:
        offsets = np.arange(-4, 5)
        kernel = np.exp(-0.5 * (offsets / sigma_px) ** 2)
        kernel /= kernel.sum()
        values = np.pad(picture.astype(np.float64), ((4, 4), (4, 4), (0, 0)), mode="edge")
        values = np.stack([values[i : i + picture.shape[0]] for i in range(9)], axis=-1) @ kernel
        values = np.stack([values[:, i : i + picture.shape[1]] for i in range(9)], axis=-1) @ kernel
        return (values + 0.5).astype(np.uint8)

    return corrupt


def noisy(sigma: float) -> Corruption:
    """Independent Gaussian noise on every channel, in steps of 1/255."""

    def corrupt(picture: Picture, rng: Generator) -> Picture:
        return np.clip(picture + rng.normal(0.0, sigma, picture.shape) + 0.5, 0, 255).astype(np.uint8)

    return corrupt


def half_resolution(picture: Picture, _rng: Generator) -> Picture:
    """Down to half the size and back."""
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((width // 2, height // 2), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def jpeg(quality: int) -> Corruption:
    """Through a JPEG file of that quality."""

    def corrupt(picture: Picture, _rng: Generator) -> Picture:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
        buffer.seek(0)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return corrupt


CORRUPTIONS: dict[str, Corruption] = {
    CLEAN: clean,
    "blur 1.0": blurred(1.0),
    "noise 8": noisy(8.0),
    "half size": half_resolution,
    "jpeg 75": jpeg(75),
}
SHIFTED, INKED, VAE = "shifted", "second style", "VAE"
CONDITIONS: tuple[str, ...] = (*CORRUPTIONS, VAE, SHIFTED, INKED)


def drawn_for(condition: str) -> str:
    """Which drawings a condition starts from: its own if it changes what is drawn, else the clean ones."""
    return condition if condition in (SHIFTED, INKED) else CLEAN


def corrupted(pictures: Sequence[Picture], condition: str, vae: Any, rng: Generator) -> list[Picture]:
    """The pictures under a condition; `vae` is asked for the round trip only."""
    if condition == VAE:
        return through_vae(vae, pictures)
    corrupt = CORRUPTIONS.get(condition, clean)
    return [corrupt(picture, rng) for picture in pictures]


def shifted(scene: Scene) -> Scene:
    """The scene with every colour moved by 5 dE and every size by 3 %: other prototypes than the scorer's."""
    objects = []
    for obj in scene.objects:
        angle = zlib.crc32(obj.color.encode()) % 360 * np.pi / 180
        move = (0.0, _SHIFT_DE * float(np.cos(angle)), _SHIFT_DE * float(np.sin(angle)))
        if obj.color in ("black", "white"):
            move = (3.0 if obj.color == "black" else -3.0, 0.0, 0.0)
        lab = (obj.lab[0] + move[0], obj.lab[1] + move[1], obj.lab[2] + move[2])
        objects.append(replace(obj, lab=lab, radius=obj.radius * _SHIFT_SIZE))
    return replace(scene, objects=tuple(objects))


def as_it_is(scene: Scene) -> Scene:
    """The scene unchanged."""
    return scene
