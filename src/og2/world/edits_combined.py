"""Edits made of several: two at once, and conversations of three turns with pronouns and "undo"."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.world import palette
from og2.world.choose import pick
from og2.world.edit_words import Edit, Turn, say, words_of
from og2.world.edits_objects import (
    Change,
    ChangeMaker,
    change_material,
    change_recolour,
    change_remove,
    change_replace,
    distinct_scene,
    recolored,
    with_object,
)
from og2.world.language import finish
from og2.world.requirements import EditRequirements
from og2.world.scenes import Scene, World
from og2.world.split import split_of

_CHANGES: dict[str, ChangeMaker] = {
    "recolour": change_recolour,
    "remove": change_remove,
    "replace": change_replace,
    "material": change_material,
}
_JOINTS = ("{0} and {1}", "{0}, and {1}", "{0} and also {1}")
_UNDO = ("undo the last change", "undo that", "no, take that back")
_PRONOUN = ("now make it {0}", "make it {0} instead", "no, paint it {0}")


def make_hybrid(rng: Generator, split: str, world: World) -> Edit | None:
    """Two changes of two objects in one sentence."""
    source = distinct_scene(rng, world, split)
    if len(source.objects) < 2:
        return None
    one, two = (int(i) for i in rng.permutation(len(source.objects))[:2])
    first = _change(rng, source, one)
    if first is None:
        return None
    # The second phrase must fit the picture as the reader sees it: the source.
    second = _change(rng, source, two)
    if second is None or _clash(first, second, source, (one, two)):
        return None
    target = _both(source, first, second, (one, two))
    text = pick(rng, _JOINTS).format(first.text, second.text)
    rule = EditRequirements("hybrid", parts=(first.rule, second.rule))
    return Edit("hybrid", source, target, say(text, rng), rule)


@dataclass(frozen=True)
class _State:
    """A conversation so far: the scene, and for each changed object of the source its net change."""

    scene: Scene
    changes: dict[int, EditRequirements]


def make_multi_turn(rng: Generator, split: str, world: World) -> Edit | None:
    """Three turns: a recolouring, then changes of that object ("it") or of another one, or "undo"."""
    source = distinct_scene(rng, world, split)
    indices = [int(i) for i in rng.permutation(len(source.objects))]
    start = _State(source, {})
    states, texts, about = [start], [], indices[0]
    for turn in range(3):
        forms = ["order"] if turn == 0 else ["it", "order"] if turn == 1 else ["it", "order", "undo", "undo"]
        form = pick(rng, tuple(forms))
        if form == "undo":
            step: tuple[_State, str] | None = (states[-2], pick(rng, _UNDO))
        elif form == "it":
            step = _again(rng, states[-1], source, about)
        else:
            about = indices[turn % len(indices)]
            step = None if turn and about in states[-1].changes else _order(rng, states[-1], about)
        if step is None:
            return None
        states.append(step[0])
        texts.append(step[1])
    if not states[-1].changes or states[-1].scene == source:
        return None
    said = tuple(finish(text, rng) for text in texts)
    turns = tuple(Turn(text, state.scene) for text, state in zip(said, states[1:], strict=True))
    rule = EditRequirements("multi_turn", parts=tuple(states[-1].changes.values()))
    together = ". ".join(text.removesuffix(".") for text in said)
    return Edit("multi_turn", source, turns[-1].target, together, rule, turns)


def _order(rng: Generator, state: _State, index: int) -> tuple[_State, str] | None:
    """A recolouring of an object that has not changed yet."""
    made = change_recolour(rng, state.scene, index, "train")
    return made and (_State(made.target, {**state.changes, index: made.rule}), made.text)


def _again(rng: Generator, state: _State, source: Scene, index: int) -> tuple[_State, str] | None:
    """Another colour for the object that was spoken of last, called "it"; its tuple is a training one."""
    obj = state.scene.objects[index]
    taken = {o.kind for o in state.scene.objects} | {source.objects[index].kind}
    colors = tuple(
        c
        for c in palette.COLORS
        if (obj.shape, c) not in taken and split_of((obj.shape, c, obj.size, obj.position)) == "train"
    )
    if not colors:
        return None
    color = pick(rng, colors)
    scene = with_object(state.scene, index, recolored(rng, obj, color))
    rule = EditRequirements("recolour", words_of(source.objects[index]), color)
    return _State(scene, {**state.changes, index: rule}), pick(rng, _PRONOUN).format(color)


def _change(rng: Generator, scene: Scene, index: int) -> Change | None:
    return _CHANGES[pick(rng, tuple(_CHANGES))](rng, scene, index, "train")


def _both(source: Scene, first: Change, second: Change, indices: tuple[int, int]) -> Scene:
    """Both changes: each object of the source as the change that is about it left it."""
    changed = {
        index: change.target.objects[index] if change.rule.kind != "remove" else None
        for index, change in zip(indices, (first, second), strict=True)
    }
    kept = (changed.get(i, o) for i, o in enumerate(source.objects))
    return replace(source, objects=tuple(o for o in kept if o is not None))


def _clash(first: Change, second: Change, source: Scene, indices: tuple[int, int]) -> bool:
    """Whether two objects would end up with one shape and colour, or both would be removed."""
    kinds = [o.kind for o in _both(source, first, second, indices).objects]
    return len(set(kinds)) < len(kinds) or first.rule.kind == second.rule.kind == "remove"
