"""How the area of a thing is painted: flat, or two tones of one hue in stripes, dots or checks.

Part of the scorer. Two tones are told apart by clustering; what they form, by the spectrum of the pattern
inside the mask: stripes repeat along one direction, dots and checks along two at right angles. Of these, dots
cover clearly less than half and have power along the diagonals of their grid, where checks have none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from og2.world.pixels import BoolArray, FloatArray, distance, erode, medians, quantile

MIN_TONES_APART = 13.0  # dE between two tones; less is shading
_MAX_HUE_STEP = 40.0  # dE in a and b between two tones of one hue
_MIN_SHARE = 0.10  # of the rarer tone
_WEIGHTS = np.array([1.0, 0.4, 0.4])  # two tones of one hue differ in lightness; chroma is what files blur
_MAX_WITHIN = 3.4  # mean dE, by these weights, of the pixels from their tone,
_MAX_WITHIN_SHARE = 0.25  # or this share of the tones' distance
_MAX_ONE_SIDED = 0.5  # correlation of the second tone with a place: two halves have 0.87
_MIN_DEEP_PX = 40  # of the inside that patterns are looked for in
_MIN_DEEP_SHARE = 0.45  # of a pattern's second tone there, over its share everywhere
_SIDE = 96  # of the spectrum
_SECOND_DIRECTION = (0.28, 0.50)  # power of the direction at right angles: below = stripes, above = lattice
_DOTS_SHARE = (0.385, 0.08)  # of the rarer tone, below = dots, and by how much it counts as much as
_DOTS_DIAGONAL = (0.18, 0.12)  # power along the diagonals of the grid, above = dots
_MIN_LEAN = 0.25
_MIN_PEAK = 0.045  # of the pattern's power at the strongest frequency
_CYCLES = (2.3, 7.5)  # cycles across the thing's larger side


@dataclass(frozen=True)
class Texture:
    """fill: "flat", "stripes", "dots", "checker", or None (then `reason`); tones: CIELAB, commonest first."""

    fill: str | None
    tones: tuple[FloatArray, ...]
    confidence: float
    reason: str


def name_texture(lab: FloatArray, core: BoolArray) -> Texture:
    """What the inside of a thing shows.   Shapes: lab (H, W, 3), core (H, W) with at least one pixel."""
    values = lab[core]
    middle = medians(values)
    if quantile(distance(values, middle), 0.95) < 0.6 * MIN_TONES_APART:
        return Texture("flat", (middle,), 1.0, "")
    seen = values * _WEIGHTS
    is_second = _second_of_two(seen)
    if is_second is None:
        return Texture("flat", (middle,), 0.5, "")
    first, second = medians(values[~is_second]), medians(values[is_second])
    apart = math.dist(first, second)
    to_first, to_second = (distance(seen, tone * _WEIGHTS) for tone in (first, second))
    within = float(np.minimum(to_first, to_second).mean())
    hue_step = math.hypot(first[1] - second[1], first[2] - second[2])
    share = float(is_second.mean())
    is_pattern = apart >= MIN_TONES_APART and share >= _MIN_SHARE and hue_step <= _MAX_HUE_STEP
    is_pattern = is_pattern and _one_sidedness(core, is_second) <= _MAX_ONE_SIDED
    if not is_pattern or within > max(_MAX_WITHIN, _MAX_WITHIN_SHARE * apart):
        return Texture(
            "flat", (middle,), 0.7, ""
        )  # whether it is one colour is for the colour's spread to say
    deep = erode(core, 1.0)
    if deep.sum() < _MIN_DEEP_PX:
        return Texture("flat", (middle,), 0.5, "")
    is_rarer = np.zeros_like(core)
    is_rarer[core] = is_second
    if float(is_rarer[deep].mean()) < _MIN_DEEP_SHARE * share:  # a soft rim, no pattern
        return Texture("flat", (middle,), 0.5, "")
    return _by_spectrum(lab, core, (first, second), share)


def _second_of_two(values: FloatArray) -> BoolArray | None:
    """Which values belong to the smaller of two clusters, None where there are no two."""
    middle = values.mean(axis=0)
    axis = np.linalg.svd((values - middle).T @ (values - middle))[0][:, 0]
    along = (values - middle) @ axis
    is_high = along > 0.5 * (quantile(along, 0.05) + quantile(along, 0.95))
    for _ in range(4):
        if is_high.all() or not is_high.any():
            return None
        high, low = medians(values[is_high]), medians(values[~is_high])
        was, is_high = is_high, distance(values, high) < distance(values, low)
        if (was == is_high).all():
            break
    if is_high.all() or not is_high.any():
        return None
    return ~is_high if is_high.mean() >= 0.5 else is_high


def _one_sidedness(core: BoolArray, is_second: BoolArray) -> float:
    """How much the second tone keeps to one side: the correlation with the best straight run over the
    area."""
    ys, xs = np.nonzero(core)
    place = np.stack([xs - xs.mean(), ys - ys.mean()], axis=1)
    value = is_second - is_second.mean()
    slope = np.linalg.solve(place.T @ place + 1e-3 * np.eye(2), place.T @ value)
    return float(np.linalg.norm(place @ slope) / max(float(np.linalg.norm(value)), 1e-9))


def _by_spectrum(
    lab: FloatArray, core: BoolArray, tones: tuple[FloatArray, FloatArray], share: float
) -> Texture:
    direction = (tones[1] - tones[0]) / max(math.dist(*tones), 1e-6)
    pattern = np.where(core, (lab - tones[0]) @ direction, 0.0)
    pattern = np.where(core, pattern - pattern[core].mean(), 0.0)
    power = np.abs(np.fft.rfft2(pattern, (_SIDE, _SIDE))) ** 2
    extent = max(np.ptp(np.nonzero(core.any(axis=0))[0]), np.ptp(np.nonzero(core.any(axis=1))[0])) + 1
    fy = np.fft.fftfreq(_SIDE)[:, None] * extent
    fx = np.fft.rfftfreq(_SIDE)[None, :] * extent
    cycles = np.hypot(fx, fy)
    allowed = (cycles >= _CYCLES[0]) & (cycles <= _CYCLES[1])
    peak = np.unravel_index(int(np.argmax(np.where(allowed, power, 0.0))), power.shape)
    py, px = float(fy[peak[0], 0]), float(fx[0, peak[1]])
    concentration = float(power[np.hypot(fx - px, fy - py) < 0.8].sum() / max(power.sum(), 1e-9))
    if concentration < _MIN_PEAK:
        return Texture("flat", (medians(lab[core]),), 0.5, "")
    second = _power_at([(-py, px)], fx, fy, np.where(allowed, power, 0.0), 1.0) / float(power[peak])
    if second <= _SECOND_DIRECTION[0]:
        return Texture("stripes", tones, 1.0 - second, "")
    if second < _SECOND_DIRECTION[1]:
        return Texture(None, tones, 0.0, f"between stripes and a lattice ({second:.2f})")
    diagonal = _power_at([(px - py, px + py), (px + py, py - px)], fx, fy, power, 0.7) / float(power[peak])
    lean = (diagonal - _DOTS_DIAGONAL[0]) / _DOTS_DIAGONAL[1] + (_DOTS_SHARE[0] - share) / _DOTS_SHARE[1]
    if abs(lean) < _MIN_LEAN:
        return Texture(None, tones, 0.0, f"between dots and checks (second tone on {share:.2f} of it)")
    return Texture("dots" if lean > 0.0 else "checker", tones, min(1.0, second, abs(lean)), "")


def _power_at(
    places: list[tuple[float, float]], fx: FloatArray, fy: FloatArray, power: FloatArray, reach: float
) -> float:
    """The most power near any of these frequencies. In the half plane that rfft2 keeps, (x, y) and (-x, -y)
    are one."""
    both = [(sign * x, sign * y) for x, y in places for sign in (1.0, -1.0)]
    near = np.minimum.reduce([np.hypot(fx - x, fy - y) for x, y in both])
    return float(power[near < reach].max(initial=0.0))
