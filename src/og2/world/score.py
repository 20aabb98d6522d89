"""Verdicts from pixels alone: does a picture, or an edit, show what was required?

The scorer sees pixels and requirements, never a scene, a seed or the renderer. A picture it cannot judge
gives `unknown` with the reason, which does not pass. Its error rates are measured by `og2.evals.certify`
and belong beside every score made with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from og2.errors import ImageError
from og2.world.detect import Detected, Reading, detect, read
from og2.world.palette import srgb_to_lab
from og2.world.pixels import BoolArray, FloatArray, dilate, distance, erode, smooth, working_pixels
from og2.world.requirements import EditRequirements, ObjectRequirement, Requirements

__all__ = ["Detected", "EditVerdict", "Verdict", "detect", "read", "score_edit", "score_t2i"]

KEPT_TOLERANCE = 10.0
_GROW_PX = 3.0
_EDGE_PX = 1.5  # on both sides of an edge: a band of 3 px
_SAME_PLACE = 0.60
_LEFTOVER = 7.0  # dE from the background where a removed object was
_MARGIN_OF_RELATION = 0.5
_BACKGROUND_SHIFT = 8.0


@dataclass(frozen=True)
class Verdict:
    """passed: every requirement met and nothing else in the picture. atoms: each requirement by itself.

    unknown: the pixels do not decide (then not passed). reason: the first thing that is wrong, or "".
    """

    passed: bool
    atoms: dict[str, bool]
    reason: str
    unknown: bool = False


@dataclass(frozen=True)
class EditVerdict:
    """success: the edit was made, every other object is still there, the background has its colour.

    kept: share of pixels away from the edited object that are within 10 dE of the source;
    kept_without_drift: the same after the best affine colour change of the whole picture was undone. NaN
    where it cannot be measured.
    """

    success: bool
    kept: float
    reason: str
    unknown: bool = False
    kept_without_drift: float = float("nan")


def score_t2i(image: Any, requirements: Requirements) -> Verdict:
    """Whether the picture shows exactly what is required."""
    seen = read(image)
    if seen.reason:
        return Verdict(False, {}, f"unknown: {seen.reason}", unknown=True)
    if len(seen.objects) != len(requirements.objects):
        reason = f"{len(seen.objects)} objects instead of {len(requirements.objects)}"
        return Verdict(False, {"count": False, **_best_atoms(seen, requirements)}, reason)
    atoms = {"count": True, **_best_atoms(seen, requirements)}
    passed = all(atoms.values())
    unclear = [o.reason for o in seen.objects if o.reason]
    wrong = ", ".join(name for name, met in atoms.items() if not met)
    reason = "" if passed else "; ".join([f"wrong {wrong}", *unclear])
    return Verdict(passed, atoms, reason, unknown=not passed and bool(unclear))


def score_edit(source_image: Any, image: Any, requirements: EditRequirements) -> EditVerdict:
    """Whether the picture is the source with the required edit, and how much of the rest was left alone.

    Both pictures must have one size. The masks come from what is seen in both pictures. When the result shows
    nothing that can be judged, the edit failed and the kept share is still measured.
    """
    before, after = read(source_image), read(image)
    if before.reason:
        return _unknown(f"the source cannot be judged: {before.reason}")
    subject, reason = _find_subject(before, requirements)
    if reason:
        return _unknown(reason)
    try:
        (old, _), (new, _) = working_pixels(source_image), working_pixels(image)
    except ImageError as error:
        return _unknown(str(error))
    if old.shape != new.shape:
        return _unknown("source and result differ in size")
    left, success, reason = _judge(requirements, subject, before, after)
    changed = _changed_region(subject, left, old.shape[:2])
    kept, without_drift = _kept(srgb_to_lab(old), srgb_to_lab(new), before, changed)
    unclear = not success and (bool(after.reason) or any(o.reason for o in left))
    return EditVerdict(success, kept, reason, unclear, without_drift)


def _unknown(reason: str) -> EditVerdict:
    return EditVerdict(False, float("nan"), f"unknown: {reason}", unknown=True)


def _judge(
    rule: EditRequirements, subject: Detected | None, before: Reading, after: Reading
) -> tuple[list[Detected], bool, str]:
    """What the result shows beyond the objects that had to stay, if the edit was made, and if not why."""
    if before.view is None or after.view is None:
        return [], False, f"unknown: the result cannot be judged: {after.reason}"
    left, lost = _match_others([o for o in before.objects if o is not subject], after)
    if lost:
        return left, False, f"lost or changed: {', '.join(lost)}"
    shift = float(np.median(distance(after.view.background, before.view.background)))
    if shift > _BACKGROUND_SHIFT:
        return left, False, f"the background changed by {shift:.0f} dE"
    return left, *_judge_change(rule, subject, left, before, after)


def _best_atoms(seen: Reading, requirements: Requirements) -> dict[str, bool]:
    """Atoms under the pairing of seen and required objects that meets most of them."""
    wanted, found = requirements.objects, seen.objects[:4]
    best: dict[str, bool] = {}
    slots: list[Detected | None] = [*found, *[None] * max(0, len(wanted) - len(found))]
    for chosen in permutations(slots, len(wanted)):
        atoms = _atoms(chosen, requirements)
        if not best or sum(atoms.values()) > sum(best.values()):
            best = atoms
    if requirements.background is not None:
        best["background"] = seen.background == requirements.background
    return best


def _atoms(chosen: tuple[Detected | None, ...], requirements: Requirements) -> dict[str, bool]:
    atoms: dict[str, bool] = {}
    many = len(chosen) > 1
    for i, (wanted, seen) in enumerate(zip(requirements.objects, chosen, strict=True)):
        for word in ("shape", "color", "size", "position"):
            value = getattr(wanted, word)
            if value is not None:
                atoms[f"{word} {i + 1}" if many else word] = seen is not None and getattr(seen, word) == value
    for a, name, b in requirements.relations:
        first, second = chosen[a], chosen[b]
        holds = first is not None and second is not None and _relation_holds(first, name, second)
        atoms[f"{a + 1} {name} {b + 1}"] = holds
    return atoms


def _relation_holds(a: Detected, name: str, b: Detected) -> bool:
    """GenEval's rule on boxes (arXiv 2310.11513): offset, less a tenth of both boxes, over its length."""
    offset = np.array([(a.box[i] + a.box[i + 2] - b.box[i] - b.box[i + 2]) / 2 for i in (0, 1)])
    extent = np.array([a.box[i + 2] - a.box[i] + b.box[i + 2] - b.box[i] for i in (0, 1)])
    short = np.sign(offset) * np.maximum(np.abs(offset) - 0.1 * extent, 0.0)
    x, y = short / max(float(np.linalg.norm(offset)), 1e-6)
    amount = {"left of": -x, "right of": x, "above": -y, "below": y}[name]
    return float(amount) > _MARGIN_OF_RELATION


