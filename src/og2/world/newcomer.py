"""The newcomer: one subject that the plain world has no word for, to be learned from a few pictures.

A zib is a crescent, open to the right and never turned, of one blue: neither its shape nor its name occurs in
the plain world. A scene shows one zib on a plain background. Places, sizes and backgrounds are divided: some
occur in the few pictures, the others are kept for asking. The scorer does not import this file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from og2.world import palette
from og2.world.choose import pick
from og2.world.language import backdrop_phrase, place_phrase
from og2.world.palette import Lab
from og2.world.scenes import Object, Scene
from og2.world.shapes import outline_box

NAME = "zib"
SHAPE = "crescent"
COLOR: Lab = palette.COLORS["blue"]
NUM_PICTURES = 20
PLACES: tuple[str, ...] = ("left", "right", "top", "bottom", "top left", "bottom right")
BACKGROUNDS: tuple[str, ...] = ("light grey", "cream", "pale green", "pale pink")
SIZES: tuple[str, ...] = ("medium", "large")
NEW_PLACES = tuple(name for name in palette.POSITIONS if name not in PLACES)
NEW_BACKGROUNDS = tuple(name for name in palette.BACKGROUNDS if name not in BACKGROUNDS)
NEW_SIZES = tuple(name for name in palette.SIZES if name not in SIZES)
# What is asked for: from which places, backgrounds and sizes.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "new place": (NEW_PLACES, BACKGROUNDS, SIZES),
    "new background": (PLACES, NEW_BACKGROUNDS, SIZES),
    "new place and background": (NEW_PLACES, NEW_BACKGROUNDS, SIZES),
    "new size": (PLACES, BACKGROUNDS, NEW_SIZES),
}
_JITTER = 1.0  # dE, as a plain background's


@dataclass(frozen=True)
class Sight:
    """A scene with one zib, and the sentence that says all of it."""

    scene: Scene
    text: str

    @property
    def words(self) -> tuple[str, str, str]:
        """Place, background and size."""
        return self.scene.objects[0].position, self.scene.background, self.scene.objects[0].size


def sights_to_learn(seed: int = 0, count: int = NUM_PICTURES) -> list[Sight]:
    """The few pictures: no two of the same place, background and size while there are enough of them."""
    rng = np.random.default_rng((seed, 1))
    combinations = [(p, b, s) for p in PLACES for b in BACKGROUNDS for s in SIZES]
    order = rng.permutation(len(combinations))
    return [_sight(rng, *combinations[order[i % len(order)]]) for i in range(count)]


def sights_to_ask(group: str, count: int, seed: int = 0) -> list[Sight]:
    """Scenes of one of GROUPS: each has words that none of the few pictures has."""
    rng = np.random.default_rng((seed, 2, *group.encode()))
    places, backgrounds, sizes = GROUPS[group]
    return [_sight(rng, pick(rng, places), pick(rng, backgrounds), pick(rng, sizes)) for _ in range(count)]


def other_figures(count: int, seed: int = 0) -> list[Scene]:
    """Scenes with what is not a zib but nearest to it.

    In turns the crescent in another colour, turned around, and a ring, circle and hexagon of its own blue.
    """
    rng = np.random.default_rng((seed, 3))
    wrong = [(SHAPE, "purple", 0.0), (SHAPE, "green", 0.0), (SHAPE, None, np.pi), (SHAPE, None, np.pi / 2)]
    wrong += [("ring", None, 0.0), ("circle", None, 0.0), ("hexagon", None, 0.0)]
    scenes = []
    for index in range(count):
        shape, color, rotation = wrong[index % len(wrong)]
        lab = palette.COLORS[color] if color else _near(rng, COLOR)
        background = pick(rng, tuple(palette.BACKGROUNDS))
        thing = _placed(rng, (shape, float(rotation), lab), pick(rng, PLACES), pick(rng, SIZES))
        scenes.append(Scene((thing,), background, _near(rng, palette.BACKGROUNDS[background])))
    return scenes


def _sight(rng: Generator, position: str, background: str, size: str) -> Sight:
    thing = _placed(rng, (SHAPE, 0.0, _near(rng, COLOR)), position, size)
    scene = Scene((thing,), background, _near(rng, palette.BACKGROUNDS[background]))
    where, behind = place_phrase(position, rng), backdrop_phrase("plain", background, rng)
    return Sight(scene, f"a {size} {NAME} {where} {behind}")


def _placed(rng: Generator, figure: tuple[str, float, Lab], position: str, size: str) -> Object:
    """The figure (shape, rotation, colour) somewhere in the part of the picture that the place means."""
    shape, rotation, lab = figure
    radius = float(rng.uniform(*palette.SIZES[size]))
    left, top, right, bottom = outline_box(shape, radius, rotation)
    column, row = palette.POSITIONS[position]
    x = _coordinate(rng, palette.COLUMNS[column], (right - left) / 2) - (left + right) / 2
    y = _coordinate(rng, palette.ROWS[row], (bottom - top) / 2) - (top + bottom) / 2
    return Object(shape, NAME, size, position, lab, x, y, radius, rotation)


def _coordinate(rng: Generator, band: tuple[float, float], half: float) -> float:
    """The middle of a box of that half width, inside the band and the picture."""
    low = max(band[0], half + palette.EDGE_MARGIN)
    return float(rng.uniform(low, max(low, min(band[1], 1.0 - half - palette.EDGE_MARGIN))))


def _near(rng: Generator, lab: Lab) -> Lab:
    d = rng.normal(0.0, _JITTER, 3)
    return (lab[0] + float(d[0]), lab[1] + float(d[1]), lab[2] + float(d[2]))
