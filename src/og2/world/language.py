"""Sentences about scenes: captions, the phrases instructions are made of, and small-talk forms.

A small grammar with paraphrases and fewer than 300 words. A caption comes with the requirements it states,
so that what was said and what is checked cannot drift apart. Left and right are the viewer's.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from og2.world.requirements import ObjectRequirement, Requirements
from og2.world.scenes import Object, Scene, pick, relation

NUMBER_WORDS = ("zero", "one", "two", "three", "four")
SHAPE_PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
}
_PLACES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "middle": ("in the middle", "in the center"),
    "top left": ("at the top left", "in the top left corner"),
    "top right": ("at the top right", "in the top right corner"),
    "bottom left": ("at the bottom left", "in the bottom left corner"),
    "bottom right": ("at the bottom right", "in the bottom right corner"),
}
_RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below", "under"),
}
_OPENINGS = (
    "{0}",
    "{0}",
    "{0}",
    "{0}",
    "there is {0}",
    "a picture of {0}",
    "a picture with {0}",
    "an image of {0}",
    "a drawing of {0}",
    "draw {0}",
)
_CAPITAL_SHARE = 0.12
_PERIOD_SHARE = 0.12
_SIZE_SHARE = 0.45
_PLACE_SHARE = 0.5
_BACKGROUND_SHARE = 0.25


@dataclass(frozen=True)
class Caption:
    """A sentence and what it states."""

    text: str
    requirements: Requirements


def describe(scene: Scene, rng: Generator, full: bool = False) -> Caption:
    """A caption of the scene with its requirements.

    Shape and colour of every object are always said; size, place or relation, and background sometimes, or,
    with `full`, always size and place.
    """
    if len(scene.objects) == 0:
        return _describe_empty(scene, rng)
    if len(scene.objects) > 1 and len({o.kind for o in scene.objects}) == 1:
        body, stated = _describe_twins(scene)
    elif len(scene.objects) == 1 or full:
        body, stated = _describe_list(scene, rng, full)
    elif rng.random() < 0.5 and relation(scene.objects[0], scene.objects[1]):
        body, stated = _describe_relation(scene, rng)
    else:
        body, stated = _describe_list(scene, rng, full)
    background = scene.background if rng.random() < _BACKGROUND_SHARE else None
    if background:
        body = f"{body} {pick(rng, ('on', 'with'))} a {background} background"
    text = pick(rng, _OPENINGS).format(body)
    if text.startswith("there is") and _is_plural(scene):
        text = "there are" + text[len("there is") :]
    return Caption(finish(text, rng), Requirements(stated.objects, stated.relations, background))


def caption(scene: Scene, rng: Generator, full: bool = False) -> str:
    """A caption of the scene; `describe` also gives its requirements."""
    return describe(scene, rng, full).text


def requirements(
    scene: Scene, sizes: bool = False, places: bool = False, background: bool = False
) -> Requirements:
    """What a scene requires: shapes, colours and number; on request sizes, places and background."""
    return Requirements(
        tuple(_stated(o, sizes, places) for o in scene.objects), (), scene.background if background else None
    )


def noun_phrase(obj: Object, size: bool = False, article: str = "a") -> str:
    """ "a red circle", "an orange star", "the small red circle"."""
    words = f"{obj.size} {obj.color} {obj.shape}" if size else f"{obj.color} {obj.shape}"
    if article == "a":
        article = "an" if words[0] in "aeiou" else "a"
    return f"{article} {words}"


def place_phrase(position: str, rng: Generator) -> str:
    """ "on the left", "in the top left corner", ..."""
    return pick(rng, _PLACES[position])


def relation_phrase(name: str, rng: Generator) -> str:
    """ "to the left of", "above", ..."""
    return pick(rng, _RELATION_PHRASES[name])


def finish(text: str, rng: Generator) -> str:
    """The sentence, now and then with a capital letter or a full stop."""
    if rng.random() < _CAPITAL_SHARE:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < _PERIOD_SHARE else text


def _describe_empty(scene: Scene, rng: Generator) -> Caption:
    text = pick(rng, ("an empty {0} background", "a plain {0} background")).format(scene.background)
    return Caption(finish(text, rng), Requirements((), (), scene.background))


def _describe_twins(scene: Scene) -> tuple[str, Requirements]:
    first = scene.objects[0]
    body = f"{NUMBER_WORDS[len(scene.objects)]} {first.color} {SHAPE_PLURALS[first.shape]}"
    return body, requirements(scene)


def _describe_list(scene: Scene, rng: Generator, full: bool) -> tuple[str, Requirements]:
    sizes = full or rng.random() < _SIZE_SHARE
    places = full or rng.random() < (_PLACE_SHARE if len(scene.objects) == 1 else 0.4)
    parts = [
        noun_phrase(o, sizes) + (f" {place_phrase(o.position, rng)}" if places else "") for o in scene.objects
    ]
    stated = Requirements(tuple(_stated(o, sizes, places) for o in scene.objects))
    return join(parts), stated


def _describe_relation(scene: Scene, rng: Generator) -> tuple[str, Requirements]:
    first, second = scene.objects[0], scene.objects[1]
    name = relation(first, second)
    assert name is not None
    sizes = rng.random() < _SIZE_SHARE / 2
    body = f"{noun_phrase(first, sizes)} {relation_phrase(name, rng)} {noun_phrase(second, sizes)}"
    if len(scene.objects) > 2:
        body = f"{body} and {noun_phrase(scene.objects[2], sizes)}"
    return body, Requirements(tuple(_stated(o, sizes, False) for o in scene.objects), ((0, name, 1),))


def join(parts: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _stated(obj: Object, size: bool, place: bool) -> ObjectRequirement:
    return ObjectRequirement(
        obj.shape, obj.color, obj.size if size else None, obj.position if place else None
    )


def _is_plural(scene: Scene) -> bool:
    return len(scene.objects) > 1 and len({o.kind for o in scene.objects}) == 1
