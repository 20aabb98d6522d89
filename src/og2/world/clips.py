"""Short moving clips with cuts and tracked subjects: frames as scenes, ground truth for every subject.

A clip is a few shots. Subjects keep their looks through all shots and take new places, poses and backdrops
after a cut; in a later shot one of them may be away. Within a shot they drift, swing their arms and talk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.casting import Room, place_creature, place_gizmo
from og2.world.choose import pick_by_odds
from og2.world.creatures import Anatomy, Creature, creature_box, sample_anatomy
from og2.world.palette import ARM_ANGLES_DEG
from og2.world.props import Gizmo, gizmo_box, sample_gizmo
from og2.world.scenes import WORLDS, Box, Scene, empty_scene, has_gap
from og2.world.split import check_split
from og2.world.strokes import painted_box

MAX_SUBJECTS = 3
_DRIFT = 0.10  # most that a subject moves in a shot, as a fraction of the side
_ABSENT_SHARE = 0.2
_TRIES = 60


@dataclass(frozen=True)
class Track:
    """One subject: its name, its looks, and its box (left, top, right, bottom, fractions) in every frame.

    A box is None where the subject is not in the picture.
    """

    name: str
    who: Anatomy | Gizmo
    boxes: tuple[Box | None, ...]


@dataclass(frozen=True)
class Clip:
    """Frames in order, the first frame of every shot (0 included), and the tracks."""

    frames: tuple[Scene, ...]
    shots: tuple[int, ...]
    tracks: tuple[Track, ...]


@dataclass(frozen=True)
class _Motion:
    """How a subject moves in a shot: its drift over the whole shot, and swings of each arm in radians."""

    dx: float
    dy: float
    swing: tuple[float, float]
    speed: float
    talks: bool


def sample_clip(
    rng: Generator,
    num_frames: int = 24,
    num_shots: int = 2,
    num_subjects: int | None = None,
    split: str = "train",
) -> Clip:
    """A random clip; None draws 1 to 3 subjects.

    Raises: RequestError when there are fewer than four frames per shot, no subjects or more than three, or
    the split is unknown.
    """
    check_split(split)
    if num_shots < 1 or num_frames < 4 * num_shots:
        raise RequestError(f"{num_frames} frames are too few for {num_shots} shots; use 4 or more per shot")
    count = 1 + int(rng.integers(MAX_SUBJECTS)) if num_subjects is None else num_subjects
    if not 1 <= count <= MAX_SUBJECTS:
        raise RequestError(f"num_subjects={count} is outside 1 to {MAX_SUBJECTS}")
    cast: list[Anatomy | Gizmo] = [
        sample_anatomy(rng, split)
        if i == 0 or rng.random() < 0.6
        else sample_gizmo(rng, 0.5, 0.5, 0.1, split)
        for i in range(count)
    ]
    lengths = _lengths(rng, num_frames, num_shots)
    frames: list[Scene] = []
    boxes: list[list[Box | None]] = [[] for _ in cast]
    last: Scene | None = None
    for number, length in enumerate(lengths):
        present = [i for i in range(count) if i == 0 or number == 0 or rng.random() >= _ABSENT_SHARE]
        shot = _shot(rng, [cast[i] for i in present], length, last)
        last = shot[0]
        for frame in shot:
            seen = dict(zip(present, _tight_boxes(frame, [cast[i] for i in present]), strict=True))
            for i, track in enumerate(boxes):
                track.append(seen.get(i))
        frames += shot
    starts = tuple(sum(lengths[:i]) for i in range(num_shots))
    tracks = tuple(
        Track(f"{'creature' if isinstance(who, Anatomy) else 'gadget'} {i + 1}", who, tuple(boxes[i]))
        for i, who in enumerate(cast)
    )
    return Clip(tuple(frames), starts, tracks)


def _lengths(rng: Generator, num_frames: int, num_shots: int) -> list[int]:
    """Lengths of the shots, four frames or more each."""
    spare = num_frames - 4 * num_shots
    cuts = sorted(int(c) for c in rng.integers(0, spare + 1, size=num_shots - 1))
    bounds = [0, *cuts, spare]
    return [4 + bounds[i + 1] - bounds[i] for i in range(num_shots)]


def _shot(rng: Generator, cast: list[Anatomy | Gizmo], length: int, before: Scene | None) -> list[Scene]:
    """The frames of one shot in front of a backdrop that differs from the one before."""
    while True:
        scene = empty_scene(rng, WORLDS["full"], pick_by_odds(rng, WORLDS["full"].backdrops))
        if before and (before.backdrop_kind, before.background) == (scene.backdrop_kind, scene.background):
            continue
        for _ in range(_TRIES):
            placed = _placed(rng, scene, cast)
            motions = [_motion(rng) for _ in cast]
            if placed is None:
                break
            frames = [_frame(placed, motions, i / max(length - 1, 1), i) for i in range(length)]
            if all(_is_clear(frame) for frame in frames):
                return frames


def _placed(rng: Generator, scene: Scene, cast: list[Anatomy | Gizmo]) -> Scene | None:
    """All subjects in the scene: creatures and gizmos, each in the order of the cast."""
    room = Room(len(cast))
    found: Scene | None = scene
    for who in cast:
        if found is not None:
            place = place_creature if isinstance(who, Anatomy) else place_gizmo
            found = place(rng, found, room, who)  # pyright: ignore[reportArgumentType]: paired above
    return found


def _motion(rng: Generator) -> _Motion:
    dx, dy = (float(v) for v in rng.uniform(-_DRIFT, _DRIFT, 2))
    swing = (float(rng.uniform(0.0, 0.6)), float(rng.uniform(0.0, 0.6)))
    return _Motion(dx, dy * 0.5, swing, float(rng.uniform(0.25, 0.6)), bool(rng.random() < 0.5))


def _frame(scene: Scene, motions: list[_Motion], share: float, index: int) -> Scene:
    """The shot's scene at one moment; motions: of the creatures, then of the gizmos."""
    moving = iter(motions)
    creatures = tuple(_moved_creature(c, next(moving), share, index) for c in scene.creatures)
    gizmos = []
    for gizmo in scene.gizmos:
        motion = next(moving)
        gizmos.append(replace(gizmo, x=gizmo.x + motion.dx * share, y=gizmo.y + motion.dy * share))
    return replace(scene, creatures=creatures, gizmos=tuple(gizmos))


