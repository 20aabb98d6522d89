"""A creature's frame in a picture: its eyes, the ellipse of its body, and its two colours.

Part of the scorer. The eyes (white discs with dark cores) say that there is a creature at all; the ellipse is
fitted to the outline where no limb hides it, to a fraction of a pixel, so that all that is measured from it
keeps its value in any pose and at any size. Lengths are working pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from og2.world.background import View, share_toward
from og2.world.creature_lines import Line, between, depth_in, is_lined, lightest, line_inside
from og2.world.pixels import BoolArray, FloatArray, components, dilate, distance, erode, medians

_WHITE_L, _WHITE_C, _DARK_L, _DARK_C = 70.0, 28.0, 44.0, 25.0
_WHITE_LAB, _DARK_LAB = np.array([98.0, 0.0, 0.0]), np.array([15.0, 3.0, 1.0])
_LINED_WHITE_L, _LINED_WHITE_C, _LINED_DARK_L, _LINED_DARK_C = 32.0, 15.0, 32.0, 16.0  # white's line is grey
_EYE_SIZES, _MIN_GREY = (0.11, 0.42), 0.8  # radii of the body; of an eye that is of no colour
_FOOT, _MIN_FOOT_PX = 0.21, 6  # radii: of the height of a foot, 0.26
_WHITE_RIM = 0.06  # of what is around a core; of a core that looks aside it is little
_MIN_SKIN = 24.0  # dE from white and from black: dots on white are no eyes
_LIMBS = 0.36  # radii: what is thinner than twice this is no body
_NEAR_BODY = 17.0  # dE
_RAYS = 96
_OUTLINE = (0.66, 1.3, 0.0125)  # part of a ray that is searched for the outline, and the step, in radii
_LIMITS = (0.0, 0.05, 0.03)  # how far from the ellipse its outline may lie, from fit to fit
_TRIALS = 500
_POINTS = 5  # of each trial ellipse
_AGREED = 0.015  # radii from a trial ellipse to a point on it
_MIN_ON_OUTLINE = 14


@dataclass(frozen=True)
class Eye:
    """An eye: its middle, radius, and the middle of its core."""

    x: float
    y: float
    radius: float
    core_x: float


@dataclass(frozen=True)
class Body:
    """An upright ellipse: middle and half axes."""

    x: float
    y: float
    a: float
    b: float

    @property
    def r(self) -> float:
        """The radius of the circle of the same area."""
        return math.sqrt(self.a * self.b)


@dataclass(frozen=True)
class Frame:
    """A creature's pixels in its own units.

    lab, part: CIELAB and silhouette (h, w). u, v: place of every pixel from the middle of the body, in radii,
    v downward. body_lab, second_lab: its two colours; is_second, is_limb: pixels of the second colour, and of
    the first outside the body; skin: the body's colour at every pixel, shaded as it is; behind: the
    background's. line: the dark one along every part, None where there is none; skin then has the body's.
    """

    lab: FloatArray
    part: BoolArray
    eyes: tuple[Eye, Eye]
    body: Body
    body_lab: FloatArray
    second_lab: FloatArray
    skin: FloatArray
    behind: FloatArray
    is_second: BoolArray
    is_limb: BoolArray
    u: FloatArray
    v: FloatArray
    line: Line | None = None

    @property
    def wide(self) -> float:
        """Half width of the body in radii; half its height is one over it."""
        return math.sqrt(self.body.a / self.body.b)

    @property
    def high(self) -> float:
        """Half height of the body in radii."""
        return math.sqrt(self.body.b / self.body.a)

    @property
    def face(self) -> float:
        """How far right of the body's middle the face is, in radii."""
        return ((self.eyes[0].x + self.eyes[1].x) / 2 - self.body.x) / self.body.r

    def ellipse(self, scale: float) -> BoolArray:
        """The pixels of the body, scaled about its middle."""
        return (self.u / self.wide) ** 2 + (self.v / self.high) ** 2 <= scale**2


