"""Proportions of the eight shapes, in units of an object's nominal radius.

The renderer draws these outlines and the scene sampler keeps their boxes apart; the scorer does not import
this file.
"""

from __future__ import annotations

import math

SQUARE_HALF_SIDE = 0.90
TRIANGLE_CIRCUMRADIUS = 1.30
TRIANGLE_SHIFT = TRIANGLE_CIRCUMRADIUS / 4.0  # puts the upright triangle's box on the origin
STAR_OUTER = 1.28
STAR_INNER = 0.56
CROSS_HALF_LENGTH = 1.12
CROSS_HALF_WIDTH = 0.38
RING_OUTER = 1.08
RING_INNER = 0.56
HEXAGON_CIRCUMRADIUS = 1.14
# A crescent is a disc without a smaller disc beside it; the shift puts the figure's box on the origin.
CRESCENT_OUTER = 1.20
CRESCENT_CUT = 0.95
CRESCENT_CUT_X = 0.62
_TIP_X = (CRESCENT_OUTER**2 - CRESCENT_CUT**2 + CRESCENT_CUT_X**2) / (2.0 * CRESCENT_CUT_X)
CRESCENT_SHIFT = (CRESCENT_OUTER - _TIP_X) / 2.0

# Largest absolute rotation in radians: small enough that no square becomes a diamond, no cross an X.
MAX_ROTATION: dict[str, float] = {
    "circle": 0.0,
    "square": math.radians(12),
    "triangle": math.radians(12),
    "star": math.radians(18),
    "cross": math.radians(14),
    "ring": 0.0,
    "crescent": math.pi,
    "hexagon": math.radians(12),
}


def _star_tips() -> tuple[tuple[float, float], ...]:
    angles = [2.0 * math.pi * k / 5.0 for k in range(5)]
    return tuple((STAR_OUTER * math.sin(a), -STAR_OUTER * math.cos(a)) for a in angles)


def _cross_corners() -> tuple[tuple[float, float], ...]:
    long, wide = CROSS_HALF_LENGTH, CROSS_HALF_WIDTH
    return tuple(
        (sx * x, sy * y) for x, y in ((long, wide), (wide, long)) for sx in (-1, 1) for sy in (-1, 1)
    )


def _hexagon_corners() -> tuple[tuple[float, float], ...]:
    angles = [math.pi * k / 3.0 for k in range(6)]
    return tuple((HEXAGON_CIRCUMRADIUS * math.cos(a), HEXAGON_CIRCUMRADIUS * math.sin(a)) for a in angles)


def _crescent_rim(steps: int = 28) -> tuple[tuple[float, float], ...]:
    """Points of the outer arc, from tip to tip."""
    start = math.acos(_TIP_X / CRESCENT_OUTER)
    angles = [start + (2.0 * math.pi - 2.0 * start) * k / steps for k in range(steps + 1)]
    return tuple(
        (CRESCENT_OUTER * math.cos(a) + CRESCENT_SHIFT, CRESCENT_OUTER * math.sin(a)) for a in angles
    )


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
    "hexagon": _hexagon_corners(),
    "crescent": _crescent_rim(),
}
_ROUND: dict[str, float] = {"circle": 1.0, "ring": RING_OUTER}


def outline_box(shape: str, radius: float, rotation: float) -> tuple[float, float, float, float]:
    """The smallest upright box that holds the object: left, top, right, bottom, relative to its origin.

    Units: radius and result as the caller's (a fraction of the picture's side); rotation in radians.
    """
    if shape in _ROUND:
        reach = radius * _ROUND[shape]
        return -reach, -reach, reach, reach
    cos, sin = math.cos(rotation), math.sin(rotation)
    xs = [radius * (x * cos - y * sin) for x, y in _CORNERS[shape]]
    ys = [radius * (x * sin + y * cos) for x, y in _CORNERS[shape]]
    return min(xs), min(ys), max(xs), max(ys)
