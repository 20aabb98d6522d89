"""Edits of objects, judged from what is seen before and after: each kind's aspects, and where it happened.

Recolour, add, remove, replace, material, resize, background, and several of them at once. Part of the scorer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from og2.world import palette
from og2.world.backdrop_words import name_backdrop, same_name, unmade
from og2.world.background import View
from og2.world.detect import Detected, Reading
from og2.world.measures import (
    MAX_TRACE,
    Aspect,
    backdrop_progress,
    evenness,
    overlap,
    rate,
    relation_amount,
    shows_through,
    trace,
    two_levels,
)
from og2.world.pixels import BoolArray, FloatArray, dilate, distance, erode
from og2.world.requirements import EditRequirements, ObjectRequirement
from og2.world.rims import solid_of

_SAME_PLACE = 0.60
_COLOR_PROGRESS = 0.74
_MAX_MOVED = 0.5  # radii
_MAX_MOVED_RESIZED = 0.17
_MAX_SCALE_ERROR = 0.09  # of ln radius
_UNCHANGED_DE, _UNCHANGED_SHARE = 10.0, 0.85  # of an object whose words cannot be read any more
_PATTERN_STEP = 6.0  # dE that a new fill changes a pixel by
_MIN_EVEN = 0.30
_MAX_SHOWN_THROUGH = 0.25
_TONES_APART = {"white": 38.0, "black": 21.5}  # L between a pattern's tones; less is a faint pattern
_MIN_TONES_APART = 18.5
_MIN_NEW_BACKDROP = 0.68  # of the way to the new one
_MIN_PLACE_PX = 8
_MIN_GROWN, _MIN_GROWN_PATTERN = 0.78, 0.64  # of the object's own colour, where it has grown
_NEARLY, _MET = 5.0, 7.0  # the score of something that is there but not decided; the least of what is met


@dataclass(frozen=True)
class Scenario:
    """Source and result: what is seen in them, and their CIELAB pixels (H, W, 3) at working resolution."""

    before: Reading
    after: Reading
    old: FloatArray
    new: FloatArray


@dataclass
class Found:
    """What an edit turned out to be.

    region: where it happened (old and new place). left: what the result shows beyond what had to stay and
    what was asked for. everywhere: the whole picture was to change. unclear_source: why the source does not
    allow a verdict, or "".
    """

    aspects: list[Aspect] = field(default_factory=list)
    region: BoolArray = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    left: list[Detected] = field(default_factory=list)
    everywhere: bool = False
    background_changes: bool = False
    unclear_source: str = ""


def judge_object_edit(scenario: Scenario, rule: EditRequirements) -> Found:
    """Aspects, region and leftovers of an edit of objects or of the background."""
    parts = rule.parts if rule.kind in ("hybrid", "multi_turn") else (rule,)
    shape = scenario.old.shape[:2]
    subjects: list[Detected | None] = []
    for part in parts:
        subject, reason = _subject_of(scenario.before, part)
        if reason:
            return Found(unclear_source=reason, region=np.zeros(shape, dtype=bool))
        subjects.append(subject)
    found = Found(region=np.zeros(shape, dtype=bool))
    for subject in subjects:
        if subject is not None:
            found.region |= subject.mask
    if scenario.after.reason or scenario.after.view is None:
        reason = f"unknown: the result cannot be judged: {scenario.after.reason}"
        found.aspects.append(Aspect("readable", 0.0, met=False, reason=reason))
        return found
    others = [o for o in scenario.before.objects if all(o is not s for s in subjects)]
    assert scenario.before.view is not None
    views = (scenario.before.view, scenario.after.view)
    found.left, lost = match_others(others, list(scenario.after.objects), views)
    for part, subject in zip(parts, subjects, strict=True):
        _JUDGES[part.kind](scenario, part, subject, found)
    if lost:
        found.aspects.append(Aspect("others", 0.0, met=False, reason=f"lost or changed: {', '.join(lost)}"))
    if found.left:
        reason = ", ".join(f"{o.color or 'unclear'} {o.shape or 'thing'}" for o in found.left)
        found.aspects.append(Aspect("nothing else", 0.0, False, f"too much in the picture: {reason}"))
    return found


def _subject_of(before: Reading, rule: EditRequirements) -> tuple[Detected | None, str]:
    """The object of the source that an edit is about; None where it is about none of them."""
    if rule.kind in ("add", "background"):
        return None, ""
    wanted = rule.subject or ObjectRequirement()
    named = [o for o in before.objects if _is_named(o, wanted)]
    if len(named) > 1:
        named = [o for o in named if wanted.position in (None, o.position)]
    if len(named) != 1:
        words = " ".join(w for w in (wanted.color, wanted.shape) if w)
        return None, f"the source shows {len(named)} of {words}, not one"
    return named[0], ""


def _is_named(seen: Detected, wanted: ObjectRequirement) -> bool:
    return all(getattr(wanted, word) in (None, getattr(seen, word)) for word in ("shape", "color", "fill"))


def match_others(
    others: list[Detected], seen: list[Detected], views: tuple[View, View]
) -> tuple[list[Detected], list[str]]:
    """What the result shows beyond the objects that had to stay, and the names of those that are gone.

    views: of source and result. An object that reads otherwise is another one; where a word cannot be read
    any more it is the same if its pixels are.
    """
    left, lost = list(seen), []
    for other in others:
        same = [o for o in left if _is_same(other, o, views)]
        if same:
            left = [o for o in left if o is not same[0]]
        else:
            lost.append(f"{other.color} {other.shape}")
    return left, lost


def _is_same(other: Detected, seen: Detected, views: tuple[View, View]) -> bool:
    if overlap(seen.mask, other.mask) < _SAME_PLACE:
        return False
    if other.shape is not None and other.color is not None:  # a creature has no words to compare here
        words = [(getattr(other, word), getattr(seen, word)) for word in ("shape", "color", "fill")]
        if any(new not in (old, None) for old, new in words):
            return False
        if all(new == old for old, new in words[:2]):
            return True
    kept = distance(views[0].lab, views[1].lab)[other.mask] <= _UNCHANGED_DE
    return float(kept.mean()) >= _UNCHANGED_SHARE


def _take(found: Found, subject: Detected) -> Detected | None:
    """The leftover thing at the subject's place; it counts as used and its place as edited."""
    best = max(found.left, key=lambda o: overlap(o.mask, subject.mask), default=None)
    if best is None or overlap(best.mask, subject.mask) < 0.1:
        return None
    found.left = [o for o in found.left if o is not best]
    found.region = found.region | best.mask
    return best


