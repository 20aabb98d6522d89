"""Creatures seen in a picture: what they do, and the measurements by which one is told from another.

Part of the scorer. A creature is found by its eyes (white discs with dark cores); the rest is measured from
the body outward, in radii of the body, so that size, place and pose drop out of the description. Lengths are
working pixels unless they are called radii.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from og2.world.background import View, window
from og2.world.pixels import BoolArray, FloatArray, components, dilate, distance, erode, fill_holes
from og2.world.words import Word

MIN_AREA_PX = 260
_WHITE_L, _WHITE_C, _DARK_L, _DARK_C = 80.0, 24.0, 36.0, 22.0
_BODY_NEAR, _SECOND_NEAR = 17.0, 17.0  # dE
_LIMBS = 0.36  # radii: what is thinner than twice this is no body
_FACING, _GAZE = 0.135, 0.21  # of the half width; of the eye's radius
_OPEN_MOUTH = 0.062  # square radii
_ARM_EDGES = (-28.0, 26.0)  # degrees: below = down, above = up
_ARM_UNCLEAR = 5.0
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
    "ear area",
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


@dataclass(frozen=True)
class _Eye:
    x: float
    y: float
    radius: float
    core_x: float


@dataclass(frozen=True)
class _Body:
    x: float
    y: float
    a: float
    b: float

    @property
    def r(self) -> float:
        return math.sqrt(self.a * self.b)


@dataclass(frozen=True)
class _Look:
    """A creature's pixels: CIELAB, its silhouette, eyes, body, colours, and pixel coordinates."""

    lab: FloatArray
    part: BoolArray
    eyes: tuple[_Eye, _Eye]
    body: _Body
    body_lab: FloatArray
    second_lab: FloatArray
    xs: FloatArray
    ys: FloatArray

    def near(self, color: FloatArray, limit: float) -> BoolArray:
        """The silhouette's pixels of that colour, whatever the shading makes of its lightness."""
        d = self.lab - color
        return self.part & (np.sqrt(0.3 * d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2) < limit)

    def ellipse(self, scale: float) -> BoolArray:
        """The pixels of the body, scaled about its middle."""
        return ((self.xs - self.body.x) / self.body.a) ** 2 + (
            (self.ys - self.body.y) / self.body.b
        ) ** 2 <= scale**2


def read_creature(view: View, part: BoolArray) -> SeenCreature | None:
    """The creature that a connected part is, or None when it is none."""
    if part.sum() < MIN_AREA_PX:
        return None
    around, where = window(view, part)
    seen = _look(around.lab, fill_holes(part[where]))
    if seen is None:
        return None
    arms = {side: _arm(seen, sign) for side, sign in (("left_arm", -1.0), ("right_arm", 1.0))}
    horns, (spots, spot_size) = _horns(seen), _spots(seen)
    words = {side: _arm_word(angle) for side, (angle, _) in arms.items()}
    words |= {"mouth": _mouth(seen), "facing": _facing(seen), "gaze": _gaze(seen)}
    lengths = [length for _, length in arms.values() if not math.isnan(length)]
    measures = _measures(seen, lengths, words)
    measures[-3:] = horns, spots, spot_size
    rows, columns = np.nonzero(part.any(axis=1))[0], np.nonzero(part.any(axis=0))[0]
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    box = (left * view.scale, top * view.scale, right * view.scale, bottom * view.scale)
    height, width = part.shape
    center = ((where[1].start + seen.body.x) / width, (where[0].start + seen.body.y) / height)
    return SeenCreature(words, measures, box, center, part, horns, spots)


def _look(lab: FloatArray, part: BoolArray) -> _Look | None:
    eyes, eye_mask = _eyes(lab, part)
    if eyes is None:
        return None
    ring = dilate(eye_mask, 3.0) & ~dilate(eye_mask, 1.0) & part
    body = _body(part, eyes)
    if body is None or ring.sum() < 6:
        return None
    body_lab = np.median(lab[ring], axis=0)
    ys, xs = np.mgrid[0 : part.shape[0], 0 : part.shape[1]].astype(np.float64)
    rows = np.nonzero(part.any(axis=1))[0]
    feet = part & (ys >= rows[-1] - max(1.0, 0.16 * body.r)) & erode(part, 1.0)
    if feet.sum() < 3:
        feet = part & (ys >= rows[-1] - max(2.0, 0.2 * body.r))
    return _Look(lab, part, eyes, body, body_lab, np.median(lab[feet], axis=0), xs, ys)


