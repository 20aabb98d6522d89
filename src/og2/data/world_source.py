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

from og2.conditioning.sizes import SIZE_STEP
from og2.data.rows import Example, Row
from og2.data.sources import Place
from og2.errors import ConfigError
from og2.world.critique import FAULTS
from og2.world.render import render_batch
from og2.world.spec import (
    INCONTEXT_TASKS,
    PROMPT_TASKS,
    WORLDS,
    Requirements,
    Scene,
    WorldName,
    describe,
    edit_kinds,
    format_reflection,
    reflect,
    sample_edit,
    sample_incontext,
    sample_prompt,
    sample_scene,
    seen_in,
    spoil,
    typed_questions,
)


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

    Units: `sizes_px` (height, width) in pixels, one is drawn per row. `world`: plain, or full. `kinds`: which
    of the prompts (full world), edits or in-context tasks; none are all of them. `num_objects`: shares of the
    plain world's drawings with 1, 2, 3 objects.
    """

    rows: int = 1_000_000
    seed: int = 0
    sizes_px: tuple[tuple[int, int], ...] = ((64, 64),)
    num_objects: tuple[float, ...] = (0.5, 0.3, 0.2)
    world: WorldName = "plain"
    kinds: tuple[str, ...] = ()


class WorldSource:
    """Rows drawn on the fly, of the entry's type.

    t2i: drawings. edit. ic: pictures put together from references (full world). text: questions about a
    picture. critique: a prompt and a picture that may miss it; the answer says what is wrong and how to mend
    it, in the three lines of `og2.world.spec.format_reflection`.
    """

    def __init__(self, place: Place, options: WorldOptions) -> None:
        """Raises: ConfigError for a type or kinds that the world cannot make, or options out of range."""
        self.name, self.task, self.options = place.name, place.task or "t2i", options
        if self.task not in _MAKERS:
            raise ConfigError(f"source {place.name}: type {self.task!r} is none of {', '.join(_MAKERS)}")
        _check_numbers(place.name, options)
        if options.world == "full" and options.num_objects != WorldOptions.num_objects:
            raise ConfigError(
                f"source {place.name}: num_objects is of the plain world; in the full one choose kinds"
            )
        if self.task == "ic" and options.world == "plain":
            raise ConfigError(f"source {place.name}: the plain world has no rows of type ic; use world: full")
        known = _kinds(self.task, options.world)
        unknown = [kind for kind in options.kinds if kind not in known]
        if unknown:
            allowed = f"one of {', '.join(known)}" if known else "no kinds: there is one of it"
            raise ConfigError(
                f"source {place.name}: kind {unknown[0]!r} of type {self.task} in the {options.world} world; "
                f"use {allowed}"
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
CRITIQUE = 'this was asked for: "{0}" what is wrong with the picture?'
GOOD_SHARE = 0.3
"""Of critiques, pictures that show what was asked for."""


def _check_numbers(name: str, options: WorldOptions) -> None:
    """Raises: ConfigError for numbers out of range."""
    if options.rows < 1 or options.seed < 0:
        raise ConfigError(f"source {name}: rows={options.rows} starts at 1, seed={options.seed} at 0")
    smallest = min((min(size) for size in options.sizes_px), default=0)
    if smallest < SIZE_STEP:
        raise ConfigError(
            f"source {name}: sizes_px={options.sizes_px}; give sides of {SIZE_STEP} px and more"
        )
    shares, most = options.num_objects, WORLDS["plain"].max_objects
    if not 1 <= len(shares) <= most or min(shares) < 0 or not sum(shares):
        raise ConfigError(
            f"source {name}: num_objects={shares}; give the shares of 1 to {most} objects, not all of them 0"
        )


def _kinds(task: str, world: str) -> tuple[str, ...]:
    """The kinds of that type; none where there is only one."""
    if task == "edit":
        return edit_kinds(world)
    if task == "ic":
        return INCONTEXT_TASKS
    return PROMPT_TASKS if world == "full" and task in ("t2i", "critique") else ()


def _one_of(rng: Generator, task: str, options: WorldOptions) -> str:
    kinds = options.kinds or _kinds(task, options.world)
    return kinds[int(rng.integers(len(kinds)))]


def _asked_for(rng: Generator, options: WorldOptions, task: str) -> tuple[str, Scene, Requirements]:
    """A prompt, a picture of it, and what it requires."""
    if options.world == "full":
        prompt = sample_prompt(rng, _one_of(rng, task, options), "train", "full")
        return prompt.text, prompt.scene, prompt.requirements
    shares = np.array(options.num_objects) / sum(options.num_objects)
    scene = sample_scene(rng, num_objects=1 + int(rng.choice(len(shares), p=shares)), split="train")
    said = describe(scene, rng)
    return said.text, scene, said.requirements


def _drawing(rng: Generator, options: WorldOptions) -> _Made:
    said, scene, _ = _asked_for(rng, options, "t2i")
    return said, (), scene, None


def _edit(rng: Generator, options: WorldOptions) -> _Made:
    edit = sample_edit(rng, options.kinds or None, "train", options.world)
    return edit.instruction, (edit.source,), edit.target, None


def _in_context(rng: Generator, options: WorldOptions) -> _Made:
    made = sample_incontext(rng, _one_of(rng, "ic", options), "train")
    return made.instruction, made.references, made.target, None


def _question(rng: Generator, options: WorldOptions) -> _Made:
    scene = sample_scene(rng, split="train", world=options.world)
    asked = typed_questions(scene, rng, options.world)
    _, question, answer = asked[int(rng.integers(len(asked)))]
    return question, (scene,), None, answer


def critique(rng: Generator, options: WorldOptions) -> _Made:
    """A prompt, a picture that shows it or has one fault, and what is wrong with it in three lines."""
    said, scene, wanted = _asked_for(rng, options, "critique")
    shown: Scene | None = scene if rng.random() < GOOD_SHARE else None
    while shown is None:  # not every fault fits every scene, but one of them does
        shown = spoil(rng, scene, FAULTS[int(rng.integers(len(FAULTS)))], options.world)
    reflection = reflect(rng, seen_in(shown), wanted)
    return CRITIQUE.format(said), (shown,), None, format_reflection(reflection)


_MAKERS = {"t2i": _drawing, "edit": _edit, "ic": _in_context, "text": _question, "critique": critique}
