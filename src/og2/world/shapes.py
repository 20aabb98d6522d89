"""Proportions of the six shapes, in units of an object's nominal radius.

A shape of nominal radius 1 has its box centred on the origin when its rotation is 0. The renderer draws these
outlines and the scene sampler keeps their boxes apart; the scorer does not import this file.
"""

from __future__ import annotations

import math

SQUARE_HALF_SIDE = 0.90
TRIANGLE_CIRCUMRADIUS = 1.30
TRIANGLE_SHIFT = TRIANGLE_CIRCUMRADIUS / 4.0  # moves the box's centre, not the centroid, to the origin
STAR_OUTER = 1.28
STAR_INNER = 0.56
CROSS_HALF_LENGTH = 1.12
CROSS_HALF_WIDTH = 0.38
RING_OUTER = 1.08
RING_INNER = 0.56

# Largest absolute rotation in radians: small enough that no square becomes a diamond, no cross an X.
MAX_ROTATION: dict[str, float] = {
    "circle": 0.0,
    "square": math.radians(12),
    "triangle": math.radians(12),
    "star": math.radians(18),
    "cross": math.radians(14),
    "ring": 0.0,
}


def _star_tips() -> tuple[tuple[float, float], ...]:
    angles = [2.0 * math.pi * k / 5.0 for k in range(5)]
    return tuple((STAR_OUTER * math.sin(a), -STAR_OUTER * math.cos(a)) for a in angles)


def _cross_corners() -> tuple[tuple[float, float], ...]:
    long, wide = CROSS_HALF_LENGTH, CROSS_HALF_WIDTH
    return tuple((sx * x, sy * y) for x, y in ((long, wide), (wide, long)) for sx in (-1, 1) for sy in (-1, 1))


_S = SQUARE_HALF_SIDE
_R = TRIANGLE_CIRCUMRADIUS
_CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-_S, -_S), (_S, -_S), (_S, _S), (-_S, _S)),
    "triangle": (
        (0.0, -_R + TRIANGLE_SHIFT),
        (-_R * math.sqrt(3) / 2, _R / 2 + TRIANGLE_SHIFT),
        (_R * math.sqrt(3) / 2, _R / 2 + TRIANGLE_SHIFT),
    ),
    "star": _star_tips(),
    "cross": _cross_corners(),
}
_ROUND: dict[str, float] = {"circle": 1.0, "ring": RING_OUTER}


def half_extents(shape: str, radius: float, rotation: float) -> tuple[float, float]:
    """Half width and half height of the smallest box around the object's centre that holds the object.

    Units: radius and result as the caller's (a fraction of the picture's side); rotation in radians.
    """
    if shape in _ROUND:
        reach = radius * _ROUND[shape]
        return reach, reach
    cos, sin = math.cos(rotation), math.sin(rotation)
    corners = _CORNERS[shape]
    half_width = max(abs(x * cos - y * sin) for x, y in corners)
    half_height = max(abs(x * sin + y * cos) for x, y in corners)
    return radius * half_width, radius * half_height
