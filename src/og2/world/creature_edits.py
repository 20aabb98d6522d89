"""Edits of a creature, judged from what is seen before and after: another pose, spots gone, other eyes.

Part of the scorer. The words for the pose and the measures come from `creature_reading`; beside them stand
the pixels, since a creature that moves stays where it is: what the edit is not about must be the same pixel
by pixel, what changed must be of the creature's own colours (a faint arm is none), and whole. Places are in
radii of the body from its middle, u to the right and v downward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from og2.world.background import window
from og2.world.creature_body import Frame, find_frame
from og2.world.creature_parts import (
    CORE_STEP,
    DARK,
    MOUTH_Y,
    TONGUE,
    WHITE,
    astray_of,
    core_of,
    eyes_done,
    gaze_change,
    lips_of,
    reach_of,
    tongue_of,
)
from og2.world.creature_reading import SeenCreature, ear_bands
from og2.world.identity import creature_distance, without_measures
from og2.world.measures import Aspect, at_size, overlap, rate
from og2.world.object_edits import Found, Scenario, match_others
from og2.world.palette import POSE_WORDS
from og2.world.pixels import BoolArray, FloatArray, blurred, components, dilate, distance, fill_holes
from og2.world.requirements import EditRequirements
from og2.world.subjects import Sight

_STEPS = {"left": -1, "front": 0, "right": 1}
_SAME_DE, _SOFTENED_PX = 8.0, 1.2
_MAX_BLOB = 0.02  # square radii of what changed in one place outside the place of the edit
_MIN_SAME = 0.98  # of the creature outside the place of the edit
_MAX_DISTANCE = 1.3  # between the measures before and after: a moved creature has 0.5, another one more
_CHANGED_DE = 12.0
_OWN_COLOR_DE = 9.0
_MIN_OWN = 0.28  # of what changed; a faint change has next to nothing
_MIN_OWN_GAZE, _MIN_OWN_EYES = 0.15, 0.35
_MIN_FACE = 0.85  # of the face that is found where it moved to, to a pixel
_MIN_GROWN = 0.45  # of the tail's area, on the side it moved to
_CORE_RANGE = (0.65, 1.4)  # of how far the dark core has to go
_MIN_MOVED, _MIN_MOVED_BOTH = 0.35, 0.65  # of that change, among lines; a faint one has 0.62 at most
_EYE_STEPS = (0.12, 0.60)  # ln of how many times as large, or small: 1.13 to 1.82
_MAX_EYE_ERROR = 0.09  # of ln radius, between both eyes
_MAX_EYE_ASKEW = 0.025  # radii that the middle of an eye may move; one side of it grown: 0.04
_MAX_EYE_MOVE = 0.055
_MAX_LEFT, _MAX_LEFT_ARM = 0.30, 0.15  # of a part that had to go, of an arm
_MAX_ASTRAY = 0.2  # of an arm's area
_LIMB_RATIO, _REACH_RATIO = (0.60, 1.65), (0.84, 1.15)
_OPEN_AREA, _CLOSED_AREA = 0.062, 0.055  # square radii
_OPEN_HEIGHT, _CLOSED_HEIGHT = 0.050, 0.050  # standard deviations, radii
_MIN_LIPS = 0.85  # of them that are dark
_MIN_TONGUE = 0.7  # of it in either half
_MAX_ASKEW = 0.05  # radii between the middles of mouth and eyes
_MIN_MOUTH_WIDTH = 0.068
_TAIL_TOP = -0.62  # radii; above it are ears
_EYE_Y = -0.30  # of the half height


@dataclass(frozen=True)
class _Pair:
    """One creature before and after, in one window of both pictures.

    before, after: its words and measures; old, new: its frames; behind: the source's background, CIELAB.
    """

    before: SeenCreature
    after: SeenCreature
    old: Frame
    new: Frame
    behind: FloatArray

    @property
    def ellipse(self) -> FloatArray:
        """1 on the body's outline, less inside."""
        return (self.old.u / self.old.wide) ** 2 + (self.old.v / self.old.high) ** 2


