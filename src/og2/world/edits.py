"""Edits: a scene, an instruction, and the scene that obeys it with everything else left exactly as it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.language import finish, noun_phrase, place_phrase, relation_phrase
from og2.world.requirements import EditRequirements, ObjectRequirement
from og2.world.scenes import (
    MAX_OBJECTS,
    Object,
    Scene,
    pick,
    place_object,
    relation,
    sample_color,
    sample_scene,
    split_of,
)

EDIT_KINDS = ("recolour", "add", "remove")
_RECOLOUR = (
    "make {0} {1}",
    "make {0} {1}",
    "change {0} to {1}",
    "change the color of {0} to {1}",
    "change the colour of {0} to {1}",
    "turn {0} {1}",
    "paint {0} {1}",
    "recolor {0} to {1}",
)
_REMOVE = (
    "remove {0}",
    "remove {0}",
    "delete {0}",
    "erase {0}",
    "take away {0}",
    "remove {0} from the picture",
)
_ADD = ("add {0}", "add {0}", "draw {0}", "put {0}", "place {0}", "insert {0}")
_POLITE_SHARE = 0.08
_TRIES = 60


@dataclass(frozen=True)
class Edit:
    """An instruction with the scene before and after it, and what the result is checked against."""

    kind: str
    source: Scene
    target: Scene
    instruction: str
    requirements: EditRequirements


def sample_edit(rng: Generator, kinds: tuple[str, ...] = EDIT_KINDS, split: str = "train") -> Edit:
    """A random edit of one of the kinds.

    The changed object keeps its numbers (a recolour only its colour differs), all else is identical. The
    phrase that names the object fits exactly one object of the source. split "train": every tuple before
    and after is a training tuple; "test": the changed object's tuple (recolour: the new one) is held out.
    Raises: RequestError for an unknown kind.
    """
    unknown = [k for k in kinds if k not in EDIT_KINDS]
    if unknown or not kinds:
        raise RequestError(f"edit kinds {kinds!r}: allowed are {', '.join(EDIT_KINDS)}")
    kind = pick(rng, kinds)
    make = {"recolour": _recolour, "add": _add, "remove": _remove}[kind]
    while True:
        edit = make(rng, split)
        if edit is not None:
            return edit


def reference(obj: Object, scene: Scene, rng: Generator) -> str:
    """A phrase that fits exactly this object of the scene: "the circle", "the red one", "the red circle"."""
    forms = [f"the {obj.color} {obj.shape}"] * 2
    if sum(o.shape == obj.shape for o in scene.objects) == 1:
        forms += [f"the {obj.shape}"] * 2
    if sum(o.color == obj.color for o in scene.objects) == 1:
        forms.append(f"the {obj.color} object")
    return pick(rng, tuple(forms))


def _recolour(rng: Generator, split: str) -> Edit | None:
    source = _distinct_scene(rng)
    index = int(rng.integers(len(source.objects)))
    old = source.objects[index]
    colors = tuple(
        c
        for c in palette.COLORS
        if c != old.color
        and (old.shape, c) not in {o.kind for o in source.objects}
        and split_of((old.shape, c, old.size, old.position)) == split
    )
    if not colors:
        return None
    color = pick(rng, colors)
    new = replace(old, color=color, lab=sample_color(rng, color))
    target = replace(source, objects=tuple(new if i == index else o for i, o in enumerate(source.objects)))
    text = pick(rng, _RECOLOUR).format(reference(old, source, rng), color)
    return Edit("recolour", source, target, _say(text, rng), EditRequirements("recolour", _words(old), color))


def _remove(rng: Generator, split: str) -> Edit | None:
    source = _distinct_scene(rng, split)
    old = source.objects[0]
    order = rng.permutation(len(source.objects))
    source = replace(source, objects=tuple(source.objects[i] for i in order))
    target = replace(source, objects=tuple(o for o in source.objects if o is not old))
    text = pick(rng, _REMOVE).format(reference(old, source, rng))
    return Edit("remove", source, target, _say(text, rng), EditRequirements("remove", _words(old)))


def _add(rng: Generator, split: str) -> Edit | None:
    source = _distinct_scene(rng, limit=MAX_OBJECTS - 1)
    target = place_object(rng, source, len(source.objects) + 1, split=split)
    if target is None:
        return None
    new, anchor = target.objects[-1], source.objects[int(rng.integers(len(source.objects)))]
    with_size = rng.random() < 0.3
    phrase = noun_phrase(new, with_size)
    name = relation(new, anchor)
    said = ObjectRequirement(new.shape, new.color, new.size if with_size else None)
    if name is not None and rng.random() < 0.3:
        phrase = f"{phrase} {relation_phrase(name, rng)} {reference(anchor, source, rng)}"
        rule = EditRequirements("add", said, None, name, _words(anchor))
    else:
        phrase = f"{phrase} {place_phrase(new.position, rng)}"
        rule = EditRequirements("add", replace(said, position=new.position))
    return Edit("add", source, target, _say(pick(rng, _ADD).format(phrase), rng), rule)


def _distinct_scene(rng: Generator, split: str = "train", limit: int = MAX_OBJECTS) -> Scene:
    while True:
        scene = sample_scene(rng, 1 + int(rng.integers(limit)), split)
        if len({o.kind for o in scene.objects}) == len(scene.objects):
            return scene


def _words(obj: Object) -> ObjectRequirement:
    return ObjectRequirement(obj.shape, obj.color, obj.size, obj.position)


def _say(text: str, rng: Generator) -> str:
    return finish(f"please {text}" if rng.random() < _POLITE_SHARE else text, rng)
