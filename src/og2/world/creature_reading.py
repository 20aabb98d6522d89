"""Creatures seen in a picture: what they do, and the measurements by which one is told from another.

Part of the scorer. Everything is measured in radii of the body, from the frame that `creature_body` finds, so
that size, place and pose drop out of the description. `read_creature`, `SeenCreature.words` and `.measures`
are the interface; edits of creatures are judged by them too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from og2.world.background import View, window
from og2.world.creature_body import Frame, find_frame
from og2.world.creature_lines import between
from og2.world.creature_parts import lined_horns
from og2.world.pixels import BoolArray, FloatArray, components, dilate, distance, erode, fill_holes, quantile
from og2.world.words import Word

MIN_AREA_PX = 260
_EYE_HEIGHTS = (-0.47, -0.13)  # of the half height; a creature's are at -0.31 to -0.29
_BODY = 0.6  # of the ellipse that stands out; a dull body before a dull backdrop may do so by 0.7
_FACING, _GAZE = 0.135, 0.21  # of the half width; of the eye's radius
_OPEN_MOUTH = 0.044  # square radii: a closed one has 0.038 at most, an open one under blur 0.046 at least
_ARM_EDGES = (-28.0, 22.0)  # degrees: below = down, above = up
_ARM_UNCLEAR = 5.0
_DARK = np.array([14.0, 3.0, 1.0])
_IVORY_L = 84.0
_IVORY, _NEAR_IVORY = np.array([94.0, -1.0, 12.0]), 16.0  # its colour and dE from it, where lines are
_MIN_HORN = 0.006  # square radii; a horn shows 0.018
_SHOULDER = (0.82, 0.10)  # of the half width to the side; radii below the middle
_EAR_ANGLE = math.radians(38.0)  # where on the outline an ear starts, from the top
_EAR_TURN = math.radians(22.8)  # how far an ear leans outward
_EAR_BAND = 0.42  # radii to either side of its axis
# What is measured of a creature, in the order of `SeenCreature.measures`.
MEASURES: tuple[str, ...] = (
    "body L",
    "body a",
    "body b",
    "second L",
    "second a",
    "second b",
    "aspect",
    "eye size",
    "eye separation",
    "ear reach",
    "ear width",
    "leg length",
    "arm length",
    "tail reach",
    "horns",
    "spots",
    "spot size",
)


@dataclass(frozen=True)
class SeenCreature:
    """A creature: words for what it does ("left_arm", "mouth", "facing", ...), and its measures.

    box: in pixels of the given picture; center: of the box, as fractions; measures: by MEASURES, NaN where
    one could not be taken.
    """

    words: dict[str, Word]
    measures: FloatArray
    box: tuple[float, float, float, float]
    center: tuple[float, float]
    mask: BoolArray
    horns: int
    spots: int


def read_creature(view: View, part: BoolArray) -> SeenCreature | None:
    """The creature that a connected part is, or None when it is none."""
    if part.sum() < MIN_AREA_PX:
        return None
    around, where = window(view, part)
    seen = find_frame(around, fill_holes(part[where]))
    if seen is None or not _has_face(seen):
        return None
    arms = [_arm(seen, sign) for sign in (-1.0, 1.0)]
    facing = _direction(seen.face / seen.wide, _FACING)
    words = {"left_arm": _arm_word(arms[0][0]), "right_arm": _arm_word(arms[1][0]), "mouth": _mouth(seen)}
    words |= {"facing": facing, "gaze": _gaze(seen)}
    horns, (spots, spot_size) = _horns(seen), _spots(seen)
    lengths = [length for _, length in arms if not math.isnan(length)]
    measures = np.array(
        [
            *seen.body_lab,
            *seen.second_lab,
            math.log(seen.body.a / seen.body.b),
            *_eyes(seen),
            *_ears(seen),
            _legs(seen),
            # Of two arms of one length the longer is the one that nothing hides.
            max(lengths) if len(lengths) == 2 else math.nan,
            _tail(seen, -1.0 if facing.value == "right" else 1.0),
            horns,
            spots,
            spot_size,
        ]
    )
    rows, columns = np.nonzero(part.any(axis=1))[0], np.nonzero(part.any(axis=0))[0]
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    box = (left * view.scale, top * view.scale, right * view.scale, bottom * view.scale)
    height, width = part.shape
    center = ((where[1].start + seen.body.x) / width, (where[0].start + seen.body.y) / height)
    return SeenCreature(words, measures, box, center, part, horns, spots)


def _has_face(seen: Frame) -> bool:
    """Whether both eyes are where a creature has them, in a body that is whole: checks and letters have
    white discs around dark cores too."""
    heights = [(eye.y - seen.body.y) / seen.body.b for eye in seen.eyes]
    low, high = _EYE_HEIGHTS
    return low < min(heights) and max(heights) < high and float(seen.part[seen.ellipse(0.95)].mean()) > _BODY


def _arm(seen: Frame, sign: float) -> tuple[float, float]:
    """Angle above the horizontal in degrees and reach in radii of the arm on that side, NaN without one."""
    out, up = sign * seen.u - _SHOULDER[0] * seen.wide, _SHOULDER[1] - seen.v
    away = np.hypot(out, up)
    legs = (sign * seen.u < 0.42 * seen.wide + 0.2) & (seen.v > 0.5 * seen.high)
    along, across = _along_ear(seen, sign)
    ears = (np.abs(across) < _EAR_BAND) & (along > -0.2)
    limb = seen.is_limb & (sign * seen.u > 0.3) & (away > 0.25) & (away < 1.5) & ~legs & ~ears
    limb &= ~seen.ellipse(1.05)
    if limb.sum() < max(4.0, 0.02 * seen.body.r**2):
        return math.nan, math.nan
    x, y = float(out[limb].sum()), float(up[limb].sum())  # far pixels weigh more
    length = math.hypot(x, y)
    x, y = x / length, y / length
    arm = limb & (np.abs(out * y - up * x) < 0.3)
    if not arm.any():
        return math.nan, math.nan
    reach = (out * x + up * y)[arm]
    return math.degrees(math.atan2(y, x)), quantile(reach, 0.985) + 0.5 / seen.body.r


def _arm_word(angle: float) -> Word:
    if math.isnan(angle):
        return Word(None, 0.0, "no arm is seen there")
    low, high = _ARM_EDGES
    edge = min(abs(angle - low), abs(angle - high))
    if edge < _ARM_UNCLEAR:
        return Word(None, 0.0, f"an arm at {angle:.0f} degrees is between two words")
    return Word("down" if angle < low else "up" if angle > high else "out", min(1.0, edge / 20.0))


def _gaze(seen: Frame) -> Word:
    return _direction(sum((eye.core_x - eye.x) / eye.radius for eye in seen.eyes) / 2, _GAZE)


def _direction(amount: float, edge: float) -> Word:
    name = "front" if abs(amount) < edge else "right" if amount > 0 else "left"
    return Word(name, min(1.0, abs(abs(amount) - edge) / edge))


def _mouth(seen: Frame) -> Word:
    area = _mouth_area(seen)
    return Word("open" if area > _OPEN_MOUTH else "closed", min(1.0, abs(area - _OPEN_MOUTH) / 0.02))


def _mouth_area(seen: Frame) -> float:
    """The area under the eyes that is dark or a tongue's red, in square radii."""
    under = max(eye.y + 0.9 * eye.radius - seen.body.y for eye in seen.eyes) / seen.body.r
    zone = seen.part & (np.abs(seen.u - seen.face) < 0.28)
    zone &= (seen.v > under) & (seen.v < 0.17 * seen.high + 0.2)
    toward = (_DARK if seen.line is None else seen.line.of(_DARK)) - seen.body_lab
    dark = np.clip((seen.lab - seen.skin) @ toward / float(toward @ toward), 0.0, 1.0)
    dark *= zone & (seen.lab[..., 0] < 0.5 * (14.0 + seen.body_lab[0]) + 8.0) & ~seen.is_second
    red = zone & (distance(seen.lab, np.array([52.0, 58.0, 28.0])) < 20.0)
    red &= (distance(seen.lab, seen.body_lab) > 20.0) & (np.abs(seen.u - seen.face) < 0.15)
    return float(np.where(red, 1.0, dark).sum()) / seen.body.r**2