def _eyes(lab: FloatArray, part: BoolArray) -> tuple[tuple[_Eye, _Eye] | None, BoolArray]:
    """Two discs of white, each around a dark core, about level; the left one first."""
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    white = part & (lab[..., 0] > _WHITE_L) & (chroma < _WHITE_C)
    dark = part & (lab[..., 0] < _DARK_L) & (chroma < _DARK_C)
    cores = []
    for core in components(dark, smallest=2):
        rim = dilate(core, 2.0) & ~core & part
        if white[rim].mean() > 0.35:
            cores.append(core)
    cores = sorted(cores, key=lambda c: -int(c.sum()))[:2]
    if len(cores) < 2:
        return None, white
    cores.sort(key=lambda c: float(np.nonzero(c)[1].mean()))
    middles = [(float(np.nonzero(c)[1].mean()), float(np.nonzero(c)[0].mean())) for c in cores]
    whole = np.zeros_like(part)
    for blob in components(white | dilate(cores[0], 1.0) | dilate(cores[1], 1.0)):
        if (blob & (cores[0] | cores[1])).any():
            whole |= blob & part
    ys, xs = np.nonzero(whole)
    to_right = np.hypot(xs - middles[1][0], ys - middles[1][1]) < np.hypot(
        xs - middles[0][0], ys - middles[0][1]
    )
    eyes = []
    for own, core in ((~to_right, middles[0]), (to_right, middles[1])):
        if own.sum() < 5:
            return None, white
        radius = math.sqrt(float(own.sum()) / math.pi)
        eyes.append(_Eye(float(xs[own].mean()), float(ys[own].mean()), radius, core[0]))
    one, other = eyes
    if abs(one.y - other.y) > one.radius + other.radius or not 0.5 < one.radius / other.radius < 2.0:
        return None, white
    return (one, other), whole


def _body(part: BoolArray, eyes: tuple[_Eye, _Eye]) -> _Body | None:
    """The ellipse that is left of the silhouette once everything thin is worn off."""
    x, y = (eyes[0].x + eyes[1].x) / 2, (eyes[0].y + eyes[1].y) / 2
    depth, worn = 0, part
    while worn.any() and depth < 64:
        worn, depth = erode(worn, 1.5 if depth % 2 else 1.0), depth + 1
    if depth < 6:
        return None
    reach = max(2.0, _LIMBS * depth * 1.18)
    core = _disc_erode(part, reach)
    blobs = components(core)
    if not blobs:
        return None
    near = min(
        blobs,
        key=lambda c: float(np.hypot(np.nonzero(c)[1] - x, np.nonzero(c)[0] - y).min()) - 0.01 * c.sum(),
    )
    opened = ~_disc_erode(~near, reach) & part
    # Extremes of the ellipse through its second moments: ears and legs that were left shift them least.
    ys, xs = np.nonzero(opened)
    a, b = 2.0 * float(xs.std()), 2.0 * float(ys.std())
    return _Body(float(xs.mean()), float(ys.mean()), a, b) if min(a, b) > 3.0 else None


def _disc_erode(mask: BoolArray, radius: float) -> BoolArray:
    """Erosion by a disc, as two passes of the distance to the nearest hole along rows, then columns."""
    height, width = mask.shape
    far = float(height + width)
    along = np.where(mask, far, 0.0)
    for x in range(1, width):
        along[:, x] = np.minimum(along[:, x], along[:, x - 1] + 1.0)
    for x in range(width - 2, -1, -1):
        along[:, x] = np.minimum(along[:, x], along[:, x + 1] + 1.0)
    squares = along**2
    nearest = squares.copy()
    for dy in range(1, int(radius) + 1):
        nearest[dy:] = np.minimum(nearest[dy:], squares[:-dy] + dy * dy)
        nearest[:-dy] = np.minimum(nearest[:-dy], squares[dy:] + dy * dy)
    return mask & (nearest > radius * radius)


def _arm(seen: _Look, sign: float) -> tuple[float, float]:
    """Angle above the horizontal in degrees and reach in radii of the arm on that side, NaN without one."""
    body = seen.body
    shoulder = (body.x + sign * 0.95 * body.a, body.y + 0.1 * body.r)
    limbs = seen.near(seen.body_lab, _BODY_NEAR) & ~seen.ellipse(1.07) & (sign * (seen.xs - body.x) > 0)
    best, hand = math.inf, None
    for limb in components(limbs, smallest=max(4.0, 0.02 * body.r**2)):
        ys, xs = np.nonzero(limb)
        away = np.hypot(xs - shoulder[0], ys - shoulder[1])
        if away.min() < best:
            best, far = float(away.min()), int(np.argmax(away))
            hand = (float(xs[far]), float(ys[far]))
    if hand is None or best > 0.45 * body.r:
        return math.nan, math.nan
    start = (body.x + sign * 0.82 * body.a, body.y + 0.1 * body.r)
    dx, dy = sign * (hand[0] - start[0]), start[1] - hand[1]
    return math.degrees(math.atan2(dy, dx)), math.hypot(dx, dy) / body.r


def _arm_word(angle: float) -> Word:
    if math.isnan(angle):
        return Word(None, 0.0, "no arm is seen there")
    low, high = _ARM_EDGES
    edge = min(abs(angle - low), abs(angle - high))
    if edge < _ARM_UNCLEAR:
        return Word(None, 0.0, f"an arm at {angle:.0f} degrees is between two words")
    return Word("down" if angle < low else "up" if angle > high else "out", min(1.0, edge / 20.0))


def _facing(seen: _Look) -> Word:
    shift = ((seen.eyes[0].x + seen.eyes[1].x) / 2 - seen.body.x) / seen.body.a
    return _direction(shift, _FACING)


