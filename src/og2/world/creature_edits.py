"""Edits of a creature, judged from what is seen before and after: another pose, spots gone, other eyes.

Part of the scorer. The words for the pose and the measures come from `creature_reading`; beside them stand
the pixels, since a creature that moves stays where it is: what the edit is not about must be the same pixel
by pixel, what changed must be of the creature's own colours (a faint arm is none), and whole. Places are in
radii of the body from its middle, u to the right and v downward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from og2.world.creature_reading import MEASURES, SeenCreature
from og2.world.identity import creature_distance
from og2.world.measures import Aspect, at_size, overlap, rate
from og2.world.object_edits import Found, Scenario, match_others
from og2.world.pixels import BoolArray, FloatArray, components, dilate, distance
from og2.world.requirements import EditRequirements
from og2.world.subjects import Sight

POSE_WORDS: tuple[str, ...] = ("left_arm", "right_arm", "mouth", "facing", "gaze")
_STEPS = {"left": -1, "front": 0, "right": 1}
_SAME_DE = 10.0
_MIN_SAME = 0.97  # of the creature outside the place of the edit
_MAX_DISTANCE = 4.5  # between the measures before and after
_CHANGED_DE = 12.0
_OWN_COLOR_DE = 9.0
_MIN_OWN = 0.55  # of what changed
_MIN_FACE = 0.66  # overlap of the face with itself, moved
_CORE_STEP = 0.42  # of the eye's radius: how far one step of the gaze takes the dark core
_CORE_RANGE = (0.62, 1.45)
_MAX_EYE_ERROR = 0.09  # of ln radius
_MAX_LEFT = 0.30  # of a part that had to go
_LIMB_RATIO = (0.60, 1.65)
_OPEN_AREA, _CLOSED_AREA = 0.070, 0.058  # square radii
_OPEN_HEIGHT, _CLOSED_HEIGHT = 0.050, 0.050  # standard deviations, radii
_MAX_ASKEW = 0.05  # radii between the middles of mouth and eyes
_MIN_MOUTH_WIDTH = 0.068
_WHITE, _DARK, _TONGUE = (np.array(lab) for lab in ((98.0, 0.0, 0.0), (14.0, 3.0, 1.0), (52.0, 58.0, 28.0)))


@dataclass(frozen=True)
class _Pair:
    """One creature before and after: CIELAB pixels, the background behind, and places in radii.

    wide, high: half axes of the body in radii; r: radius in pixels.
    """

    before: SeenCreature
    after: SeenCreature
    old: FloatArray
    new: FloatArray
    behind: FloatArray
    u: FloatArray
    v: FloatArray
    wide: float
    high: float
    r: float

    def measure(self, name: str) -> FloatArray:
        """A colour of the creature in the source: "body" or "second"."""
        return np.array([self.before.measures[MEASURES.index(f"{name} {c}")] for c in "Lab"])

    @property
    def ellipse(self) -> FloatArray:
        """1 on the body's outline, less inside."""
        return (self.u / self.wide) ** 2 + (self.v / self.high) ** 2

    @property
    def either(self) -> BoolArray:
        """Where the creature is or was."""
        return self.before.mask | self.after.mask


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
    for word in POSE_WORDS:
        _pose_word(found, word, value if word == asked else pair.before.words[word].value, pair.after)
    zone = _zone(pair, asked)
    _same_elsewhere(found, pair, zone, _free_measures(asked))
    _own_colors(found, pair, zone, asked)
    whole = {"mouth": _whole_mouth, "gaze": _whole_gaze, "facing": _whole_face}.get(asked, _whole_arm)
    met, reason = whole(pair, zone, asked, value)
    found.aspects.append(Aspect("whole", 10.0 if met else 4.0, met, reason))


