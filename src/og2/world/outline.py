"""Which shape a thing has, by two opinions that look at different evidence.

The first follows the outer contour: its radius as a function of the angle. The second looks at the whole
area, holes included: how much of it an ideal figure covers, and the other way round. Both compare with the
same ideal figures (`figures`), at every angle and several amounts of blur. Part of the scorer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from og2.world.figures import ideal_figures
from og2.world.pixels import BoolArray, FloatArray, blurred, fill_holes

NUM_ANGLES = 72
_NUM_RADII = 88
_REACH = 2.2  # in units of the radius of a disc of the same area
_RINGS = 22
_FINER = 4
_SOFTENING = (0.0, 0.06, 0.12)
MAX_RESIDUAL = 0.07
_CRESCENT_RESIDUAL = 0.24  # its outline jumps where the middle lies outside; nothing else is near it
MIN_MARGIN = 0.012
MIN_AGREEMENT = 0.86
_CRESCENT_AGREEMENT = 0.92  # half a crescent is like a whole one by 0.89
SAME_AREA = 0.012  # figures whose agreement differs by less cover a thing equally well
_RING_HOLE = (0.10, 0.62)  # area of the hole over the area of the rest


@dataclass(frozen=True)
class Opinion:
    """A shape's name or None, how well it fits (1 = perfectly), its lead over the next, and the reason."""

    shape: str | None
    fit: float
    margin: float
    reason: str


@dataclass(frozen=True)
class Polar:
    """A thing seen from its centroid.

    values: (NUM_ANGLES, _NUM_RADII) coverage along rays; radius: of the disc of the same area, in px;
    profile: (NUM_ANGLES,) distance to the outermost half-covered point over that radius.
    """

    values: FloatArray
    radius: float
    center: tuple[float, float]
    profile: FloatArray


def look_from_middle(coverage: FloatArray) -> Polar:
    """The polar view of one thing.   Shapes: coverage (H, W) in [0, 1], not all zero."""
    weight = float(coverage.sum())
    ys, xs = np.arange(coverage.shape[0]), np.arange(coverage.shape[1])
    center = (float(coverage.sum(axis=0) @ xs) / weight, float(coverage.sum(axis=1) @ ys) / weight)
    radius = math.sqrt(weight / math.pi)
    radii = (np.arange(_NUM_RADII) + 0.5) * (_REACH / _NUM_RADII) * radius
    angles = np.arange(NUM_ANGLES) * (2.0 * math.pi / NUM_ANGLES)
    across = center[0] + np.cos(angles)[:, None] * radii
    down = center[1] + np.sin(angles)[:, None] * radii
    framed = np.zeros((coverage.shape[0] + 2, coverage.shape[1] + 2))
    framed[1:-1, 1:-1] = coverage
    values = _bilinear(framed, across + 1.0, down + 1.0)
    return Polar(values, radius, center, _profile(values) * (_REACH / _NUM_RADII))


def name_shape(coverage: FloatArray, mask: BoolArray) -> Opinion:
    """The shape that both opinions name, else None with what they say.

    Shapes: coverage (H, W) in [0, 1], mask (H, W) where it is at least one half. Enclosed holes count as part
    of the outline for the first opinion and as holes for the second.
    """
    filled = fill_holes(mask)
    has_hole = bool((filled & ~mask).any())
    solid = np.where(filled & ~mask, 1.0, coverage) if has_hole else coverage
    around = look_from_middle(solid)
    first = _by_contour(around)
    if first.shape is not None:
        first = _with_hole(first, around, coverage, filled, mask)
    if first.shape is None:
        return first
    second = _by_area(look_from_middle(coverage) if has_hole else around, first.shape)
    if second.shape != first.shape:
        return Opinion(None, second.fit, 0.0, f"{first.shape} by its outline, but {second.reason}")
    return Opinion(first.shape, min(first.fit, second.fit), first.margin, "")


def _by_contour(view: Polar) -> Opinion:
    mean = float(view.profile.mean())
    if mean <= 0.0:
        return Opinion(None, 0.0, 0.0, "no outline")
    ideal = _ideals()
    spectrum = np.fft.rfft(view.profile / mean)
    # Padding the spectrum reads the correlation between the sampled angles too: spikes of a star are narrow.
    finer = np.fft.irfft(np.conj(ideal.outlines) * spectrum, n=_FINER * NUM_ANGLES, axis=1)
    energy = float(np.sum((view.profile / mean) ** 2))
    squares = ideal.outline_energy + energy - 2.0 * _FINER * finer.max(axis=1)
    residuals = np.sqrt(np.maximum(squares, 0.0) / NUM_ANGLES)
    ranked = sorted(_best_by_name(ideal.outline_names, -residuals).items(), key=lambda item: -item[1])
    (shape, best), (_, second) = ranked[:2]
    limit = _CRESCENT_RESIDUAL if shape == "crescent" else MAX_RESIDUAL
    fit, margin = max(0.0, 1.0 + best / limit), best - second
    if -best > limit:
        return Opinion(None, fit, margin, f"no known shape (closest {shape}, residual {-best:.3f})")
    if margin < MIN_MARGIN:
        return Opinion(None, fit, margin, f"between two shapes (closest {shape}, margin {margin:.3f})")
    return Opinion(shape, fit, margin, "")