def _moved_creature(creature: Creature, motion: _Motion, share: float, index: int) -> Creature:
    wave = math.sin(2.0 * math.pi * motion.speed * index / 2.0)
    left = creature.pose.left_angle + motion.swing[0] * wave
    right = creature.pose.right_angle - motion.swing[1] * wave
    mouth = palette.MOUTHS[index // 3 % 2] if motion.talks else creature.pose.mouth
    pose = replace(
        creature.pose,
        left_angle=left,
        right_angle=right,
        left_arm=_arm_word(left),
        right_arm=_arm_word(right),
        mouth=mouth,
    )
    return replace(creature, pose=pose, x=creature.x + motion.dx * share, y=creature.y + motion.dy * share)


def _arm_word(angle: float) -> str:
    """The word whose angles are nearest."""
    degrees = math.degrees(angle)
    return min(ARM_ANGLES_DEG, key=lambda word: abs(degrees - sum(ARM_ANGLES_DEG[word]) / 2))


def _is_clear(scene: Scene) -> bool:
    boxes = [*(creature_box(c) for c in scene.creatures), *(gizmo_box(g) for g in scene.gizmos)]
    inside = all(min(b) >= palette.EDGE_MARGIN and max(b) <= 1.0 - palette.EDGE_MARGIN for b in boxes)
    return inside and all(has_gap(a, b, palette.MIN_GAP / 2) for i, a in enumerate(boxes) for b in boxes[:i])


def _tight_boxes(scene: Scene, cast: list[Anatomy | Gizmo]) -> list[Box]:
    """The boxes of what is painted of each subject, in the order of the cast."""
    creatures, gizmos = iter(scene.creatures), iter(scene.gizmos)
    return [painted_box(next(creatures if isinstance(who, Anatomy) else gizmos)) for who in cast]
