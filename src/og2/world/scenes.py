"""Scenes of the mini-world and how they are drawn at random.

A scene is what a picture shows: objects, creatures, gizmos and plates in front of a backdrop, and the look of
the whole. Every number (colour, radius, rotation, place) is continuous, so a finite list of pictures cannot
be memorised. Pure functions of a `numpy.random.Generator`: the same generator state gives the same scene.

Two worlds: "plain" (six flat shapes, one to three of them, on plain colours: what the small model inside the
package learned) and "full" (eight shapes, fills, shading, all backdrops, up to six objects).

Held-out split: a (shape, colour, size, position) tuple is `test` when a hash of its words says so (one in
ten). Training scenes hold no test tuple; in a test scene the first object is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.backdrops import Backdrop, sample_backdrop
from og2.world.choose import pick, pick_by_odds
from og2.world.creatures import Creature, creature_box
from og2.world.fills import Fill, sample_fill
from og2.world.palette import Lab
from og2.world.props import Gizmo, Plate, gizmo_box, plate_box
from og2.world.shapes import MAX_ROTATION, outline_box
from og2.world.split import check_split, split_of

_TWIN_SHARE = 0.12
_TRIES = 60
_RARE = 0.1  # a size with these odds or less is no held-out object's
_CROWD = 4  # from so many objects on they are drawn small and near the rim, else they would not fit
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class World:
    """A named part of the world: which words occur, and with which odds.

    object_odds: of 1, 2, ... objects; fills, backdrops: what is drawn with which odds; size_odds: by number
    of objects (the last entry for more), of small, medium and large. shading: the largest amount of shading.
    min_gap: between boxes, as a fraction of the side.
    """

    name: str
    shapes: tuple[str, ...]
    object_odds: tuple[float, ...]
    size_odds: tuple[tuple[float, float, float], ...]
    fills: dict[str, float]
    backdrops: dict[str, float]
    shading: float
    min_gap: float

    @property
    def max_objects(self) -> int:
        """The most objects a scene holds."""
        return len(self.object_odds)


WorldName = Literal["plain", "full"]
WORLDS: dict[str, World] = {
    "plain": World(
        "plain",
        palette.SHAPES,
        object_odds=(0.5, 0.3, 0.2),
        size_odds=((1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 0.0), (0.7, 0.3, 0.0)),
        fills={"flat": 1.0},
        backdrops={"plain": 1.0},
        shading=0.0,
        min_gap=palette.MIN_GAP,
    ),
    "full": World(
        "full",
        palette.ALL_SHAPES,
        object_odds=(0.32, 0.24, 0.18, 0.12, 0.08, 0.06),
        size_odds=((1 / 3, 1 / 3, 1 / 3), (0.5, 0.4, 0.1), (0.7, 0.3, 0.0), (1.0, 0.0, 0.0)),
        fills={"flat": 0.55, "stripes": 0.15, "dots": 0.15, "checker": 0.15},
        backdrops={"plain": 0.3, "gradient": 0.2, "landscape": 0.2, "tiles": 0.15, "noise": 0.15},
        shading=0.07,
        min_gap=palette.MIN_GAP / 2,
    ),
}


@dataclass(frozen=True)
class Object:
    """One object: its words (shape, color, size, position) and the numbers behind them.

    Units: x, y (origin of the outline, see `shapes`) and radius as fractions of the picture's side;
    rotation in radians. fill: None = flat. shading: how much lighter the upper left is than the lower right.
    """

    shape: str
    color: str
    size: str
    position: str
    lab: Lab
    x: float
    y: float
    radius: float
    rotation: float
    fill: Fill | None = None
    shading: float = 0.0

    @property
    def fill_name(self) -> str:
        """How its area is painted, one of `palette.FILLS`."""
        return self.fill.kind if self.fill else "flat"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The tuple the held-out split is decided on."""
        return (self.shape, self.color, self.size, self.position)

    @property
    def kind(self) -> tuple[str, str]:
        """Shape and colour."""
        return (self.shape, self.color)


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in painting order: backdrop, objects, gizmos, plates, creatures.

    background: the backdrop's name; background_lab: the actual colour of a plain one. backdrop: None = plain.
    style, tone: the look of the whole picture, one of `palette.STYLES` and `palette.TONES`, or None.
    """

    objects: tuple[Object, ...]
    background: str
    background_lab: Lab
    backdrop: Backdrop | None = None
    gizmos: tuple[Gizmo, ...] = ()
    plates: tuple[Plate, ...] = ()
    creatures: tuple[Creature, ...] = ()
    style: str | None = None
    tone: str | None = None

    @property
    def backdrop_kind(self) -> str:
        """The family of the backdrop, one of `palette.BACKDROPS`."""
        return self.backdrop.kind if self.backdrop else "plain"


def world_named(name: str) -> World:
    """The world of that name.   Raises: RequestError for any but "plain" and "full"."""
    if name not in WORLDS:
        raise RequestError(f"world={name!r} is unknown; use one of {', '.join(WORLDS)}")
    return WORLDS[name]


@lru_cache(maxsize=32)
def held_out_keys(world: str = "plain", crowd: int = 1) -> tuple[tuple[str, str, str, str], ...]:
    """All (shape, colour, size, position) tuples of that world's test split.

    crowd: only of sizes that are not rare among so many objects.
    """
    odds = dict(zip(palette.SIZES, _size_odds(world_named(world), crowd), strict=True))
    return tuple(
        (shape, color, size, position)
        for shape in world_named(world).shapes
        for color in palette.COLORS
        for size in palette.SIZES
        for position in palette.POSITIONS
        if split_of((shape, color, size, position)) == "test" and odds[size] > _RARE
    )


def sample_scene(
    rng: Generator, num_objects: int | None = None, split: str = "train", world: str = "plain"
) -> Scene:
    """A random scene of objects.

    num_objects: 1 to 3 (full world: to 6); None draws it. About one in eight scenes of several objects holds
    only objects of one shape and colour (to count); in the others every pair differs in shape or colour.
    Raises: RequestError for an unknown split or world, or a number of objects the world does not have.
    """
    check_split(split)
    level = world_named(world)
    if num_objects is not None and not 1 <= num_objects <= level.max_objects:
        raise RequestError(f"num_objects={num_objects} is outside 1 to {level.max_objects}")
    count = num_objects or 1 + int(rng.choice(level.max_objects, p=level.object_odds))
    twins = count > 1 and rng.random() < _TWIN_SHARE
    scene = empty_scene(rng, level)
    while len(scene.objects) < count:
        kind = scene.objects[0].kind if twins and scene.objects else None
        first_is_test = split == "test" and not scene.objects
        grown = place_object(rng, scene, count, kind, "test" if first_is_test else "train", level)
        # A crowded first choice is thrown away, not squeezed: the distribution of gaps stays the same.
        scene = grown or replace(scene, objects=())
    return scene


def empty_scene(rng: Generator, world: World, kind: str | None = None, name: str | None = None) -> Scene:
    """A scene without subjects; `kind` fixes the family of its backdrop, `name` which one."""
    if kind is None:
        kinds = tuple(world.backdrops)
        kind = kinds[0] if len(kinds) == 1 else pick_by_odds(rng, world.backdrops)
    if kind == "plain":
        background = name or pick(rng, tuple(palette.BACKGROUNDS))
        return Scene((), background, _jitter(rng, palette.BACKGROUNDS[background], palette.BACKGROUND_SIGMA))
    backdrop = sample_backdrop(rng, kind, name)
    return Scene((), backdrop.name, backdrop.labs[0], backdrop)


def place_object(
    rng: Generator,
    scene: Scene,
    crowd: int,
    kind: tuple[str, str] | None = None,
    split: str = "train",
    world: World = WORLDS["plain"],
) -> Scene | None:
    """The scene with one more random object that fits, or None when no free place was found.

    crowd: how many objects the finished scene holds (sizes get smaller); kind: fixed (shape, colour), else
    one that the scene does not hold yet; split: of the new object's tuple.
    """
    taken = {o.kind for o in scene.objects}
    for _ in range(_TRIES):
        shape, color, size, position = _draw_key(rng, crowd, kind, split, world)
        if (kind is None and (shape, color) in taken) or split_of((shape, color, size, position)) != split:
            continue
        new = make_object(rng, shape, color, size, position, crowded=crowd >= _CROWD)
        if new is not None and fits(box_of(new), scene, world.min_gap):
            return replace(scene, objects=(*scene.objects, dressed(rng, new, world)))
    return None


def dressed(rng: Generator, obj: Object, world: World, fill: str | None = None) -> Object:
    """The object with a fill and shading of that world; `fill` fixes which."""
    if world.shading == 0.0 and fill is None:
        return obj
    kind = fill or pick_by_odds(rng, world.fills)
    shading = float(rng.uniform(0.0, world.shading))
    return replace(obj, fill=sample_fill(rng, kind, obj.color, obj.lab), shading=shading)


def make_object(
    rng: Generator, shape: str, color: str, size: str, position: str, crowded: bool = False
) -> Object | None:
    """An object with these words and random numbers, or None when the picture has no room for it there.

    crowded: at the lower end of its size, and in the outer part of its column and row.
    """
    low, high = palette.SIZES[size]
    radius = float(rng.uniform(low, (low + high) / 2 if crowded else high))
    rotation = float(rng.uniform(-1, 1)) * MAX_ROTATION[shape]
    left, top, right, bottom = outline_box(shape, radius, rotation)
    column, row = palette.POSITIONS[position]
    x = _draw_coordinate(rng, palette.COLUMNS[column], (right - left) / 2, crowded)
    y = _draw_coordinate(rng, palette.ROWS[row], (bottom - top) / 2, crowded)
    if x is None or y is None:
        return None
    # The words are about the box; the outline's origin lies off its middle when the figure is not symmetric.
    x, y = x - (left + right) / 2, y - (top + bottom) / 2
    return Object(shape, color, size, position, sample_color(rng, color), x, y, radius, rotation)


def sample_color(rng: Generator, color: str) -> Lab:
    """A CIELAB colour that deserves the name: prototype plus jitter, in sRGB, clear of the rival names."""
    sigma = palette.COLOR_SIGMA.get(color, palette.DEFAULT_COLOR_SIGMA)
    for _ in range(_TRIES):
        lab = _jitter(rng, palette.COLORS[color], sigma)
        rgb = palette.lab_to_srgb(lab)
        rival = min(_distance(lab, other) for name, other in palette.COLORS.items() if name != color)
        margin = rival - _distance(lab, palette.COLORS[color])
        in_gamut = rgb.min() >= -0.01 and rgb.max() <= 1.01
        if in_gamut and rival >= palette.RIVAL_DISTANCE and margin >= palette.RIVAL_MARGIN:
            return lab
    return palette.COLORS[color]


def has_gap(one: Box, other: Box, gap: float = palette.MIN_GAP) -> bool:
    """Whether two boxes are at least that far apart along one axis."""
    gaps = [max(one[i] - other[i + 2], other[i] - one[i + 2]) for i in (0, 1)]
    return max(gaps) >= gap


def fits(box: Box, scene: Scene, gap: float = palette.MIN_GAP) -> bool:
    """Whether a box keeps that gap from everything in the scene."""
    return all(has_gap(box, other, gap) for other in boxes_of(scene))


def boxes_of(scene: Scene) -> list[Box]:
    """The boxes of all subjects: objects, gizmos, plates, creatures."""
    return [
        *(box_of(o) for o in scene.objects),
        *(gizmo_box(g) for g in scene.gizmos),
        *(plate_box(p) for p in scene.plates),
        *(creature_box(c) for c in scene.creatures),
    ]


def box_of(obj: Object) -> tuple[float, float, float, float]:
    """The object's upright box: left, top, right, bottom as fractions of the picture's side."""
    left, top, right, bottom = outline_box(obj.shape, obj.radius, obj.rotation)
    return obj.x + left, obj.y + top, obj.x + right, obj.y + bottom


def relation(a: Object, b: Object) -> str | None:
    """The relation that clearly holds from a to b ("left of", ...), or None when it is a diagonal."""
    return relation_of_boxes(box_of(a), box_of(b))


def relation_of_boxes(one: Box, other: Box) -> str | None:
    """As `relation`, of boxes."""
    dx, dy = (one[i] + one[i + 2] - other[i] - other[i + 2] for i in (0, 1))
    if abs(dx) > 2.0 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 2.0 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def _draw_key(
    rng: Generator, crowd: int, kind: tuple[str, str] | None, split: str, world: World
) -> tuple[str, str, str, str]:
    if split == "test" and kind is None:
        allowed = held_out_keys(world.name, crowd)
        return allowed[int(rng.integers(len(allowed)))]
    shape, color = kind or (pick(rng, world.shapes), pick(rng, tuple(palette.COLORS)))
    odds = _size_odds(world, crowd)
    size = tuple(palette.SIZES)[int(np.searchsorted(np.cumsum(odds), rng.random() * 0.999999, side="right"))]
    return shape, color, size, pick(rng, tuple(palette.POSITIONS))


def _size_odds(world: World, crowd: int) -> tuple[float, float, float]:
    """Of small, medium and large, among so many objects."""
    return world.size_odds[max(1, min(crowd, len(world.size_odds))) - 1]


def _draw_coordinate(rng: Generator, band: tuple[float, float], half: float, outward: bool) -> float | None:
    low = max(band[0], half + palette.EDGE_MARGIN)
    high = min(band[1], 1.0 - half - palette.EDGE_MARGIN)
    if outward and band[0] == 0.0:
        high = low + 0.3 * (high - low)
    elif outward and band[1] == 1.0:
        low = high - 0.3 * (high - low)
    return float(rng.uniform(low, high)) if low <= high else None


def _jitter(rng: Generator, lab: Lab, sigma: float) -> Lab:
    d = rng.normal(0.0, sigma, 3)
    return (lab[0] + float(d[0]), lab[1] + float(d[1]), lab[2] + float(d[2]))


def _distance(a: Lab, b: Lab) -> float:
    return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2) ** 0.5


TEST_KEYS = held_out_keys()
