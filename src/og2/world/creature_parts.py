"""Parts of a creature as pixels of its frame: arms, lips and tongue, to tell a whole one from half of one.

Part of the scorer; `creature_edits` judges by them. Lengths are radii of the body.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from og2.world.creature_body import Eye, Frame
from og2.world.creature_lines import Line, depth_in
from og2.world.pixels import BoolArray, FloatArray, components, distance

MOUTH_Y = 0.17  # of the half height, below the middle
DARK, TONGUE = (np.array(lab) for lab in ((14.0, 3.0, 1.0), (52.0, 58.0, 28.0)))
WHITE = np.array((98.0, 0.0, 0.0))
_EYE_GAP = 0.05  # radii between two eyes at least
CORE_STEP = 0.42  # of the eye's radius: how far one step of the gaze takes the dark core
_CORE = 0.54  # of the eye's radius
_LINE_STEP = 4.0  # of lightness from the line around an eye to what is its core
_OVAL = (0.20, 0.145)  # half axes of an open mouth
_LEAST_LINE = 0.25  # of the tongue's red in its line
_TONGUE_DE = 15.0  # from any mix of dark and red
_ARM_WIDE = 0.2  # beside an arm's line
_SHOULDER = (0.82, 0.10)  # of the half width; below the middle
_HORN_PITCH, _HORN_TIP = 0.28, 0.32  # radii between two horns; of their tips above the body
_HORN_SLOPE = 0.237  # half width of a horn at a distance from its tip, over that distance
_HORN_ROWS, _BESIDE_HORN = (0.05, 0.27), 0.15  # heights above the body that are looked at; where gaps end
_MIN_HORN_DE = 5.0  # that a horn differs more from the background than the gaps; horns 9.5, others 1.1


def astray_of(frame: Frame, limbs: BoolArray, side: float) -> float:
    """How much of an arm on that side lies beside the line from the shoulder to most of it: two half arms."""
    limbs = limbs & ~((side * frame.u < 0.42 * frame.wide + 0.2) & (frame.v > 0.5 * frame.high))
    out, up = side * frame.u - _SHOULDER[0] * frame.wide, _SHOULDER[1] - frame.v
    far = limbs & (np.hypot(out, up) > 0.25)
    if far.sum() < 4:
        return 0.0
    x, y = float(out[far].sum()), float(up[far].sum())
    across = np.abs(out * y - up * x) / max(math.hypot(x, y), 1e-6)
    return float((across[limbs] > _ARM_WIDE).mean())


def reach_of(frame: Frame, limbs: BoolArray, zone: BoolArray) -> float:
    """How far the largest limb goes from the shoulder, in radii, across a tail too; 0 without one."""
    parts = [part & limbs for part in components(limbs | (zone & frame.is_second), smallest=3)]
    largest = max(parts, key=lambda part: int(part.sum()), default=limbs)
    if not largest.any():
        return 0.0
    side = 1.0 if float(frame.u[largest].mean()) > 0 else -1.0
    away = np.hypot(side * frame.u - _SHOULDER[0] * frame.wide, frame.v - _SHOULDER[1])
    return float(np.quantile(away[largest], 0.98))


def lips_of(frame: Frame) -> BoolArray:
    """The dark of an open mouth around its tongue, but for its soft rim."""
    x, y = frame.u - frame.face, frame.v - MOUTH_Y * frame.high
    oval = (x / _OVAL[0]) ** 2 + (y / _OVAL[1]) ** 2 < 0.75
    return oval & ((x / _OVAL[0]) ** 2 + ((y - 0.06) / _OVAL[1]) ** 2 > 0.45)


def tongue_of(frame: Frame) -> float:
    """How much of the tongue is seen in the lesser half of its place."""
    x, y = frame.u - frame.face, frame.v - MOUTH_Y * frame.high - 0.06
    toward = TONGUE - DARK
    amount = np.clip((frame.lab - DARK) @ toward / float(toward @ toward), 0.0, 1.0)
    seen = amount * (distance(frame.lab, DARK + amount[..., None] * toward) < _TONGUE_DE)
    place = ((x / 0.12) ** 2 + (y / 0.065) ** 2 < 0.8).astype(float)
    if frame.line is not None:  # most of a small tongue is line, and many of its pixels are half lips
        place = np.clip(depth_in(x, y, 0.12, 0.065) * frame.body.r + 0.5, 0.0, 1.0)
        whole = float((frame.line.of(TONGUE) - DARK) @ toward / float(toward @ toward))
        seen = np.clip(seen / max(whole, _LEAST_LINE), 0.0, 1.0)
    halves = [(seen[half], place[half]) for half in (x < 0, x >= 0)]
    shares = [float(seen @ place) / float(place @ place) for seen, place in halves if place.any()]
    return min(shares, default=1.0)


def lined_horns(frame: Frame) -> int:
    """How many horns a creature with lines has: they are thin, and hardly more than line.

    Places where a horn can be are compared with the gaps beside them, where the background shows.
    """
    one, two, three = (
        [_horn_at(frame, (i - (count - 1) / 2) * _HORN_PITCH) for i in range(count)] for count in (1, 2, 3)
    )
    if min(two) > _MIN_HORN_DE:
        return 2
    if min(one) <= _MIN_HORN_DE:
        return 0
    return 3 if max(three[0], three[2]) > _MIN_HORN_DE else 1  # an ear may hide one of the outer two


def _horn_at(frame: Frame, u: float) -> float:
    """How much more a horn's place differs from the background than both sides of it, in dE."""
    above = -frame.v - frame.high
    rows = (above > _HORN_ROWS[0]) & (above < _HORN_ROWS[1])
    away, half = np.abs(frame.u - u), _HORN_SLOPE * (_HORN_TIP - above)
    pixel = 1.0 / frame.body.r
    weight = rows * np.clip((half - away) / pixel + 0.5, 0.0, 1.0)
    gaps = rows & (away > half + 0.75 * pixel) & (away < _BESIDE_HORN)
    if not gaps.any():
        return 0.0
    off = distance(frame.lab, frame.behind)
    return float((off * weight).sum() / max(float(weight.sum()), 1e-6) - off[gaps].mean())