def _ivory(seen: Frame) -> BoolArray:
    if seen.line is not None:
        near = seen.part & (between(seen.lab, _IVORY, seen.line.of(_IVORY)) < _NEAR_IVORY)
        whole = components(near, diagonal=False, smallest=max(3.0, _MIN_HORN * seen.body.r**2))
        return np.any([np.zeros_like(near), *whole], axis=0)  # an ear's soft edge may be ivory too
    return seen.part & (seen.lab[..., 0] > _IVORY_L) & (np.hypot(seen.lab[..., 1], seen.lab[..., 2]) < 26.0)


def _horns(seen: Frame) -> int:
    """Ivory tips counted in rows above the body; at least two rows must show so many."""
    if seen.line is not None:
        return lined_horns(seen)
    ivory = _ivory(seen) & (np.abs(seen.u) < 0.55)
    counts = []
    for share in (0.06, 0.10, 0.14, 0.18):
        y = round(seen.body.y - seen.body.b - share * seen.body.r)
        if 0 <= y < ivory.shape[0]:
            counts.append(int((np.diff(np.concatenate([[0], ivory[y].astype(int)])) == 1).sum()))
    return sorted(counts)[-2] if len(counts) > 1 else 0


def _eyes(seen: Frame) -> tuple[float, float]:
    """Mean radius of the eyes and how far they are apart."""
    one, other = seen.eyes
    r = seen.body.r
    return (one.radius + other.radius) / (2 * r), math.hypot(other.x - one.x, other.y - one.y) / r


