"""Edits of one object: another colour, shape, fill or size, one more, one less. All else stays as it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.world import palette
from og2.world.choose import pick
from og2.world.edit_words import Edit, reference, say, words_of
from og2.world.fills import sample_fill, second_tone
from og2.world.language import FILL_WORDS, noun_phrase, phrase_of, place_phrase, relation_phrase
from og2.world.requirements import EditRequirements, ObjectRequirement
from og2.world.scenes import (
    Object,
    Scene,
    World,
    box_of,
    fits,
    place_object,
    relation,
    sample_color,
    sample_scene,
)
from og2.world.shapes import MAX_ROTATION, outline_box
from og2.world.split import split_of

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
_REPLACE = (
    "replace {0} with {1}",
    "swap {0} for {1}",
    "turn {0} into {1}",
    "put {1} where {0} is",
)
_MATERIAL = (
    "make {0} {1}",
    "give {0} a {1} pattern",
    "change the pattern of {0} to {1}",
    "paint {0} so that it is {1}",
)
_FLATTEN = ("make {0} plain", "remove the pattern from {0}", "paint {0} in one plain color")
_RESIZE = {
    2.0: ("make {0} twice as large", "double the area of {0}", "enlarge {0} to twice its area"),
    0.5: ("make {0} half as large", "halve the area of {0}", "shrink {0} to half its area"),
}
MAX_SOURCE_OBJECTS = {"plain": 3, "full": 4}


@dataclass(frozen=True)
class Change:
    """A change of one object: the scene after it, the words for it, and the rule."""

    target: Scene
    text: str
    rule: EditRequirements


def change_recolour(rng: Generator, scene: Scene, index: int, split: str) -> Change | None:
    """Another colour for one object."""
    old = scene.objects[index]
    colors = tuple(
        c
        for c in palette.COLORS
        if c != old.color
        and (old.shape, c) not in {o.kind for o in scene.objects}
        and split_of((old.shape, c, old.size, old.position)) == split
    )
    if not colors:
        return None
    color = pick(rng, colors)
    new = recolored(rng, old, color)
    text = pick(rng, _RECOLOUR).format(reference(old, scene, rng), color)
    return Change(with_object(scene, index, new), text, EditRequirements("recolour", words_of(old), color))


def change_remove(rng: Generator, scene: Scene, index: int, _split: str) -> Change | None:
    """One object less."""
    old = scene.objects[index]
    target = replace(scene, objects=tuple(o for o in scene.objects if o is not old))
    text = pick(rng, _REMOVE).format(reference(old, scene, rng))
    return Change(target, text, EditRequirements("remove", words_of(old)))


def change_replace(rng: Generator, scene: Scene, index: int, split: str) -> Change | None:
    """Another shape around the same middle, in the same colour or, half the time, in another one."""
    old = scene.objects[index]
    taken = {o.kind for o in scene.objects}
    color = old.color if rng.random() < 0.5 else pick(rng, tuple(c for c in palette.COLORS if c != old.color))
    shape = pick(rng, tuple(s for s in palette.ALL_SHAPES if s != old.shape and (s, color) not in taken))
    new = reshaped(rng, old, shape)
    if color != old.color:
        new = recolored(rng, new, color)
    others = replace(scene, objects=tuple(o for o in scene.objects if o is not old))
    if split_of(new.key) != split or not has_room(new, others):
        return None
    said = ObjectRequirement(shape, color if color != old.color or rng.random() < 0.5 else None)
    text = pick(rng, _REPLACE).format(reference(old, scene, rng), phrase_of(said))
    rule = EditRequirements("replace", words_of(old), said.color, shape=shape)
    return Change(with_object(scene, index, new), text, rule)


def change_material(rng: Generator, scene: Scene, index: int, _split: str) -> Change | None:
    """Another fill in the same colour."""
    old = scene.objects[index]
    fill = pick(rng, tuple(f for f in palette.FILLS if f != old.fill_name))
    new = replace(old, fill=sample_fill(rng, fill, old.color, old.lab))
    forms = _FLATTEN if fill == "flat" else _MATERIAL
    text = pick(rng, forms).format(reference(old, scene, rng), FILL_WORDS[fill])
    return Change(
        with_object(scene, index, new), text, EditRequirements("material", words_of(old), fill=fill)
    )


def change_resize(rng: Generator, scene: Scene, index: int, split: str) -> Change | None:
    """Twice or half the area around the same middle."""
    old = scene.objects[index]
    ratio = pick_ratio(rng)
    radius = old.radius * math.sqrt(ratio)
    size = next((name for name, (low, high) in palette.SIZES.items() if low <= radius <= high), None)
    if size is None:
        return None
    new = _around(replace(old, radius=radius, size=size), *_middle(old))
    others = replace(scene, objects=tuple(o for o in scene.objects if o is not old))
    if split_of(new.key) != split or not has_room(new, others):
        return None
    text = pick(rng, _RESIZE[ratio]).format(reference(old, scene, rng))
    rule = EditRequirements("resize", words_of(old), factor=math.sqrt(ratio))
    return Change(with_object(scene, index, new), text, rule)


def make_recolour(rng: Generator, split: str, world: World) -> Edit | None:
    """A whole edit of the kind "recolour"."""
    return _make_change(rng, "recolour", change_recolour, split, world)


def make_replace(rng: Generator, split: str, world: World) -> Edit | None:
    """A whole edit of the kind "replace"."""
    return _make_change(rng, "replace", change_replace, split, world)


def make_resize(rng: Generator, split: str, world: World) -> Edit | None:
    """A whole edit of the kind "resize"."""
    return _make_change(rng, "resize", change_resize, split, world)


def make_remove(rng: Generator, split: str, world: World) -> Edit | None:
    """A whole edit of the kind "remove"."""
    return _make_of_first(rng, "remove", change_remove, split, world)


def make_material(rng: Generator, split: str, world: World) -> Edit | None:
    """A whole edit of the kind "material"."""
    return _make_of_first(rng, "material", change_material, split, world)


def make_add(rng: Generator, split: str, world: World) -> Edit | None:
    """A whole edit of the kind "add": placed by a word, or in relation to an object of the source."""
    source = distinct_scene(rng, world, limit=MAX_SOURCE_OBJECTS[world.name] - 1)
    target = place_object(rng, source, len(source.objects) + 1, split=split, world=world)
    if target is None:
        return None
    new, anchor = target.objects[-1], source.objects[int(rng.integers(len(source.objects)))]
    with_size = rng.random() < 0.3
    phrase = noun_phrase(new, with_size)
    name = relation(new, anchor)
    said = ObjectRequirement(new.shape, new.color, new.size if with_size else None)
    if new.fill:
        said = replace(said, fill=new.fill.kind)
        phrase = phrase_of(said)
    if name is not None and rng.random() < 0.3:
        phrase = f"{phrase} {relation_phrase(name, rng)} {reference(anchor, source, rng)}"
        rule = EditRequirements("add", said, None, name, words_of(anchor))
    else:
        phrase = f"{phrase} {place_phrase(new.position, rng)}"
        rule = EditRequirements("add", replace(said, position=new.position))
    return Edit("add", source, target, say(pick(rng, _ADD).format(phrase), rng), rule)


def distinct_scene(rng: Generator, world: World, split: str = "train", limit: int | None = None) -> Scene:
    """A scene whose objects all differ in shape or colour."""
    most = MAX_SOURCE_OBJECTS[world.name] if limit is None else limit
    while True:
        scene = sample_scene(rng, 1 + int(rng.integers(most)), split, world.name)
        if len({o.kind for o in scene.objects}) == len(scene.objects):
            return scene


def recolored(rng: Generator, obj: Object, color: str) -> Object:
    """The object in another colour, its pattern in a second tone of that colour."""
    lab = sample_color(rng, color)
    fill = replace(obj.fill, lab=second_tone(rng, color, lab)) if obj.fill else None
    return replace(obj, color=color, lab=lab, fill=fill)


def reshaped(rng: Generator, obj: Object, shape: str) -> Object:
    """Another shape around the same middle, at a random angle."""
    rotation = float(rng.uniform(-1, 1)) * MAX_ROTATION[shape]
    return _around(replace(obj, shape=shape, rotation=rotation), *_middle(obj))


def has_room(obj: Object, others: Scene, gap: float = palette.MIN_GAP / 2) -> bool:
    """Whether the object keeps off the rim, and that gap from everything in the scene."""
    box = box_of(obj)
    inside = min(box[:2]) >= palette.EDGE_MARGIN and max(box[2:]) <= 1.0 - palette.EDGE_MARGIN
    return inside and fits(box, others, gap)


def with_object(scene: Scene, index: int, new: Object) -> Scene:
    """The scene with one object exchanged."""
    return replace(scene, objects=tuple(new if i == index else o for i, o in enumerate(scene.objects)))


def pick_ratio(rng: Generator) -> float:
    """Twice or half the area."""
    return 2.0 if rng.random() < 0.5 else 0.5


ChangeMaker = Callable[[Generator, Scene, int, str], Change | None]


def _make_change(rng: Generator, kind: str, change: ChangeMaker, split: str, world: World) -> Edit | None:
    """An edit whose new tuple is of the split; the source holds training tuples only."""
    source = distinct_scene(rng, world)
    made = change(rng, source, int(rng.integers(len(source.objects))), split)
    return made and Edit(kind, source, made.target, say(made.text, rng), made.rule)


def _make_of_first(rng: Generator, kind: str, change: ChangeMaker, split: str, world: World) -> Edit | None:
    """An edit of an object whose tuple stays: the one of the split, anywhere in the painting order."""
    source = distinct_scene(rng, world, split)
    old = source.objects[0]
    order = rng.permutation(len(source.objects))
    source = replace(source, objects=tuple(source.objects[i] for i in order))
    made = change(rng, source, source.objects.index(old), split)
    return made and Edit(kind, source, made.target, say(made.text, rng), made.rule)


def _middle(obj: Object) -> tuple[float, float]:
    left, top, right, bottom = box_of(obj)
    return (left + right) / 2, (top + bottom) / 2


def _around(obj: Object, x: float, y: float) -> Object:
    """The object with the middle of its box there."""
    left, top, right, bottom = outline_box(obj.shape, obj.radius, obj.rotation)
    return replace(obj, x=x - (left + right) / 2, y=y - (top + bottom) / 2)
