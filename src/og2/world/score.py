"""Verdicts from pixels alone: does a picture show what was required?

The scorer sees pixels and requirements, never a scene, a seed or the renderer. A picture it cannot judge
gives `unknown` with the reason, which does not pass. Its error rates are measured by `og2.evals.certify`
and belong beside every score made with it. Edits are judged in `score_edit`, which this module also offers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np

from og2.world.backdrop_words import name_backdrop, same_name
from og2.world.detect import Detected, Reading, detect, read
from og2.world.measures import relation_amount
from og2.world.requirements import SIZE_RELATIONS, ObjectRequirement, Requirements
from og2.world.score_context import score_context
from og2.world.score_edit import EditVerdict, score_edit

__all__ = ["Detected", "EditVerdict", "Verdict", "detect", "read", "score_edit", "score_t2i"]

MARGIN_OF_RELATION = 0.5
_MARGIN_OF_SIZE = 1.07  # ratio of radii
_WORDS = ("shape", "color", "fill", "size", "position")
_FEW = 3
Slot = Detected | None


@dataclass(frozen=True)
class Verdict:
    """passed: every requirement met and nothing else in the picture. atoms: each requirement by itself, their
    number ("count"), and that every thing is of a known shape, colour and fill ("legal").

    unknown: the pixels do not decide (then not passed). reason: the first thing that is wrong, or "".
    undecided: names of the atoms that are not met because a word could not be read. confidence: of the least
    certain word that the verdict rests on, in [0, 1].
    """

    passed: bool
    atoms: dict[str, bool]
    reason: str
    unknown: bool = False
    undecided: tuple[str, ...] = field(default=())
    confidence: float = 0.0

    @property
    def share(self) -> float:
        """Share of atoms that are met (GenEval 2's arithmetic mean, arXiv 2512.16853); 0 without atoms."""
        return sum(self.atoms.values()) / len(self.atoms) if self.atoms else 0.0


def score_t2i(image: Any, requirements: Requirements) -> Verdict:
    """Whether the picture shows exactly what is required."""
    if requirements.creatures or requirements.gizmos or requirements.plates:
        found = score_context((), image, requirements)
        return Verdict(found.passed, found.atoms, found.reason, found.unknown, found.undecided)
    seen = read(image)
    if seen.reason:
        return Verdict(False, {}, f"unknown: {seen.reason}", unknown=True)
    found, wanted = list(seen.objects), requirements.objects
    chosen = _pair(found, requirements)
    atoms, undecided = {"count": len(found) == len(wanted), "legal": True}, set[str]()
    if any(None in (thing.shape, thing.color, thing.fill) for thing in found):
        atoms["legal"] = False
        undecided.add("legal")
    for name, (met, clear) in _atoms(chosen, requirements).items():
        atoms[name] = met
        if not met and not clear:
            undecided.add(name)
    _absent_atoms(found, requirements, atoms, undecided)
    _backdrop_atoms(seen, requirements, atoms, undecided)
    passed = all(atoms.values())
    confidence = min((o.confidence for o in found), default=1.0)
    if passed:
        return Verdict(True, atoms, "", confidence=confidence)
    unclear = [o.reason for o in found if o.reason]
    if not atoms["count"]:
        reason = f"{len(found)} objects instead of {len(wanted)}"
    else:
        reason = "; ".join([f"wrong {', '.join(n for n, met in atoms.items() if not met)}", *unclear])
    unknown = bool(undecided) or (atoms["count"] and bool(unclear))
    return Verdict(False, atoms, reason, unknown, tuple(sorted(undecided)), confidence)


def relation_holds(a: Detected, name: str, b: Detected) -> bool | None:
    """Whether a stands in that relation to b; None when sizes cannot be compared or are too alike."""
    if name not in SIZE_RELATIONS:
        return relation_amount(a.box, name, b.box) > MARGIN_OF_RELATION
    if a.radius is None or b.radius is None:
        return None
    ratio = a.radius / b.radius if name == SIZE_RELATIONS[0] else b.radius / a.radius
    return True if ratio >= _MARGIN_OF_SIZE else None if ratio > 1.0 / _MARGIN_OF_SIZE else False


def fits(seen: Detected, wanted: ObjectRequirement, words: tuple[str, ...] = _WORDS) -> bool | None:
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


def _pair(found: list[Detected], requirements: Requirements) -> tuple[Slot, ...]:
    """For every required object the seen one that stands for it: the pairing that meets most atoms."""
    wanted = requirements.objects
    slots: list[Slot] = [*found[:8], *[None] * max(0, len(wanted) - len(found))]
    if len(wanted) > _FEW or len(slots) > _FEW + 1:
        return _assign(slots, wanted)
    best, best_met = (), -1
    for chosen in permutations(slots, len(wanted)):
        met = sum(ok for ok, _ in _atoms(chosen, requirements).values())
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
    said = [w for w in _WORDS if getattr(wanted, w) is not None]
    return 1 + sum(getattr(slot, word) == getattr(wanted, word) for word in said)


def _atoms(chosen: tuple[Slot, ...], requirements: Requirements) -> dict[str, tuple[bool, bool]]:
    """Each requirement on objects: (met, decided)."""
    atoms: dict[str, tuple[bool, bool]] = {}
    many = len(chosen) > 1
    for i, (wanted, seen) in enumerate(zip(requirements.objects, chosen, strict=True)):
        for word in _WORDS:
            value = getattr(wanted, word)
            if value is not None:
                found = None if seen is None else getattr(seen, word)
                atoms[f"{word} {i + 1}" if many else word] = (
                    found == value,
                    seen is None or found is not None,
                )
    for a, name, b in requirements.relations:
        first, second = chosen[a], chosen[b]
        holds = False if first is None or second is None else relation_holds(first, name, second)
        atoms[f"{a + 1} {name} {b + 1}"] = (bool(holds), holds is not None)
    return atoms


def _absent_atoms(
    found: list[Detected], requirements: Requirements, atoms: dict[str, bool], undecided: set[str]
) -> None:
    for i, unwanted in enumerate(requirements.absent):
        name = f"absent {i + 1}" if len(requirements.absent) > 1 else "absent"
        answers = [fits(thing, unwanted) for thing in found]
        atoms[name] = all(answer is False for answer in answers)
        if not any(answer is True for answer in answers) and None in answers:
            undecided.add(name)


def _backdrop_atoms(
    seen: Reading, requirements: Requirements, atoms: dict[str, bool], undecided: set[str]
) -> None:
    if requirements.background is None and requirements.backdrop is None:
        return
    assert seen.view is not None
    family, name = name_backdrop(seen.view, expected=requirements.backdrop)
    for atom, word, wanted in (
        ("background", name, requirements.background),
        ("backdrop", family, requirements.backdrop),
    ):
        if wanted is not None:
            atoms[atom] = same_name(word.value, wanted)
            if word.value is None:
                undecided.add(atom)
