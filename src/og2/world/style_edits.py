"""Edits of a picture's manner, judged against its source: line drawing, pixels, printed dots, sepia.

Part of the scorer. Every manner has two sides: what the whole picture must have become, evenly, and that it
still shows what the source showed. Each is measured as an amount of which 1 is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from og2.world.background import View
from og2.world.measures import Aspect, outer_sides, rate
from og2.world.object_edits import Found, Scenario
from og2.world.pixels import FloatArray, blurred, box_mean, dilate, distance, erode
from og2.world.requirements import EditRequirements
from og2.world.subjects import Sight

IntArray = NDArray[np.int64]

_MIN_SAME = 0.985  # of the picture: the smallest object covers 3 %
_SAME_DE = 10.0
_MAX_BLOCK_REST = 0.30  # of the source's detail inside a block
_MAX_BLOCK_REST_ON_A_SIDE = 0.42
_BLOCKS = (14, 44)  # along the shorter side
_SEPIA_B, _SEPIA_SPREAD = 15.5, 6.0
_SAME_LIGHT, _SOFTENED_PX = 2.2, 1.5  # L that a sepia picture may be off, softened by so much
_MAX_FILLED = 0.34  # of an object's colour inside its outline
_MIN_LINE, _MIN_STOOD_OUT = 0.45, 8.0  # of how it stood out along the outline; dE
_PAPER_L, _MIN_PAPER = 92.0, 0.80
_MIN_DOTS = 0.12  # of the fine detail's power at four frequencies
_MIN_EVEN = 0.35  # of the mean detail on every side of the picture


def judge_style(
    scenario: Scenario, rule: EditRequirements, sights: tuple[Sight, Sight], found: Found
) -> None:
    """Whether the picture is the source in that manner."""
    before, _ = sights
    assert before.view is not None
    amount, same = _STYLES[str(rule.style)](scenario, before.view)
    met = amount >= 1.0
    reason = "" if met else f"the picture did not become {rule.style} ({amount:.2f} of what is needed)"
    score = float(np.interp(amount, (0.3, 1.0, 1.4), (0.0, 7.0, 10.0)))
    found.aspects.append(Aspect("style", score, met, reason))
    kept = same >= _MIN_SAME
    reason = "" if kept else f"only {same:.3f} of the picture shows what the source showed"
    found.aspects.append(Aspect("same picture", rate("preservation", same), kept, reason))


def _pixelated(scenario: Scenario, view: View) -> tuple[float, float]:
    """Blocks of one colour, each the mean of what the source has there."""
    old, new = scenario.old, scenario.new
    best, same, uneven = np.inf, 0.0, np.inf
    for rows, columns in _grids(old.shape[0], old.shape[1], view.scale):
        means = [_block_means(lab, rows, columns) for lab in (old, new)]
        detail, rest = (distance(lab, mean) for lab, mean in zip((old, new), means, strict=True))
        ratio = float(rest.mean()) / max(float(detail.mean()), 0.2)
        if ratio < best:
            best, same = ratio, float((distance(means[0], means[1]) <= _SAME_DE).mean())
            uneven = _most_on_a_side(rest, detail)
    return min(1.5, _MAX_BLOCK_REST / max(best, 0.01), _MAX_BLOCK_REST_ON_A_SIDE / max(uneven, 0.01)), same


def _most_on_a_side(rest: FloatArray, detail: FloatArray) -> float:
    """The largest share of the source's detail that is left on a side of the picture that has some."""
    least = 0.25 * float(detail.mean())
    sides = list(outer_sides(np.ones(detail.shape, dtype=bool)))
    rich = [side for side in sides if float(detail[side].mean()) >= least]
    return max((float(rest[side].mean() / detail[side].mean()) for side in rich), default=0.0)