def _gaze(seen: _Look) -> Word:
    return _direction(sum((eye.core_x - eye.x) / eye.radius for eye in seen.eyes) / 2, _GAZE)


def _direction(amount: float, edge: float) -> Word:
    name = "front" if abs(amount) < edge else "right" if amount > 0 else "left"
    return Word(name, min(1.0, abs(abs(amount) - edge) / edge))


def _mouth(seen: _Look) -> Word:
    """By the area under the eyes that is neither body nor second colour."""
    body, x = seen.body, (seen.eyes[0].x + seen.eyes[1].x) / 2
    under = max(eye.y + 0.9 * eye.radius for eye in seen.eyes)
    zone = seen.part & (np.abs(seen.xs - x) < 0.32 * body.r) & (seen.ys > under)
    zone &= seen.ys < body.y + 0.42 * body.b
    other = zone & (seen.lab[..., 0] < _DARK_L) & (np.hypot(seen.lab[..., 1], seen.lab[..., 2]) < _DARK_C)
    red = zone & (distance(seen.lab, np.array([52.0, 58.0, 28.0])) < 20.0)
    red &= distance(seen.lab, seen.body_lab) > 20.0
    area = float((other | red).sum()) / body.r**2
    return Word("open" if area > _OPEN_MOUTH else "closed", min(1.0, abs(area - _OPEN_MOUTH) / 0.03))


def _horns(seen: _Look) -> int:
    """Ivory tips counted in rows above the body."""
    ivory = seen.part & (seen.lab[..., 0] > 76.0) & (np.hypot(seen.lab[..., 1], seen.lab[..., 2]) < 26.0)
    counts = []
    for share in (0.06, 0.10, 0.14, 0.18):
        y = round(seen.body.y - seen.body.b - share * seen.body.r)
        if 0 <= y < ivory.shape[0]:
            row = ivory[y] & (np.abs(seen.xs[y] - seen.body.x) < 0.55 * seen.body.r)
            counts.append(int((np.diff(np.concatenate([[0], row.astype(int)])) == 1).sum()))
    return max(counts, default=0)


def _spots(seen: _Look) -> tuple[int, float]:
    """Number and mean radius (in radii of the body) of discs of the second colour on the belly."""
    belly = seen.ellipse(0.96) & (seen.ys > seen.body.y + 0.2 * seen.body.b)
    second = seen.near(seen.second_lab, _SECOND_NEAR)
    second &= distance(seen.lab, seen.second_lab) < distance(seen.lab, seen.body_lab)
    found = components(second & belly, smallest=max(3.0, 0.008 * seen.body.r**2))
    if not found:
        return 0, math.nan
    areas = [float(spot.sum()) / seen.body.r**2 for spot in found]
    return len(found), math.sqrt(float(np.quantile(areas, 0.75)) / math.pi)


def _measures(seen: _Look, arm_lengths: list[float], words: dict[str, Word]) -> FloatArray:
    body, r = seen.body, seen.body.r
    above = seen.part & (seen.ys < body.y - 0.5 * body.b) & ~seen.ellipse(1.05)
    ivory = (seen.lab[..., 0] > 78.0) & (np.hypot(seen.lab[..., 1], seen.lab[..., 2]) < 24.0)
    ears = above & ~ivory & (np.abs(seen.xs - body.x) < 1.02 * body.a)
    rows = np.nonzero(ears.any(axis=1))[0]
    ear_reach = (body.y - float(rows[0]) - body.b) / r if rows.size else 0.0
    bottom = float(np.nonzero(seen.part.any(axis=1))[0][-1] + 1)
    separation = math.hypot(seen.eyes[1].x - seen.eyes[0].x, seen.eyes[1].y - seen.eyes[0].y)
    eye = (seen.eyes[0].radius + seen.eyes[1].radius) / 2
    return np.array(
        [
            *seen.body_lab,
            *seen.second_lab,
            math.log(body.a / body.b),
            eye / r,
            separation / r,
            ear_reach,
            math.sqrt(float(ears.sum()) / r**2),
            (bottom - body.y - 0.94 * body.b) / r,
            float(np.mean(arm_lengths)) if arm_lengths else math.nan,
            _tail(seen, words),
            math.nan,
            math.nan,
            math.nan,
        ]
    )


def _tail(seen: _Look, words: dict[str, Word]) -> float:
    """How far the tail reaches from where it starts, in radii; NaN when it is not seen or behind an arm."""
    body = seen.body
    side = -1.0 if words["facing"].value == "right" else 1.0
    if words["left_arm" if side < 0 else "right_arm"].value in ("down", None):
        return math.nan
    start = (body.x + side * 0.74 * body.a, body.y + 0.52 * body.b)
    tail = seen.near(seen.second_lab, _SECOND_NEAR) & ~seen.ellipse(1.04) & (side * (seen.xs - body.x) > 0)
    away = np.hypot(seen.xs - start[0], seen.ys - start[1])
    parts = [part for part in components(tail, smallest=4) if float(away[part].min()) < 0.4 * body.r]
    low = [part for part in parts if float(seen.ys[part].min()) < body.y + 0.85 * body.b]
    return max(float(away[part].max()) for part in low) / body.r if low else math.nan