def judge_motion(
    scenario: Scenario, rule: EditRequirements, sights: tuple[Sight, Sight], found: Found
) -> None:
    """Whether the only creature took the pose asked for and is otherwise the same."""
    pair = _pair_of(scenario, sights, found)
    assert rule.creature is not None
    asked = next(word for word in POSE_WORDS if getattr(rule.creature, word) is not None)
    value = str(getattr(rule.creature, asked))
    if pair is None:
        return
    _pose_word(found, asked, value, pair.after)
    for word in POSE_WORDS:
        if word != asked:
            _same_pose_word(found, word, pair, may_be_unread=asked != "facing")
    zone = _zone(pair, asked)
    _same_elsewhere(found, pair, zone, ())
    _own_colors(found, pair, zone, asked)
    whole = {"mouth": _whole_mouth, "gaze": _whole_gaze, "facing": _whole_face}.get(asked, _whole_arm)
    met, reason = whole(pair, zone, value)
    found.aspects.append(Aspect("whole", 10.0 if met else 4.0, met, reason))


def judge_retouch(
    scenario: Scenario, rule: EditRequirements, sights: tuple[Sight, Sight], found: Found
) -> None:
    """Whether the spots are gone or the eyes have the size asked for, and all else is the same."""
    pair = _pair_of(scenario, sights, found)
    assert rule.creature is not None
    if pair is None:
        return
    what = "spots" if rule.factor is None else "eyes"
    for word in POSE_WORDS:
        _same_pose_word(found, word, pair, may_be_unread=word != "gaze")
    zone = _zone(pair, what)
    _same_elsewhere(
        found, pair, zone, ("spots", "spot size") if what == "spots" else ("eye size", "eye separation")
    )
    if what == "spots":
        _no_spots(found, pair, zone)
    else:
        _eye_size(found, pair, float(rule.factor or 1.0))
        _own_colors(found, pair, zone, what)


def _pair_of(scenario: Scenario, sights: tuple[Sight, Sight], found: Found) -> _Pair | None:
    """The creature before and after, with its place as the edited region; None where there are not two."""
    before, after = sights
    if not before.creatures or before.view is None:
        found.unclear_source = "the source shows no creature"
        return None
    # The largest, should something else of the source look like a creature too.
    one = max(before.creatures, key=lambda creature: int(creature.mask.sum()))
    mask = one.mask
    found.region = at_size(mask, scenario.old.shape[:2])
    if after.view is None or after.reason or after.view.mask.shape != mask.shape:
        found.aspects.append(Aspect("readable", 0.0, met=False, reason=f"unknown: {after.reason}"))
        return None
    views = (before.view, after.view)
    found.left, lost = match_others(list(before.objects), list(after.objects), views)
    if lost:
        found.aspects.append(Aspect("others", 0.0, met=False, reason=f"lost or changed: {', '.join(lost)}"))
    if found.left or sum(map(len, (after.gizmos, after.plates))) > len(before.gizmos) + len(before.plates):
        reason = "there is more in the picture than before"
        found.aspects.append(Aspect("nothing else", 0.0, met=False, reason=reason))
    if not after.creatures or len(after.creatures) != len(before.creatures):
        reason = f"{len(after.creatures)} creatures are seen, not {len(before.creatures)}"
        found.aspects.append(Aspect("there", 0.0, met=False, reason=reason))
        return None
    other = max(after.creatures, key=lambda creature: overlap(creature.mask, mask))
    found.region = found.region | at_size(other.mask, scenario.old.shape[:2])
    (old, where), (new, _) = (window(view, one.mask | other.mask) for view in views)
    frames = [find_frame(v, fill_holes(c.mask[where])) for v, c in ((old, one), (new, other))]
    if frames[0] is None:
        found.unclear_source = "the creature of the source cannot be measured"
        return None
    if frames[1] is None:
        reason = "unknown: the creature cannot be measured"
        found.aspects.append(Aspect("there", 0.0, met=False, reason=reason))
        return None
    return _Pair(one, other, frames[0], frames[1], old.background)


def _pose_word(found: Found, word: str, wanted: str | None, after: SeenCreature) -> None:
    seen = after.words[word]
    met = wanted is None or seen.value == wanted
    score = 10.0 if met else 5.0 if seen.value is None else 0.0
    reason = "" if met else f"{word.replace('_', ' ')} is {seen.value}, not {wanted} {seen.reason}".rstrip()
    found.aspects.append(Aspect(word, score, met, reason))


