"""Requirements on objects, one by one: which seen thing stands for which, and what of it is met.

Part of the scorer: things that were seen and requirements in, atoms out. Both kinds of verdicts on drawings,
of objects alone (`score`) and of all subjects (`score_context`), are made of these.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np

from og2.world.detect import Detected
from og2.world.measures import relation_amount
from og2.world.requirements import SIZE_RELATIONS, ObjectRequirement, Requirements

MARGIN_OF_RELATION = 0.5
OBJECT_WORDS: tuple[str, ...] = ("shape", "color", "fill", "size", "position")
_MARGIN_OF_SIZE = 1.07  # ratio of radii
_FEW = 3
Slot = Detected | None


def relation_holds(a: Detected, name: str, b: Detected) -> bool | None:
    """Whether a stands in that relation to b; None when sizes cannot be compared or are too alike."""
    if name not in SIZE_RELATIONS:
        return relation_amount(a.box, name, b.box) > MARGIN_OF_RELATION
    if a.radius is None or b.radius is None:
        return None
    ratio = a.radius / b.radius if name == SIZE_RELATIONS[0] else b.radius / a.radius
    return True if ratio >= _MARGIN_OF_SIZE else None if ratio > 1.0 / _MARGIN_OF_SIZE else False


def fits(seen: Detected, wanted: ObjectRequirement, words: tuple[str, ...] = OBJECT_WORDS) -> bool | None:
    """Whether a thing meets every word said; None when it may, but a word could not be read."""
    unread = False
    for word in words:
        value = getattr(wanted, word)
        if value is not None:
            found = getattr(seen, word)
            if found is not None and found != value:
                return False
            unread |= found is None
    return None if unread else True


def pair_objects(found: list[Detected], requirements: Requirements) -> tuple[Slot, ...]:
    """For every required object the seen one that stands for it: the pairing that meets most atoms."""
    wanted = requirements.objects
    slots: list[Slot] = [*found[:8], *[None] * max(0, len(wanted) - len(found))]
    if len(wanted) > _FEW or len(slots) > _FEW + 1:
        return _assign(slots, wanted)
    best, best_met = (), -1
    for chosen in permutations(slots, len(wanted)):
        met = sum(ok for ok, _ in object_atoms(chosen, requirements).values())
        if met > best_met:
            best, best_met = chosen, met
    return best


def _assign(slots: list[Slot], wanted: tuple[ObjectRequirement, ...]) -> tuple[Slot, ...]:
    """The pairing with most words met, relations left out: best sums over subsets of slots."""
    gain = np.array([[_words_met(slot, rule) for slot in slots] for rule in wanted])

    @cache
    def best(row: int, used: int) -> tuple[int, tuple[int, ...]]:
        if row == len(wanted):
            return 0, ()
        options = (
            (int(gain[row, i]) + rest[0], (i, *rest[1]))
            for i in range(len(slots))
            if not used >> i & 1
            for rest in [best(row + 1, used | 1 << i)]
        )
        return max(options, key=lambda option: option[0])

    return tuple(slots[i] for i in best(0, 0)[1])


def _words_met(slot: Slot, wanted: ObjectRequirement) -> int:
    if slot is None:
        return 0
    said = [w for w in OBJECT_WORDS if getattr(wanted, w) is not None]
    return 1 + sum(getattr(slot, word) == getattr(wanted, word) for word in said)


def object_atoms(chosen: tuple[Slot, ...], requirements: Requirements) -> dict[str, tuple[bool, bool]]:
    """Each requirement on objects, and on relations between two of them: (met, decided)."""
    atoms: dict[str, tuple[bool, bool]] = {}
    many = len(chosen) > 1
    for i, (wanted, seen) in enumerate(zip(requirements.objects, chosen, strict=True)):
        for word in OBJECT_WORDS:
            value = getattr(wanted, word)
            if value is not None:
                found = None if seen is None else getattr(seen, word)
                atoms[f"{word} {i + 1}" if many else word] = (
                    found == value,
                    seen is None or found is not None,
                )
    for a, name, b in requirements.relations:
        if max(a, b) >= len(chosen):  # of another subject
            continue
        first, second = chosen[a], chosen[b]
        holds = False if first is None or second is None else relation_holds(first, name, second)
        atoms[f"{a + 1} {name} {b + 1}"] = (bool(holds), holds is not None)
    return atoms


def absent_atoms(
    found: list[Detected], requirements: Requirements, atoms: dict[str, bool], undecided: set[str]
) -> None:
    """Adds what must not be there: that no thing meets all of its words."""
    for i, unwanted in enumerate(requirements.absent):
        name = f"absent {i + 1}" if len(requirements.absent) > 1 else "absent"
        answers = [fits(thing, unwanted) for thing in found]
        atoms[name] = all(answer is False for answer in answers)
        if not any(answer is True for answer in answers) and None in answers:
            undecided.add(name)
