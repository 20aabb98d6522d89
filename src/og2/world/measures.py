"""What is measured of an edit, and how the numbers become scores from 0 to 10: piecewise-linear tables.

Every table lists (measure, score) points; between them the score runs straight, beyond them it stays. They
are part of what the benchmark publishes, so a score can be read back into what was measured. Part of the
scorer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from og2.world.background import View
from og2.world.pixels import BoolArray, FloatArray, components, dilate, distance, medians, quantile, smooth

MAX_TRACE = 5.5  # dE from the background where a removed thing was
_BACKDROP_STEP = 10.0
_MIN_CHANGE_SHARE = 0.2  # of the mean change of a backdrop, on every side
_GUESS = 3.0  # dE that a filled-in backdrop may be off
_MAX_PRESENT = 0.25  # of a thing that had to go
Table = tuple[tuple[float, float], ...]

TABLES: dict[str, Table] = {
    # Share of pixels outside the edited region within 10 dE of the source, global colour drift removed.
    "preservation": ((0.50, 0.0), (0.80, 4.0), (0.90, 7.0), (0.97, 9.0), (0.995, 10.0)),
    # How far a colour came from the old one (0) toward the wanted one (1).
    "color": ((0.25, 0.0), (0.50, 3.0), (0.74, 7.0), (0.90, 10.0)),
    # Intersection over union with the mask the thing had before.
    "same place": ((0.30, 0.0), (0.60, 5.0), (0.75, 8.0), (0.88, 10.0)),
    # dE from the background where a removed thing was (its 90th percentile).
    "trace": ((3.0, 10.0), (5.5, 7.0), (10.0, 3.0), (20.0, 0.0)),
    # Distance of the middle from where it was, in radii of the thing.
    "moved": ((0.15, 10.0), (0.50, 7.0), (1.0, 3.0), (1.6, 0.0)),
    # |ln(measured / wanted)| of the radius.
    "scale": ((0.05, 10.0), (0.09, 7.0), (0.20, 3.0), (0.33, 0.0)),
    # GenEval's component of the offset along the wanted direction.
    "relation": ((0.0, 0.0), (0.5, 7.0), (0.8, 10.0)),
}


def rate(name: str, measure: float) -> float:
    """The score in [0, 10] of a measure by the table of that name; 0 for NaN."""
    if np.isnan(measure):
        return 0.0
    xs, ys = zip(*TABLES[name], strict=True)
    return float(np.interp(measure, xs, ys))


@dataclass(frozen=True)
class Aspect:
    """One thing an edit had to do: its score in [0, 10], if it is met, and if not why."""

    name: str
    score: float
    met: bool
    reason: str = ""


def overlap(a: BoolArray, b: BoolArray) -> float:
    """Intersection over union of two masks; 0 when both are empty."""
    return float((a & b).sum() / max(1, (a | b).sum()))


def largest_spot(changed: BoolArray) -> float:
    """Area in pixels of the largest connected part of a mask; 0 when it is empty."""
    parts = components(changed)[:1]
    return float(parts[0].sum()) if parts else 0.0


def at_size(mask: BoolArray, shape: tuple[int, ...]) -> BoolArray:
    """The mask at another resolution, nearest pixels."""
    rows = (np.arange(shape[0]) * mask.shape[0]) // shape[0]
    columns = (np.arange(shape[1]) * mask.shape[1]) // shape[1]
    return mask[rows][:, columns]


def outer_sides(mask: BoolArray, share: float = 0.35, directions: int = 16) -> Iterable[BoolArray]:
    """For every direction the part of a mask that lies farthest that way: that share of its pixels."""
    whole = mask.shape[0], mask.shape[1]
    return _sides_of_all(whole, share, directions) if mask.all() else _sides(mask, share, directions)


@lru_cache(maxsize=4)
def _sides_of_all(shape: tuple[int, int], share: float, directions: int) -> tuple[BoolArray, ...]:
    """The sides of a whole picture, cut once."""
    return tuple(_sides(np.ones(shape, dtype=bool), share, directions))


def _sides(mask: BoolArray, share: float, directions: int) -> Iterator[BoolArray]:
    ys, xs = np.nonzero(mask)
    for i in range(directions if len(ys) else 0):
        angle = 2.0 * math.pi * i / directions
        along = xs * math.cos(angle) + ys * math.sin(angle)
        far = along >= quantile(along, 1.0 - share)
        side = np.zeros_like(mask)
        side[ys[far], xs[far]] = True
        yield side


def evenness(changed: BoolArray, mask: BoolArray) -> float:
    """The least share of changed pixels on any side of a mask, over their share in all of it; 0 if none."""
    whole = float(changed[mask].mean()) if mask.any() else 0.0
    return min(float(changed[side].mean()) for side in outer_sides(mask)) / whole if whole > 0.0 else 0.0


def two_levels(values: FloatArray) -> tuple[BoolArray, float]:
    """Which values belong to the higher of two levels, and how far the levels' medians are apart."""
    is_high = values > (quantile(values, 0.05) + quantile(values, 0.95)) / 2
    if is_high.all() or not is_high.any():
        return is_high, 0.0
    return is_high, float(np.median(values[is_high]) - np.median(values[~is_high]))


def shows_through(old: FloatArray, new: FloatArray, has_levels: bool) -> float:
    """How much of an old pattern is left in what replaced it: 0 = nothing, 1 = all of it.

    Shapes: (N,) each, the same pixels. has_levels: the new one is itself a pattern of two levels; what the
    old one explains is then looked for within each of them.
    """
    groups = [np.ones(len(new), dtype=bool)]
    if has_levels:
        is_high, _ = two_levels(new)
        groups = [is_high, ~is_high]
    shared = spread = 0.0
    for group in groups:
        if group.sum() >= 4:
            was = old[group] - old[group].mean()
            shared += float(was @ (new[group] - new[group].mean()))
            spread += float(was @ was)
    return shared / spread if spread > 0.0 else 0.0