def _same_pose_word(found: Found, word: str, pair: _Pair, may_be_unread: bool) -> None:
    """What the edit is not about reads as before; unread it may be where the pixels speak for it."""
    old, new = pair.before.words[word].value, pair.after.words[word].value
    if old is not None and not (new is None and may_be_unread):
        _pose_word(found, word, old, pair.after)


def _zone(pair: _Pair, what: str) -> BoolArray:
    """Where an edit of that part may change pixels."""
    u, v, ellipse, high = pair.old.u, pair.old.v, pair.ellipse, pair.old.high
    inside = ellipse < 1.06
    if what in ("gaze", "eyes"):
        return inside & (np.abs(v - _EYE_Y * high) < 0.38)
    if what == "mouth":
        return inside & (np.abs(v - MOUTH_Y * high) < 0.26) & (np.abs(u - pair.old.face) < 0.34)
    if what == "spots":
        return inside & (v > 0.12 * high)
    beside = (ellipse > 0.92) & (np.abs(u) > 0.55 * pair.old.wide) & (v < 1.3)
    if what == "facing":
        face = inside & (v < MOUTH_Y * high + 0.26)
        return face | beside if _tail_side(pair.before) != _tail_side(pair.after) else face
    return beside & ((u < 0) == (what == "left_arm"))


def _tail_side(creature: SeenCreature) -> float:
    """The tail is on the side the creature does not face, on the right when it faces us."""
    return -1.0 if creature.words["facing"].value == "right" else 1.0


def _same_elsewhere(found: Found, pair: _Pair, zone: BoolArray, free: tuple[str, ...]) -> None:
    around = dilate(pair.old.part | pair.new.part, 2.0) & ~dilate(zone, 3.0)
    # Both a little blurred, so that a softer picture is not another creature.
    off = distance(*(blurred(frame.lab, _SOFTENED_PX) for frame in (pair.old, pair.new)))
    share = float((off <= _SAME_DE)[around].mean()) if around.any() else 1.0
    largest = components(around & (off > _SAME_DE))[:1]
    blob = float(largest[0].sum()) / pair.old.body.r**2 if largest else 0.0
    measured = [without_measures(c, free) for c in (pair.before, pair.after)]
    away = creature_distance(measured[0], measured[1])
    met = share >= _MIN_SAME and away <= _MAX_DISTANCE and blob <= _MAX_BLOB
    reason = "" if met else f"it is not the same creature ({share:.2f} of it kept, {away:.1f} apart)"
    score = min(
        rate("preservation", share), float(np.interp(away, (0.6, _MAX_DISTANCE, 3.0), (10.0, 7.0, 0.0)))
    )
    found.aspects.append(Aspect("same creature", score, met, reason))


def _own_colors(found: Found, pair: _Pair, zone: BoolArray, what: str) -> None:
    """Whether what changed is of the creature's colours or the backdrop's, not a mix with what was there."""
    changed = zone & (distance(pair.old.lab, pair.new.lab) > _CHANGED_DE)
    if changed.sum() < 4:
        return
    values = pair.new.lab[changed]
    skin, line = pair.old.skin[changed], pair.new.line
    has_limbs, has_face = what in ("left_arm", "right_arm", "facing"), what not in ("left_arm", "right_arm")
    off = [_off(values, skin)]
    if has_limbs:
        outside = pair.ellipse[changed] > 0.92
        off.append(np.where(outside, distance(values, pair.behind[changed]), np.inf))
        off.append(np.where(outside, _off(values, pair.old.second_lab), np.inf))
    if has_face:
        off += [_off(values, lab) for lab in (WHITE, DARK, TONGUE)]
    if line is not None:  # the line along a part is of it
        lined = [skin] if has_limbs else []
        lined += [pair.old.second_lab] if what == "facing" else []
        lined += [WHITE, DARK, TONGUE] if has_face else []
        off += [_off(values, line.of(lab)) for lab in lined]
    share = float((np.min(off, axis=0) < _OWN_COLOR_DE).mean())
    # Eyes are small and mostly edge; how far their cores went is measured by itself.
    met = share >= {"gaze": _MIN_OWN_GAZE, "eyes": _MIN_OWN_EYES}.get(what, _MIN_OWN)
    reason = "" if met else f"only {share:.2f} of what changed is of the creature's colours: it is faint"
    score = float(np.interp(share, (0.1, _MIN_OWN, 0.6), (0.0, 7.0, 10.0)))
    found.aspects.append(Aspect("clear", score, met, reason))


