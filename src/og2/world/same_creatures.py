"""Whether creatures are what they were after an edit that is not about them: a new backdrop, a cut-out.

Part of the scorer. A creature is compared by the words of its pose, by its measures, and pixel by pixel:
its own pixels do not change. Cut out, ivory horns are not told from the white around them, nor the ears
beside them: there the pixels decide alone.
"""

from __future__ import annotations

from og2.world.background import View
from og2.world.creature_reading import SeenCreature
from og2.world.identity import creature_distance, without_measures
from og2.world.measures import Aspect, at_size, largest_spot, overlap
from og2.world.object_edits import Found
from og2.world.pixels import BoolArray, dilate, distance, erode
from og2.world.subjects import Sight

_MIN_OVERLAP = 0.6
_MAX_DISTANCE = 1.3  # tolerances; right: 0.7, one part changed: 1.6 or more
_CHANGED_DE, _EDGE_PX, _BESIDE_PX = 10.0, 1.5, 2.0
# What may be otherwise in one place, as a share of the creature.
_MAX_SPOT = 0.012  # right: 0.006, another pose: 0.014 or more
_MAX_SPOT_CUT_OUT = 0.0075  # not white now; right: 0.006, another number of spots: 0.008
_MAX_WHITE_SPOT = 0.02  # right: 0.013, a gap between two parts that is white now
_IVORY_PARTS = ("horns", "ear width")
_MAX_DISTANCE_ON_WHITE = 1.6
_MAX_BESIDE = 0.0035  # beside it and not white; right: 0, a longer arm: 0.004, one moved: 0.02 or more


def judge_same_creatures(before: Sight, after: Sight, found: Found) -> None:
    """Adds an aspect for every creature of the source: that the result still shows it as it was."""
    if before.view is None or after.view is None or before.view.lab.shape != after.view.lab.shape:
        return
    for old in before.creatures:
        new = _found_again(old, after)
        if new is None:
            found.aspects.append(Aspect("same creature", 0.0, False, "the creature is gone or has moved"))
            continue
        reason = _other_pose(old, new) or _other_looks(old, new, (before.view, after.view))
        found.aspects.append(Aspect("same creature", 4.0 if reason else 10.0, not reason, reason))


def judge_cut_out_creatures(before: Sight, after: Sight, is_white: BoolArray, found: Found) -> None:
    """The same on white.   is_white: which pixels of the result are, at any resolution."""
    views = (before.view, after.view)
    if views[0] is None or views[1] is None or views[0].lab.shape != views[1].lab.shape:
        return
    is_white = at_size(is_white, views[1].mask.shape)
    changed = distance(views[0].lab, views[1].lab) > _CHANGED_DE
    for old in before.creatures:
        new = _found_again(old, after)
        reason = "" if new is None else _other_pose(old, new) or _other_parts(old, new)
        inside, area = erode(old.mask, 1.0), max(float(old.mask.sum()), 1.0)
        shares = [
            largest_spot(spot) / area
            for spot in (
                changed & inside & ~is_white,
                changed & inside & is_white,
                ~is_white & ~dilate(old.mask, _BESIDE_PX),
            )
        ]
        most = (_MAX_SPOT_CUT_OUT, _MAX_WHITE_SPOT, _MAX_BESIDE)
        if not reason and any(share > limit for share, limit in zip(shares, most, strict=True)):
            said = ", ".join(f"{share:.3f}" for share in shares)
            reason = f"the creature changed in one place (of it {said}: inside, to white, beside it)"
        found.aspects.append(Aspect("same creature", 4.0 if reason else 10.0, not reason, reason))


def _found_again(old: SeenCreature, after: Sight) -> SeenCreature | None:
    new = max(after.creatures, key=lambda creature: overlap(creature.mask, old.mask), default=None)
    return None if new is None or overlap(new.mask, old.mask) < _MIN_OVERLAP else new


def _other_pose(old: SeenCreature, new: SeenCreature) -> str:
    """Which word of the pose is another one, or ""; one that cannot be read is left to the pixels."""
    for word, read in old.words.items():
        value = new.words[word].value
        if None not in (read.value, value) and value != read.value:
            return f"the creature's {word.replace('_', ' ')} is {value}, not {read.value}"
    return ""


def _other_parts(old: SeenCreature, new: SeenCreature) -> str:
    """Whether a part that can be measured on white is another one: all but what is told by ivory."""
    away = creature_distance(*(without_measures(one, _IVORY_PARTS) for one in (old, new)))
    return f"it is another creature ({away:.1f} tolerances apart)" if away > _MAX_DISTANCE_ON_WHITE else ""


def _other_looks(old: SeenCreature, new: SeenCreature, views: tuple[View, View]) -> str:
    away = creature_distance(old, new)
    if away > _MAX_DISTANCE:
        return f"it is another creature ({away:.1f} tolerances apart)"
    inside = erode(old.mask, _EDGE_PX) | erode(new.mask, _EDGE_PX)
    spot = largest_spot(inside & (distance(views[0].lab, views[1].lab) > _CHANGED_DE))
    share = spot / max(float(old.mask.sum()), 1.0)
    return f"the creature changed in one place ({share:.3f} of it)" if share > _MAX_SPOT else ""
