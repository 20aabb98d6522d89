"""Scenes of the mini-world and how they are drawn at random.

A scene is one to three objects (none after an object was removed) on a plain background. Every number an
object has (colour, radius, rotation, place) is continuous, so a finite list of pictures cannot be
memorised. Pure functions of a `numpy.random.Generator`: the same generator state gives the same scene.

Held-out split: a (shape, colour, size, position) tuple is `test` when a hash of its words says so (one in
ten). Training scenes hold no test tuple; in a test scene the first object is one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.palette import Lab
from og2.world.shapes import MAX_ROTATION, outline_box

SPLITS = ("train", "test")
MAX_OBJECTS = 3
TEST_SHARE = 0.10
_SIZE_ODDS: dict[int, tuple[float, float, float]] = {
    1: (1 / 3, 1 / 3, 1 / 3),
    2: (0.5, 0.5, 0.0),
    3: (0.7, 0.3, 0.0),
}
_NUM_OBJECTS_ODDS = (0.5, 0.3, 0.2)
_TWIN_SHARE = 0.12
_TRIES = 60


@dataclass(frozen=True)
class Object:
    """One object: its words (shape, color, size, position) and the numbers behind them.

    Units: x, y (origin of the outline, see `shapes`) and radius as fractions of the picture's side;
    rotation in radians.
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
    """Objects on a plain background, named `background` with the actual colour `background_lab`."""

    objects: tuple[Object, ...]
    background: str
    background_lab: Lab


def split_of(key: tuple[str, str, str, str]) -> str:
    """ "test" for one in ten (shape, colour, size, position) tuples, by hash, else "train"."""
    return "test" if zlib.crc32("|".join(key).encode()) % 1000 < 1000 * TEST_SHARE else "train"


TEST_KEYS: tuple[tuple[str, str, str, str], ...] = tuple(
    (shape, color, size, position)
    for shape in palette.SHAPES
    for color in palette.COLORS
    for size in palette.SIZES
    for position in palette.POSITIONS
    if split_of((shape, color, size, position)) == "test"
)


def pick(rng: Generator, options: tuple[str, ...]) -> str:
    """One of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


def sample_scene(rng: Generator, num_objects: int | None = None, split: str = "train") -> Scene:
    """A random scene.

    num_objects: 1 to 3; None draws it (1: 0.5, 2: 0.3, 3: 0.2). About one in eight scenes of several
    objects holds only objects of one shape and colour (to count); in the others every pair differs in shape
    or colour. Raises: RequestError for an unknown split or number of objects.
    """
    if split not in SPLITS:
        raise RequestError(f"split={split!r} is unknown; use one of {', '.join(SPLITS)}")
    if num_objects is not None and not 1 <= num_objects <= MAX_OBJECTS:
        raise RequestError(f"num_objects={num_objects} is outside 1 to {MAX_OBJECTS}")
    count = num_objects or 1 + int(rng.choice(MAX_OBJECTS, p=_NUM_OBJECTS_ODDS))
    twins = count > 1 and rng.random() < _TWIN_SHARE
    background = pick(rng, tuple(palette.BACKGROUNDS))
    scene = Scene((), background, _jitter(rng, palette.BACKGROUNDS[background], palette.BACKGROUND_SIGMA))
    while len(scene.objects) < count:
        kind = scene.objects[0].kind if twins and scene.objects else None
        first_is_test = split == "test" and not scene.objects
        grown = place_object(rng, scene, count, kind=kind, split="test" if first_is_test else "train")
        # A crowded first choice is thrown away, not squeezed: the distribution of gaps stays the same.
        scene = grown or replace(scene, objects=())
    return scene


def place_object(
    rng: Generator, scene: Scene, crowd: int, kind: tuple[str, str] | None = None, split: str = "train"
) -> Scene | None:
    """The scene with one more random object that fits, or None when no free place was found.

    crowd: how many objects the finished scene holds (sizes get smaller); kind: fixed (shape, colour), else
    one that the scene does not hold yet; split: of the new object's tuple.
    """
    taken = {o.kind for o in scene.objects}
    for _ in range(_TRIES):
        shape, color, size, position = _draw_key(rng, crowd, kind, split)
        if (kind is None and (shape, color) in taken) or split_of((shape, color, size, position)) != split:
            continue
        new = make_object(rng, shape, color, size, position)
        if new is not None and all(has_gap(new, other) for other in scene.objects):
            return replace(scene, objects=(*scene.objects, new))
    return None


def make_object(rng: Generator, shape: str, color: str, size: str, position: str) -> Object | None:
    """An object with these words and random numbers, or None when the picture has no room for it there."""
    radius = float(rng.uniform(*palette.SIZES[size]))
    rotation = float(rng.uniform(-1, 1)) * MAX_ROTATION[shape]
    left, top, right, bottom = outline_box(shape, radius, rotation)
    column, row = palette.POSITIONS[position]
    x = _draw_coordinate(rng, palette.COLUMNS[column], (right - left) / 2)
    y = _draw_coordinate(rng, palette.ROWS[row], (bottom - top) / 2)
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


def has_gap(a: Object, b: Object) -> bool:
    """Whether the boxes of two objects are at least MIN_GAP apart along one axis."""
    one, other = box_of(a), box_of(b)
    gaps = [max(one[i] - other[i + 2], other[i] - one[i + 2]) for i in (0, 1)]
    return max(gaps) >= palette.MIN_GAP


def box_of(obj: Object) -> tuple[float, float, float, float]:
    """The object's upright box: left, top, right, bottom as fractions of the picture's side."""
    left, top, right, bottom = outline_box(obj.shape, obj.radius, obj.rotation)
    return obj.x + left, obj.y + top, obj.x + right, obj.y + bottom


def relation(a: Object, b: Object) -> str | None:
    """The relation that clearly holds from a to b ("left of", ...), or None when it is a diagonal."""
    one, other = box_of(a), box_of(b)
    dx, dy = (one[i] + one[i + 2] - other[i] - other[i + 2] for i in (0, 1))
    if abs(dx) > 2.0 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 2.0 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def _draw_key(
    rng: Generator, crowd: int, kind: tuple[str, str] | None, split: str
) -> tuple[str, str, str, str]:
    if split == "test" and kind is None:
        allowed = TEST_KEYS if crowd == 1 else tuple(k for k in TEST_KEYS if k[2] != "large")
        return allowed[int(rng.integers(len(allowed)))]
    shape, color = kind or (pick(rng, palette.SHAPES), pick(rng, tuple(palette.COLORS)))
    odds = _SIZE_ODDS[max(1, min(crowd, MAX_OBJECTS))]
    size = tuple(palette.SIZES)[int(np.searchsorted(np.cumsum(odds), rng.random() * 0.999999, side="right"))]
    return shape, color, size, pick(rng, tuple(palette.POSITIONS))


def _draw_coordinate(rng: Generator, band: tuple[float, float], half: float) -> float | None:
    low = max(band[0], half + palette.EDGE_MARGIN)
    high = min(band[1], 1.0 - half - palette.EDGE_MARGIN)
    return float(rng.uniform(low, high)) if low <= high else None


def _jitter(rng: Generator, lab: Lab, sigma: float) -> Lab:
    d = rng.normal(0.0, sigma, 3)
    return (lab[0] + float(d[0]), lab[1] + float(d[1]), lab[2] + float(d[2]))


def _distance(a: Lab, b: Lab) -> float:
    return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2) ** 0.5