def trace(views: tuple[View, View], place: BoolArray, lab: FloatArray | None = None) -> float:
    """How far a place is from the background it should show now (dE, its 90th percentile).

    views: of source and result. What lay behind a thing is a guess where the backdrop has structure: there it
    is enough that on every side less than a quarter of the way to the thing's colour (lab) is left.
    """
    before, after = views
    if after.is_plain:
        return quantile(smooth(after.delta)[place], 0.9)
    away = smooth(after.lab) - before.background
    rest = quantile(distance(away, np.zeros(3))[place], 0.9) - _GUESS
    if lab is None or rest <= MAX_TRACE:
        return rest
    toward = lab - before.background
    left = (away * toward).sum(axis=-1) / np.maximum((toward**2).sum(axis=-1), 1.0)
    most = max(float(left[side].mean()) for side in outer_sides(place))
    return rest if most > _MAX_PRESENT else MAX_TRACE


def backdrop_progress(views: tuple[View, View], high: FloatArray, low: FloatArray) -> float:
    """How far the backdrop came from the source's to the wanted colours, 1 = all the way, on the worse band.

    views: of source and result; high, low: wanted CIELAB in the top rows and in the bottom rows. A band that
    already had nearly the wanted colour says nothing, and its half of the picture need not change; elsewhere
    a side that hardly changed has not come at all.
    """
    free = ~dilate(views[0].mask | views[1].mask, 2.0)
    rows = np.arange(free.shape[0])[:, None] / free.shape[0]
    change = distance(views[0].lab, views[1].lab)
    shares, stays = [1.0], []
    for band, half, wanted in ((rows < 0.16, rows < 0.5, high), (rows > 0.84, rows >= 0.5, low)):
        band = free & band
        if band.sum() >= 20:
            old, new = (medians(view.lab[band]) for view in views)
            toward = wanted - old
            if float(np.linalg.norm(toward)) >= _BACKDROP_STEP:
                shares.append(float((new - old) @ toward / (toward @ toward)))
            else:
                stays.append(half)
    # Where both halves seem to stay, a change there is of another kind: all of it is looked at.
    place = free & ~stays[0] if len(stays) == 1 else free
    least = _MIN_CHANGE_SHARE * float(change[place].mean()) if place.any() else 0.0
    shares += [0.0 for side in outer_sides(place) if float(change[side].mean()) < least]
    return min(shares)


def relation_amount(
    a: tuple[float, float, float, float], name: str, b: tuple[float, float, float, float]
) -> float:
    """How much of the offset from box b to box a points in the named direction; it holds above 0.5.

    GenEval's rule (arXiv 2310.11513): the offset, less a tenth of both boxes, over its length.
    """
    offset = np.array([(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)])
    extent = np.array([a[i + 2] - a[i] + b[i + 2] - b[i] for i in (0, 1)])
    short = np.sign(offset) * np.maximum(np.abs(offset) - 0.1 * extent, 0.0)
    x, y = short / max(float(np.linalg.norm(offset)), 1e-6)
    return float({"left of": -x, "right of": x, "above": -y, "below": y}[name])


@dataclass(frozen=True)
class Kept:
    """What became of the pixels outside an edited region.

    share: within KEPT_TOLERANCE of the source. without_drift: the same after the best affine change of all
    colours was undone. drift: mean dE that this change moves the source by. NaN where nothing is outside.
    """

    share: float
    without_drift: float
    drift: float


KEPT_TOLERANCE = 10.0
_EVERY = 4  # the affine change is fitted on every fourth pixel


def share_alike(old: FloatArray, new: FloatArray, counted: BoolArray, tolerance: float) -> float:
    """Share of the counted pixels that are within so many dE; NaN of none.   Shapes: as in `kept`."""
    return float((distance(old, new)[counted] <= tolerance).mean()) if counted.any() else math.nan


def kept(old: FloatArray, new: FloatArray, counted: BoolArray) -> Kept:
    """How well the counted pixels were left alone.   Shapes: old and new (H, W, 3) CIELAB, counted (H, W)."""
    if not counted.any():
        return Kept(float("nan"), float("nan"), float("nan"))
    some = np.flatnonzero(counted)
    before, after = (np.take(lab.reshape(-1, 3), some, axis=0) for lab in (old, new))
    change = _affine(before[::_EVERY], after[::_EVERY])
    moved = before @ change[:3] + change[3]
    return Kept(
        float((distance(before, after) <= KEPT_TOLERANCE).mean()),
        float((distance(moved, after) <= KEPT_TOLERANCE).mean()),
        float(distance(moved, before).mean()),
    )


def affine_between(old: FloatArray, new: FloatArray) -> FloatArray:
    """The (4, 3) affine map that takes the old colours nearest to the new.   Shapes: (N, 3) each."""
    return _affine(old, new)


def _affine(old: FloatArray, new: FloatArray) -> FloatArray:
    """Least squares, pulled toward a mere shift: one share of the data says that colours keep their steps."""
    design = np.concatenate([old, np.ones((len(old), 1))], axis=1)
    prior = np.concatenate([np.eye(3), np.zeros((1, 3))])
    strength = np.diag([len(old) * 1.0] * 3 + [1e-3])
    return np.linalg.solve(design.T @ design + strength, design.T @ new + strength @ prior)