def _recolour(_: Scenario, rule: EditRequirements, subject: Detected | None, found: Found) -> None:
    assert subject is not None
    new = _take(found, subject)
    if new is None:
        found.aspects.append(Aspect("there", 0.0, met=False, reason="the object is gone"))
        return
    _same_outline(found, subject, new)
    _colored(found, rule.color, subject, new)
    _same_word(found, "fill", subject, new)


def _colored(found: Found, color: str | None, subject: Detected, new: Detected) -> None:
    wanted = np.asarray(palette.COLORS[str(color)])
    old, seen = np.asarray(subject.lab), np.asarray(new.lab)
    toward = wanted - old
    progress = float((seen - old) @ toward / max(float(toward @ toward), 1.0))
    score = rate("color", progress)
    if new.color == color and progress >= _COLOR_PROGRESS:
        found.aspects.append(Aspect("color", score, met=True))
        return
    if new.color == color:
        reason = f"only {progress:.2f} of the way from {subject.color} to {color}"
    else:
        reason = f"it is {new.color}, not {color}" + (
            f" ({new.words['color'].reason})" if not new.color else ""
        )
    found.aspects.append(Aspect("color", min(score, _NEARLY), met=False, reason=reason))


def _same_outline(found: Found, subject: Detected, new: Detected) -> None:
    share = overlap(new.mask, subject.mask)
    met = share >= _SAME_PLACE and new.shape == subject.shape
    score = rate("same place", share) if new.shape == subject.shape else 0.0
    reason = f"the object moved or changed its shape ({new.words['shape'].reason or new.shape})"
    found.aspects.append(Aspect("outline", score, met, "" if met else reason))


def _same_word(found: Found, word: str, subject: Detected, new: Detected) -> None:
    _worded(found, word, getattr(subject, word), getattr(new, word), new.words[word].reason)


def _worded(found: Found, word: str, wanted: str | None, seen: str | None, why: str) -> None:
    met = wanted is None or seen == wanted
    score = 10.0 if met else _NEARLY if seen is None else 0.0
    reason = "" if met else f"{word} is {seen}, not {wanted}" + (f" ({why})" if why else "")
    found.aspects.append(Aspect(word, score, met, reason))


def _remove(scenario: Scenario, _: EditRequirements, subject: Detected | None, found: Found) -> None:
    assert subject is not None
    assert scenario.after.view is not None
    assert scenario.before.view is not None
    rest = trace((scenario.before.view, scenario.after.view), subject.mask, np.asarray(subject.lab))
    reason = "" if rest <= MAX_TRACE else f"a trace of the object is left ({rest:.1f} dE)"
    found.aspects.append(Aspect("gone", rate("trace", rest), not reason, reason))


