"""Plates seen in a picture: boards with capital letters of the world's 5 x 7 alphabet, read cell by cell.

Part of the scorer. A plate's letters are of the board's height, so size and number of letters follow from its
box; each cell then tells how much ink it holds, and each letter is the one whose cells fit best, by a margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from og2.world.background import View
from og2.world.glyphs import (
    GLYPH_HEIGHT,
    GLYPH_WIDTH,
    LETTER_PITCH,
    LETTERS,
    MAX_LETTERS,
    MIN_LETTERS,
    glyph_table,
)
from og2.world.pixels import BoolArray, FloatArray, distance, erode, medians, quantile
from og2.world.words import Word

_MARGIN = 2.0  # cells between the letters and the rim
_MIN_FILLED = 0.86  # of the box that the board covers
_MIN_INK = 30.0  # dE between ink and board
_MAX_OFF = 0.30  # mean difference of a letter's cells from the alphabet's
_MIN_LEAD = 0.3  # of the best letter over any other, as a share of the ink in the cells where the two differ
_MAX_LENGTH_ERROR = 0.34  # letters
_LINE_PX, _LINE_TONE = 2.5, 0.72  # of a line along the rim: how deep it goes at most; of the board's light
_LINE_SIDES, _USUAL_LINE_PX = 2, 1.25

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SeenPlate:
    """A plate: its text or None with the reason, box in pixels of the given picture, mask and colour.

    has_line: whether a dark line runs along the inside of its rim.
    """

    text: Word
    box: tuple[float, float, float, float]
    mask: BoolArray
    center: tuple[float, float]
    lab: tuple[float, float, float]
    has_line: bool = False


def read_plate(view: View, part: BoolArray, box: Box) -> SeenPlate | None:
    """The plate that a connected part is, or None when it is none.   Units: box in working pixels."""
    has_line, solid = _has_line(view.lab[..., 0], part, box), _solid_box(part, box)
    plain = _read_in(view, part, box, part)
    if not has_line and (solid == box or (plain is not None and plain.text.value is not None)):
        return plain
    # A line of the backdrop's light is left out of the part, here and there or all around.
    inner, line = erode(part, _LINE_PX), _USUAL_LINE_PX
    grown = (solid[0] - line, solid[1] - line, solid[2] + line, solid[3] + line)
    found = [plate for one in (box, solid, grown) if (plate := _read_in(view, part, one, inner)) is not None]
    best = max(found, key=lambda plate: plate.text.confidence, default=None)
    if best is None or (best.text.value is None and not has_line):
        return plain
    return replace(best, has_line=True)


def _read_in(view: View, part: BoolArray, box: Box, inner: BoolArray) -> SeenPlate | None:
    """The plate in that box.   inner: the part but for a line along its rim."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if width < 1.15 * height or _filled(part, box, inner) < _MIN_FILLED:
        return None
    cell = height / (GLYPH_HEIGHT + 2 * _MARGIN)
    length = (width / cell - 2 * _MARGIN + 1.0) / LETTER_PITCH
    number = round(length)
    if not MIN_LETTERS <= number <= MAX_LETTERS or abs(length - number) > _MAX_LENGTH_ERROR:
        return None
    board, ink = two_inks(view.lab[inner])
    if float(distance(board, ink)) < _MIN_INK:
        return None
    share = _ink_share(view.lab, board, ink)
    word = _letters(share, (left, top, width, height), number)
    scaled = (left * view.scale, top * view.scale, right * view.scale, bottom * view.scale)
    rows, columns = part.shape
    center = ((left + right) / 2 / columns, (top + bottom) / 2 / rows)
    return SeenPlate(word, scaled, part, center, (float(board[0]), float(board[1]), float(board[2])))


def _has_line(lightness: FloatArray, part: BoolArray, box: Box) -> bool:
    """Whether a part is much darker just inside its box than a little deeper, on two sides or more.

    A line of the backdrop's light may not count as part of the plate on the others.
    """
    left, top, right, bottom = (round(edge) for edge in box)
    if min(right - left, bottom - top) < 4 * _LINE_PX:
        return False
    shown = np.where(part, lightness, math.nan)[top:bottom, left:right]
    sides = 0
    for side in (shown, shown[::-1], shown.T, shown.T[::-1]):
        away = side.shape[1] // 6  # from the corners
        depths = [row[np.isfinite(row)] for row in side[:4, away:-away]]
        lights = [quantile(row, 0.5) for row in depths if row.size >= away]
        sides += len(lights) > 2 and min(lights[:2]) < _LINE_TONE * max(lights)
    return sides >= _LINE_SIDES


