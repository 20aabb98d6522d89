"""Is it the same one? Distances between subjects that were seen, and what they are worth from 0 to 10.

Part of the scorer. Creatures are compared by their measures, each in units of a tolerance of its own; gizmos
as small pictures. A distance becomes a score by a logistic in it, frozen so that pictures of one subject
average 9 or more and the hardest impostors, changed in one part only, 3 or less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from og2.world.creature_reading import MEASURES, SeenCreature
from og2.world.gizmo_reading import SeenGizmo
from og2.world.pixels import FloatArray, box_mean, distance, erode, local_maximum

# Difference of each measure at which two creatures are two by that alone: less than half of what a near miss
# changes, and several times what pose, place, size and backdrop move it by (`benchmarks/identity.py`).
TOLERANCE: dict[str, float] = {
    "body color": 9.0,  # dE
    "second color": 9.0,
    "aspect": 0.09,
    "eye size": 0.019,
    "eye separation": 0.045,
    "ear reach": 0.10,
    "ear width": 0.033,
    "leg length": 0.055,
    "arm length": 0.062,
    "tail reach": 0.085,
    "horns": 0.6,
    "spots": 1.3,
    "spot size": 0.0085,
}
_FARTHEST = 8.0  # tolerances: beyond, a measure counts no more
_ONLY_ONE = 2.0  # tolerances, for a part that only one of the two shows
_POWER = 4.0  # of the norm that sums up: one measure that is far off weighs more than many that are a bit
_BLEND = 0.5  # of the distance to the nearer reference; other creatures come no nearer to a mixture than 0.67
_CREATURE = (1.0, 0.25)  # distance worth 5, and how fast the score falls
_GIZMO = (3.9, 0.6)  # dE
_OUTLINE_DE = 60.0  # what a point inside is worth against one outside
_FREE_DE, _MOST_DE = 5.0, 45.0  # what does not count yet of a difference, and what counts no more
_FROM_BLACK = np.array([16.0, 0.0, 0.0])  # light scales L + 16, a and b
_LEAST_LINE = 0.4  # of them that a line leaves
_SQUARE = 2  # half side of the square that a difference must fill, in points


def creature_distance(a: SeenCreature, b: SeenCreature) -> float:
    """Distance between two creatures in tolerances; 0 = the same, about 1 = as far off as may be."""
    apart = np.minimum(differences(a, b) / np.array(list(TOLERANCE.values())), _FARTHEST)
    only_one = np.isnan(a.measures[6:]) != np.isnan(b.measures[6:])
    only_one[-1] = False  # spots have no size where there are none: their number tells
    apart[2:][only_one] = _ONLY_ONE
    known = ~np.isnan(apart)
    if known.sum() < len(TOLERANCE) // 2:
        return math.inf
    # What neither shows neither adds nor takes away.
    return float((apart[known] ** _POWER).sum() ** (1.0 / _POWER))


def differences(a: SeenCreature, b: SeenCreature) -> FloatArray:
    """How far two creatures are apart in each entry of TOLERANCE, in its unit; NaN where not measured."""
    colors = [float(distance(a.measures[i : i + 3], b.measures[i : i + 3])) for i in (0, 3)]
    return np.array([*colors, *np.abs(a.measures[6:] - b.measures[6:])])


def without_measures(creature: SeenCreature, names: Sequence[str]) -> SeenCreature:
    """The creature with those of MEASURES not measured: what an edit may change, or what cannot be told."""
    kept = creature.measures.copy()
    kept[[MEASURES.index(name) for name in names]] = math.nan
    return replace(creature, measures=kept)


def gizmo_distance(a: SeenGizmo, b: SeenGizmo) -> float:
    """How much the small pictures differ where they differ most, in dE; 0 = the same."""
    return max(_unlike(a, b), _unlike(b, a))


def identity_score(d: float, is_creature: bool) -> float:
    """From 0 (another one) to 10 (the same one)."""
    middle, width = _CREATURE if is_creature else _GIZMO
    return 0.0 if math.isinf(d) else 10.0 / (1.0 + math.exp(min(60.0, (d - middle) / width)))


def assign(cost: FloatArray) -> list[int]:
    """For each row the column that makes the sum of costs least, each column once; -1 where there are too
    few.

    Shapes: cost (R, C). At most six of either: all ways are tried.
    """
    rows, columns = cost.shape
    padded = np.concatenate([cost, np.full((rows, max(0, rows - columns)), 1e6)], axis=1)
    best = min(
        itertools.permutations(range(padded.shape[1]), rows),
        key=lambda order: sum(padded[i, j] for i, j in enumerate(order)),
    )
    return [j if j < columns else -1 for j in best]


def is_blend(seen: SeenCreature, references: Sequence[SeenCreature]) -> bool:
    """Whether a creature is nearer to the mean of two references than to either of them."""
    own = min((creature_distance(seen, r) for r in references), default=math.inf)
    for one, other in itertools.combinations(references, 2):
        mixed = SeenCreature(
            {}, (one.measures + other.measures) / 2, one.box, one.center, one.mask, one.horns, one.spots
        )
        if creature_distance(seen, mixed) < _BLEND * own and own > _CREATURE[0]:
            return True
    return False


def _unlike(a: SeenGizmo, b: SeenGizmo) -> float:
    """The largest mean, over a small square, of how far a's points are from what b has there or next to it.

    Every channel is compared with the range of b's values one step around, so that an edge may be softer or
    lie a step elsewhere; the outline counts as a channel of its own. Where both have lines, what b shows may
    be one, which is the wider the smaller b is: then a may have the colour that the line belongs to.
    """
    off = 1.0 * _OUTLINE_DE * _beyond(a.inside, b.inside)
    both = erode((a.inside > 0.95) & (b.inside > 0.95), 1.0)
    low = high = b.patch
    if a.line is not None and b.line is not None:
        own = (b.patch + _FROM_BLACK) / max(b.line, _LEAST_LINE) - _FROM_BLACK
        low, high = np.minimum(low, own), np.maximum(high, own)
    off = np.maximum(off, both * distance(_outside(a.patch, low, high), np.zeros(3)))
    return float(box_mean(np.clip(off - _FREE_DE, 0.0, _MOST_DE), _SQUARE).max())


def _beyond(a: FloatArray, b: FloatArray) -> FloatArray:
    """How far values are outside of the range of b one step around."""
    return _outside(a, b, b)


def _outside(a: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """How far values are below the least of `low` and above the largest of `high` one step around."""
    return np.maximum(np.maximum(a - local_maximum(high, 1), -local_maximum(-low, 1) - a), 0.0)
