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
from og2.world.choose import pick
from og2.world.edit_words import words_of
from og2.world.edits_objects import recolored, with_object
from og2.world.language import FILL_WORDS, NUMBER_WORDS, count_phrase, phrase_of, relation_phrase
from og2.world.prompts import is_larger
from og2.world.questions import PLAIN_PLACES
from og2.world.requirements import SIZE_RELATIONS, Defect, ObjectRequirement, Requirements
from og2.world.scenes import Object, Scene, box_of, fits, place_object, relation, world_named

_WORDS = ("shape", "color", "size", "fill", "position")
FAULTS = ("missing", "extra", "color", "shape", "moved")
_HEADERS = re.compile(r"\AReflection: (.+)\nAction: (continue|stop)\nEdit: ?(.*)\Z")
_GOOD = ("the picture shows what was asked for", "everything is as asked", "nothing is wrong")


@dataclass(frozen=True)
class Seen:
    """What a picture shows in words: every object with all its words, the backdrop, the words on signs.

    holds: whether a relation holds between the objects of two indices.
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
        one, other = scene.objects[a], scene.objects[b]
        if name in SIZE_RELATIONS:
            return is_larger(one, other) if name == SIZE_RELATIONS[0] else is_larger(other, one)
        return relation(one, other) == name

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
    if wanted.background and seen.background != wanted.background:
        found.append(Defect("background", "background", wanted.background, seen.background or "unclear"))
    for plate in wanted.plates:
        if plate.text and plate.text not in seen.texts:
            found.append(Defect("text", "sign", plate.text, seen.texts[0] if seen.texts else "nothing"))
    return tuple(found)


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
    """Things that nothing asked for, and things that must not be there."""
    unasked = _strangers(seen, wanted, pairs)
    banned = [o for o in seen.objects if any(not _wrong_words(o, rule) for rule in wanted.absent)]
    return [Defect("extra", _named(o)) for o in [*unasked, *(o for o in banned if o not in unasked)]]


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
    """The scene with one fault of FAULTS, or None where it allows none. Raises: RequestError for another."""
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
        color = pick(rng, tuple(c for c in palette.COLORS if c != obj.color))
        return with_object(scene, index, recolored(rng, obj, color))
    if fault == "shape":
        new: Object = replace(obj, shape=pick(rng, tuple(s for s in level.shapes if s != obj.shape)))
        return with_object(scene, index, new) if fits(box_of(new), others, level.min_gap / 2) else None
    moved = place_object(rng, others, count, kind=obj.kind, world=level)
    return moved and with_object(scene, index, moved.objects[-1])


def say_defect(defect: Defect) -> str:
    """One sentence without a full stop: "the blue star should be red"."""
    kind, subject, wanted = defect.kind, defect.subject, defect.wanted
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