def _along_ear(seen: Frame, sign: float) -> tuple[FloatArray, FloatArray]:
    """Place of every pixel along the axis of the ear on that side, from the body outward, and across it."""
    x = sign * seen.u - seen.wide * math.sin(_EAR_ANGLE)
    y = -seen.v - seen.high * math.cos(_EAR_ANGLE)
    sin, cos = math.sin(_EAR_TURN), math.cos(_EAR_TURN)
    return x * sin + y * cos, x * cos - y * sin


def ear_bands(seen: Frame) -> BoolArray:
    """Where ears are, to either side of their axes from the body outward."""
    bands = np.zeros_like(seen.part)
    for sign in (-1.0, 1.0):
        along, across = _along_ear(seen, sign)
        bands |= (np.abs(across) < _EAR_BAND) & (along > -0.2) & (sign * seen.u > 0)
    return bands


def _ears(seen: Frame) -> tuple[float, float]:
    """How far the ears reach out of the body, and their spread to either side, means of both."""
    clear = seen.part & ~seen.ellipse(1.04) & ~dilate(_ivory(seen), 1.5) & (seen.v < -0.3)
    reaches, spreads = [], []
    for sign in (-1.0, 1.0):
        along, across = _along_ear(seen, sign)
        ear = clear & (np.abs(across) < _EAR_BAND) & (along > -0.05) & (sign * seen.u > 0.12)
        if ear.sum() < 3:
            reaches.append(0.0)
            continue
        reaches.append(quantile(along[ear], 0.985) + 0.5 / seen.body.r)
        spreads.append(2.0 * float(across[ear].std()))
    return sum(reaches) / 2, float(np.mean(spreads)) if spreads else math.nan


def _legs(seen: Frame) -> float:
    """How far the feet's middle is below the body."""
    feet = seen.is_second & (np.abs(seen.u) < 0.42 * seen.wide + 0.32) & (seen.v > seen.high)
    return float(seen.v[feet].mean()) - 0.94 * seen.high if feet.sum() >= 4 else math.nan


def _tail(seen: Frame, side: float) -> float:
    """How far to that side the tail reaches from where it starts."""
    out = side * seen.u - 0.74 * seen.wide
    zone = seen.is_second & (out > 0.0) & (seen.v > -0.8) & (seen.v < 0.52 * seen.high + 0.3)
    zone &= ~seen.ellipse(1.03)
    found = components(zone, smallest=max(4.0, 0.008 * seen.body.r**2))
    if not found:
        return math.nan
    return quantile(out[found[0]], 0.985) + 0.5 / seen.body.r


def _spots(seen: Frame) -> tuple[int, float]:
    """Number and mean radius (in radii of the body) of discs of the second colour on the belly."""
    mouth = ((seen.u - seen.face) / 0.21) ** 2 + ((seen.v - 0.17 * seen.high) / 0.15) ** 2 < 1.0
    belly = seen.ellipse(0.98) & (seen.v > 0.2 * seen.high) & ~mouth
    share = _share_of_second(seen)
    found = components(seen.is_second & belly & (share > 0.5), smallest=max(3.0, 0.008 * seen.body.r**2))
    if not found:
        return 0, math.nan
    around = np.zeros_like(belly)
    for spot in found:
        around |= dilate(spot, 2.0) & belly
        if seen.line is not None:  # what a line encloses counts whole, and of the line what it covers
            share[erode(fill_holes(spot), 1.0)] = 1.0
    area = float(share[around].sum()) / len(found)
    return len(found), math.sqrt(max(area, 0.0) / math.pi) / seen.body.r


def _share_of_second(seen: Frame) -> FloatArray:
    """How much of each pixel has the second colour; of small spots among lines it is the line's."""
    if seen.line is None:
        toward = seen.second_lab - seen.body_lab
        return np.clip((seen.lab - seen.skin) @ toward / max(float(toward @ toward), 1.0), -0.5, 1.2)
    toward = seen.line.of(seen.second_lab) - seen.skin
    along = ((seen.lab - seen.skin) * toward).sum(axis=-1)
    return np.clip(along / np.maximum((toward * toward).sum(axis=-1), 1.0), 0.0, 1.0)
