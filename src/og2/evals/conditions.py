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
from og2.world.creatures import Creature
from og2.world.fills import Fill
from og2.world.palette import Lab
from og2.world.props import Gizmo
from og2.world.scenes import Scene

Picture = NDArray[np.uint8]
Corruption = Callable[[Picture, Generator], Picture]
_SHIFT_DE = 5.0
_SHIFT_SIZE = 1.03
_BLACK_L, _WHITE_L = 26.0, 90.0  # of colours that have no name: darker and lighter ones move in lightness


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
    """The scene with every subject's colours moved by 5 dE and its size by 3 %: other prototypes than the
    scorer's. Equal colours move alike, so a subject stays itself from picture to picture."""
    objects = []
    for obj in scene.objects:
        move = (0.0, *_turned(zlib.crc32(obj.color.encode())))
        if obj.color in ("black", "white"):
            move = (3.0 if obj.color == "black" else -3.0, 0.0, 0.0)
        objects.append(replace(obj, lab=_added(obj.lab, move), fill=_moved_fill(obj.fill, move)))
    objects = [replace(obj, radius=obj.radius * _SHIFT_SIZE) for obj in objects]
    return replace(
        scene,
        objects=tuple(objects),
        creatures=tuple(_shifted_creature(creature) for creature in scene.creatures),
        gizmos=tuple(_shifted_gizmo(gizmo) for gizmo in scene.gizmos),
        plates=tuple(replace(p, lab=_moved(p.lab), cell=p.cell * _SHIFT_SIZE) for p in scene.plates),
    )


def _shifted_creature(creature: Creature) -> Creature:
    own = creature.anatomy
    anatomy = replace(own, body_lab=_moved(own.body_lab), second_lab=_moved(own.second_lab))
    return replace(creature, anatomy=anatomy, radius=creature.radius * _SHIFT_SIZE)


def _shifted_gizmo(gizmo: Gizmo) -> Gizmo:
    move = _move_of(gizmo.body_lab)
    labs = {"body_lab": _added(gizmo.body_lab, move), "fill": _moved_fill(gizmo.fill, move)}
    labs |= {"cap_lab": _moved(gizmo.cap_lab), "emblem_lab": _moved(gizmo.emblem_lab)}
    return replace(gizmo, **labs, radius=gizmo.radius * _SHIFT_SIZE)


def _moved_fill(fill: Fill | None, move: Lab) -> Fill | None:
    return fill and replace(fill, lab=_added(fill.lab, move))


def _moved(lab: Lab) -> Lab:
    return _added(lab, _move_of(lab))


def _move_of(lab: Lab) -> Lab:
    """Where a colour goes: to another hue, and what has none toward grey."""
    if lab[0] < _BLACK_L or lab[0] > _WHITE_L:
        return (3.0 if lab[0] < _BLACK_L else -3.0, 0.0, 0.0)
    return (0.0, *_turned(zlib.crc32(repr([round(v, 3) for v in lab]).encode())))


def _turned(number: int) -> tuple[float, float]:
    angle = number % 360 * np.pi / 180
    return _SHIFT_DE * float(np.cos(angle)), _SHIFT_DE * float(np.sin(angle))


def _added(lab: Lab, move: Lab) -> Lab:
    return lab[0] + move[0], lab[1] + move[1], lab[2] + move[2]


def as_it_is(scene: Scene) -> Scene:
    """The scene unchanged."""
    return scene
