"""Verdicts on edits from pixels alone: was the change made, and was everything else left alone?

The scorer sees the source, the result and the requirement, never a scene or the renderer. As in GEdit's
scores, SC is the lesser of success and preservation, PQ says how much of what is seen is no legal thing, and
O is the root of their product, all from 0 to 10; `success` is the strict bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from og2.errors import ImageError
from og2.world.detect import Detected, Reading
from og2.world.known import Known, known
from og2.world.measures import Kept, kept, rate
from og2.world.object_edits import Found, Scenario, judge_object_edit
from og2.world.picture_edits import PICTURE_KINDS, WHOLE_PICTURE_KINDS, judge_picture_edit, quality_of
from og2.world.pixels import WORK_SIDE_PX, BoolArray, dilate, distance, erode
from og2.world.requirement_checks import check_edit
from og2.world.requirements import EditRequirements
from og2.world.same_creatures import judge_same_creatures
from og2.world.subjects import Sight

_EDGE_PX = 1.5  # on both sides of an edge: a band of 3 px
_GROW_PX = 3.0
_BACKGROUND_SHIFT = 8.0


@dataclass(frozen=True)
class EditVerdict:
    """success: the edit was made, every other object is still there, the background has its colour.

    kept: share of pixels away from the edited object that are within 10 dE of the source;
    kept_without_drift: the same after the best affine change of all colours was undone; drift: mean dE of
    that change. NaN where it cannot be measured. sc, pq, overall: in [0, 10]; aspects: what the success
    score is the least of.
    """

    success: bool
    kept: float
    reason: str
    unknown: bool = False
    kept_without_drift: float = float("nan")
    drift: float = float("nan")
    success_score: float = 0.0
    preservation: float = 0.0
    pq: float = 0.0
    aspects: tuple[tuple[str, float], ...] = ()

    @property
    def sc(self) -> float:
        """Semantic consistency: the lesser of success and preservation."""
        return min(self.success_score, self.preservation)

    @property
    def overall(self) -> float:
        """Root of SC times PQ."""
        return math.sqrt(self.sc * self.pq)


def score_edit(source_image: Any, image: Any, requirements: EditRequirements) -> EditVerdict:
    """Whether the picture is the source with the required edit, and how much of the rest was left alone.

    Both pictures must have one size; a source that is compared with many may come as `known.Known`, which is
    looked at once. The masks come from what is seen in both pictures. When the result shows
    nothing that can be judged, the edit failed and the kept share is still measured. Raises: RequestError for
    requirements that cannot be judged: an unknown kind or word, or one that is needed and not set.
    """
    check_edit(requirements)
    source = known(source_image)
    result = source if image is source.image else known(image)
    (before, was), (after, now) = (_seen_in(picture, requirements.kind) for picture in (source, result))
    if before.reason:
        return _unknown(f"the source cannot be judged: {before.reason}")
    try:
        old, new = source.lab, result.lab
    except ImageError as error:
        return _unknown(str(error))
    if old.shape != new.shape:
        return _unknown("source and result differ in size")
    scenario = Scenario(before, after, old, new)
    if requirements.kind in PICTURE_KINDS:
        found = judge_picture_edit(scenario, requirements, was, now)
        return _judged(scenario, found, quality_of(requirements.kind, found, now))
    found = judge_object_edit(scenario, requirements)
    if requirements.kind == "background" and any(thing.shape is None for thing in before.objects):
        judge_same_creatures(source.sight, result.sight, found)
    return _judged(scenario, found, perceptual_quality(after))


def _seen_in(picture: Known, kind: str) -> tuple[Reading, Sight]:
    """What an edit of that kind is judged by: things are looked for once, and only where they are named."""
    if kind not in PICTURE_KINDS:
        return picture.reading, Sight()
    if kind in WHOLE_PICTURE_KINDS:
        return picture.glance, Sight(view=picture.glance.view, reason=picture.glance.reason)
    view = picture.sight.view
    if view is not None and min(view.mask.shape) <= WORK_SIDE_PX:
        return Reading((), view, picture.sight.reason), picture.sight
    return picture.glance, picture.sight


def _judged(scenario: Scenario, found: Found, quality: float) -> EditVerdict:
    if found.unclear_source:
        return _unknown(found.unclear_source)
    region = dilate(found.region, _GROW_PX)
    left_alone = _preserved(scenario, region) if not found.everywhere else Kept(1.0, 1.0, 0.0)
    aspects = tuple((aspect.name, aspect.score) for aspect in found.aspects)
    reasons = [aspect.reason for aspect in found.aspects if not aspect.met]
    success = not reasons
    if success and not found.everywhere:
        reasons = _side_effects(scenario, found.background_changes)
        success = not reasons
    return EditVerdict(
        success,
        left_alone.share,
        reasons[0] if reasons else "",
        not success and (bool(scenario.after.reason) or any(o.reason for o in found.left)),
        left_alone.without_drift,
        left_alone.drift,
        min((score for _, score in aspects), default=0.0),
        rate("preservation", left_alone.without_drift),
        quality,
        aspects,
    )


def perceptual_quality(seen: Reading) -> float:
    """10 less the share of what is in front that is no legal thing, times 10; 0 for an unreadable picture."""
    if seen.view is None or seen.reason:
        return 0.0
    in_front = float(seen.view.mask.sum())
    legal = sum(float((thing.mask & seen.view.mask).sum()) for thing in seen.objects if is_legal(thing))
    return 10.0 if in_front == 0 else 10.0 * min(1.0, legal / in_front)


def is_legal(thing: Detected) -> bool:
    """Whether a thing is of known shape, colour and fill."""
    return None not in (thing.shape, thing.color, thing.fill)


def _unknown(reason: str) -> EditVerdict:
    return EditVerdict(False, float("nan"), f"unknown: {reason}", unknown=True)


def _preserved(scenario: Scenario, region: BoolArray) -> Kept:
    assert scenario.before.view is not None
    mask = scenario.before.view.mask
    edges = dilate(mask, _EDGE_PX) & ~erode(mask, _EDGE_PX)
    return kept(scenario.old, scenario.new, ~region & ~edges)


def _side_effects(scenario: Scenario, background_changes: bool) -> list[str]:
    before, after = scenario.before.view, scenario.after.view
    if background_changes or before is None or after is None:
        return []
    free = ~before.mask & ~after.mask
    shift = float(np.median(distance(after.background, before.background)[free])) if free.any() else 0.0
    return [f"the background changed by {shift:.0f} dE"] if shift > _BACKGROUND_SHIFT else []