def judge_retouch(
    scenario: Scenario, rule: EditRequirements, sights: tuple[Sight, Sight], found: Found
) -> None:
    """Whether the spots are gone or the eyes have the size asked for, and all else is the same."""
    pair = _pair_of(scenario, sights, found)
    assert rule.creature is not None
    if pair is None:
        return
    for word in POSE_WORDS:
        _pose_word(found, word, pair.before.words[word].value, pair.after)
    what = "spots" if rule.factor is None else "eyes"
    zone = _zone(pair, what)
    _same_elsewhere(
        found, pair, zone, ("spots", "spot size") if what == "spots" else ("eye size", "eye separation")
    )
    if what == "spots":
        _no_spots(found, pair, zone)
    else:
        _eye_size(found, pair, zone, float(rule.factor or 1.0))
        _own_colors(found, pair, zone, what)


def _pair_of(scenario: Scenario, sights: tuple[Sight, Sight], found: Found) -> _Pair | None:
    """The creature before and after, with its place as the edited region; None where there are not two."""
    before, after = sights
    if len(before.creatures) != 1 or before.view is None:
        found.unclear_source = f"the source shows {len(before.creatures)} creatures, not one"
        return None
    found.region = at_size(before.creatures[0].mask, scenario.old.shape[:2])
    if after.view is None or after.view.mask.shape != before.view.mask.shape:
        found.aspects.append(Aspect("readable", 0.0, met=False, reason=f"unknown: {after.reason}"))
        return None
    views = (before.view, after.view)
    found.left, lost = match_others(list(before.objects), list(after.objects), views)
    if lost:
        found.aspects.append(Aspect("others", 0.0, met=False, reason=f"lost or changed: {', '.join(lost)}"))
    if found.left or after.gizmos or after.plates:
        reason = "there is more in the picture than before"
        found.aspects.append(Aspect("nothing else", 0.0, met=False, reason=reason))
    if len(after.creatures) != 1:
        reason = f"{len(after.creatures)} creatures are seen, not one"
        found.aspects.append(Aspect("there", 0.0, met=False, reason=reason))
        return None
    one, other = before.creatures[0], after.creatures[0]
    height, width = one.mask.shape
    aspect, leg = (float(one.measures[MEASURES.index(name)]) for name in ("aspect", "leg length"))
    wide, high = math.exp(aspect / 2), math.exp(-aspect / 2)
    x, y = one.center[0] * width, one.center[1] * height
    r = (float(np.nonzero(one.mask.any(axis=1))[0][-1]) + 1.0 - y) / (leg + 0.94 * high)
    ys, xs = np.mgrid[0:height, 0:width] + 0.5
    found.region = found.region | at_size(other.mask, scenario.old.shape[:2])
    old, new = views
    return _Pair(one, other, old.lab, new.lab, old.background, (xs - x) / r, (ys - y) / r, wide, high, r)


def _pose_word(found: Found, word: str, wanted: str | None, after: SeenCreature) -> None:
    seen = after.words[word]
    met = wanted is None or seen.value == wanted
    score = 10.0 if met else 5.0 if seen.value is None else 0.0
    reason = "" if met else f"{word.replace('_', ' ')} is {seen.value}, not {wanted} {seen.reason}".rstrip()
    found.aspects.append(Aspect(word, score, met, reason))


def _zone(pair: _Pair, what: str) -> BoolArray:
    """Where an edit of that part may change pixels."""
    u, v, ellipse, high = pair.u, pair.v, pair.ellipse, pair.high
    inside = ellipse < 1.06
    if what in ("gaze", "eyes"):
        return inside & (np.abs(v + 0.30 * high) < 0.38)
    if what == "mouth":
        return inside & (np.abs(v - 0.17 * high) < 0.30) & (np.abs(u) < 0.75)
    if what == "spots":
        return inside & (v > 0.12 * high)
    beside = (ellipse > 0.92) & (np.abs(u) > 0.55 * pair.wide) & (v < 1.3)
    if what == "facing":
        face = inside & (v < 0.17 * high + 0.26)
        return face | beside if _tail_side(pair.before) != _tail_side(pair.after) else face
    return beside & ((u < 0) == (what == "left_arm"))


def _tail_side(creature: SeenCreature) -> float:
    """The tail is on the side the creature does not face, on the right when it faces us."""
    return -1.0 if creature.words["facing"].value == "right" else 1.0


