"""What a certificate is measured on: right pictures for each task and every near miss that is wrong for them.

A source or reference is looked at once for all that is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.random import Generator

from og2.evals.certificate import RIGHT
from og2.evals.conditions import as_it_is
from og2.evals.context_near_miss import HALF, half_removed_subject, wrong_scenes
from og2.evals.edit_near_miss import EDIT_NEAR_MISSES, MIXTURES
from og2.evals.items import PLAIN_DRAW, PLAIN_EDITS, SCORED_EDITS
from og2.evals.near_miss import T2I_NEAR_MISSES, TEXT_NEAR_MISSES, Draft, EditDraft, Picture
from og2.world.incontext import INCONTEXT_TASKS, sample_incontext
from og2.world.known import Known
from og2.world.prompts import PROMPT_TASKS, sample_prompt
from og2.world.requirements import EditRequirements
from og2.world.scenes import Scene, sample_scene, world_named
from og2.world.score import score_edit, score_t2i
from og2.world.score_context import score_context
from og2.world.spec import Edit, requirements, sample_edit


@dataclass(frozen=True)
class Case:
    """One thing to score: the kind of picture, the clean picture, and whether it is accepted once
    corrupted.

    mixed_of: source and target of a picture that is a mixture of both. A VAE that draws things whole makes
    them whole: the mixture is made of both once they went through it.
    """

    kind: str
    picture: Picture
    accepts: Callable[[Picture], bool]
    mixed_of: tuple[Picture, Picture] | None = None


@dataclass(frozen=True)
class Manner:
    """How the cases of a request are drawn: side in px, who draws, what is moved, how many wrong ones."""

    size: int
    hand: str = "clean"
    shift: Callable[[Scene], Scene] = as_it_is
    kinds: int | None = None


Maker = Callable[[Generator, Manner], list[Case]]


def _draw_cases(task: str) -> Maker:
    """Right pictures of a family of prompts, and every near miss that is wrong for them."""

    def make(rng: Generator, manner: Manner) -> list[Case]:
        if task == PLAIN_DRAW:
            scene = sample_scene(rng, 1)
            rule, world = requirements(scene), world_named("plain")
        else:
            prompt = sample_prompt(rng, task)
            scene, rule, world = prompt.scene, prompt.requirements, world_named("full")
        draft = Draft(manner.shift(scene), rule, world, manner.size, manner.hand)

        def accepts(picture: Picture) -> bool:
            return score_t2i(picture, rule).passed

        spoils = TEXT_NEAR_MISSES if scene.plates else T2I_NEAR_MISSES
        wrong = [Case(kind, p, accepts) for kind, p in _wrong(spoils, draft, rng, manner.kinds)]
        return [Case(RIGHT, draft.draw(draft.scene), accepts), *wrong]

    return make


def _edit_cases(kind: str, world: str) -> Maker:
    """Right results of a kind of edit and every wrong one; only the result is corrupted."""

    def make(rng: Generator, manner: Manner) -> list[Case]:
        edit = sample_edit(rng, (kind,), world=world)
        edit = replace(edit, source=manner.shift(edit.source), target=manner.shift(edit.target))
        draft = EditDraft(edit, manner.size, manner.hand)
        draft.draw_together((edit.source, edit.target))
        source = Known(draft.draw(edit.source))

        def accepts(picture: Picture) -> bool:
            return score_edit(source, picture, edit.requirements).success

        ends = draft.draw(edit.source), draft.draw(edit.target)
        wrong = [
            Case(kind, p, accepts, ends if kind in MIXTURES else None)
            for kind, p in _wrong(EDIT_NEAR_MISSES, draft, rng, manner.kinds)
        ]
        return [Case(RIGHT, ends[1], accepts), *wrong]

    return make


def _context_cases(task: str) -> Maker:
    """Right answers in context and every wrong one."""

    def make(rng: Generator, manner: Manner) -> list[Case]:
        asked = sample_incontext(rng, task)
        edit = Edit(task, asked.target, asked.target, "", EditRequirements(task))
        draft = EditDraft(edit, manner.size, manner.hand)
        right, shown = manner.shift(asked.target), [manner.shift(scene) for scene in asked.references]
        scenes = wrong_scenes(asked, rng)
        chosen = _some([*scenes, HALF], manner.kinds, rng)
        wrong = {kind: manner.shift(scenes[kind]) for kind in chosen if kind != HALF}
        draft.draw_together((right, *shown, *wrong.values()))
        references = [Known(draft.draw(scene)) for scene in shown]

        def accepts(picture: Picture) -> bool:
            return score_context(references, picture, asked.requirements).passed

        def picture(kind: str) -> Picture:
            return half_removed_subject(draft.draw, right, rng) if kind == HALF else draft.draw(wrong[kind])

        cases = [Case(kind, picture(kind), accepts) for kind in chosen]
        return [Case(RIGHT, draft.draw(right), accepts), *cases]

    return make


def _wrong(
    spoils: Mapping[str, Callable[[Any, Generator], Picture | None]],
    draft: Draft | EditDraft,
    rng: Generator,
    limit: int | None,
) -> Iterator[tuple[str, Picture]]:
    """Near misses that are wrong for a request, with their kinds: all, or so many of a drawn order."""
    left = len(spoils) if limit is None else limit
    for name in _some(list(spoils), None if limit is None else len(spoils), rng):
        picture = spoils[name](draft, rng) if left else None
        if picture is not None:
            left -= 1
            yield name, picture


def _some(names: list[str], limit: int | None, rng: Generator) -> list[str]:
    """All names, or at most so many of them in an order that is drawn."""
    return names if limit is None else [names[i] for i in rng.permutation(len(names))[:limit]]


TASKS: dict[str, Maker] = {
    **{f"t2i/{task}": _draw_cases(task) for task in (PLAIN_DRAW, *PROMPT_TASKS)},
    **{f"edit/{name}": _edit_cases(kind, "plain") for kind, name in PLAIN_EDITS.items()},
    **{f"edit/{kind}": _edit_cases(kind, "full") for kind in SCORED_EDITS},
    **{f"incontext/{task}": _context_cases(task) for task in INCONTEXT_TASKS},
}