def _find_subject(before: Reading, requirements: EditRequirements) -> tuple[Detected | None, str]:
    if requirements.kind == "add":
        return None, ""
    wanted = requirements.subject
    found = [o for o in before.objects if (o.shape, o.color) == (wanted.shape, wanted.color)]
    if len(found) != 1:
        return None, f"the source shows {len(found)} of {wanted.color} {wanted.shape}, not one"
    return found[0], ""


def _match_others(others: list[Detected], after: Reading) -> tuple[list[Detected], list[str]]:
    """What the result shows beyond the objects that had to stay, and the names of those that are gone."""
    left, lost = list(after.objects), []
    for other in others:
        same = [
            o
            for o in left
            if (o.shape, o.color) == (other.shape, other.color) and _overlap(o, other) >= _SAME_PLACE
        ]
        if same:
            left.remove(same[0])
        else:
            lost.append(f"{other.color} {other.shape}")
    return left, lost


def _judge_change(
    rule: EditRequirements, subject: Detected | None, left: list[Detected], before: Reading, after: Reading
) -> tuple[bool, str]:
    if rule.kind == "remove":
        assert subject is not None
        assert after.view is not None
        if left:
            return False, "something is still there"
        rest = float(np.quantile(smooth(after.view.delta)[subject.mask], 0.9))
        return (
            rest <= _LEFTOVER,
            "" if rest <= _LEFTOVER else f"a trace of the object is left ({rest:.1f} dE)",
        )
    if len(left) != 1:
        return False, f"{len(left)} objects where one should be"
    new = left[0]
    if rule.kind == "recolour":
        assert subject is not None
        if _overlap(new, subject) < _SAME_PLACE or new.shape != subject.shape:
            return False, f"the object moved or changed its shape ({new.reason or new.shape})"
        return (
            new.color == rule.color,
            "" if new.color == rule.color else f"it is {new.color}, not {rule.color}",
        )
    return _judge_added(rule, new, before)


