"""Creatures, gizmos and plates put into scenes, clear of everything that is there already."""

from __future__ import annotations

from dataclasses import dataclass, replace

from numpy.random import Generator

from og2.world import palette
from og2.world.choose import pick
from og2.world.creatures import Anatomy, Creature, Pose, creature_box, sample_anatomy, sample_pose
from og2.world.props import Gizmo, Plate, gizmo_box, plate_box, sample_gizmo, sample_plate
from og2.world.scenes import Box, Scene, fits
from og2.world.strokes import painted_box

# Radii as fractions of the side, by how many creatures and gizmos share the picture.
CREATURE_RADII: dict[int, tuple[float, float]] = {1: (0.150, 0.185), 2: (0.116, 0.130), 3: (0.098, 0.110)}
GIZMO_RADII: dict[int, tuple[float, float]] = {1: (0.150, 0.200), 2: (0.130, 0.165), 3: (0.110, 0.135)}
_ON_GROUND = 0.04  # feet stand at least that far below the horizon
_TRIES = 120


@dataclass(frozen=True)
class Room:
    """Where a subject may stand and how large it is: how many share the picture, and its column, if fixed."""

    crowd: int = 1
    column: str | None = None


def place_creature(
    rng: Generator,
    scene: Scene,
    room: Room,
    anatomy: Anatomy | None = None,
    pose: Pose | None = None,
    split: str = "train",
) -> Scene | None:
    """The scene with one more creature, random where not given, or None when there is no room."""
    anatomy = anatomy or sample_anatomy(rng, split)
    pose = pose or sample_pose(rng)
    for _ in range(_TRIES):
        radius = float(rng.uniform(*CREATURE_RADII[min(room.crowd, 3)]))
        creature = Creature(anatomy, pose, *_draw_place(rng, room), radius)
        if not _is_free(creature_box(creature), scene, room):
            continue
        if room.column in (None, column_of(painted_box(creature))):  # all strokes: only where it fits
            return replace(scene, creatures=(*scene.creatures, creature))
    return None


def place_gizmo(
    rng: Generator, scene: Scene, room: Room, gizmo: Gizmo | None = None, split: str = "train"
) -> Scene | None:
    """The scene with one more gizmo, random or the one given at a new place and size, or None."""
    model = gizmo or sample_gizmo(rng, 0.5, 0.5, 0.1, split)
    for _ in range(_TRIES):
        x, y = _draw_place(rng, room)
        radius = float(rng.uniform(*GIZMO_RADII[min(room.crowd, 3)]))
        moved = replace(model, x=x, y=y, radius=radius)
        if _is_free(gizmo_box(moved), scene, room):
            return replace(scene, gizmos=(*scene.gizmos, moved))
    return None


def place_plate(rng: Generator, scene: Scene, text: str | None = None, split: str = "train") -> Scene | None:
    """The scene with one more plate, or None when there is no room."""
    for _ in range(_TRIES):
        plate = sample_plate(rng, text, split)
        if fits(plate_box(plate), scene):
            return replace(scene, plates=(*scene.plates, plate))
    return None


def with_text(plate: Plate, text: str) -> Plate | None:
    """The same plate with another word around the same middle, or None when it would leave the picture."""
    new = replace(plate, text=text)
    left, _, right, _ = plate_box(new)
    return new if left >= palette.EDGE_MARGIN and right <= 1.0 - palette.EDGE_MARGIN else None


def column_of(box: Box) -> str | None:
    """The column whose band the middle of a box lies in, or None between two."""
    middle = (box[0] + box[2]) / 2
    return next((name for name, (low, high) in palette.COLUMNS.items() if low <= middle <= high), None)


def _draw_place(rng: Generator, room: Room) -> tuple[float, float]:
    column = room.column or pick(rng, tuple(palette.COLUMNS))
    return float(rng.uniform(*palette.COLUMNS[column])), float(rng.uniform(0.15, 0.85))


def _is_free(box: Box, scene: Scene, room: Room) -> bool:
    margin = palette.EDGE_MARGIN
    inside = min(box[0], box[1]) >= margin and max(box[2], box[3]) <= 1.0 - margin
    floor = (
        scene.backdrop.horizon if scene.backdrop_kind in ("landscape", "tiles") and scene.backdrop else 0.0
    )
    stands = box[3] >= floor + _ON_GROUND
    in_column = room.column is None or column_of(box) == room.column
    return inside and stands and in_column and fits(box, scene, palette.MIN_GAP / 2)
