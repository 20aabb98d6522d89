"""What is behind the subjects: plain colour, gradient, landscape, tiled floor or rough paper.

All colours of a backdrop lie within `palette.BACKDROP_LIGHTNESS` and `palette.BACKDROP_CHROMA`, so that
whatever stands in front is outside of them. Pure functions of a `numpy.random.Generator`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.random import Generator

from og2.errors import RequestError
from og2.world import palette
from og2.world.palette import Lab

_MIN_STEP = 9.0  # dE between the two ends of a gradient
_HORIZON = (0.42, 0.60)
_HILL_HEIGHT = (0.05, 0.13)
_SUN_RADIUS = (0.06, 0.09)
_TREE_SIZE = (0.07, 0.12)
_NEUTRALS: tuple[str, ...] = ("grey", "light grey", "cream", "pale blue", "pale green", "pale pink")


@dataclass(frozen=True)
class Backdrop:
    """A backdrop by family and name, and the numbers behind it.

    labs: gradient (from, to); landscape (sky, ground); tiles (wall, one tile, the other); noise and plain
    (colour). Units: lengths as fractions of the picture's side, angle in radians (gradient: the direction it
    runs in; 0 is to the right). hills: (height over the horizon, wavelength, phase), far ones first; trees:
    (x, height); sun: (x, y, radius). period: of tiles. seed: of the grain.
    """

    kind: str
    name: str
    labs: tuple[Lab, ...]
    angle: float = 0.0
    horizon: float = 0.5
    sun: tuple[float, float, float] | None = None
    hills: tuple[tuple[float, float, float], ...] = ()
    trees: tuple[tuple[float, float], ...] = ()
    period: float = 0.2
    seed: int = 0


def backdrop_names(kind: str) -> tuple[str, ...]:
    """The names a backdrop of this family can have."""
    if kind == "landscape":
        return tuple(palette.LANDSCAPES)
    if kind == "gradient":
        return tuple(f"{a} to {b}" for a in _NEUTRALS for b in _NEUTRALS if a != b and _apart(a, b))
    return tuple(palette.BACKGROUNDS)


def sample_backdrop(rng: Generator, kind: str, name: str | None = None) -> Backdrop:
    """A random backdrop of that family; `name` fixes which.   Raises: RequestError for an unknown family."""
    if kind not in palette.BACKDROPS:
        raise RequestError(f"backdrop={kind!r} is unknown; use one of {', '.join(palette.BACKDROPS)}")
    if name is None:
        names = backdrop_names(kind)
        name = names[int(rng.integers(len(names)))]
    if kind == "landscape":
        return _landscape(rng, name)
    if kind == "gradient":
        first, second = name.split(" to ")
        labs = (_near(rng, palette.BACKGROUNDS[first]), _near(rng, palette.BACKGROUNDS[second]))
        return Backdrop(kind, name, labs, angle=float(rng.uniform(-math.pi, math.pi)))
    lab = _near(rng, palette.BACKGROUNDS[name])
    if kind == "tiles":
        labs = (_lighter(lab, 5.0, 0.3), lab, _lighter(lab, -6.5, 1.0))
        return Backdrop(
            kind, name, labs, horizon=float(rng.uniform(0.30, 0.48)), period=float(rng.uniform(0.16, 0.24))
        )
    return Backdrop(kind, name, (_lighter(lab, -2.5, 1.0),), seed=int(rng.integers(2**31)))


def _landscape(rng: Generator, name: str) -> Backdrop:
    sky, ground = (_near(rng, lab) for lab in palette.LANDSCAPES[name])
    horizon = float(rng.uniform(*_HORIZON))
    sun = None
    if rng.random() < 0.65:
        radius = float(rng.uniform(*_SUN_RADIUS))
        sun = (float(rng.uniform(0.12, 0.88)), float(rng.uniform(0.11, horizon - 0.2)), radius)
    hills = () if name == "seaside" else tuple(_hill(rng) for _ in range(int(rng.integers(3))))
    count = int(rng.integers(1, 5)) if name in ("meadow", "snow", "dusk") and rng.random() < 0.7 else 0
    trees = tuple((float(rng.uniform(0.05, 0.95)), float(rng.uniform(*_TREE_SIZE))) for _ in range(count))
    return Backdrop("landscape", name, (sky, ground), horizon=horizon, sun=sun, hills=hills, trees=trees)


def _hill(rng: Generator) -> tuple[float, float, float]:
    return (
        float(rng.uniform(*_HILL_HEIGHT)),
        float(rng.uniform(0.5, 1.1)),
        float(rng.uniform(0, 2 * math.pi)),
    )


def _near(rng: Generator, lab: Lab) -> Lab:
    d = rng.normal(0.0, palette.BACKGROUND_SIGMA, 3)
    low, high = palette.BACKDROP_LIGHTNESS
    lightness = min(max(lab[0] + float(d[0]), low + 1.0), high - 1.0)
    a, b = lab[1] + float(d[1]), lab[2] + float(d[2])
    shrink = min(1.0, (palette.BACKDROP_CHROMA - 0.5) / max(math.hypot(a, b), 1e-6))
    return (lightness, a * shrink, b * shrink)


def _lighter(lab: Lab, step: float, chroma: float) -> Lab:
    low, high = palette.BACKDROP_LIGHTNESS
    return (min(max(lab[0] + step, low + 1.0), high - 1.0), lab[1] * chroma, lab[2] * chroma)


def _apart(a: str, b: str) -> bool:
    return math.dist(palette.BACKGROUNDS[a], palette.BACKGROUNDS[b]) >= _MIN_STEP
