"""Verdicts from pixels alone: does a picture show what was required?

The scorer sees pixels and requirements, never a scene, a seed or the renderer. A picture it cannot judge
gives `unknown` with the reason, which does not pass. Its error rates are measured by `og2.evals.certify`
and belong beside every score made with it. Edits are judged in `score_edit`, which this module also offers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from og2.world.backdrop_words import name_backdrop, same_name
from og2.world.detect import Detected, Reading, detect, read
from og2.world.object_atoms import absent_atoms, object_atoms, pair_objects
from og2.world.requirement_checks import check_requirements
from og2.world.requirements import Requirements
from og2.world.score_context import score_context
from og2.world.score_edit import EditVerdict, score_edit

__all__ = ["Detected", "EditVerdict", "Verdict", "detect", "read", "score_edit", "score_t2i"]


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
    """Whether the picture shows exactly what is required.

    Raises: RequestError for requirements that cannot be judged, or that need references.
    """
    if requirements.creatures or requirements.gizmos or requirements.plates:
        found = score_context((), image, requirements)
        return Verdict(found.passed, found.atoms, found.reason, found.unknown, found.undecided)
    check_requirements(requirements, num_references=0)
    seen = read(image)
    if seen.reason:
        return Verdict(False, {}, f"unknown: {seen.reason}", unknown=True)
    found, wanted = list(seen.objects), requirements.objects
    chosen = pair_objects(found, requirements)
    atoms, undecided = {"count": len(found) == len(wanted), "legal": True}, set[str]()
    if any(None in (thing.shape, thing.color, thing.fill) for thing in found):
        atoms["legal"] = False
        undecided.add("legal")
    for name, (met, clear) in object_atoms(chosen, requirements).items():
        atoms[name] = met
        if not met and not clear:
            undecided.add(name)
    absent_atoms(found, requirements, atoms, undecided)
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