def _off(values: FloatArray, color: FloatArray) -> FloatArray:
    """dE with lightness counted less: limbs are darker than the body."""
    d = values - color
    return np.sqrt(0.3 * d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2)


def _whole_arm(pair: _Pair, zone: BoolArray, _: str) -> tuple[bool, str]:
    """The old arm is gone, the new one has its size and reaches as far from the shoulder."""
    zone = zone & ~ear_bands(pair.old)
    old, new = zone & pair.old.is_limb, zone & pair.new.is_limb
    gone = old & ~dilate(new, 1.5)
    stays = _off(pair.new.lab, pair.old.skin) < _OWN_COLOR_DE
    left = float(stays[gone].mean()) if gone.sum() >= 6 else 0.0
    ratio = float(new.sum()) / max(float(old.sum()), 1.0)
    reach = reach_of(pair.new, new, zone) / max(reach_of(pair.old, old, zone), 0.1)
    astray = max(astray_of(pair.new, new & (pair.new.u * side > 0), side) for side in (-1.0, 1.0))
    met = left <= _MAX_LEFT_ARM and astray <= _MAX_ASTRAY and _LIMB_RATIO[0] <= ratio <= _LIMB_RATIO[1]
    met = met and _REACH_RATIO[0] <= reach <= _REACH_RATIO[1]
    said = f"{max(left, astray):.2f} of the old arm is left, the new has {ratio:.2f} of its area"
    said += f", {reach:.2f} of its reach"
    return met, "" if met else said


def _whole_gaze(pair: _Pair, _: BoolArray, value: str) -> tuple[bool, str]:
    """Both dark cores moved by as much as the words say."""
    before = _STEPS.get(str(pair.before.words["gaze"].value), 0)
    steps = _STEPS[value] - before
    if steps == 0:
        return False, "the gaze was there before"
    line, both = pair.new.line, (before, before + steps)
    if line is not None:
        done = [gaze_change(pair.old, pair.new, eye, line, both) for eye in pair.old.eyes]
        met = min(done) >= _MIN_MOVED and sum(done) / 2 >= _MIN_MOVED_BOTH
        return met, "" if met else f"the eyes are {done[0]:.2f} and {done[1]:.2f} of what was asked"
    moved = []
    for eye in pair.old.eyes:
        middles = [core_of(frame, eye) for frame in (pair.old, pair.new)]
        moved.append((middles[1] - middles[0]) / (steps * CORE_STEP * eye.radius))
    met = all(_CORE_RANGE[0] <= m <= _CORE_RANGE[1] for m in moved)
    return met, "" if met else f"the eyes moved by {moved[0]:.2f} and {moved[1]:.2f} of what was asked"


def _whole_face(pair: _Pair, _: BoolArray, __: str) -> tuple[bool, str]:
    """The face as a whole moved to that side, and the tail changed sides with it."""
    masks = []
    for frame in (pair.old, pair.new):
        edge = 0.96 if frame.line is None else 0.96 - frame.line.width / frame.body.r
        region = frame.ellipse(edge) & (frame.v < MOUTH_Y * frame.high + 0.22) & ~frame.is_second
        masks.append(region & (distance(frame.lab, frame.skin) > 20.0))
    steps = [sum(eye.x for eye in frame.eyes) / 2 for frame in (pair.old, pair.new)]
    old, new = _moved(masks[0], round(steps[1] - steps[0])), masks[1]
    share = min(float(dilate(b, 1.5)[a].mean()) if a.any() else 0.0 for a, b in ((old, new), (new, old)))
    if share < _MIN_FACE:
        return False, f"only {share:.2f} of the face moved"
    if _tail_side(pair.before) == _tail_side(pair.after):
        return True, ""
    side = _tail_side(pair.before)
    beside = (pair.ellipse > 1.1) & (pair.old.v > _TAIL_TOP) & (pair.old.v < 0.9)
    outward = pair.old.u / pair.old.wide
    tail = beside & (side * outward > 0.6) & pair.old.is_second
    if tail.sum() < 0.03 * pair.old.body.r**2:
        return True, ""
    left = float((tail & pair.new.is_second).sum()) / float(tail.sum())
    grown = float((beside & (side * outward < -0.6) & pair.new.is_second).sum()) / float(tail.sum())
    is_hidden = pair.after.words["left_arm" if side > 0 else "right_arm"].value in ("down", None)
    met = left <= _MAX_LEFT and (grown >= _MIN_GROWN or is_hidden)
    return met, "" if met else f"{left:.2f} of the tail is where it was, {grown:.2f} on the other side"


