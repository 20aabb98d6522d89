"""Creatures: one body with a face, limbs, ears and a tail, each part a continuous number.

A creature's identity is its anatomy, which no sentence can carry; what it does (arms, mouth, gaze, where it
faces) is its pose, which sentences ask for. Geometry in units of the creature's radius, origin in the middle
of the body, x to the right, y downward:

  body   ellipse, half axes sqrt(aspect) and 1 / sqrt(aspect): its area does not depend on the aspect
  eyes   two white discs of radius eye_size, eye_separation between their centres, at height EYE_Y * half
         height, dark cores of half their radius; the face is moved sideways by FACE_SHIFT * half width
  ears   ellipses on the upper outline, half width ear_width, ear_length outside the body
  arms   from the sides, arm_length long, hands at their ends; legs below, leg_length outside the body
  tail   an arc on the side the creature does not face (front: on the right), straight to curled; in front of
         the arm there, so that its curl shows in every pose
  horns  0 to 3 ivory triangles between the ears; spots 0 to 7 discs of the second colour on the belly
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.choose import pick
from og2.world.palette import ARM_ANGLES_DEG, Lab
from og2.world.split import split_of

FACE_SHIFT = 0.27
ARM_THICKNESS = 0.12
HAND_RADIUS = 0.17
LEG_THICKNESS = 0.15
SHOULDER_Y = 0.10
TAIL_LENGTH = 0.95
EAR_ANGLE_DEG = 38.0
EYE_GAP = 0.05  # at least this much lies between the eyes
EYE_Y = -0.30  # of the half height
MOUTH_Y = 0.17
SPOT_SLOTS: tuple[tuple[float, float], ...] = (
    (-0.19, 0.46),
    (0.19, 0.46),
    (-0.57, 0.38),
    (0.02, 0.84),
    (0.57, 0.37),
    (-0.37, 0.76),
    (0.38, 0.76),
)
MAX_SPOTS = len(SPOT_SLOTS)
MAX_HORNS = 3
# Every continuous part with its range, in radii (body_aspect, tail_curl: without unit).
RANGES: dict[str, tuple[float, float]] = {
    "body_aspect": (0.74, 1.36),
    "spot_size": (0.080, 0.125),  # at most: the gap between two spots stays 0.07
    "ear_length": (0.22, 0.85),
    "ear_width": (0.15, 0.32),
    "eye_size": (0.15, 0.25),
    "eye_separation": (0.44, 0.68),
    "arm_length": (0.50, 0.85),
    "leg_length": (0.22, 0.50),
    "tail_curl": (0.0, 1.0),
}
_BODY_LIGHTNESS = (34.0, 74.0)
_BODY_CHROMA = (32.0, 62.0)
_MIN_COLOR_STEP = 34.0


@dataclass(frozen=True)
class Anatomy:
    """What makes a creature that creature; see RANGES for units."""

    body_lab: Lab
    second_lab: Lab
    body_aspect: float
    spot_count: int
    spot_size: float
    ear_length: float
    ear_width: float
    eye_size: float
    eye_separation: float
    arm_length: float
    leg_length: float
    tail_curl: float
    horn_count: int

    @property
    def key(self) -> tuple[str, ...]:
        """The region of anatomies the held-out split is decided on: hue, ears, horns, roundness."""
        hue = int((math.degrees(math.atan2(self.body_lab[2], self.body_lab[1])) % 360.0) // 30)
        ears = int((self.ear_length - RANGES["ear_length"][0]) / 0.16)
        return ("creature", str(hue), str(ears), str(self.horn_count), str(int(self.body_aspect > 1.0)))


@dataclass(frozen=True)
class Pose:
    """What a creature does: words, and the arms' angles above the horizontal in radians."""

    left_arm: str
    right_arm: str
    mouth: str
    facing: str
    gaze: str
    left_angle: float
    right_angle: float


@dataclass(frozen=True)
class Creature:
    """A creature in its pose at a place (x, y: middle of the body; radius: as fractions of the side)."""

    anatomy: Anatomy
    pose: Pose
    x: float
    y: float
    radius: float


def sample_anatomy(rng: Generator, split: str = "train") -> Anatomy:
    """A random anatomy of that split; about one region in ten is held out."""
    while True:
        body = _sample_lab(rng)
        second = _sample_lab(rng)
        while math.dist(body, second) < _MIN_COLOR_STEP:
            second = _sample_lab(rng)
        numbers = {name: float(rng.uniform(*limits)) for name, limits in RANGES.items()}
        numbers["eye_separation"] = max(numbers["eye_separation"], 2.0 * numbers["eye_size"] + EYE_GAP)
        counts = {
            "spot_count": int(rng.integers(MAX_SPOTS + 1)),
            "horn_count": int(rng.integers(MAX_HORNS + 1)),
        }
        anatomy = Anatomy(body, second, **numbers, **counts)
        if split_of(anatomy.key) == split:
            return anatomy


