"""What the mini benchmark asks: prompts, edits and questions of held-out scenes, the same for one seed.

Every prompt names size and place, so that the whole (shape, colour, size, position) tuple, which is never in
training, is in the words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from og2.world.spec import (
    EDIT_KINDS,
    Edit,
    Requirements,
    Scene,
    caption,
    describe,
    requirements,
    sample_edit,
    sample_scene,
    typed_questions,
)

_STREAMS = {"t2i": 1, "edit": 2, "understanding": 3, "routing": 4}


@dataclass(frozen=True)
class DrawItem:
    """A prompt for one object; `required` asks for number, shape and colour, `every_word` for all it says."""

    scene: Scene
    prompt: str
    required: Requirements
    every_word: Requirements


@dataclass(frozen=True)
class AskItem:
    """A picture's scene and the questions about it with their kinds and answers."""

    scene: Scene
    questions: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class RouteItem:
    """Something said in chat, with or without a picture, and whether the answer must be a picture."""

    text: str
    scene: Scene | None
    wants_image: bool


def draw_items(n: int, seed: int) -> list[DrawItem]:
    """Distinct prompts for one held-out object each."""
    rng = np.random.default_rng([seed, _STREAMS["t2i"]])
    items: dict[str, DrawItem] = {}
    while len(items) < n:
        scene = sample_scene(rng, 1, split="test")
        said = describe(scene, rng, full=True)
        items.setdefault(said.text, DrawItem(scene, said.text, requirements(scene), said.requirements))
    return list(items.values())


def edit_items(n: int, seed: int) -> list[Edit]:
    """Edits of held-out objects, the kinds in turn."""
    rng = np.random.default_rng([seed, _STREAMS["edit"]])
    return [sample_edit(rng, (EDIT_KINDS[i % len(EDIT_KINDS)],), split="test") for i in range(n)]


def ask_items(n: int, seed: int) -> list[AskItem]:
    """Held-out pictures with one to three objects and every question they allow."""
    rng = np.random.default_rng([seed, _STREAMS["understanding"]])
    scenes = [sample_scene(rng, 1 + i % 3, split="test") for i in range(n)]
    return [AskItem(scene, tuple(typed_questions(scene, rng))) for scene in scenes]


def route_items(n: int, seed: int) -> list[RouteItem]:
    """In turn: a wish for a drawing, an edit of a picture, a question about a picture."""
    rng = np.random.default_rng([seed, _STREAMS["routing"]])
    items = []
    for i in range(n):
        if i % 3 == 0:
            scene = sample_scene(rng, split="test")
            items.append(RouteItem(f"draw {_lower(caption(scene, rng, full=True))}", None, True))
        elif i % 3 == 1:
            edit = sample_edit(rng, split="test")
            items.append(RouteItem(edit.instruction, edit.source, True))
        else:
            scene = sample_scene(rng, split="test")
            asked = typed_questions(scene, rng)
            items.append(RouteItem(asked[int(rng.integers(len(asked)))][1], scene, False))
    return items


def _lower(text: str) -> str:
    text = (text[0].lower() + text[1:]).rstrip(".")
    return text.removeprefix("draw ").removeprefix("there is ").removeprefix("there are ")