def _judge_added(rule: EditRequirements, new: Detected, before: Reading) -> tuple[bool, str]:
    for word in ("shape", "color", "size", "position"):
        value = getattr(rule.subject, word)
        if value is not None and getattr(new, word) != value:
            return False, f"{word} is {getattr(new, word)}, not {value}" + (
                f" ({new.reason})" if new.reason else ""
            )
    if rule.relation is None or rule.anchor is None:
        return True, ""
    anchors = [o for o in before.objects if _is_named(o, rule.anchor)]
    if len(anchors) != 1:
        return False, "unknown: the object it relates to is not clear in the source"
    holds = _relation_holds(new, rule.relation, anchors[0])
    return holds, "" if holds else f"it is not {rule.relation} the {rule.anchor.shape}"


def _is_named(seen: Detected, wanted: ObjectRequirement) -> bool:
    return (seen.shape, seen.color) == (wanted.shape, wanted.color)


def _overlap(a: Detected, b: Detected) -> float:
    return float((a.mask & b.mask).sum() / max(1, (a.mask | b.mask).sum()))


def _changed_region(subject: Detected | None, left: list[Detected], shape: tuple[int, ...]) -> BoolArray:
    """Old and new place of the edited object, grown; for an addition the largest new thing."""
    region = np.zeros(shape, dtype=bool)
    if subject is None:
        new = left[:1]
    else:
        region |= subject.mask
        new = [o for o in left if _overlap(o, subject) > 0.1]
    for detected in new:
        region |= detected.mask
    return dilate(region, _GROW_PX)


def _kept(old: FloatArray, new: FloatArray, before: Reading, changed: BoolArray) -> tuple[float, float]:
    """Share of the remaining pixels within tolerance, raw and beside one affine change of all colours."""
    assert before.view is not None
    edges = dilate(before.view.mask, _EDGE_PX) & ~erode(before.view.mask, _EDGE_PX)
    counted = ~changed & ~edges
    if not counted.any():
        return float("nan"), float("nan")
    old, new = old[counted], new[counted]
    drift = _affine(old, new)
    return _share_within(old, new), _share_within(old @ drift[:3] + drift[3], new)


def _share_within(old: FloatArray, new: FloatArray) -> float:
    return float((distance(old, new) <= KEPT_TOLERANCE).mean())


def _affine(old: FloatArray, new: FloatArray) -> FloatArray:
    """The (4, 3) affine map that takes the old colours nearest to the new, pulled toward a mere shift."""
    design = np.concatenate([old, np.ones((len(old), 1))], axis=1)
    prior = np.concatenate([np.eye(3), np.zeros((1, 3))])
    strength = np.diag([len(old) * 1.0] * 3 + [1e-3])
    return np.linalg.solve(design.T @ design + strength, design.T @ new + strength @ prior)