def _nothing_left(scenario: Scenario, subject: Detected, new: Detected, found: Found) -> None:
    """Where the object was and no longer is there must be background."""
    assert scenario.after.view is not None
    assert scenario.before.view is not None
    place = subject.mask & ~dilate(new.mask, 2.5)
    if place.sum() < _MIN_PLACE_PX:
        return
    rest = trace((scenario.before.view, scenario.after.view), place, np.asarray(subject.lab))
    met = rest <= MAX_TRACE
    reason = "" if met else f"a trace of the old object is left ({rest:.1f} dE)"
    found.aspects.append(Aspect("old one gone", rate("trace", rest), met, reason))


def _add(scenario: Scenario, rule: EditRequirements, _: Detected | None, found: Found) -> None:
    wanted = rule.subject or ObjectRequirement()
    named = [o for o in found.left if _is_named(o, wanted)] or found.left
    if not named:
        found.aspects.append(Aspect("there", 0.0, met=False, reason="nothing was added"))
        return
    new = named[0]
    found.left = [o for o in found.left if o is not new]
    found.region = found.region | new.mask
    for word in ("shape", "color", "fill", "size", "position"):
        value = getattr(wanted, word)
        if value is not None:
            _worded(found, word, value, getattr(new, word), new.words[word].reason)
    if rule.relation is not None and rule.anchor is not None:
        _related(scenario, rule, new, found)


def _related(scenario: Scenario, rule: EditRequirements, new: Detected, found: Found) -> None:
    assert rule.anchor is not None
    assert rule.relation is not None
    anchors = [o for o in scenario.before.objects if _is_named(o, rule.anchor)]
    if len(anchors) != 1:
        found.unclear_source = "the object it relates to is not clear in the source"
        return
    amount = relation_amount(new.box, rule.relation, anchors[0].box)
    met = amount > 0.5
    reason = "" if met else f"it is not {rule.relation} the {rule.anchor.shape}"
    found.aspects.append(Aspect("relation", rate("relation", amount), met, reason))


def _replace(scenario: Scenario, rule: EditRequirements, subject: Detected | None, found: Found) -> None:
    assert subject is not None
    new = _take(found, subject)
    if new is None:
        found.aspects.append(Aspect("there", 0.0, met=False, reason="nothing is at its place"))
        return
    _worded(found, "shape", rule.shape, new.shape, new.words["shape"].reason)
    _worded(found, "color", rule.color or subject.color, new.color, new.words["color"].reason)
    _stayed(scenario, found, subject, new, _MAX_MOVED)
    _nothing_left(scenario, subject, new, found)
    if new.fill == "flat" or new.color != "white":  # of white's two tones one may be the backdrop's
        _grown_wholly(scenario, found, subject, new, _MIN_GROWN if new.fill == "flat" else _MIN_GROWN_PATTERN)


def _stayed(scenario: Scenario, found: Found, subject: Detected, new: Detected, most: float) -> None:
    """Whether the middle stayed where it was, within so many radii."""
    height, width = scenario.old.shape[:2]
    away = math.hypot(
        (new.center[0] - subject.center[0]) * width, (new.center[1] - subject.center[1]) * height
    )
    moved = away / math.sqrt(max(float(subject.mask.sum()), 1.0) / math.pi)
    met = moved <= most
    said = f"it moved by {moved:.1f} of its radius"
    found.aspects.append(Aspect("place", rate("moved", moved), met, "" if met else said))


def _material(scenario: Scenario, rule: EditRequirements, subject: Detected | None, found: Found) -> None:
    assert subject is not None
    new = _take(found, subject)
    if new is None:
        found.aspects.append(Aspect("there", 0.0, met=False, reason="the object is gone"))
        return
    _same_outline(found, subject, new)
    _worded(found, "fill", rule.fill, new.fill, new.words["fill"].reason)
    _same_word(found, "color", subject, new)
    if new.fill == rule.fill:
        _whole_pattern(scenario, found, subject, new)


