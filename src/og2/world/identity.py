"""Is it the same one? Distances between subjects that were seen, and what they are worth from 0 to 10.

Part of the scorer. Creatures are compared by their measures, each in units of a tolerance of its own; gizmos
as small pictures. A distance becomes a score by a logistic in it, frozen so that pictures of one subject
average 9 or more and the hardest impostors, changed in one part only, 3 or less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from og2.world.creature_reading import SeenCreature
from og2.world.gizmo_reading import SeenGizmo
from og2.world.pixels import FloatArray, distance

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
_POWER = 4.0  # of the norm that sums up: one measure that is far off weighs more than many that are a bit
_CREATURE = (1.0, 0.25)  # distance worth 5, and how fast the score falls
_GIZMO = (0.05, 0.006)
_GIZMO_STEP = 13.0  # dE beyond which a pixel of a gizmo is another


def creature_distance(a: SeenCreature, b: SeenCreature) -> float:
    """Distance between two creatures in tolerances; 0 = the same, about 1 = as far off as may be."""
    apart = np.minimum(differences(a, b) / np.array(list(TOLERANCE.values())), _FARTHEST)
    known = ~np.isnan(apart)
    if known.sum() < len(TOLERANCE) // 2:
        return math.inf
    # What cannot be seen (the size of spots where there are none) neither adds nor takes away.
    return float((apart[known] ** _POWER).sum() ** (1.0 / _POWER))


def differences(a: SeenCreature, b: SeenCreature) -> FloatArray:
    """How far two creatures are apart in each entry of TOLERANCE, in its unit; NaN where not measured."""
    colors = [float(distance(a.measures[i : i + 3], b.measures[i : i + 3])) for i in (0, 3)]
    return np.array([*colors, *np.abs(a.measures[6:] - b.measures[6:])])


def gizmo_distance(a: SeenGizmo, b: SeenGizmo) -> float:
    """Share of a gizmo's area that has another colour in the other picture, within one step of both ways."""
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
        if creature_distance(seen, mixed) < 0.7 * own and own > _CREATURE[0]:
            return True
    return False


def _unlike(a: SeenGizmo, b: SeenGizmo) -> float:
    side = a.patch.shape[0]
    padded = np.pad(b.patch, ((1, 1), (1, 1), (0, 0)), mode="edge")
    covered = np.pad(b.inside, 1, mode="edge")
    best = np.full((side, side), np.inf)
    for dy in range(3):
        for dx in range(3):
            apart = distance(a.patch, padded[dy : dy + side, dx : dx + side])
            apart = apart + 40.0 * (covered[dy : dy + side, dx : dx + side] < 0.4)
            best = np.minimum(best, apart)
    inside = a.inside > 0.6
    return float((best[inside] > _GIZMO_STEP).mean()) if inside.any() else 1.0
