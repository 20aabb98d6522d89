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


def mean_of(values: Sequence[float], scale: float = 1.0) -> Share:
    """The mean as `mean_of_families` gives it for one family, values that are NaN left out of n."""
    return mean_of_families({"": [v for v in values if not math.isnan(v)]}, scale)


def mean_of_families(families: Mapping[str, Sequence[float]], scale: float = 1.0) -> Share:
    """The unweighted mean of the families' means, with a 95 % interval from resampling inside each family.

    n is the number of items; families without any are left out. Resampling equal values has no width: the
    mean of such a family is drawn from Jeffreys' posterior of a share of `scale`, their largest value (Brown,
    Cai and DasGupta, Stat. Sci. 16, 2001).
    """
    known = [np.asarray(values, dtype=np.float64) for values in families.values() if len(values)]
    if not known:
        return Share(0.0, 0.0, scale, 0)
    score = float(np.mean([values.mean() for values in known]))
    rng = np.random.default_rng(_SEED)
    drawn = np.mean([_drawn_means(rng, values, scale) for values in known], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Share(score, min(float(low), score), max(float(high), score), sum(map(len, known)))


def paired_difference(new: Mapping[str, float], old: Mapping[str, float]) -> Share:
    """Mean of new - old over the items that both runs scored, families weighing alike, with a 95 % interval.

    new, old: item key "FAMILY/NUMBER" -> score. The interval is a bootstrap over the items of each family.
    """
    steps: dict[str, list[float]] = {}
    for key in sorted(set(new) & set(old)):
        steps.setdefault(key.rpartition("/")[0], []).append(new[key] - old[key])
    if not steps:
        return Share(0.0, 0.0, 0.0, 0)
    rng, own = np.random.default_rng(_SEED), [np.asarray(values) for values in steps.values()]
    drawn = np.mean([_resampled_means(rng, values) for values in own], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Share(float(np.mean([x.mean() for x in own])), float(low), float(high), sum(map(len, own)))


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


def _drawn_means(rng: np.random.Generator, values: np.ndarray, scale: float) -> np.ndarray:
    share, n = float(values.mean()) / scale, len(values)
    if np.ptp(values) > 0 or not 0 <= share <= 1:
        return _resampled_means(rng, values)
    return scale * rng.beta(n * share + 0.5, n * (1 - share) + 0.5, size=_DRAWS)


def _resampled_means(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    return values[rng.integers(len(values), size=(_DRAWS, len(values)))].mean(axis=1)