def _whole_pattern(scenario: Scenario, found: Found, subject: Detected, new: Detected) -> None:
    """Whether the new fill is everywhere, at its full contrast, with nothing of the old one under it."""
    assert scenario.before.view is not None
    assert scenario.after.view is not None
    both = subject.mask & new.mask
    inside = erode(both, 1.5)
    inside = inside if inside.sum() >= 0.3 * both.sum() else both
    old, seen = scenario.before.view.lab, scenario.after.view.lab
    even = evenness(distance(old, seen) > _PATTERN_STEP, inside)
    has_levels, reason = new.fill != "flat", ""
    if even < _MIN_EVEN:
        reason = f"the new fill is not everywhere ({even:.2f} of its share on one side)"
    elif has_levels and two_levels(seen[..., 0][inside])[1] < _TONES_APART.get(
        str(new.color), _MIN_TONES_APART
    ):
        reason = "the new pattern is faint"
    elif subject.fill != "flat":
        left = shows_through(old[..., 0][inside], seen[..., 0][inside], has_levels)
        reason = f"{left:.2f} of the old pattern is left" if left > _MAX_SHOWN_THROUGH else ""
    found.aspects.append(Aspect("whole", _NEARLY if reason else 10.0, not reason, reason))


def _resize(scenario: Scenario, rule: EditRequirements, subject: Detected | None, found: Found) -> None:
    assert subject is not None
    new = _take(found, subject)
    if new is None:
        found.aspects.append(Aspect("there", 0.0, met=False, reason="the object is gone"))
        return
    for word in ("shape", "color", "fill"):
        _same_word(found, word, subject, new)
    _stayed(scenario, found, subject, new, _MAX_MOVED_RESIZED)
    _nothing_left(scenario, subject, new, found)
    _grown_wholly(scenario, found, subject, new)
    if new.radius is None or subject.radius is None:
        found.aspects.append(Aspect("size", _NEARLY, met=False, reason="its size cannot be measured"))
        return
    error = abs(math.log(new.radius / subject.radius / float(rule.factor or 1.0)))
    met = error <= _MAX_SCALE_ERROR
    reason = "" if met else f"it is {new.radius / subject.radius:.2f} times as large, not {rule.factor:.2f}"
    found.aspects.append(Aspect("size", rate("scale", error), met, reason))


def _grown_wholly(
    scenario: Scenario, found: Found, subject: Detected, new: Detected, least: float = _MIN_GROWN
) -> None:
    """Whether the object has its own colour also where it was not before."""
    assert scenario.after.view is not None
    view, inside = scenario.after.view, solid_of(scenario.after.view, new.mask)
    fresh, core = inside & ~dilate(subject.mask, 1.0), inside & erode(subject.mask, 1.0)
    if fresh.sum() < _MIN_PLACE_PX:
        return
    toward = np.asarray(new.lab) - view.background
    amount = ((view.lab - view.background) * toward).sum(axis=-1) / np.maximum((toward**2).sum(axis=-1), 1.0)
    usual = float(amount[core].mean()) if core.sum() >= _MIN_PLACE_PX else 1.0
    share = float(amount[fresh].mean()) / max(usual, 0.1)
    met = share >= least
    reason = "" if met else f"where it has grown it is faint ({share:.2f} of its colour)"
    found.aspects.append(Aspect("grown", rate("color", share), met, reason))


def _background(scenario: Scenario, rule: EditRequirements, _: Detected | None, found: Found) -> None:
    assert scenario.before.view is not None
    assert scenario.after.view is not None
    seen = (scenario.before.view, scenario.after.view)
    found.background_changes = True
    found.region = found.region | ~seen[0].mask
    family, name = name_backdrop(seen[1], expected=rule.backdrop)
    if rule.backdrop is not None:
        _worded(found, "backdrop", rule.backdrop, family.value, family.reason)
        reason = unmade(seen, rule.backdrop, rule.background)
        found.aspects.append(Aspect("whole", _NEARLY if reason else 10.0, not reason, reason))
    if rule.background is not None:
        met = same_name(name.value, rule.background)
        score = _MET + 3.0 * name.confidence if met else _NEARLY if name.value is None else 0.0
        reason = f"the background is {name.value}, not {rule.background} {name.reason}".rstrip()
        found.aspects.append(Aspect("background", score, met, "" if met else reason))
        labs = palette.LANDSCAPES.get(rule.background) or (palette.BACKGROUNDS.get(rule.background),) * 2
        if met and labs[0] and labs[1] and rule.backdrop in ("plain", "noise", "landscape"):
            share = backdrop_progress(seen, np.array(labs[0]), np.array(labs[1]))
            met, reason = share >= _MIN_NEW_BACKDROP, f"only {share:.2f} of the way to the new background"
            found.aspects.append(Aspect("clear", rate("color", share), met, "" if met else reason))


_JUDGES: dict[str, Callable[[Scenario, EditRequirements, Detected | None, Found], None]] = {
    "recolour": _recolour,
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "material": _material,
    "resize": _resize,
    "background": _background,
}
OBJECT_KINDS: tuple[str, ...] = (*_JUDGES, "hybrid", "multi_turn")