def _free_measures(word: str) -> tuple[str, ...]:
    """What cannot be compared when that word of the pose changes."""
    return ("tail reach",) if word in ("facing", "left_arm", "right_arm") else ()


def _same_elsewhere(found: Found, pair: _Pair, zone: BoolArray, free: tuple[str, ...]) -> None:
    around = dilate(pair.either, 2.0) & ~dilate(zone, 1.5)
    share = float((distance(pair.old, pair.new)[around] <= _SAME_DE).mean()) if around.any() else 1.0
    measured = [replace(c, measures=_without(c.measures, free)) for c in (pair.before, pair.after)]
    away = creature_distance(measured[0], measured[1])
    met = share >= _MIN_SAME and away <= _MAX_DISTANCE
    reason = "" if met else f"it is not the same creature ({share:.2f} of it kept, {away:.1f} apart)"
    score = min(
        rate("preservation", share), float(np.interp(away, (2.0, _MAX_DISTANCE, 8.0), (10.0, 7.0, 0.0)))
    )
    found.aspects.append(Aspect("same creature", score, met, reason))


def _without(measures: FloatArray, names: tuple[str, ...]) -> FloatArray:
    kept = measures.copy()
    kept[[MEASURES.index(name) for name in names]] = math.nan
    return kept


def _own_colors(found: Found, pair: _Pair, zone: BoolArray, what: str) -> None:
    """Whether what changed is of the creature's colours or the background's, not a mix with what was there."""
    changed = zone & (distance(pair.old, pair.new) > _CHANGED_DE)
    if changed.sum() < 4:
        return
    values = pair.new[changed]
    off = [_off(values, pair.measure("body"))]
    if what in ("left_arm", "right_arm", "facing"):
        outside = pair.ellipse[changed] > 0.92
        off.append(np.where(outside, distance(values, pair.behind[changed]), np.inf))
        off.append(np.where(outside, _off(values, pair.measure("second")), np.inf))
    if what in ("gaze", "eyes", "facing", "mouth"):
        off += [_off(values, lab) for lab in (_WHITE, _DARK, _TONGUE)]
    share = float((np.min(off, axis=0) < _OWN_COLOR_DE).mean())
    met = share >= _MIN_OWN
    reason = "" if met else f"only {share:.2f} of what changed is of the creature's colours: it is faint"
    found.aspects.append(
        Aspect("clear", float(np.interp(share, (0.1, _MIN_OWN, 0.8), (0.0, 7.0, 10.0))), met, reason)
    )


def _off(values: FloatArray, color: FloatArray) -> FloatArray:
    """dE with lightness counted less: shading makes a body lighter and darker."""
    d = values - color
    return np.sqrt(0.3 * d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2)


def _whole_arm(pair: _Pair, zone: BoolArray, _word: str, _value: str) -> tuple[bool, str]:
    """The old arm is gone and the new one has its size."""
    body, second = pair.measure("body"), pair.measure("second")
    old, new = (
        zone & creature.mask & (_off(lab, body) < 17.0) & (_off(lab, body) < _off(lab, second))
        for creature, lab in ((pair.before, pair.old), (pair.after, pair.new))
    )
    gone = old & ~dilate(new, 1.5)
    left = float((_off(pair.new, body)[gone] < _OWN_COLOR_DE).mean()) if gone.sum() >= 6 else 0.0
    ratio = float(new.sum()) / max(float(old.sum()), 1.0)
    met = left <= _MAX_LEFT and _LIMB_RATIO[0] <= ratio <= _LIMB_RATIO[1]
    return met, "" if met else f"{left:.2f} of the old arm is left, the new one has {ratio:.2f} of its area"