def _with_hole(
    outer: Opinion, view: Polar, coverage: FloatArray, filled: BoolArray, mask: BoolArray
) -> Opinion:
    """The first opinion with the hole taken into account: a disc with a hole in its middle is a ring."""
    inner = filled & ~mask
    hole = float((1.0 - coverage)[inner].sum()) / max(float(coverage.sum()), 1.0)
    if hole < 0.03:
        return outer
    ys, xs = np.nonzero(inner)
    offset = math.hypot(float(xs.mean()) - view.center[0], float(ys.mean()) - view.center[1])
    if outer.shape == "circle" and _RING_HOLE[0] <= hole <= _RING_HOLE[1] and offset < 0.15 * view.radius:
        return Opinion("ring", outer.fit, outer.margin, "")
    return Opinion(None, outer.fit, 0.0, f"a {outer.shape} with a hole of {hole:.2f} of its area")


def _by_area(view: Polar, expected: str) -> Opinion:
    """The second opinion: the expected shape unless another one covers clearly more, or none covers
    enough."""
    ideal = _ideals()
    seen = _in_rings(view.values)
    spectra = np.fft.rfft(seen, axis=1)
    product = (ideal.areas @ spectra.T[..., None])[..., 0]
    together = 2 * np.fft.irfft(product, n=2 * NUM_ANGLES, axis=0).max(axis=0)
    agreement = together / (ideal.area_energy + float((seen**2).sum()) - together)
    best = _best_by_name(ideal.area_names, agreement)
    (shape, first), (_, second) = sorted(best.items(), key=lambda item: -item[1])[:2]
    if first < (_CRESCENT_AGREEMENT if shape == "crescent" else MIN_AGREEMENT):
        return Opinion(None, 0.0, first - second, f"only {first:.2f} of its area is like a {shape}")
    fit = (first - MIN_AGREEMENT) / (1.0 - MIN_AGREEMENT)
    if best[expected] >= first - SAME_AREA:
        rival = second if shape == expected else first
        return Opinion(expected, fit, best[expected] - rival, "")
    return Opinion(shape, fit, first - second, f"its area is more like a {shape}")


def _best_by_name(names: tuple[str, ...], values: FloatArray) -> dict[str, float]:
    """The largest value of every name; figures of one name stand together."""
    own = {name: names.index(name) for name in dict.fromkeys(names)}
    return dict(zip(own, np.maximum.reduceat(values, list(own.values())).tolist(), strict=True))


@dataclass(frozen=True)
class _Ideals:
    """What both opinions compare with; rings only count for the second.

    areas: conjugated spectra (frequencies, figures, rings).
    """

    outline_names: tuple[str, ...]
    outlines: np.ndarray
    outline_energy: FloatArray
    area_names: tuple[str, ...]
    areas: np.ndarray
    area_energy: FloatArray


@lru_cache(maxsize=1)
def _ideals() -> _Ideals:
    names, profiles, areas = [], [], []
    for name, figure in ideal_figures():
        for amount in _SOFTENING:
            sharp = look_from_middle(figure)
            view = look_from_middle(blurred(figure, amount * sharp.radius)) if amount else sharp
            names.append(name)
            profiles.append(view.profile / view.profile.mean())
            areas.append(_in_rings(view.values))
    solid = [i for i, name in enumerate(names) if name != "ring"]
    outlines, discs = np.array(profiles)[solid], np.array(areas)
    return _Ideals(
        tuple(names[i] for i in solid),
        np.fft.rfft(outlines, axis=1),
        (outlines**2).sum(axis=1),
        tuple(names),
        np.ascontiguousarray(np.conj(np.fft.rfft(discs, axis=2)).transpose(2, 0, 1)),
        (discs**2).sum(axis=(1, 2)),
    )


def _in_rings(values: FloatArray) -> FloatArray:
    """Coverage (_RINGS, NUM_ANGLES), weighted so that a sum of squares is an area."""
    rings = values.reshape(NUM_ANGLES, _RINGS, -1).mean(axis=2).T
    return rings * np.sqrt(np.arange(_RINGS) + 0.5)[:, None]


def _profile(values: FloatArray) -> FloatArray:
    """Outermost crossing of one half along each ray, in steps of the sampling."""
    rows = np.arange(values.shape[0])
    last = values.shape[1] - 1 - np.argmax(values[:, ::-1] >= 0.5, axis=1)
    inner = values[rows, last]
    outer = values[rows, np.minimum(last + 1, values.shape[1] - 1)]
    step = np.where(inner > outer, (inner - 0.5) / np.maximum(inner - outer, 1e-6), 0.0)
    return np.where(inner >= 0.5, last + 0.5 + np.clip(step, 0.0, 1.0), 0.0)


def _bilinear(image: FloatArray, xs: FloatArray, ys: FloatArray) -> FloatArray:
    height, width = image.shape
    inside = (xs >= 0) & (xs <= width - 1) & (ys >= 0) & (ys <= height - 1)
    xs, ys = np.clip(xs, 0, width - 1.001), np.clip(ys, 0, height - 1.001)
    left, top = xs.astype(np.int64), ys.astype(np.int64)
    fx, fy = xs - left, ys - top
    place = top * width + left
    flat = image.ravel()
    upper = flat[place] * (1 - fx) + flat[place + 1] * fx
    lower = flat[place + width] * (1 - fx) + flat[place + width + 1] * fx
    return np.where(inside, upper * (1 - fy) + lower * fy, 0.0)