def _filled(part: BoolArray, box: Box, inner: BoolArray) -> float:
    """How much of a box is covered, less the rim where a line is."""
    left, top, right, bottom = box
    if inner is part:
        return float(part.sum()) / ((right - left) * (bottom - top))
    rows, columns = (slice(int(a + _LINE_PX), int(b - _LINE_PX)) for a, b in ((top, bottom), (left, right)))
    return float(part[rows, columns].mean()) if part[rows, columns].size else 0.0


def _solid_box(part: BoolArray, box: Box) -> Box:
    """The box without rows and columns at its ends that are covered by less than half."""
    left, top, right, bottom = (round(edge) for edge in box)
    inside = part[top:bottom, left:right]
    rows, columns = (np.nonzero(inside.mean(axis=axis) >= 0.5)[0].tolist() for axis in (1, 0))
    if not rows or not columns:
        return box
    return (left + columns[0] + 0.0, top + rows[0] + 0.0, left + columns[-1] + 1.0, top + rows[-1] + 1.0)


def two_inks(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The colour of the board and that of the letters.   Shapes: (N, 3) CIELAB -> (3,) each."""
    board = medians(values)
    away = distance(values, board)
    return board, medians(values[away >= quantile(away, 0.93)])


def _ink_share(lab: FloatArray, board: FloatArray, ink: FloatArray) -> FloatArray:
    toward = ink - board
    return np.clip((lab - board) @ toward / float(toward @ toward), 0.0, 1.0)


def _letters(share: FloatArray, box: tuple[float, float, float, float], number: int) -> Word:
    left, top, width, height = box
    wide, high = number * LETTER_PITCH - 1 + 2 * _MARGIN, GLYPH_HEIGHT + 2 * _MARGIN
    table = glyph_table().reshape(len(LETTERS), -1)
    differing = np.abs(table[:, None] - table).sum(axis=-1)
    text, lead = "", 1.0
    for i in range(number):
        columns = left + (_MARGIN + i * LETTER_PITCH + np.arange(GLYPH_WIDTH)) * width / wide
        rows = top + (_MARGIN + np.arange(GLYPH_HEIGHT)) * height / high
        cells = _cell_means(share, rows, columns, height / high, width / wide).ravel()
        spread = max(quantile(cells, 0.9), 0.4)
        off = np.abs(np.clip(cells / spread, 0.0, 1.0) - table).mean(axis=1)
        best = int(np.argmin(off))
        leads = (off - off[best]) * table.shape[1] / np.maximum(differing[best], 1.0)
        leads[best] = np.inf
        rival = int(np.argmin(leads))
        if off[best] > _MAX_OFF or leads[rival] < _MIN_LEAD:
            return Word(None, 0.0, f"letter {i + 1} is not readable ({LETTERS[best]} or {LETTERS[rival]})")
        text += LETTERS[best]
        lead = min(lead, float(leads[rival]))
    return Word(text, min(1.0, lead / (2 * _MIN_LEAD)))


def _cell_means(
    share: FloatArray, rows: FloatArray, columns: FloatArray, high: float, wide: float
) -> FloatArray:
    """Mean ink of each cell, (7, 5), sampled at 4 x 4 points inside it."""
    inside = (np.arange(4) + 0.5) / 4 * 0.7 + 0.15
    ys = (rows[:, None] + inside * high).ravel() - 0.5
    xs = (columns[:, None] + inside * wide).ravel() - 0.5
    ys, xs = np.clip(ys, 0, share.shape[0] - 1.001), np.clip(xs, 0, share.shape[1] - 1.001)
    y, x = ys.astype(int), xs.astype(int)
    fy, fx = (ys - y)[:, None], (xs - x)[None, :]
    upper = share[y][:, x] * (1 - fx) + share[y][:, x + 1] * fx
    lower = share[y + 1][:, x] * (1 - fx) + share[y + 1][:, x + 1] * fx
    values = upper * (1 - fy) + lower * fy
    return values.reshape(GLYPH_HEIGHT, 4, GLYPH_WIDTH, 4).mean(axis=(1, 3))