def find_frame(view: View, part: BoolArray) -> Frame | None:
    """The frame of the creature that a window shows, or None where there is none.

    part: its silhouette, holes filled.
    """
    lab, has_line = view.lab, is_lined(view, part)
    eyes, eye_mask = _eyes(lab, part, has_line)
    if eyes is None:
        return None
    rough = _rough_body(part, eyes)
    ring = dilate(eye_mask, 3.0) & ~dilate(eye_mask, 1.0) & part
    if rough is None or ring.sum() < 6:
        return None
    around_eyes = medians(lab[ring])
    if min(float(distance(around_eyes, tone)) for tone in (_WHITE_LAB, _DARK_LAB)) < _MIN_SKIN:
        return None
    second = _color_of_feet(lab, part, rough, has_line)
    cover = np.maximum(share_toward(view, around_eyes), share_toward(view, second))
    body = _fitted(np.where(erode(part, 1.5), 1.0, np.where(dilate(part, 1.5), cover, 0.0)), rough)
    ys, xs = np.mgrid[0 : part.shape[0], 0 : part.shape[1]].astype(np.float64)
    u, v = (xs - body.x) / body.r, (ys - body.y) / body.r
    inside = ((xs - body.x) / body.a) ** 2 + ((ys - body.y) / body.b) ** 2
    body_lab, skin = _skin(lab, (inside < 0.81) & part & ~dilate(eye_mask, 1.5), around_eyes, u + v)
    depth = depth_in(xs - body.x, ys - body.y, body.a, body.b) if has_line else None
    line = None if depth is None else line_inside(lab, body_lab, depth)
    to_second, to_skin = distance(lab, second), distance(lab, skin)
    if depth is not None and line is not None:
        to_second = between(lab, second, line.of(second))
        to_skin = np.where(inside < 1.0, to_skin, between(lab, body_lab, line.of(body_lab)))
        edge = np.clip(line.width - depth + 0.5, 0.0, 1.0)[..., None] * (inside < 1.0)[..., None]
        skin = skin + edge * (line.of(skin) - skin)
        to_skin = np.minimum(to_skin, distance(lab, skin))
    is_second = part & (to_second < 22.0) & (to_second < to_skin)
    is_limb = part & (to_skin < 24.0) & ~is_second & (inside > 1.0)
    clear = np.ones_like(part) if depth is None or line is None else depth > line.width
    eyes = _measured_eyes(lab, eyes, body_lab, line, clear)
    if has_line and not all(_is_eye(lab, eye, body.r) for eye in eyes):
        return None
    colors = (body_lab, second, skin, view.background)
    return Frame(lab, part, eyes, body, *colors, is_second, is_limb, u, v, line)


def _eyes(lab: FloatArray, part: BoolArray, has_line: bool) -> tuple[tuple[Eye, Eye] | None, BoolArray]:
    """Two discs of white, each around a dark core, about level; the left one first."""
    white, dark = _white_and_dark(lab, part, has_line)
    if not white.any() or not dark.any():
        return None, white
    rated = []
    for core in components(dark):
        share = float(white[dilate(core, 2.0) & ~core & part].mean())
        if share > _WHITE_RIM:
            rated.append((share * math.sqrt(float(core.sum())), core))
    if len(rated) < 2:
        return None, white
    # A single dark pixel beside a horn is no core where there are two larger ones.
    larger = [r for r in rated if r[1].sum() > 1]
    rated = larger if len(larger) > 1 else rated
    cores = [core for _, core in sorted(rated, key=lambda r: -r[0])[:2]]
    cores.sort(key=lambda c: float(np.nonzero(c)[1].mean()))
    middles = [(float(np.nonzero(c)[1].mean()), float(np.nonzero(c)[0].mean())) for c in cores]
    whole = _around_cores(part, white, cores, has_line)
    ys, xs = np.nonzero(whole)
    to_right = np.hypot(xs - middles[1][0], ys - middles[1][1]) < np.hypot(
        xs - middles[0][0], ys - middles[0][1]
    )
    eyes = []
    for own, core in ((~to_right, middles[0]), (to_right, middles[1])):
        if own.sum() < 5:
            return None, white
        radius = math.sqrt(float(own.sum()) / math.pi)
        eyes.append(Eye(float(xs[own].mean()), float(ys[own].mean()), radius, core[0]))
    one, other = eyes
    if abs(one.y - other.y) > one.radius + other.radius or not 0.5 < one.radius / other.radius < 2.0:
        return None, white
    return (one, other), whole


def _white_and_dark(lab: FloatArray, part: BoolArray, has_line: bool) -> tuple[BoolArray, BoolArray]:
    """What may be the white of an eye, its grey line too where there are lines, and what its core."""
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    white = part & (lab[..., 0] > _WHITE_L) & (chroma < _WHITE_C)
    if not has_line:
        return white, part & (lab[..., 0] < _DARK_L) & (chroma < _DARK_C)
    white |= part & (lab[..., 0] > _LINED_WHITE_L) & (chroma < _LINED_WHITE_C)
    return white, part & (lab[..., 0] < _LINED_DARK_L) & (chroma < _LINED_DARK_C)


