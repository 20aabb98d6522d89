"""What is behind the things in a picture: the family of the backdrop and its name, measured.

Part of the scorer. It looks only at pixels that are background, shrunk away from everything in front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from og2.world import palette
from og2.world.background import View
from og2.world.pixels import (
    BoolArray,
    FloatArray,
    box_mean,
    design,
    dilate,
    distance,
    medians,
    plane,
    quantile,
    smooth,
)
from og2.world.words import Word

_MAX_NAME_DISTANCE = 8.0
_MIN_NAME_MARGIN = 2.0
_MIN_SLOPE = 5.5  # dE from one end of the picture to the other
_FLAT = 1.3  # median dE from the plane
_MIN_STEP = 3.3  # dE between what is above a horizon and what is below, a plane through all taken off
_GRAIN = 3.0  # how much more coarse variation a rough paper has than independent noise
_MIN_GRAIN = 0.25  # dE, standard deviation of the coarse variation
_WIDE_PX = 192  # from this width on every second column is enough
_MIN_TILE_STEP = 3.0  # CIELAB L between the darker and the lighter pixels of a row of the floor
_MIN_ROW_PX = 12
_MAX_BROKEN = 1.6  # dE from its plane that a gradient may be (95th percentile)
_MAX_ACROSS = 2.0  # and that its colours may run across its direction
_MAX_GRADIENT_LEFT = 0.35
_TILE_STEP, _MIN_ON_THE_WAY = 10.0, 0.68  # dE between old and wanted tiles from which the way is measured
_EVEN_DE, _MIN_EVEN = 4.0, 0.85  # of a wall, or of a floor's two tones
_MAX_WALL = 0.28  # of the height: no floor begins higher
_TONES = (4.6, 9.5)  # dE between a floor's tones; 6.5 in the world
_MAX_WALL_CHROMA = 6.0  # 3.6 in the world
_WALL_BELOW = 1.5  # L that a wall may be below the lighter tiles; in the world it is above
Lab = tuple[float, float, float]


def name_backdrop(view: View, expected: str | None = None) -> tuple[Word, Word]:
    """The backdrop's family and name.

    expected: the family to name it by when the measured one is not clear. A gradient's name is
    "A to B" in alphabetical order: which end is the first cannot be seen.
    """
    known = ~dilate(view.mask, 3.0)
    if known.mean() < 0.15:
        unclear = Word(None, 0.0, "too little of the background is free")
        return unclear, unclear
    seen = _measure(view, known)
    family = _family(view, seen)
    names = {"landscape": _landscape, "gradient": _gradient, "tiles": _tiles}
    make = names.get(family.value or expected or "plain", _plain)
    return family, make(view, seen)


@dataclass(frozen=True)
class _Backdrop:
    """known: free background (H, W); plane: through it, and how far it runs; residual: what it leaves; row:
    of the horizon or None, and how far the colours jump there. In dE."""

    known: BoolArray
    plane: FloatArray
    slope: float
    residual: FloatArray
    row: int | None
    step: float


def _measure(view: View, known: BoolArray) -> _Backdrop:
    through, slope = _plane(view.lab, known)
    residual = view.lab - through
    return _Backdrop(known, through, slope, residual, *_horizon(residual, known))


def same_name(a: str | None, b: str | None) -> bool:
    """Whether two names of backdrops mean the same; the two ends of a gradient may be swapped."""
    return a is not None and b is not None and sorted(a.split(" to ")) == sorted(b.split(" to "))


def unmade(views: tuple[View, View], wanted: str, name: str | None = None) -> str:
    """Why the result's backdrop is not wholly one of the wanted family and name, or "" when it is.

    views: of source and result. A wall is even, a floor has two tones and no others, of the wanted colour; a
    gradient is one plane of colour that runs in one direction; of the source's gradient nothing is left.
    """
    before, after = views
    known = ~dilate(before.mask | after.mask, 3.0)
    if known.mean() < 0.15:
        return ""
    lab = smooth(after.lab)
    through, _ = _plane(lab, known)
    if wanted == "gradient":
        off = quantile(distance(lab, through)[known], 0.95)
        across = float(np.linalg.svd(_slopes(through), compute_uv=False)[1])
        broken = off > _MAX_BROKEN or across > _MAX_ACROSS
        return f"the gradient is broken ({off:.1f} dE), or two of them ({across:.1f} dE)" if broken else ""
    reason = _broken_floor(lab, known, through) if wanted == "tiles" else ""
    if reason == "" and wanted == "tiles" and name in palette.BACKGROUNDS:
        was, now = (_light_tone(view.lab, known) for view in views)
        toward = np.asarray(palette.BACKGROUNDS[name]) - was
        if float(np.linalg.norm(toward)) >= _TILE_STEP:
            share = float((now - was) @ toward / (toward @ toward))
            reason = f"only {share:.2f} of the way to {name} tiles" if share < _MIN_ON_THE_WAY else ""
    return reason or _gradient_left(before, known, through, only_across=wanted in ("landscape", "tiles"))


def _slopes(through: FloatArray) -> FloatArray:
    """How far a plane runs from side to side and from top to bottom.   Shape: (2, 3)."""
    return np.stack([through[0, -1] - through[0, 0], through[-1, 0] - through[0, 0]])


def _gradient_left(before: View, known: BoolArray, through: FloatArray, only_across: bool) -> str:
    """Whether the source was a gradient that can still be seen; from side to side alone, where the new
    backdrop itself runs from top to bottom."""
    was, now = (_slopes(p)[: 1 if only_across else 2] for p in (_plane(before.lab, known)[0], through))
    if float(np.linalg.norm(was)) < _MIN_SLOPE or name_backdrop(before)[0].value != "gradient":
        return ""
    left = float((was * now).sum() / (was * was).sum())
    return f"{left:.2f} of the old gradient is left" if left > _MAX_GRADIENT_LEFT else ""


def _light_tone(lab: FloatArray, known: BoolArray) -> FloatArray:
    """The lighter colour of a floor."""
    floor = known.copy()
    floor[: round(0.6 * known.shape[0])] = False
    values = lab[floor] if floor.sum() >= 20 else lab[known]
    return np.median(values[values[:, 0] >= np.median(values[:, 0])], axis=0)


def _broken_floor(lab: FloatArray, known: BoolArray, through: FloatArray) -> str:
    """Why this is no wall above a floor of two tones, or ""."""
    row, _ = _horizon(lab - through, known)
    if row is None:
        return "no floor is seen"
    reach = max(2, known.shape[0] // 24)
    wall, floor = known.copy(), known.copy()
    # The strongest step may be one between two rows of tiles.
    wall[max(2, min(row - reach, round(_MAX_WALL * known.shape[0]))) :] = False
    floor[: row + 2 * reach] = False
    if min(int(wall.sum()), int(floor.sum())) < 20:
        return ""
    values = lab[floor]
    is_light = values[:, 0] >= np.median(values[:, 0])
    if is_light.all():
        return "the floor has one tone"
    light, dark = (np.median(values[chosen], axis=0) for chosen in (is_light, ~is_light))
    toward = light - dark
    along = np.clip((values - dark) @ toward / max(float(toward @ toward), 1.0), -0.3, 1.3)
    of_floor = float((distance(values, dark + along[:, None] * toward) <= _EVEN_DE).mean())
    middle = np.median(lab[wall], axis=0)
    of_wall = float((distance(lab[wall], middle) <= _EVEN_DE).mean())
    step = float(np.linalg.norm(toward))
    if math.hypot(middle[1], middle[2]) > _MAX_WALL_CHROMA or middle[0] < light[0] - _WALL_BELOW:
        return "what is behind the floor is no wall, which is lighter and has hardly a colour"
    if not _TONES[0] <= step <= _TONES[1] or min(of_floor, of_wall) < _MIN_EVEN:
        return f"wall and floor are {of_wall:.2f} and {of_floor:.2f} even, tiles {step:.1f} dE apart"
    return ""


def _family(view: View, seen: _Backdrop) -> Word:
    known, slope, residual, row, step = seen.known, seen.slope, seen.residual, seen.row, seen.step
    off = quantile(distance(residual, np.zeros(3))[known], 0.5)
    if step >= _MIN_STEP and row is not None:
        floor = known.copy()
        floor[: row + 2] = False
        split = _step_in_rows(box_mean(view.lab[..., 0], max(1, known.shape[0] // 64)), floor)
        if split >= _MIN_TILE_STEP:
            return Word("tiles", min(1.0, split / (2 * _MIN_TILE_STEP)))
        return Word("landscape", min(1.0, step / (2 * _MIN_STEP)))
    if off > 2.5 * _FLAT:
        return Word(None, 0.0, f"no known backdrop ({off:.1f} dE from a plane, no horizon)")
    share = box_mean(known * 1.0, 3)
    coarse = box_mean(np.where(known, residual[..., 0], 0.0), 3) / np.maximum(share, 1e-3)
    inner = known & (share > 0.95)
    if inner.any():
        rough = float(coarse[inner].std())
        ratio = 7.0 * rough / max(float(residual[..., 0][inner].std()), 0.05)
        if rough >= _MIN_GRAIN and ratio >= _GRAIN:
            return Word("noise", min(1.0, ratio / (2 * _GRAIN)))
    if slope >= _MIN_SLOPE:
        return Word("gradient", min(1.0, slope / (2 * _MIN_SLOPE)))
    return Word("plain", 1.0 - slope / _MIN_SLOPE)


def _plane(lab: FloatArray, known: BoolArray) -> tuple[FloatArray, float]:
    """The plane through the known pixels, and how many dE it runs from one corner to the opposite one."""
    height, width = known.shape
    some = np.flatnonzero(known)[::3]
    chosen = design(height, width).reshape(-1, 3)[some]
    # Through the normal equations, which are small; where they have many solutions, by the smallest.
    weights = np.linalg.lstsq(chosen.T @ chosen, chosen.T @ lab.reshape(-1, 3)[some], rcond=None)[0]
    through = plane(weights, height, width)
    corners = [through[0, 0], through[0, -1], through[-1, 0], through[-1, -1]]
    return through, max(math.dist(corners[0], corners[3]), math.dist(corners[1], corners[2]))


def _horizon(lab: FloatArray, known: BoolArray) -> tuple[int | None, float]:
    """The row at which the rows' median colours jump most, and the jump in dE."""
    height = known.shape[0]
    rows = _row_medians(lab, known)
    reach = max(2, height // 24)
    windows = np.lib.stride_tricks.sliding_window_view(rows, 2 * reach - 1, axis=0)
    known_rows = np.isfinite(windows[:, 0])
    seen, whole = np.asarray(known_rows.any(axis=-1)), np.asarray(known_rows.all(axis=-1))
    middles = np.zeros(windows.shape[:2])
    middles[whole] = np.median(windows[whole], axis=-1)
    if (seen & ~whole).any():
        middles[seen & ~whole] = np.nanmedian(windows[seen & ~whole], axis=-1)
    ys = np.arange(round(0.22 * height), round(0.78 * height))
    above, below = ys - 2 * reach, ys + 1
    jumps = np.where(seen[above] & seen[below], distance(middles[above], middles[below]), 0.0)
    best = int(np.argmax(jumps))
    return (int(ys[best]), float(jumps[best])) if jumps[best] > 0.0 else (None, 0.0)


def _row_medians(lab: FloatArray, known: BoolArray) -> FloatArray:
    """Median colour of each row's known pixels, NaN where few are known.   Shapes: (H, W, 3) -> (H, 3)."""
    step = 2 if known.shape[1] >= _WIDE_PX else 1
    lab, known = lab[:, ::step], known[:, ::step]
    ordered = np.sort(np.where(known[..., None], lab, np.inf), axis=1)
    number = known.sum(axis=1)
    lines = np.arange(known.shape[0])
    middle = [ordered[lines, np.maximum(number - 1 + more, 0) // 2] for more in (0, 1)]
    enough = (number > 0.15 * known.shape[1])[:, None]
    return np.where(enough, (middle[0] + np.where(enough, middle[1], 0.0)) / 2, np.nan)


def _step_in_rows(values: FloatArray, known: BoolArray) -> float:
    """How far the darker and the lighter tenth of a row's known values lie apart: median over the rows."""
    rows = np.nonzero(known.sum(axis=1) >= _MIN_ROW_PX)[0]
    ordered = np.sort(np.where(known, values, np.inf)[rows], axis=1)
    last = known[rows].sum(axis=1) - 1
    lines = np.arange(len(rows))
    low, high = (np.round(share * last).astype(int) for share in (0.1, 0.9))
    steps = ordered[lines, high] - ordered[lines, low]
    return quantile(steps, 0.5) if len(rows) else 0.0


def _nearest(options: dict[str, float]) -> Word:
    (first, name), *others = sorted((d, n) for n, d in options.items())
    lead = others[0][0] - first if others else _MAX_NAME_DISTANCE
    if first > _MAX_NAME_DISTANCE:
        return Word(None, 0.0, f"no background of this world ({first:.0f} dE from {name})")
    if lead < _MIN_NAME_MARGIN:
        return Word(None, 0.0, f"background between {name} and {others[0][1]}")
    return Word(name, min(1.0, lead / (3 * _MIN_NAME_MARGIN)))


def _plain(view: View, seen: _Backdrop) -> Word:
    lab = view.background[seen.known].mean(axis=0)
    return _nearest({name: math.dist(lab, other) for name, other in palette.BACKGROUNDS.items()})


def _gradient(_: View, seen: _Backdrop) -> Word:
    through = seen.plane
    ends = max(
        ((through[0, 0], through[-1, -1]), (through[0, -1], through[-1, 0])), key=lambda e: math.dist(*e)
    )
    slope = through[0, -1] - through[0, 0], through[-1, 0] - through[0, 0]
    # A gradient along a side runs over its whole length between two sides, not two corners.
    across, down = (float(np.linalg.norm(s)) for s in slope)
    if min(across, down) < 0.25 * max(across, down):
        middle = through.shape[0] // 2, through.shape[1] // 2
        ends = (
            (through[middle[0], 0], through[middle[0], -1])
            if across > down
            else (through[0, middle[1]], through[-1, middle[1]])
        )
    words = [
        _nearest({name: math.dist(end, other) for name, other in palette.BACKGROUNDS.items()}) for end in ends
    ]
    if any(word.value is None for word in words):
        return Word(None, 0.0, "; ".join(word.reason for word in words if word.reason))
    name = " to ".join(sorted(str(word.value) for word in words))
    return Word(name, min(word.confidence for word in words))


def _landscape(view: View, seen: _Backdrop) -> Word:
    known = seen.known
    height = known.shape[0]
    row = height // 2 if seen.row is None else seen.row
    sky, ground = known.copy(), known.copy()
    sky[max(2, round(0.45 * row)) :] = False
    ground[: min(height - 2, round(row + 0.45 * (height - row)))] = False
    if sky.sum() < 20 or ground.sum() < 20:
        return Word(None, 0.0, "sky or ground is hidden")
    above, below = medians(view.lab[sky]), medians(view.lab[ground])
    return _nearest(
        {
            name: max(math.dist(above, high), math.dist(below, low))
            for name, (high, low) in palette.LANDSCAPES.items()
        }
    )


def _tiles(view: View, seen: _Backdrop) -> Word:
    """Named by the tiles' colour, the lighter ones; the wall above them is nearly colourless."""
    known = seen.known
    if known[round(0.6 * known.shape[0]) :].sum() < 20:
        return Word(None, 0.0, "the floor is hidden")
    lab = _light_tone(view.lab, known)
    return _nearest({name: float(distance(lab, np.asarray(c))) for name, c in palette.BACKGROUNDS.items()})
