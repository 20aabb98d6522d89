"""How an object's area is painted: flat, or with a second tone of the same hue in stripes, dots or checks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from og2.world.palette import Lab

_TONE_STEP = (23.0, 28.0)  # how much lighter or darker the second tone is, CIELAB L
_TONE_CHROMA = 0.80
_BRIGHT = 65.0
_NEUTRAL: dict[str, tuple[float, float]] = {"white": (44.0, 50.0), "black": (36.0, 42.0)}
# Distance from one stripe, dot or check to the next of its kind, in nominal radii.
_PERIODS: dict[str, tuple[float, float]] = {
    "stripes": (0.44, 0.60),
    "dots": (0.52, 0.66),
    "checker": (0.62, 0.80),
}
_ANGLES: dict[str, tuple[float, float]] = {
    "stripes": (-np.pi / 2, np.pi / 2),
    "dots": (-np.pi / 4, np.pi / 4),
    "checker": (-np.pi / 8, np.pi / 8),
}


@dataclass(frozen=True)
class Fill:
    """A pattern: its kind, the second tone, period in nominal radii, angle in radians, phase in periods."""

    kind: str
    lab: Lab
    period: float
    angle: float
    phase: float


def sample_fill(rng: Generator, kind: str, color: str, lab: Lab) -> Fill | None:
    """A random pattern of that kind for an object of that colour; None for "flat"."""
    if kind == "flat":
        return None
    period, angle = float(rng.uniform(*_PERIODS[kind])), float(rng.uniform(*_ANGLES[kind]))
    return Fill(kind, second_tone(rng, color, lab), period, angle, float(rng.uniform()))


def second_tone(rng: Generator, color: str, lab: Lab) -> Lab:
    """A tone of the same hue, clearly lighter or darker, that no backdrop has."""
    if color in _NEUTRAL:
        return (float(rng.uniform(*_NEUTRAL[color])), 0.0, 0.0)
    step = float(rng.uniform(*_TONE_STEP)) * (-1.0 if lab[0] >= _BRIGHT else 1.0)
    return (lab[0] + step, lab[1] * _TONE_CHROMA, lab[2] * _TONE_CHROMA)
