"""What the mini benchmark asks: prompts, edits and questions of held-out scenes, the same for one seed.

Two worlds, see `scenes`. Of the plain world, which the small model inside the package draws: prompts for
one object that name its whole (shape, colour, size, position), and recolour, add and remove edits. Of either
world: the families of `prompts` and all kinds of edits. Item i of a family is the same however many are asked
for.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from og2.evals.outcomes import Item
from og2.world.incontext import INCONTEXT_TASKS, sample_incontext
from og2.world.object_edits import OBJECT_KINDS
from og2.world.picture_edits import PICTURE_KINDS
from og2.world.prompts import PROMPT_TASKS, sample_prompt
from og2.world.spec import (
    EDIT_KINDS,
    Edit,
    Requirements,
    Scene,
    caption,
    describe,
    edit_kinds,
    requirements,
    sample_edit,
    sample_scene,
    typed_questions,
)

_STREAMS = {"t2i": 1, "edit": 2, "understanding": 3, "routing": 4}
PLAIN_DRAW = "plain single"
PLAIN_EDITS: dict[str, str] = {kind: f"plain {kind}" for kind in ("recolour", "add", "remove")}
# Kinds of edits of the full world that the scorer can judge.
SCORED_EDITS: tuple[str, ...] = (*OBJECT_KINDS, *PICTURE_KINDS)
NUM_DRAW, NUM_EDIT, NUM_FAMILY = 200, 100, 50
NUM_ASK, NUM_ROUTE = 60, 60
_PLAIN_PX, _FULL_PX, _CONTEXT_PX = 64, 128, 256


@dataclass(frozen=True)
class DrawItem:
    """A prompt for one object; `required` asks for number, shape and colour, `every_word` for all it says."""

    scene: Scene
    prompt: str
    required: Requirements
    every_word: Requirements


@dataclass(frozen=True)
class AskItem:
    """A picture's scene, the questions about it with their kinds and answers, and the least side in px."""

    scene: Scene
    questions: tuple[tuple[str, str, str], ...]
    px: int = _PLAIN_PX


@dataclass(frozen=True)
class RouteItem:
    """Something said in chat, with or without a picture, and whether the answer must be a picture."""

    text: str
    scene: Scene | None
    wants_image: bool


def families_of(task: str, world: str) -> tuple[str, ...]:
    """Every family of picture items that a task has in that world, those of the plain world first.

    "plain" has what the small model inside the package draws: one object, and three kinds of edits.
    """
    is_full = world == "full"
    if task == "t2i":
        return (PLAIN_DRAW, *(PROMPT_TASKS if is_full else ()))
    if task == "incontext":
        return INCONTEXT_TASKS if is_full else ()
    others = tuple(kind for kind in edit_kinds(world) if kind in SCORED_EDITS)
    return (*PLAIN_EDITS.values(), *(others if is_full else ()))


def least_px(name: str) -> int:
    """The side in px that pictures of a family ("task/family") need at least, and are certified at."""
    if name.startswith("incontext/"):
        return _CONTEXT_PX
    return _PLAIN_PX if name.split("/")[1].startswith("plain ") else _FULL_PX


def picture_items(
    task: str, world: str, seed: int, limit: int | None, families: tuple[str, ...] | None = None
) -> list[Item]:
    """The items of a task, family by family.

    limit: at most so many of each family. families: only these.
    """
    known = families_of(task, world)
    items: list[Item] = []
    for family in known:
        if families is None or family in families:
            make = _MAKERS[task]
            items += make(family, world, seed, limit)
    return items


def _prompt_items(family: str, world: str, seed: int, limit: int | None) -> list[Item]:
    if family == PLAIN_DRAW:
        drawn = draw_items(_at_most(NUM_DRAW, limit), seed)
        return [
            Item(_key("t2i", family, i), "t2i", family, d.prompt, (), d.scene, d.required, seed + i)
            for i, d in enumerate(drawn)
        ]
    rng = _stream(seed, "t2i", world, family)
    prompts = [sample_prompt(rng, family, "test", world) for _ in range(_at_most(NUM_FAMILY, limit))]
    return [
        Item(_key("t2i", family, i), "t2i", family, p.text, (), p.scene, p.requirements, seed + i)
        for i, p in enumerate(prompts)
    ]


def _edit_items(family: str, world: str, seed: int, limit: int | None) -> list[Item]:
    kinds = {name: kind for kind, name in PLAIN_EDITS.items()}
    if family in kinds:  # the kinds take turns, so that item i is the same as ever
        drawn = edit_items(_at_most(NUM_EDIT, None if limit is None else limit * len(kinds)), seed)
        own = [(i, e) for i, e in enumerate(drawn) if e.kind == kinds[family]]
    else:
        own = list(enumerate(_world_edits(family, world, seed, limit)))
    return [
        Item(
            _key("edit", family, i),
            "edit",
            family,
            e.instruction,
            (e.source,),
            e.target,
            e.requirements,
            seed + i,
        )
        for i, e in own
    ]


def _world_edits(family: str, world: str, seed: int, limit: int | None) -> list[Edit]:
    rng = _stream(seed, "edit", world, family)
    return [sample_edit(rng, (family,), "test", world) for _ in range(_at_most(NUM_FAMILY, limit))]


def _context_items(family: str, world: str, seed: int, limit: int | None) -> list[Item]:
    rng = _stream(seed, "incontext", world, family)
    made = [sample_incontext(rng, family, "test") for _ in range(_at_most(NUM_FAMILY, limit))]
    return [
        Item(
            _key("incontext", family, i),
            "incontext",
            family,
            m.instruction,
            m.references,
            m.target,
            m.requirements,
            seed + i,
        )
        for i, m in enumerate(made)
    ]


_MAKERS: dict[str, Callable[[str, str, int, int | None], list[Item]]] = {
    "t2i": _prompt_items,
    "edit": _edit_items,
    "incontext": _context_items,
}


def _stream(seed: int, task: str, world: str, family: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{task}|{world}|{family}".encode())])


def _at_most(standard: int, limit: int | None) -> int:
    return standard if limit is None else min(standard, limit)


def _key(task: str, family: str, index: int) -> str:
    return f"{task}/{family.replace(' ', '_')}/{index:04d}"


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


def full_ask_items(n: int, seed: int) -> list[AskItem]:
    """Held-out pictures of the full world, drawings of every task and answers in context in turn, with every
    question they allow; kinds begin with "full"."""
    rng = np.random.default_rng([seed, _STREAMS["understanding"], 1])
    items: list[AskItem] = []
    for i in range(n):
        if i % 3 == 2:
            scene = sample_incontext(rng, INCONTEXT_TASKS[i // 3 % len(INCONTEXT_TASKS)], "test").target
        else:
            scene = sample_prompt(rng, PROMPT_TASKS[i % len(PROMPT_TASKS)], "test").scene
        asked = typed_questions(scene, rng, "full")
        items.append(AskItem(scene, tuple((f"full {kind}", q, a) for kind, q, a in asked), _CONTEXT_PX))
    return items


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
