"""Scores with their uncertainty: shares of items, means, means over families, and differences of two runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_DRAWS = 2000
_SEED = 20250623


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


def mean_of_families(families: Mapping[str, Sequence[float]]) -> Share:
    """The unweighted mean of the families' means, with a 95 % interval from resampling inside each family.

    n is the number of items; families without any are left out. With all values alike the interval is that of
    `wilson` for a share of n items, because a bootstrap of equal values has no width.
    """
    known = [np.asarray(values, dtype=np.float64) for values in families.values() if len(values)]
    if not known:
        return Share(0.0, 0.0, 1.0, 0)
    n = sum(len(values) for values in known)
    score = float(np.mean([values.mean() for values in known]))
    drawn = np.mean([_resampled_means(values) for values in known], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    if high - low < 1e-12 and score in (0.0, 1.0):
        bounds = wilson(round(score * n), n)
        low, high = bounds.low, bounds.high
    return Share(score, float(low), float(high), n)


def paired_difference(new: Mapping[str, float], old: Mapping[str, float]) -> Share:
    """Mean of new - old over the items that both runs scored, with a 95 % bootstrap interval over items.

    new, old: item key -> score.
    """
    common = sorted(set(new) & set(old))
    if not common:
        return Share(0.0, -math.inf, math.inf, 0)
    steps = np.array([new[key] - old[key] for key in common])
    low, high = np.quantile(_resampled_means(steps), [0.025, 0.975])
    return Share(float(steps.mean()), float(low), float(high), len(common))


def corrected(observed: Share, accept_correct: float, accept_wrong: float) -> Share:
    """A share of passes as it would be with a scorer without error, given its certificate, within [0, 1].

    Rogan and Gladen's estimate (Am. J. Epidemiol. 107, 1978). Unchanged when the scorer cannot tell right
    from wrong.
    """
    power = accept_correct - accept_wrong
    if power <= 0.05:
        return observed
    values = [
        min(1.0, max(0.0, (v - accept_wrong) / power)) for v in (observed.score, observed.low, observed.high)
    ]
    return Share(values[0], values[1], values[2], observed.n)


def _resampled_means(values: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng([_SEED, len(values)])
    return values[rng.integers(len(values), size=(_DRAWS, len(values)))].mean(axis=1)
