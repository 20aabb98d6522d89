"""Shares with their uncertainty."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """A share of n items with its 95 % Wilson interval."""

    score: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        if self.n == 0:
            return "no items"
        return f"{self.score:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def wilson(successes: int, n: int, z: float = 1.96) -> Share:
    """The share of successes with Wilson's score interval; (0, 1) around 0 when n is 0.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927). z: normal quantile, 1.96 for 95 %.
    """
    if n == 0:
        return Share(0.0, 0.0, 1.0, 0)
    share = successes / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Share(share, max(0.0, center - half), min(1.0, center + half), n)


def share_of(outcomes: list[bool]) -> Share:
    """The share of true outcomes with its interval."""
    return wilson(sum(outcomes), len(outcomes))


def mean_of(values: list[float]) -> Share:
    """The mean with a 95 % normal interval of the mean, values that are NaN left out of n."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return Share(0.0, 0.0, 1.0, 0)
    mean = sum(known) / len(known)
    spread = math.sqrt(sum((v - mean) ** 2 for v in known) / max(1, len(known) - 1))
    half = 1.96 * spread / math.sqrt(len(known))
    return Share(mean, max(0.0, mean - half), min(1.0, mean + half), len(known))