def _whole_gaze(pair: _Pair, zone: BoolArray, _word: str, value: str) -> tuple[bool, str]:
    """Both dark cores moved by as much as the words say."""
    steps = _STEPS[value] - _STEPS.get(str(pair.before.words["gaze"].value), 0)
    if steps == 0:
        return False, "the gaze was there before"
    moved = []
    radius = float(pair.before.measures[MEASURES.index("eye size")])
    for eye in _eye_halves(pair, zone):
        middles = [_middle(pair, _darkness(lab) * eye) for lab in (pair.old, pair.new)]
        moved.append((middles[1] - middles[0]) / (steps * _CORE_STEP * radius))
    met = all(_CORE_RANGE[0] <= m <= _CORE_RANGE[1] for m in moved)
    return met, "" if met else f"the eyes moved by {moved[0]:.2f} and {moved[1]:.2f} of what was asked"


def _eye_halves(pair: _Pair, zone: BoolArray) -> tuple[FloatArray, FloatArray]:
    """How much each pixel belongs to the left and to the right eye of the source, dark core included."""
    eyes = _eyes(pair, pair.old, zone)
    middle = float(pair.u[eyes].mean()) if eyes.any() else 0.0
    near = dilate(eyes, 1.0)
    return (near & (pair.u < middle)).astype(np.float64), (near & (pair.u >= middle)).astype(np.float64)


def _eyes(pair: _Pair, lab: FloatArray, zone: BoolArray) -> BoolArray:
    """What is white or dark inside the body and has both: the eyes, not what lies at the body's rim."""
    bare = zone & (pair.ellipse < 0.97) & (_colorless(lab, pair.measure("body")) > 0.5)
    light, dark = lab[..., 0] > 80.0, lab[..., 0] < 45.0
    eyes = np.zeros_like(bare)
    for part in components(bare, smallest=4):
        if (part & light).any() and (part & dark).any():
            eyes |= part
    return eyes


def _darkness(lab: FloatArray) -> FloatArray:
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    return np.clip((78.0 - lab[..., 0]) / 60.0, 0.0, 1.0) * np.clip((34.0 - chroma) / 14.0, 0.0, 1.0)


def _colorless(lab: FloatArray, body: FloatArray) -> FloatArray:
    """How far colours are from the body's chroma toward none: 1 in an eye, 0 on the body."""
    whole = max(math.hypot(body[1], body[2]), 1.0)
    return np.clip(1.0 - np.hypot(lab[..., 1], lab[..., 2]) / whole, 0.0, 1.0)


def _middle(pair: _Pair, weight: FloatArray) -> float:
    return float((weight * pair.u).sum() / max(float(weight.sum()), 1e-6))


def _whole_face(pair: _Pair, _: BoolArray, _word: str, value: str) -> tuple[bool, str]:
    """The face as a whole moved to that side, and the tail changed sides with it."""
    steps = _STEPS[value] - _STEPS.get(str(pair.before.words["facing"].value), 0)
    region = (pair.ellipse < 0.98) & (pair.v < 0.17 * pair.high + 0.24)
    body = pair.measure("body")
    old, new = (region & (_off(lab, body) > 18.0) for lab in (pair.old, pair.new))
    reach = range(math.floor(0.1 * pair.r), math.ceil(0.8 * pair.wide * pair.r) + 1)
    shares = {dx: overlap(_moved(old, int(np.sign(steps)) * dx), new) for dx in reach}
    best = max(shares.values(), default=0.0)
    if best < _MIN_FACE:
        return False, f"only {best:.2f} of the face moved"
    sides = (_tail_side(pair.before), _tail_side(pair.after))
    if sides[0] == sides[1]:
        return True, ""
    beside = (pair.ellipse > 1.08) & (pair.v > -0.9) & (pair.v < 1.0)
    second = pair.measure("second")
    tails = []
    for creature, lab, side in ((pair.before, pair.old, sides[0]), (pair.after, pair.new, sides[1])):
        there = beside & (side * pair.u > 0.5 * pair.wide) & creature.mask
        tails.append(there & (_off(lab, second) < 17.0) & (_off(lab, second) < _off(lab, body)))
    left = float((tails[0] & (_off(pair.new, second) < _OWN_COLOR_DE)).sum()) / max(
        float(tails[0].sum()), 1.0
    )
    met = left <= _MAX_LEFT or tails[0].sum() < 0.03 * pair.r**2
    return met, "" if met else f"{left:.2f} of the tail is where it was"


