"""Ways to take a connected part of the foreground apart into things that merely touch.

By colour, where neighbours differ in it, and by necks, where they do not. Only proposals: whoever asks keeps
one if every piece turns out to be something. Part of the scorer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from og2.world.background import View, window
from og2.world.pixels import BoolArray, FloatArray, components, dilate, distance, erode, medians

_MIN_APART = 22.0  # dE between the colours of two things that touch
_MAX_COLORS = 4
_MIN_PIECE = 0.08  # of the part's area
_MAX_DEPTH = 24
_MAX_CONTACT = 0.14  # of a piece's outline


def pieces_of(view: View, part: BoolArray) -> Iterator[list[BoolArray]]:
    """Divisions of a part into two or more pieces, the likeliest first."""
    around, where = window(view, part)
    small = part[where]
    for pieces in (_by_color(around.lab, small), _by_necks(small)):
        if len(pieces) > 1 and all(_touches_little(piece, small) for piece in pieces):
            yield [_in_whole(view.mask, where, piece) for piece in pieces]


def _touches_little(piece: BoolArray, part: BoolArray) -> bool:
    """Whether a piece shares little of its outline with the rest of the part: more would be an overlap."""
    rim = piece & ~erode(piece, 1.0)
    shared = rim & dilate(part & ~piece, 1.0)
    return float(shared.sum()) <= _MAX_CONTACT * float(rim.sum())


def _in_whole(like: BoolArray, where: tuple[slice, slice], piece: BoolArray) -> BoolArray:
    whole = np.zeros_like(like)
    whole[where] = piece
    return whole


def _by_color(lab: FloatArray, part: BoolArray) -> list[BoolArray]:
    """One piece for each connected area of one colour; every pixel goes to the nearest of the colours."""
    core = erode(part, 1.0)
    centers: list[FloatArray] = []
    left = core.copy()
    while len(centers) < _MAX_COLORS and left.sum() >= _MIN_PIECE * part.sum():
        values = lab[left]
        middle = values[int(np.argmin(distance(values, medians(values))))]
        near = distance(values, middle) < _MIN_APART / 2
        centers.append(medians(values[near]))
        left[left] = ~near
    centers = [c for i, c in enumerate(centers) if all(math.dist(c, o) >= _MIN_APART for o in centers[:i])]
    if len(centers) < 2:
        return []
    nearest = np.argmin(np.stack([distance(lab, center) for center in centers]), axis=0)
    pieces = [piece for i in range(len(centers)) for piece in components(part & (nearest == i))]
    return [piece for piece in pieces if piece.sum() >= _MIN_PIECE * part.sum()]


def _by_necks(part: BoolArray) -> list[BoolArray]:
    """The part worn down until it falls apart; every pixel goes to the remainder it is nearest to."""
    worn = part
    for _ in range(_MAX_DEPTH):
        worn = erode(worn, 1.0)
        if not worn.any():
            return []
        seeds = [s for s in components(worn) if s.sum() >= 0.02 * part.sum()]
        if len(seeds) > 1:
            return _grown(seeds, part)
    return []


def _grown(seeds: list[BoolArray], part: BoolArray) -> list[BoolArray]:
    """Seeds grown inside the part, all at one pace, until they fill it."""
    owner = np.full(part.shape, -1)
    for i, seed in enumerate(seeds):
        owner[seed] = i
    while True:
        before = int((owner >= 0).sum())
        for i in range(len(seeds)):
            fresh = dilate(owner == i, 1.0) & part & (owner < 0)
            owner[fresh] = i
        if int((owner >= 0).sum()) == before:
            return [owner == i for i in range(len(seeds))]