def _around_cores(part: BoolArray, white: BoolArray, cores: list[BoolArray], has_line: bool) -> BoolArray:
    """Both eyes: the cores and the white that is connected with them."""
    whole = np.zeros_like(part)
    for blob in components(white | dilate(cores[0], 1.0) | dilate(cores[1], 1.0)):
        if (blob & (cores[0] | cores[1])).any():
            whole |= blob & part
    if has_line:  # grey runs into the lines of a dull body: no eye reaches farther from its core
        whole &= dilate(cores[0], _reach_of(cores[0])) | dilate(cores[1], _reach_of(cores[1]))
    return whole


def _reach_of(core: BoolArray) -> float:
    """How far an eye may reach beyond its dark core, which has half its radius and may lie at its rim."""
    return 1.7 * math.sqrt(float(core.sum()) / math.pi) + 1.0


def _is_eye(lab: FloatArray, eye: Eye, r: float) -> bool:
    """Whether an eye among lines is one: of a size that eyes have, and black, grey and white throughout."""
    low, high = _EYE_SIZES
    if not low * r < eye.radius < high * r:
        return False
    ys, xs = np.mgrid[0 : lab.shape[0], 0 : lab.shape[1]]
    values = lab[np.hypot(xs - eye.x, ys - eye.y) < 0.8 * eye.radius]
    grey = np.hypot(values[:, 1], values[:, 2]) < _LINED_WHITE_C
    return float(grey.mean()) > _MIN_GREY


def _measured_eyes(
    lab: FloatArray, eyes: tuple[Eye, Eye], body_lab: FloatArray, line: Line | None, clear: BoolArray
) -> tuple[Eye, Eye]:
    """The same eyes by how much of each pixel is not the body's colour.   clear: of the line around it."""
    shares = []
    for color in (_WHITE_LAB, _DARK_LAB) if line is None else (_WHITE_LAB, line.of(_WHITE_LAB), _DARK_LAB):
        toward = color - body_lab
        shares.append((lab - body_lab) @ toward / float(toward @ toward))
    cover = np.clip(np.max(shares, axis=0), 0.0, 1.0) * clear
    ys, xs = np.mgrid[0 : lab.shape[0], 0 : lab.shape[1]].astype(np.float64)
    away = [np.hypot(xs - eye.x, ys - eye.y) for eye in eyes]
    found = []
    for eye, own, other in ((eyes[0], *away), (eyes[1], *away[::-1])):
        weight = np.where(own < 0.7 * eye.radius, 1.0, cover)
        weight = weight * ((own < 1.25 * eye.radius + 1.0) & (own <= other))
        total = float(weight.sum())
        middle = float((xs * weight).sum()) / total, float((ys * weight).sum()) / total
        found.append(Eye(*middle, math.sqrt(total / math.pi), eye.core_x))
    return found[0], found[1]


def _rough_body(part: BoolArray, eyes: tuple[Eye, Eye]) -> Body | None:
    """The ellipse that is left of the silhouette once everything thin is worn off."""
    x, y = (eyes[0].x + eyes[1].x) / 2, (eyes[0].y + eyes[1].y) / 2
    depth, worn = 0, part
    while worn.any() and depth < 128:
        worn, depth = erode(worn, 1.5 if depth % 2 else 1.0), depth + 1
    if depth < 6:
        return None
    reach = max(2.0, _LIMBS * depth * 1.18)
    blobs = components(erode(part, reach))
    if not blobs:
        return None
    near = min(
        blobs,
        key=lambda c: float(np.hypot(np.nonzero(c)[1] - x, np.nonzero(c)[0] - y).min()) - 0.01 * c.sum(),
    )
    opened = dilate(near, reach) & part
    ys, xs = np.nonzero(opened)
    a, b = 2.0 * float(xs.std()), 2.0 * float(ys.std())
    return Body(float(xs.mean()), float(ys.mean()), a, b) if min(a, b) > 3.0 else None


def _color_of_feet(lab: FloatArray, part: BoolArray, body: Body, has_line: bool) -> FloatArray:
    """The second colour, which the feet have: of the lowest rows that belong to the creature."""
    rows = np.arange(part.shape[0])[:, None]
    last = int(np.nonzero(part.any(axis=1))[0][-1])
    if has_line:
        feet = part & (rows > last - _FOOT * body.r) & erode(part, 1.0)
        if feet.sum() >= _MIN_FOOT_PX:
            return lightest(lab[feet])
    feet = part & (rows >= last - max(1.0, 0.16 * body.r)) & erode(part, 1.0)
    if feet.sum() < 3:
        feet = part & (rows >= last - max(2.0, 0.2 * body.r))
    return medians(lab[feet])