def _grids(height: int, width: int, scale: float) -> Iterator[tuple[IntArray, IntArray]]:
    """For every possible side of a block in given pixels the blocks' numbers along rows and columns."""
    side = min(height, width) * scale
    for block in range(max(2, round(side / _BLOCKS[1])), round(side / _BLOCKS[0]) + 1):
        rows, columns = (((np.arange(n) + 0.5) * scale) // block for n in (height, width))
        yield rows.astype(np.int64), columns.astype(np.int64)


def _block_means(lab: FloatArray, rows: IntArray, columns: IntArray) -> FloatArray:
    for axis, index in ((0, rows), (1, columns)):
        starts = np.nonzero(np.diff(index, prepend=-1))[0]
        counts = np.bincount(index)
        sums = np.add.reduceat(lab, starts, axis=axis)
        shape = [1, 1, 1]
        shape[axis] = -1
        lab = np.take(sums / counts.reshape(shape), index, axis=axis)
    return lab


def _sepia(scenario: Scenario, _: View) -> tuple[float, float]:
    """One warm brown in all lightnesses, the lightness that of the source."""
    old, new = scenario.old, scenario.new
    middle = np.median(new[..., 1:].reshape(-1, 2), axis=0)
    off = np.hypot(new[..., 1] - middle[0], new[..., 2] - middle[1])
    # Near black and white there is no room for the whole of it.
    room = np.clip(np.minimum(new[..., 0], 100.0 - new[..., 0]) / 12.0, 0.1, 1.0)
    brown = float(((off < _SEPIA_SPREAD) | (room < 1.0)).mean())
    amount = min(float(middle[1]) / _SEPIA_B, 1.0 if 0.0 < middle[0] < 14.0 else 0.0, brown / 0.97)
    # Softened, so that grain and a soft edge are no change; near black and white it has less room.
    lost = blurred(new[..., 0] - old[..., 0], _SOFTENED_PX)
    lost -= np.clip(np.median(lost), -_SAME_DE, _SAME_DE)
    light = np.abs(lost) <= np.where((old[..., 0] > 88.0) | (old[..., 0] < 20.0), _SAME_DE, _SAME_LIGHT)
    return amount, float(light.mean())


def _outline(scenario: Scenario, view: View) -> tuple[float, float]:
    """Things are hollow, nearly of the paper's colour inside their outlines; the backdrop stays."""
    old, new, behind = scenario.old, scenario.new, view.background
    if not view.mask.any():
        return 0.0, 0.0
    toward = old - behind
    shared, whole = ((lab * toward).sum(axis=-1) for lab in (new - behind, toward))
    inside = erode(view.mask, 3.0)
    if inside.sum() < 12:
        inside = erode(view.mask, 2.0)
    # Of a pattern the tone that stands out more counts more: the other may be nearly the backdrop's.
    sides = [inside, *outer_sides(inside)] if inside.any() else []
    mean, *others = [float(shared[side].sum() / max(whole[side].sum(), 60.0)) for side in sides] or [1.0, 1.0]
    filled = max(others)
    rim = view.mask & ~erode(view.mask, 1.5)  # a line may be of a pattern's other tone
    stands_out, stood_out = (float(distance(lab, behind)[rim].mean()) for lab in (new, old))
    line = stands_out / max(stood_out, _MIN_STOOD_OUT)
    hollow = min((1.0 - mean) / (1.0 - _MAX_FILLED), (1.0 - filled) / (1.0 - 1.7 * _MAX_FILLED))
    free = ~dilate(view.mask, 3.0)
    same = float((distance(old, new)[free] <= _SAME_DE).mean()) if free.any() else 1.0
    return min(hollow, line / _MIN_LINE), same


def _halftone(scenario: Scenario, view: View) -> tuple[float, float]:
    """Dots on pale paper in rows at equal distances, everywhere; on the whole the picture of the source."""
    old, new = scenario.old, scenario.new
    free = ~dilate(view.mask, 2.0)
    if free.sum() < 200:
        free = np.ones_like(free)
    lightest, was = (float(np.quantile(lab[..., 0][free], 0.97)) for lab in (new, old))
    paper = (lightest - was) / max(_PAPER_L - was, 1.0)
    fine, was_fine = (lab[..., 0] - box_mean(lab[..., 0], 3) for lab in (new, old))
    detail = np.abs(fine) - np.abs(was_fine)
    sides = [float(detail[side].mean()) for side in outer_sides(np.ones_like(free))]
    even = min(sides) / max(float(detail.mean()), 1e-6)
    amounts = (paper / _MIN_PAPER, _rows_of_dots(np.where(free, fine, 0.0)) / _MIN_DOTS, even / _MIN_EVEN)
    reach = max(2.0, min(old.shape[:2]) / 40)
    return min(*amounts, 1.5), _same_on_the_whole(blurred(old, reach), blurred(new, reach))


def _rows_of_dots(fine: FloatArray) -> float:
    """Share of the power of the fine detail at its strongest frequencies: a lattice has few."""
    power = np.abs(np.fft.rfft2(fine)) ** 2
    power[0, 0] = 0.0
    total, strongest = float(power.sum()), 0.0
    for _ in range(4):
        y, x = np.unravel_index(int(np.argmax(power)), power.shape)
        rows = [(int(y) + d) % power.shape[0] for d in (-1, 0, 1)]
        columns = slice(max(0, int(x) - 1), int(x) + 2)
        strongest += float(power[rows, columns].sum())
        power[rows, columns] = 0.0
    return strongest / max(total, 1e-6)


def _same_on_the_whole(old: FloatArray, new: FloatArray) -> float:
    """Share of the picture whose colours follow from the source's by one rule for all (of second order)."""
    values, wanted = old.reshape(-1, 3), new.reshape(-1, 3)
    scaled = (values - (60.0, 0.0, 0.0)) / 40.0
    light = scaled[:, :1]
    design = np.concatenate([np.ones_like(light), scaled, light**2, light * scaled[:, 1:]], axis=1)
    some = slice(None, None, 5)
    kept = np.ones(len(design[some]), dtype=bool)
    weights = np.zeros((design.shape[1], 3))
    for _ in range(2):  # once more without what does not follow the rule
        weights = np.linalg.lstsq(design[some][kept], wanted[some][kept], rcond=None)[0]
        kept = distance(design[some] @ weights, wanted[some]) <= _SAME_DE
        if kept.mean() < 0.5:
            break
    return float((distance(design @ weights, wanted) <= _SAME_DE).mean())


_STYLES: dict[str, Callable[[Scenario, View], tuple[float, float]]] = {
    "outline": _outline,
    "pixelated": _pixelated,
    "halftone": _halftone,
    "sepia": _sepia,
}
