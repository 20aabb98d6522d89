"""Ideal figures: what the words "star" or "crescent" mean, as pixel masks in a range of proportions.

Part of the scorer. A star has five points, a cross four equal arms, a hexagon six equal sides, a crescent
is a disc that another disc has bitten; each in several proportions, because a picture may show any of them.
The renderer's proportions are not used.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from og2.world.pixels import FloatArray

Points = list[tuple[float, float]]

_SIDE = 129  # pixels of a figure's raster, odd so that one pixel is the middle
_UNIT = 36.0  # pixels per unit of length
_OVERSAMPLING = 4


@lru_cache(maxsize=1)
def ideal_figures() -> tuple[tuple[str, FloatArray], ...]:
    """Names and coverages (129, 129) in [0, 1] of every ideal figure."""
    figures = [("circle", _filled(_ellipse(aspect))) for aspect in (1.0, 1.06, 1.12)]
    figures += [("ring", _pierced(hole)) for hole in (0.36, 0.44, 0.52, 0.6, 0.68)]
    figures += [("square", _filled(_rectangle(aspect))) for aspect in (1.0, 1.07, 1.14)]
    figures += [("triangle", _filled(_triangle(height))) for height in (0.93, 1.0, 1.07)]
    figures += [("hexagon", _filled(_hexagon(aspect))) for aspect in (1.0, 1.05)]
    figures += [("star", _filled(_star(inner))) for inner in (0.38, 0.42, 0.46, 0.5, 0.55)]
    figures += [("cross", _filled(_cross(arm))) for arm in (0.26, 0.3, 0.34, 0.38, 0.44)]
    figures += [("crescent", _bitten(radius, away)) for radius in (0.75, 0.85) for away in (0.4, 0.5, 0.6)]
    return tuple(figures)


def _filled(outline: Points) -> FloatArray:
    image = Image.new("L", (_SIDE * _OVERSAMPLING, _SIDE * _OVERSAMPLING), 0)
    ImageDraw.Draw(image).polygon(_to_pixels(outline), fill=255)
    return _reduced(image)


def _pierced(hole: float) -> FloatArray:
    return np.clip(_filled(_ellipse(1.0)) - _filled(_ellipse(hole, hole)), 0.0, 1.0)


def _bitten(radius: float, away: float) -> FloatArray:
    bite = [(x + away, y) for x, y in _ellipse(radius, radius)]
    return np.clip(_filled(_ellipse(1.0)) - _filled(bite), 0.0, 1.0)


def _to_pixels(points: Points) -> Points:
    middle, scale = _SIDE * _OVERSAMPLING / 2, _UNIT * _OVERSAMPLING
    return [(middle + scale * x - 0.5, middle + scale * y - 0.5) for x, y in points]


def _reduced(image: Image.Image) -> FloatArray:
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64) / 255.0


def _ellipse(width: float, height: float = 1.0) -> Points:
    angles = [k * math.pi / 90 for k in range(180)]
    return [(width * math.cos(a), height * math.sin(a)) for a in angles]


def _rectangle(aspect: float) -> Points:
    return [(-aspect, -1.0), (aspect, -1.0), (aspect, 1.0), (-aspect, 1.0)]


def _triangle(height: float) -> Points:
    return [(0.0, -height), (math.sqrt(3) / 2, 0.5 * height), (-math.sqrt(3) / 2, 0.5 * height)]


def _hexagon(aspect: float) -> Points:
    return [(aspect * math.cos(k * math.pi / 3), math.sin(k * math.pi / 3)) for k in range(6)]


def _star(inner: float) -> Points:
    radii = [1.0, inner] * 5
    return [(r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in enumerate(radii)]


def _cross(arm: float) -> Points:
    corners: Points = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    for _ in range(3):
        corners += [(-y, x) for x, y in corners[-3:]]
    return corners