def _fitted(cover: FloatArray, rough: Body) -> Body:
    """The ellipse through the outline where it is the body's own, from a rough one.

    Rays from the middle meet the outline; most meet a limb somewhere. Of many ellipses through a few points
    each, the one that most other points lie on is fitted to those.
    """
    angles = 2.0 * math.pi * (np.arange(_RAYS) + 0.5) / _RAYS
    cos, sin = np.cos(angles), np.sin(angles)
    body = rough
    for turn, limit in enumerate(_LIMITS):
        edge, found = _outline(cover, body, cos, sin)
        x, y = (edge * cos)[found], (edge * sin)[found]
        if len(x) < _MIN_ON_OUTLINE:
            return body
        if turn == 0:
            middle = _most_agreed(x, y)
            x, y = x[middle], y[middle]
        else:
            near = np.abs(np.hypot(x, y) - 1.0) < limit
            x, y = x[near], y[near]
        if len(x) < _MIN_ON_OUTLINE:
            return body
        body = _through(x, y, body)
    return body


def _outline(cover: FloatArray, body: Body, cos: FloatArray, sin: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Where each ray leaves the silhouette, in units of the ellipse, and whether it does in the range."""
    along = np.arange(*_OUTLINE)
    values = _sampled(cover, body.y + body.b * sin[:, None] * along, body.x + body.a * cos[:, None] * along)
    outside = values < 0.5
    first = np.argmax(outside, axis=1)
    rays = np.arange(len(cos))
    before, after = values[rays, np.maximum(first - 1, 0)], values[rays, first]
    edge = along[first] - _OUTLINE[2] * (0.5 - after) / np.maximum(before - after, 1e-6)
    return edge, outside.any(axis=1) & (first > 0)


def _most_agreed(x: FloatArray, y: FloatArray) -> BoolArray:
    """The points on one of many trial ellipses, the one with the most of them."""
    design = np.stack([x**2, y**2, x, y], axis=1)
    picks = np.random.default_rng(0).integers(0, len(x), (_TRIALS, _POINTS))
    some = design[picks]
    normal = some.transpose(0, 2, 1) @ some + 1e-9 * np.eye(4)
    trials = np.linalg.solve(normal, some.sum(axis=1)[..., None])[..., 0]
    sane = (trials[:, :2].min(axis=1) > 0.5) & (trials[:, :2].max(axis=1) < 2.4)
    off = np.abs(trials @ design.T - 1.0)  # about twice the distance
    on = (off < 2.0 * _AGREED) & sane[:, None]
    return on[int(np.argmax(on.sum(axis=1)))]


def _through(x: FloatArray, y: FloatArray, body: Body) -> Body:
    """The upright ellipse nearest to points that are given in units of another ellipse."""
    design = np.stack([x**2, y**2, x, y], axis=1)
    p, q, s, t = np.linalg.lstsq(design, np.ones(len(x)), rcond=None)[0]
    if min(p, q) <= 0.25:
        return body
    whole = 1.0 + s**2 / (4 * p) + t**2 / (4 * q)
    return Body(
        body.x - body.a * float(s / (2 * p)),
        body.y - body.b * float(t / (2 * q)),
        body.a * math.sqrt(float(whole / p)),
        body.b * math.sqrt(float(whole / q)),
    )


def _sampled(values: FloatArray, ys: FloatArray, xs: FloatArray) -> FloatArray:
    """Values between pixels."""
    ys, xs = np.clip(ys, 0, values.shape[0] - 1.001), np.clip(xs, 0, values.shape[1] - 1.001)
    y, x = ys.astype(int), xs.astype(int)
    fy, fx = ys - y, xs - x
    upper = values[y, x] * (1 - fx) + values[y, x + 1] * fx
    lower = values[y + 1, x] * (1 - fx) + values[y + 1, x + 1] * fx
    return upper * (1 - fy) + lower * fy


def _skin(
    lab: FloatArray, inner: BoolArray, near: FloatArray, toward_light: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The body's colour in its middle, and at every pixel under light that runs from one corner to the
    other."""
    d = lab - near
    own = inner & (np.sqrt(0.3 * d[..., 0] ** 2 + d[..., 1] ** 2 + d[..., 2] ** 2) < _NEAR_BODY)
    if own.sum() < 12:
        return near, np.broadcast_to(near, lab.shape)
    place = toward_light[own]
    middle, values = place.mean(), lab[own]
    slope = (
        (place - middle) @ (values - values.mean(axis=0)) / max(float(((place - middle) ** 2).sum()), 1e-6)
    )
    color = values.mean(axis=0) - middle * slope
    return color, color + np.clip(toward_light, -2.0, 2.0)[..., None] * slope
