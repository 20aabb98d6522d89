"""Is it the figure that is looked for? Its outline and its colour beside those of pictures of it.

Part of the scorer, for figures of one colour that have no name in the world. Size and place do not matter, a
turn does. Outline and colour are compared in units of what a round trip through the small model's VAE moves
them by; the distance becomes a score from 0 to 10 as in `identity`, frozen so that pictures of the figure
average 9 or more through that VAE and its nearest impostors 3 or less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from og2.world.detect import Detected, detect
from og2.world.pixels import FloatArray

SIDE = 40
_REACH = 1.3  # half the side of the small picture, in units of the square root of the figure's area
_OUTLINE = 0.10  # share of the area that is another
_COLOR = 6.0  # dE
_MIDDLE, _WIDTH = 3.2, 0.45
MATCH = 5.0
"""From this score on a figure counts as the one that is looked for."""


@dataclass(frozen=True)
class Figure:
    """outline: coverage (SIDE, SIDE) in [0, 1] around the centroid, scaled to one area; lab: the colour."""

    outline: FloatArray
    lab: FloatArray


@dataclass(frozen=True)
class Found:
    """The thing in a picture that is most like the figure: its score, and itself (None: nothing is there)."""

    score: float
    thing: Detected | None
    num_things: int


def figure_of(thing: Detected) -> Figure:
    """What a thing that was seen looks like, wherever it is."""
    rows, columns = np.nonzero(thing.mask)
    unit = math.sqrt(len(rows)) * _REACH
    steps = (np.arange(SIDE) + 0.5) / SIDE * 2.0 - 1.0
    outline = _sampled(thing.mask.astype(float), rows.mean() + steps * unit, columns.mean() + steps * unit)
    return Figure(outline, np.asarray(thing.lab))


def learned(pictures: Sequence[Any]) -> Figure:
    """The mean figure of pictures that each show it alone.

    Raises: ValueError when a picture shows nothing.
    """
    figures = []
    for number, picture in enumerate(pictures):
        things = detect(picture)
        if not things:
            raise ValueError(f"picture {number} shows nothing in front of a background")
        figures.append(figure_of(things[0]))
    outlines, labs = (np.stack(v) for v in zip(*((f.outline, f.lab) for f in figures), strict=True))
    return Figure(outlines.mean(axis=0), labs.mean(axis=0))


def figure_distance(one: Figure, other: Figure) -> float:
    """How far apart outline and colour are, in units of a round trip; 0 = the same."""
    both = float(np.minimum(one.outline, other.outline).sum())
    either = float(np.maximum(one.outline, other.outline).sum())
    color = math.dist(one.lab.tolist(), other.lab.tolist())
    return math.hypot((1.0 - both / either) / _OUTLINE, color / _COLOR)


def figure_score(d: float) -> float:
    """From 0 (another one) to 10 (the same one)."""
    return 10.0 / (1.0 + math.exp(min(60.0, (d - _MIDDLE) / _WIDTH)))


def find_figure(picture: Any, wanted: Figure) -> Found:
    """The thing in the picture that is most like the figure; a score of 0 where there is nothing."""
    things = detect(picture)
    scored = [(figure_score(figure_distance(figure_of(thing), wanted)), thing) for thing in things]
    if not scored:
        return Found(0.0, None, 0)
    score, thing = max(scored, key=lambda pair: pair[0])
    return Found(score, thing, len(things))


def _sampled(values: FloatArray, ys: FloatArray, xs: FloatArray) -> FloatArray:
    """Values between pixels, at every row of ys and column of xs; 0 outside."""
    padded = np.pad(values, 1)
    y, x = (np.clip(v + 1.0, 0.0, n - 1.001) for v, n in zip((ys, xs), padded.shape, strict=True))
    top, left = y.astype(int), x.astype(int)
    fy, fx = (y - top)[:, None], (x - left)[None, :]
    upper = padded[top][:, left] * (1 - fx) + padded[top][:, left + 1] * fx
    lower = padded[top + 1][:, left] * (1 - fx) + padded[top + 1][:, left + 1] * fx
    return upper * (1 - fy) + lower * fy