def _moved(mask: BoolArray, dx: int) -> BoolArray:
    moved = np.zeros_like(mask)
    if dx >= 0:
        moved[:, dx:] = mask[:, : mask.shape[1] - dx]
    else:
        moved[:, :dx] = mask[:, -dx:]
    return moved


def _whole_mouth(pair: _Pair, zone: BoolArray, value: str) -> tuple[bool, str]:
    """The mouth is a whole oval or a whole line, under the middle of the eyes."""
    new = pair.new
    away = np.minimum(distance(new.lab, new.skin), distance(new.lab, new.second_lab))
    mouth = zone & (np.minimum(distance(new.lab, DARK), distance(new.lab, TONGUE)) < away)
    parts = components(mouth, smallest=3)
    if not parts:
        return False, "no mouth is seen"
    mouth = parts[0]
    area = float(mouth.sum()) / new.body.r**2
    height, width = float(new.v[mouth].std()), float(new.u[mouth].std())
    askew = abs(float(new.u[mouth].mean()) - new.face)
    if value == "open":
        lips = lips_of(new)
        covered = float(mouth[lips].mean()) if lips.any() else 1.0
        met = area >= _OPEN_AREA and height >= _OPEN_HEIGHT and covered >= _MIN_LIPS
        met = met and tongue_of(new) >= _MIN_TONGUE
    else:
        met = area <= _CLOSED_AREA and height <= _CLOSED_HEIGHT
    met = met and askew <= _MAX_ASKEW and width >= _MIN_MOUTH_WIDTH
    said = f"area {area:.3f}, height {height:.3f}, width {width:.3f}, {askew:.3f} askew"
    return met, "" if met else f"the mouth is not wholly {value} ({said})"


def _no_spots(found: Found, pair: _Pair, zone: BoolArray) -> None:
    old, below = pair.old, pair.old.v > (MOUTH_Y + 0.12) * pair.old.high
    mouth = ((old.u - old.face) / 0.25) ** 2 + ((old.v - MOUTH_Y * old.high) / 0.20) ** 2 < 1.0
    parts = [
        part
        for part in components(zone & old.is_second & ~mouth, smallest=3)
        if float(pair.ellipse[part].mean()) < 0.95 and float(below[part].mean()) > 0.5
    ]
    if not parts:
        found.unclear_source = "the source shows no spots"
        return
    left = 0.0
    for spot in parts:
        toward = pair.old.lab[spot] - pair.old.skin[spot]
        rest = ((pair.new.lab[spot] - pair.old.skin[spot]) * toward).sum()
        left = max(left, float(rest / max(float((toward**2).sum()), 1.0)))
    met = left <= _MAX_LEFT and pair.after.spots == 0
    reason = "" if met else f"a spot is left by {left:.2f}, {pair.after.spots} are counted"
    score = float(np.interp(left, (0.1, _MAX_LEFT, 0.9), (10.0, 7.0, 0.0)))
    found.aspects.append(Aspect("spots", score, met, reason))


def _eye_size(found: Found, pair: _Pair, factor: float) -> None:
    """Both eyes clearly larger, or smaller, by one factor and around their middles.

    The words say no amount: any within a range will do.
    """
    done = eyes_done(pair.old, pair.new)
    steps = [math.copysign(1.0, math.log(factor)) * step for step in done.steps]
    met = _EYE_STEPS[0] <= min(steps) and max(steps) <= _EYE_STEPS[1]
    met = met and abs(steps[0] - steps[1]) <= _MAX_EYE_ERROR
    met = met and done.moved <= _MAX_EYE_MOVE and done.askew <= _MAX_EYE_ASKEW
    said = " and ".join(f"{math.exp(step):.2f}" for step in done.steps)
    said += f" times as large, {done.moved:.2f} from their place, {done.askew:.3f} askew"
    score = float(np.interp(min(steps), (0.0, _EYE_STEPS[0], 0.25), (0.0, 7.0, 10.0)))
    reason = "" if met else f"the eyes are {said}"
    found.aspects.append(Aspect("eyes", score if met else min(score, 5.0), met, reason))