def core_of(frame: Frame, eye: Eye) -> float:
    """Where the middle of what is dark in an eye is, in pixels across."""
    light = 80.0 if frame.line is None else float(frame.line.of(WHITE)[0]) - _LINE_STEP
    weight = np.clip((light - frame.lab[..., 0]) / (0.75 * light), 0.0, 1.0)
    weight *= away_from(frame, eye) < eye.radius - 0.3
    columns = np.arange(weight.shape[1])
    return float(weight.sum(axis=0) @ columns) / max(float(weight.sum()), 1e-6)


def away_from(frame: Frame, eye: Eye, right: float = 0.0) -> FloatArray:
    """How far every pixel is from the middle of an eye, or from so many pixels to the right of it."""
    ys, xs = np.mgrid[0 : frame.part.shape[0], 0 : frame.part.shape[1]]
    return np.hypot(xs - eye.x - right, ys - eye.y)


def gaze_change(old: Frame, new: Frame, eye: Eye, line: Line, steps: tuple[int, int]) -> float:
    """How much of the change from one gaze to another an eye with a line shows: 0 = none, 1 = all.

    steps: to the right, before and after. A small eye is hardly more than lines: its light is compared with
    that of two ideal eyes.
    """
    away = away_from(old, eye)
    white, ring = float(WHITE[0]), float(line.of(WHITE)[0])
    disc = ring + (white - ring) * _covered(away, eye.radius - line.width)
    lights = []
    for step in steps:
        core = _covered(away_from(old, eye, step * CORE_STEP * eye.radius), _CORE * eye.radius)
        lights.append(disc + core * (float(DARK[0]) - disc))
    inside = away < eye.radius - 0.3
    ideal = (lights[1] - lights[0])[inside]
    return float(ideal @ (new.lab - old.lab)[..., 0][inside]) / max(float(ideal @ ideal), 1e-6)


def _covered(away: FloatArray, radius: float) -> FloatArray:
    """How much of pixels so far from its middle a disc covers."""
    return np.clip(radius - away + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class EyesDone:
    """What became of both eyes between two frames.

    steps: ln of how many times as large each is. moved: how far from where they should be apart; askew: how
    far the middle of one went elsewhere than to its side. Units: radii of the body.
    """

    steps: tuple[float, float]
    moved: float
    askew: float


def eyes_done(old: Frame, new: Frame) -> EyesDone:
    """How two eyes changed; faint rims count by as much as they are there."""
    weights = [[_eye_weights(frame, i) for i in (0, 1)] for frame in (old, new)]
    areas = [[max(float(w.sum()), 1.0) for w in own] for own in weights]
    left, right = (math.log(areas[1][i] / areas[0][i]) / 2.0 for i in (0, 1))
    shift = _middles(weights[1]) - _middles(weights[0])
    # An eye of which one side grew has moved; larger ones that would touch give way, both to their sides.
    askew = max(float(np.abs(shift[:, 1]).max()), abs(float(shift[:, 0].mean()))) / old.body.r
    apart = [(frame.eyes[1].x - frame.eyes[0].x) / frame.body.r for frame in (old, new)]
    size = (new.eyes[0].radius + new.eyes[1].radius) / 2 / new.body.r
    return EyesDone((left, right), abs(apart[1] - max(apart[0], 2.0 * size + _EYE_GAP)), askew)


def _middles(weights: list[FloatArray]) -> FloatArray:
    """Where both eyes have their middles: (2, 2) of x and y in pixels."""
    ys, xs = np.indices(weights[0].shape)
    return np.array([[(w * at).sum() / max(float(w.sum()), 1.0) for at in (xs, ys)] for w in weights])


def _eye_weights(frame: Frame, index: int) -> FloatArray:
    """How much of each pixel is of one of both eyes: of less colour than the skin.   Shapes: (h, w)."""
    eye, other = frame.eyes[index], frame.eyes[1 - index]
    own = (away_from(frame, eye) < 1.12 * eye.radius + 1.0) & (
        away_from(frame, eye) <= away_from(frame, other)
    )
    own &= frame.ellipse(0.98)
    chroma, skin = (np.hypot(lab[..., 1], lab[..., 2]) for lab in (frame.lab, frame.skin))
    return np.where(own, np.clip(1.0 - chroma / np.maximum(skin, 1.0), 0.0, 1.0), 0.0)
