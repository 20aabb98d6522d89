"""Sentences about scenes of objects: captions, and the phrases instructions are made of.

A small grammar with paraphrases; the plain world's part has fewer than 300 words. A caption comes with the
requirements it states, so that what was said and what is checked cannot drift apart. Left and right are the
viewer's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.world.choose import pick
from og2.world.requirements import ObjectRequirement, Requirements
from og2.world.scenes import Object, Scene, relation

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
SHAPE_PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
    "crescent": "crescents",
    "hexagon": "hexagons",
    "object": "objects",
}
FILL_WORDS: dict[str, str] = {
    "flat": "plain",
    "stripes": "striped",
    "dots": "dotted",
    "checker": "checkered",
}
_BACKDROPS: dict[str, tuple[str, ...]] = {
    "plain": ("on a {0} background", "with a {0} background"),
    "gradient": ("on a background that fades from {0}", "with a gradient from {0} behind"),
    "landscape": ("in a {0} landscape", "in front of a {0} landscape", "with a {0} landscape behind"),
    "tiles": ("in a room with a {0} tiled floor", "on a {0} tiled floor"),
    "noise": ("on rough {0} paper", "on {0} paper"),
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
# The backdrop as a noun.
EMPTY_PHRASES: dict[str, str] = {
    "plain": "a {0} background",
    "gradient": "a gradient from {0}",
    "landscape": "a {0} landscape",
    "tiles": "a {0} tiled floor",
    "noise": "rough {0} paper",
}
_RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below", "under"),
    "larger than": ("larger than", "bigger than"),
    "smaller than": ("smaller than",),
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
MAX_RELATED = 3
"""Of more objects than these, no relation is said: the sentence could not name them all."""
_CAPITAL_SHARE = 0.12
_PERIOD_SHARE = 0.12
_SIZE_SHARE = 0.45
_PLACE_SHARE = 0.5
_BACKGROUND_SHARE = 0.25
_FILL_SHARE = 0.6


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
    elif rng.random() < 0.5 and len(scene.objects) <= MAX_RELATED and relation(*scene.objects[:2]):
        body, stated = _describe_relation(scene, rng)
    else:
        body, stated = _describe_list(scene, rng, full)
    background = scene.background if rng.random() < _BACKGROUND_SHARE else None
    kind = scene.backdrop_kind if background and scene.backdrop else None
    if background:
        body = f"{body} {backdrop_phrase(scene.backdrop_kind, background, rng)}"
    text = pick(rng, _OPENINGS).format(body)
    if text.startswith("there is") and _is_plural(scene):
        text = "there are" + text[len("there is") :]
    return Caption(finish(text, rng), replace(stated, background=background, backdrop=kind))


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
    return phrase_of(ObjectRequirement(obj.shape, obj.color, obj.size if size else None), article)


def phrase_of(wanted: ObjectRequirement, article: str = "a") -> str:
    """ "a small striped red circle", "an orange object", "the star": the words that are set but the place."""
    fill = FILL_WORDS[wanted.fill] if wanted.fill else None
    words = " ".join(w for w in (wanted.size, fill, wanted.color, wanted.shape or "object") if w)
    if article == "a":
        article = "an" if words[0] in "aeiou" else "a"
    return f"{article} {words}" if article else words


def backdrop_phrase(kind: str, name: str, rng: Generator) -> str:
    """ "on a grey background", "in a meadow landscape", ..."""
    return pick(rng, _BACKDROPS[kind]).format(name)


def count_phrase(number: int, wanted: ObjectRequirement) -> str:
    """ "three red circles", "one star", "two objects"."""
    if number == 1:
        return phrase_of(wanted)
    words = phrase_of(wanted, article="")
    noun = wanted.shape or "object"
    return f"{NUMBER_WORDS[number]} {words.removesuffix(noun)}{SHAPE_PLURALS[noun]}"


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
    if scene.backdrop is not None:
        text = f"nothing but {EMPTY_PHRASES[scene.backdrop.kind].format(scene.background)}"
        rule = Requirements(background=scene.background, backdrop=scene.backdrop.kind)
        return Caption(finish(text, rng), rule)
    text = pick(rng, ("an empty {0} background", "a plain {0} background")).format(scene.background)
    return Caption(finish(text, rng), Requirements((), (), scene.background))


def _describe_twins(scene: Scene) -> tuple[str, Requirements]:
    first = scene.objects[0]
    body = f"{NUMBER_WORDS[len(scene.objects)]} {first.color} {SHAPE_PLURALS[first.shape]}"
    return body, requirements(scene)


def _describe_list(scene: Scene, rng: Generator, full: bool) -> tuple[str, Requirements]:
    sizes = full or rng.random() < _SIZE_SHARE
    places = full or rng.random() < (_PLACE_SHARE if len(scene.objects) == 1 else 0.4)
    fills = any(o.fill for o in scene.objects) and (full or rng.random() < _FILL_SHARE)
    stated = tuple(_stated(o, sizes, places, fills) for o in scene.objects)
    parts = [phrase_of(o) + (f" {place_phrase(o.position, rng)}" if o.position else "") for o in stated]
    return join(parts), Requirements(stated)


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


def _stated(obj: Object, size: bool, place: bool, fill: bool = False) -> ObjectRequirement:
    return ObjectRequirement(
        obj.shape,
        obj.color,
        obj.size if size else None,
        obj.position if place else None,
        obj.fill.kind if fill and obj.fill else None,
    )


def _is_plural(scene: Scene) -> bool:
    return len(scene.objects) > 1 and len({o.kind for o in scene.objects}) == 1
