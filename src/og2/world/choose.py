"""A choice by chance: one of some words."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator


def pick(rng: Generator, options: tuple[str, ...]) -> str:
    """One of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


def pick_by_odds(rng: Generator, odds: dict[str, float]) -> str:
    """One of the names, with these odds."""
    names = tuple(odds)
    return names[int(np.searchsorted(np.cumsum(list(odds.values())), rng.random() * 0.999999, side="right"))]