def sample_pose(rng: Generator, like: Pose | None = None, fixed: dict[str, str] | None = None) -> Pose:
    """A random pose; `fixed` words stay as given, and at least two words differ from those of `like`.

    Raises: RequestError for a word that a pose does not have.
    """
    unknown = set(fixed or {}) - set(palette.POSE_WORDS)
    if unknown:
        raise RequestError(f"pose words {sorted(unknown)} are unknown")
    while True:
        words = {word: pick(rng, values) for word, values in palette.POSE_WORDS.items()}
        words.update(fixed or {})
        left, right = (
            math.radians(float(rng.uniform(*ARM_ANGLES_DEG[words[arm]]))) for arm in ("left_arm", "right_arm")
        )
        pose = Pose(**words, left_angle=left, right_angle=right)
        if like is None or sum(getattr(like, w) != getattr(pose, w) for w in words) >= 2:
            return pose


def with_pose(rng: Generator, creature: Creature, words: dict[str, str]) -> Creature:
    """The same creature with those words of its pose changed and nothing else."""
    new = sample_pose(rng, fixed=words)
    pose = replace(creature.pose, **words)
    if "left_arm" in words:
        pose = replace(pose, left_angle=new.left_angle)
    if "right_arm" in words:
        pose = replace(pose, right_angle=new.right_angle)
    return replace(creature, pose=pose)


def near_miss(rng: Generator, anatomy: Anatomy, part: str, strength: float = 1.0) -> Anatomy:
    """Another creature that differs in one part only.

    part: a field of `Anatomy`. strength 1 moves a length by 45 % of its range, a colour by 30 dE, spots by 3
    and horns by 1.   Raises: RequestError for an unknown part.
    """
    if part not in {f.name for f in fields(Anatomy)}:
        raise RequestError(
            f"part={part!r} is unknown; use one of {', '.join(f.name for f in fields(Anatomy))}"
        )
    value = getattr(anatomy, part)
    if part in ("spot_count", "horn_count"):
        most = MAX_SPOTS if part == "spot_count" else MAX_HORNS
        step = max(1, round((3 if part == "spot_count" else 1) * strength))
        return replace(anatomy, **{part: value + step if value + step <= most else value - step})
    if part in ("body_lab", "second_lab"):
        other = anatomy.second_lab if part == "body_lab" else anatomy.body_lab
        return replace(anatomy, **{part: _moved(rng, value, 30.0 * strength, other)})
    low, high = RANGES[part]
    step = 0.45 * strength * (high - low)
    return replace(anatomy, **{part: value + step if value + step <= high else value - step})


def visible_parts(anatomy: Anatomy) -> tuple[str, ...]:
    """The fields of an anatomy that a picture shows: all, but of a creature without spots not their size."""
    return tuple(f.name for f in fields(Anatomy) if f.name != "spot_size" or anatomy.spot_count)


def creature_box(creature: Creature) -> tuple[float, float, float, float]:
    """The box that holds the creature in any pose it can take: left, top, right, bottom, fractions.

    It does not depend on the pose, so that a creature that moves stays clear of its neighbours.
    """
    a = creature.anatomy
    half_width, half_height = math.sqrt(a.body_aspect), 1.0 / math.sqrt(a.body_aspect)
    side = max(half_width * 0.9 + a.arm_length + HAND_RADIUS, half_width * 0.74 + TAIL_LENGTH + 0.1)
    tilt = math.radians(EAR_ANGLE_DEG)
    top = half_height * math.cos(tilt) + a.ear_length * math.cos(tilt * 0.6) + 0.12
    top = max(top, half_height + (0.39 if a.horn_count else 0.0), a.arm_length + HAND_RADIUS)
    bottom = half_height * 0.94 + a.leg_length + LEG_THICKNESS + 0.06
    r = creature.radius
    return creature.x - side * r, creature.y - top * r, creature.x + side * r, creature.y + bottom * r


def _sample_lab(rng: Generator) -> Lab:
    for _ in range(200):
        lightness = float(rng.uniform(*_BODY_LIGHTNESS))
        chroma, hue = float(rng.uniform(*_BODY_CHROMA)), float(rng.uniform(0.0, 2.0 * math.pi))
        lab = (lightness, chroma * math.cos(hue), chroma * math.sin(hue))
        if _in_gamut(lab):
            return lab
    return (60.0, 40.0, 0.0)


def _moved(rng: Generator, lab: Lab, distance: float, other: Lab) -> Lab:
    """A colour at about that distance, a legal one for a creature."""
    for _ in range(400):
        d = rng.normal(size=3)
        d *= distance / float(np.linalg.norm(d))
        new = (lab[0] + float(d[0]), lab[1] + float(d[1]), lab[2] + float(d[2]))
        chroma = math.hypot(new[1], new[2])
        legal = _BODY_LIGHTNESS[0] <= new[0] <= _BODY_LIGHTNESS[1] and chroma >= _BODY_CHROMA[0] - 4.0
        if legal and _in_gamut(new) and math.dist(new, other) >= 0.7 * _MIN_COLOR_STEP:
            return new
    return _moved(rng, lab, distance * 0.9, other)


def _in_gamut(lab: Lab) -> bool:
    rgb = palette.lab_to_srgb(lab)
    return bool(rgb.min() >= 0.0 and rgb.max() <= 1.0)