def _moved(mask: BoolArray, dx: int) -> BoolArray:
    moved = np.zeros_like(mask)
    if dx >= 0:
        moved[:, dx:] = mask[:, : mask.shape[1] - dx]
    else:
        moved[:, :dx] = mask[:, -dx:]
    return moved


def _whole_mouth(pair: _Pair, zone: BoolArray, _word: str, value: str) -> tuple[bool, str]:
    """The mouth is a whole oval or a whole line, under the middle of the eyes."""
    body = pair.measure("body")
    away = _off(pair.new, body)
    mouth = zone & (away > 14.0) & (np.minimum(_off(pair.new, _DARK), _off(pair.new, _TONGUE)) < away)
    eyes = _eyes(pair, pair.new, _zone(pair, "gaze"))
    parts = components(mouth, smallest=3)
    if not parts or not eyes.any():
        return False, "no mouth is seen"
    mouth = parts[0]
    area = float(mouth.sum()) / pair.r**2
    height, width = float(pair.v[mouth].std()), float(pair.u[mouth].std())
    askew = abs(float(pair.u[mouth].mean()) - float(pair.u[eyes].mean()))
    if value == "open":
        met = area >= _OPEN_AREA and height >= _OPEN_HEIGHT
    else:
        met = area <= _CLOSED_AREA and height <= _CLOSED_HEIGHT
    met = met and askew <= _MAX_ASKEW and width >= _MIN_MOUTH_WIDTH
    said = f"area {area:.3f}, height {height:.3f}, width {width:.3f}, {askew:.3f} askew"
    return met, "" if met else f"the mouth is not wholly {value} ({said})"


def _no_spots(found: Found, pair: _Pair, zone: BoolArray) -> None:
    body, second = pair.measure("body"), pair.measure("second")
    toward = second - body
    spots = zone & (_off(pair.old, second) < 17.0) & (_off(pair.old, second) < _off(pair.old, body))
    parts = [p for p in components(spots, smallest=3) if float(pair.ellipse[p].mean()) < 0.95]
    if not parts:
        found.unclear_source = "the source shows no spots"
        return
    # Each spot's pixels lose what the body's shading gives both: compare with the change, not the colour.
    undone = [float(((pair.old - pair.new)[p] @ toward).mean() / float(toward @ toward)) for p in parts]
    left = max(1.0 - u for u in undone)
    met = left <= _MAX_LEFT and pair.after.spots == 0
    reason = "" if met else f"a spot is left by {left:.2f}, {pair.after.spots} are counted"
    found.aspects.append(
        Aspect("spots", float(np.interp(left, (0.1, _MAX_LEFT, 0.9), (10.0, 7.0, 0.0))), met, reason)
    )


def _eye_size(found: Found, pair: _Pair, zone: BoolArray, factor: float) -> None:
    """The eyes' areas, by what they were and by all that came or went around them."""
    body, eyes = pair.measure("body"), _eyes(pair, pair.old, zone)
    if not eyes.any():
        found.unclear_source = "the eyes of the source are not seen"
        return
    inside = zone & (pair.v < 0.02 * pair.high)
    before, after = (np.where(inside, _colorless(lab, body), 0.0) for lab in (pair.old, pair.new))
    middle, near = float(pair.u[eyes].mean()), dilate(eyes, 1.5)
    ratios = []
    for side in (pair.u < middle, pair.u >= middle):
        area = max(float(before[side & near].sum()), 1.0)
        ratios.append(math.sqrt(max(1.0 + float((after - before)[side].sum()) / area, 0.01)))
    error = max(abs(math.log(ratio / factor)) for ratio in ratios)
    met = error <= _MAX_EYE_ERROR
    said = " and ".join(f"{ratio:.2f}" for ratio in ratios)
    reason = "" if met else f"the eyes are {said} times as large, not {factor:.2f}"
    found.aspects.append(Aspect("eyes", rate("scale", error), met, reason))
