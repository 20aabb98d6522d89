"""The mini-world as a source of training pictures, drawn on the fly.

Item i of a source is a pure function of (seed, i): no state, so a resumed run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from og2.data.rows import Example, Row
from og2.data.sources import Place
from og2.errors import ConfigError
from og2.world.render import render_batch
from og2.world.spec import Scene, caption, sample_edit, sample_scene, typed_questions


def item_rng(seed: int, index: int) -> Generator:
    """The random numbers of item `index`."""
    return np.random.default_rng((seed, index))


def scenes(
    seed: int, first: int, count: int, num_objects: Sequence[float] = (0.5, 0.3, 0.2), empty: float = 0.0
) -> list[Scene]:
    """Training scenes `first` to `first + count - 1`.

    num_objects: shares of scenes with 1, 2, 3 objects. empty: share of scenes whose objects are taken away
    (what is left after an edit removed the only one).
    """
    result = []
    for index in range(first, first + count):
        rng = item_rng(seed, index)
        number = 1 + int(rng.choice(len(num_objects), p=num_objects))
        scene = sample_scene(rng, num_objects=number, split="train")
        is_empty = empty > 0 and rng.random() < empty
        result.append(replace(scene, objects=()) if is_empty else scene)
    return result


def pictures(batch: Sequence[Scene], size: int) -> Tensor:
    """Rendered scenes as model input: float (B, 3, size, size) in [-1, 1]."""
    return to_model(render_batch(list(batch), size))


def to_model(pixels: Tensor) -> Tensor:
    """uint8 pictures (B, H, W, 3) as float (B, 3, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div(127.5).sub(1.0).contiguous()


@dataclass(frozen=True)
class WorldOptions:
    """Rows of one epoch, and what they show.

    Units: `sizes_px` (height, width) in pixels, one is drawn per row; `num_objects` are the shares of
    drawings with 1, 2, 3 objects.
    """

    rows: int = 1_000_000
    seed: int = 0
    sizes_px: tuple[tuple[int, int], ...] = ((64, 64),)
    num_objects: tuple[float, ...] = (0.5, 0.3, 0.2)


class WorldSource:
    """Rows drawn on the fly, of the entry's type: t2i (drawings), edit, or text (questions)."""

    def __init__(self, place: Place, options: WorldOptions) -> None:
        """Raises: ConfigError for a type that the world cannot make, or options out of range."""
        self.name, self.task, self.options = place.name, place.task or "t2i", options
        if self.task not in _MAKERS:
            raise ConfigError(f"source {place.name}: type {self.task!r} is none of {', '.join(_MAKERS)}")
        if (
            options.rows < 1
            or not options.sizes_px
            or min(options.num_objects) < 0
            or not sum(options.num_objects)
        ):
            raise ConfigError(
                f"source {place.name}: rows start at 1, sizes_px and num_objects must hold something"
            )

    def __len__(self) -> int:
        return self.options.rows

    def row_id(self, index: int) -> str:
        """The row's number, from 1."""
        return f"{self.name}:{index + 1}"

    def row(self, index: int) -> Row:
        """What is said about row `index`; its pictures have no names."""
        return self._made(index)[0]

    def example(self, index: int) -> Example:
        """Row `index`, rendered."""
        row, inputs, output, size = self._made(index)
        drawn = [render_batch([scene], size)[0].numpy() for scene in (*inputs, *([output] if output else []))]
        return Example(row, tuple(drawn[: len(inputs)]), drawn[-1] if output else None)

    def _made(self, index: int) -> tuple[Row, tuple[Scene, ...], Scene | None, tuple[int, int]]:
        rng = item_rng(self.options.seed, index)
        size = self.options.sizes_px[int(rng.integers(len(self.options.sizes_px)))]
        said, inputs, output, answer = _MAKERS[self.task](rng, self.options)
        names = tuple(f"input {k + 1}" for k in range(len(inputs)))
        return (
            Row(self.row_id(index), self.name, self.task, said, names, "output" if output else None, answer),
            inputs,
            output,
            size,
        )


_Made: TypeAlias = "tuple[str, tuple[Scene, ...], Scene | None, str | None]"


def _drawing(rng: Generator, options: WorldOptions) -> _Made:
    shares = np.array(options.num_objects) / sum(options.num_objects)
    scene = sample_scene(rng, num_objects=1 + int(rng.choice(len(shares), p=shares)), split="train")
    return caption(scene, rng), (), scene, None


def _edit(rng: Generator, options: WorldOptions) -> _Made:
    del options
    edit = sample_edit(rng, split="train")
    return edit.instruction, (edit.source,), edit.target, None


def _question(rng: Generator, options: WorldOptions) -> _Made:
    del options
    scene = sample_scene(rng, split="train")
    asked = typed_questions(scene, rng)
    _, question, answer = asked[int(rng.integers(len(asked)))]
    return question, (scene,), None, answer


_MAKERS = {"t2i": _drawing, "edit": _edit, "text": _question}
