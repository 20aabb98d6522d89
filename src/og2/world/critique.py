"""What is wrong with a picture against a prompt, as typed data and in words; and scenes with known faults.

Faults are found between words that are seen and words that are required, so the same function serves scenes
(ground truth) and a detector's reading. A reflection is three lines, "Reflection:", "Action:" (continue or
stop) and "Edit:", as the reflection data of OmniGen2 (arXiv 2506.18871, section 4.3) is used here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.backdrop_words import same_name
from og2.world.choose import pick
from og2.world.detect import UNIT_AREA, Detected
from og2.world.edit_words import words_of
from og2.world.edits_objects import has_room, recolored, reshaped, with_object
from og2.world.language import (
    EMPTY_PHRASES,
    FILL_WORDS,
    MAX_RELATED,
    NUMBER_WORDS,
    count_phrase,
    phrase_of,
    relation_phrase,
)
from og2.world.object_atoms import relation_holds
from og2.world.questions import PLAIN_PLACES
from og2.world.requirements import SIZE_RELATIONS, Defect, ObjectRequirement, Requirements
from og2.world.scenes import Object, Scene, World, box_of, place_object, world_named
from og2.world.split import split_of
from og2.world.words import Word

_WORDS = ("shape", "color", "size", "fill", "position")
FAULTS = ("missing", "extra", "color", "shape", "moved")
_BANS = ("color", "shape")  # words that a thing can be given another of
_BAN = "not "
_TRIES = 40
_OFF = (1 / 64, 0.04)  # how far a measured place may be off, of the side, and a measured radius, of itself
_HEADERS = re.compile(r"\AReflection: (.+)\nAction: (continue|stop)\nEdit: ?(.*)\Z")
_GOOD = ("the picture shows what was asked for", "everything is as asked", "nothing is wrong")


@dataclass(frozen=True)
class Seen:
    """What a picture shows in words: every object with all its words, the backdrop, the words on signs.

    holds: whether a relation holds between the objects of two indices, by the scorer's rule.
    """

    objects: tuple[ObjectRequirement, ...]
    holds: Callable[[int, str, int], bool]
    background: str | None = None
    backdrop: str | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reflection:
    """Thoughts about a picture, whether to go on, and the edit that would mend it ("" when stopping)."""

    reflection: str
    action: str
    edit: str


def seen_in(scene: Scene) -> Seen:
    """What a scene shows."""

    def holds(a: int, name: str, b: int) -> bool:
        return _holds(scene.objects[a], name, scene.objects[b])

    objects = tuple(replace(words_of(o), fill=o.fill_name) for o in scene.objects)
    texts = tuple(p.text for p in scene.plates)
    return Seen(objects, holds, scene.background, scene.backdrop_kind, texts)


def find_defects(seen: Seen, wanted: Requirements) -> tuple[Defect, ...]:
    """Everything that is wrong with what is seen; objects are paired with rules, the best fitting first."""
    pairs = _pair(seen.objects, wanted.objects)
    found = [*_wrong_objects(seen, wanted, pairs), *_surplus(seen, wanted, pairs)]
    for a, name, b in wanted.relations:
        if a in pairs and b in pairs and not seen.holds(pairs[a], name, pairs[b]):
            one, other = (phrase_of(wanted.objects[i], article="the") for i in (a, b))
            found.append(Defect("relation", one, f"{name} {other}"))
    found += _wrong_backdrop(seen, wanted)
    for plate in wanted.plates:
        if plate.text and plate.text not in seen.texts:
            found.append(Defect("text", "sign", plate.text, seen.texts[0] if seen.texts else "nothing"))
    return tuple(found)


def _holds(one: Object, name: str, other: Object) -> bool:
    return bool(relation_holds(_measured(one), name, _measured(other)))


def _measured(obj: Object) -> Detected:
    """The object as the scorer would see it at best, for what is asked of pairs."""
    box = box_of(obj)
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    area = UNIT_AREA[obj.shape] * obj.radius**2
    return Detected({"shape": Word(obj.shape, 1.0)}, box, area, np.ones((1, 1), bool), middle, obj.lab)


def _wrong_backdrop(seen: Seen, wanted: Requirements) -> list[Defect]:
    """Another name, or where a family is asked for another family, of what is behind."""
    is_named = wanted.background is None or same_name(seen.background, wanted.background)
    if is_named and wanted.backdrop in (None, seen.backdrop):
        return []
    if wanted.backdrop is None:
        return [Defect("background", "background", wanted.background or "", seen.background or "unclear")]
    asked, shown = (_backdrop_words(b.backdrop, b.background) for b in (wanted, seen))
    return [Defect("background", "background", asked, shown)]


def _backdrop_words(kind: str | None, name: str | None) -> str:
    """ "a grey tiled floor", or what of it is known."""
    return EMPTY_PHRASES[kind].format(name) if kind and name else kind or name or "unclear"


def _wrong_objects(seen: Seen, wanted: Requirements, pairs: dict[int, int]) -> list[Defect]:
    """A wrong number of equal things, or else things that are missing; things with wrong words."""
    found: list[Defect] = []
    rules = wanted.objects
    number = len(seen.objects) - len(_strangers(seen, wanted, pairs))
    miscounted = _is_count(wanted) and number != len(rules)
    if miscounted:
        counts = [NUMBER_WORDS[min(n, len(NUMBER_WORDS) - 1)] for n in (len(rules), number)]
        found.append(Defect("count", count_phrase(2, rules[0]).removeprefix("two "), *counts))
    for i, rule in enumerate(rules):
        if i not in pairs and not miscounted:
            found.append(Defect("missing", phrase_of(rule, article="")))
        elif i in pairs:
            obj = seen.objects[pairs[i]]
            for word in _wrong_words(obj, rule):
                found.append(Defect(word, _named(obj), getattr(rule, word), getattr(obj, word) or "unclear"))
    return found


def _surplus(seen: Seen, wanted: Requirements, pairs: dict[int, int]) -> list[Defect]:
    """Things that nothing asked for, and things that must not be there as they are.

    A banned thing that the number needs has to become another one; one too many has to go.
    """
    found = [Defect("extra", _named(obj)) for obj in _strangers(seen, wanted, pairs)]
    rules = {j: wanted.objects[i] for i, j in pairs.items()}
    for j, obj in enumerate(seen.objects):
        ban = next((ban for ban in wanted.absent if not _wrong_words(obj, ban)), None)
        extra = Defect("extra", _named(obj))
        if ban is not None and j in rules and len(seen.objects) <= len(wanted.objects):
            found.append(_banned(obj, rules[j], ban, wanted) or extra)
        elif ban is not None and extra not in found:
            found.append(extra)
    return found


def _banned(
    obj: ObjectRequirement, rule: ObjectRequirement, ban: ObjectRequirement, wanted: Requirements
) -> Defect | None:
    """The word that has to change: one that is banned and that nothing asks for; None where there is none."""
    for word in _BANS:
        if getattr(ban, word) and getattr(rule, word) is None:
            words = sorted({getattr(other, word) for other in wanted.absent} - {None})
            return Defect(word, _named(obj), _BAN + " or ".join(words), getattr(obj, word))
    return None


def _strangers(seen: Seen, wanted: Requirements, pairs: dict[int, int]) -> list[ObjectRequirement]:
    """Things without a rule; where equal things are counted, one more of them is no stranger."""
    left = [obj for j, obj in enumerate(seen.objects) if j not in pairs.values()]
    return [o for o in left if not _is_count(wanted) or _wrong_words(o, wanted.objects[0])]


def _is_count(wanted: Requirements) -> bool:
    """Whether the requirement is a number of equal things."""
    return len(set(wanted.objects)) == 1 < len(wanted.objects)


def _named(obj: ObjectRequirement) -> str:
    return phrase_of(ObjectRequirement(obj.shape, obj.color), article="")


def spoil(rng: Generator, scene: Scene, fault: str, world: str = "full") -> Scene | None:
    """The scene with one fault of FAULTS, or None where it allows none.

    What is new has a tuple of training. Where relations may be asked for, a thing is moved to where the
    scorer is sure of each of them.   Raises: RequestError for another fault.
    """
    if fault not in FAULTS:
        raise RequestError(f"fault={fault!r} is unknown; use one of {', '.join(FAULTS)}")
    level, count = world_named(world), len(scene.objects)
    if fault == "extra":
        return place_object(rng, scene, count + 2, world=level)
    if count == 0:
        return None
    index = int(rng.integers(count))
    obj = scene.objects[index]
    others = replace(scene, objects=tuple(o for o in scene.objects if o is not obj))
    if fault == "missing":
        return others
    if fault == "color":
        keys = [(obj.shape, c, obj.size, obj.position) for c in palette.COLORS if c != obj.color]
        colors = tuple(key[1] for key in keys if split_of(key) == "train")
        return with_object(scene, index, recolored(rng, obj, pick(rng, colors))) if colors else None
    if fault == "shape":
        keys = [(s, obj.color, obj.size, obj.position) for s in level.shapes if s != obj.shape]
        shapes = tuple(key[0] for key in keys if split_of(key) == "train")
        new = reshaped(rng, obj, pick(rng, shapes)) if shapes else obj
        return with_object(scene, index, new) if shapes and has_room(new, others, level.min_gap) else None
    moved = _moved(rng, obj, others, level)
    return moved and with_object(scene, index, moved)


def _moved(rng: Generator, obj: Object, others: Scene, world: World) -> Object | None:
    """An object of the same shape and colour elsewhere, clear of every relation that may be asked for."""
    count = len(others.objects) + 1
    for _ in range(_TRIES):
        placed = place_object(rng, others, count, kind=obj.kind, world=world)
        if placed is None:
            return None
        new = placed.objects[-1]
        if count > MAX_RELATED or all(_is_clear(new, other) for other in others.objects):
            return new
    return None


def _is_clear(one: Object, other: Object) -> bool:
    """Whether the scorer answers every relation alike where its measures are a little off."""
    place, share = _OFF
    near = [replace(one, x=one.x + dx, y=one.y + dy) for dx in (-place, place) for dy in (-place, place)]
    near += [replace(one, radius=one.radius * factor) for factor in (1.0 - share, 1.0 + share)]
    names = (*palette.RELATIONS, *SIZE_RELATIONS)
    return len({tuple(_holds(o, name, other) for name in names) for o in (one, *near)}) == 1


def say_defect(defect: Defect) -> str:
    """One sentence without a full stop: "the blue star should be red"."""
    kind, subject, wanted = defect.kind, defect.subject, defect.wanted
    if kind in _BANS and wanted.startswith(_BAN):
        banned = wanted.removeprefix(_BAN)
        return f"the {subject} should not be {banned if kind == 'color' else _a(banned)}"
    place, now = PLAIN_PLACES.get(wanted), PLAIN_PLACES.get(defect.seen)
    said = {
        "missing": f"the {subject} is missing",
        "extra": f"there is {_a(subject)} too many",
        "relation": f"{subject} is not {wanted}",
        "count": f"there should be {wanted} {subject}, not {defect.seen}",
        "text": f'the sign says "{defect.seen}" instead of "{wanted}"',
        "background": f"the background should be {wanted}, not {defect.seen}",
        "shape": f"the {subject} should be {_a(wanted)}",
        "color": f"the {subject} should be {wanted}",
        "fill": f"the {subject} should be {FILL_WORDS.get(wanted)}, not {FILL_WORDS.get(defect.seen)}",
        "size": f"the {subject} should be {wanted}, not {defect.seen}",
        "position": f"the {subject} should be {place}, not {now}",
    }
    return said[kind]


def reflect(rng: Generator, seen: Seen, wanted: Requirements) -> Reflection:
    """The reflection a perfect critic would give: all faults in words, and an edit that mends the first."""
    defects = find_defects(seen, wanted)
    if not defects:
        return Reflection(pick(rng, _GOOD), "stop", "")
    return Reflection("; ".join(map(say_defect, defects)), "continue", mending_edit(rng, defects[0]))


def mending_edit(rng: Generator, defect: Defect) -> str:
    """An instruction that would mend a fault."""
    kind, subject, wanted = defect.kind, defect.subject, defect.wanted
    if kind in _BANS and wanted.startswith(_BAN):
        every = tuple(palette.COLORS) if kind == "color" else palette.SHAPES
        wanted = pick(rng, tuple(w for w in every if w not in wanted.removeprefix(_BAN).split(" or ")))
    if kind == "relation":
        name = next(n for n in (*palette.RELATIONS, *SIZE_RELATIONS) if wanted.startswith(n))
        verb = "make" if name in SIZE_RELATIONS else "move"
        return f"{verb} {subject} {relation_phrase(name, rng)}{wanted.removeprefix(name)}"
    orders = {
        "missing": f"add {_a(subject)}",
        "extra": f"remove the {subject}",
        "count": f"make it {wanted} {subject}",
        "color": f"make the {subject} {wanted}",
        "shape": f"turn the {subject} into {_a(wanted)}",
        "size": f"make the {subject} {wanted}",
        "fill": f"make the {subject} {FILL_WORDS.get(wanted)}",
        "position": f"move the {subject} so that it is {PLAIN_PLACES.get(wanted)}",
        "background": f"change the background to {wanted}",
        "text": f'make the sign say "{wanted}"',
    }
    return orders[kind]


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in ('a', 'e', 'i', 'o', 'u') else 'a'} {noun}"


def format_reflection(reflection: Reflection) -> str:
    """The three lines."""
    return (
        f"Reflection: {reflection.reflection}\nAction: {reflection.action}\nEdit: {reflection.edit}".rstrip()
    )


def parse_reflection(text: str) -> Reflection:
    """The inverse of `format_reflection`.

    Raises: RequestError unless the text is exactly the three lines, with an edit when and only when the
    action is "continue".
    """
    found = _HEADERS.match(text.strip() if not text.strip().endswith("Edit:") else text.strip() + " ")
    if found is None or bool(found[3].strip()) != (found[2] == "continue"):
        raise RequestError(
            f"not a reflection: {text[:80]!r}; use the lines Reflection:, Action: continue|stop, Edit:"
        )
    return Reflection(found[1], found[2], found[3].strip())


def _pair(seen: tuple[ObjectRequirement, ...], wanted: tuple[ObjectRequirement, ...]) -> dict[int, int]:
    """Index of the seen object for each required one that has any; cheapest pairs first."""
    costs = np.array([[_cost(obj, rule) for obj in seen] for rule in wanted], dtype=float)
    pairs: dict[int, int] = {}
    for _ in range(min(len(seen), len(wanted))):
        i, j = np.unravel_index(int(np.argmin(costs)), costs.shape)
        pairs[int(i)] = int(j)
        costs[i, :], costs[:, j] = np.inf, np.inf
    return pairs


def _cost(seen: ObjectRequirement, rule: ObjectRequirement) -> float:
    weights = {"shape": 1.0, "color": 1.01, "size": 0.4, "fill": 0.4, "position": 0.4}
    return sum(weights[word] for word in _wrong_words(seen, rule))


def _wrong_words(seen: ObjectRequirement, rule: ObjectRequirement) -> list[str]:
    """Words that are required and not what is seen; for an absence: empty when the object is that thing."""
    return [w for w in _WORDS if getattr(rule, w) is not None and getattr(rule, w) != getattr(seen, w)]
