"""Answers in context that are almost right: another subject, two exchanged, a mixture, one gone or halved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from og2.evals.near_miss import Picture, with_stranger
from og2.world.creatures import Anatomy
from og2.world.incontext import InContext
from og2.world.scenes import Scene

HALF = "half removed"


def wrong_scenes(asked: InContext, rng: Generator) -> dict[str, Scene]:
    """Scenes that are wrong for a task in context, by kind; a copied reference among them."""
    scenes = {
        "copy reference": asked.references[0],
        "another subject": with_stranger(asked.target, rng),
        "missing subject": without_first(asked.target),
        "swapped subjects": with_swapped(asked.target),
        "blend": with_blend(asked.target),
    }
    return {kind: scene for kind, scene in scenes.items() if scene is not None}


def half_removed_subject(draw: Callable[[Scene], Picture], scene: Scene, rng: Generator) -> Picture:
    """The first subject with 35 to 65 % of it painted over with background, cut along a straight line."""
    picture, empty = draw(scene), draw(without_first(scene))
    ys, xs = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    angle = float(rng.uniform(0, 2 * np.pi))
    along = xs * np.cos(angle) + ys * np.sin(angle)
    covered = np.abs(picture.astype(int) - empty).sum(axis=-1) > 0
    cut = np.quantile(along[covered], float(rng.uniform(0.35, 0.65)))
    return np.where((along > cut)[..., None], empty, picture)


def without_first(scene: Scene) -> Scene:
    """The scene without its first creature, or else its first gizmo."""
    if scene.creatures:
        return replace(scene, creatures=scene.creatures[1:])
    return replace(scene, gizmos=scene.gizmos[1:])


def with_swapped(scene: Scene) -> Scene | None:
    """The scene with its first two subjects in each other's place; None unless they are of one kind."""
    if len(scene.creatures) > 1:
        one, other, *rest = scene.creatures
        pair = (replace(one, anatomy=other.anatomy), replace(other, anatomy=one.anatomy))
        return replace(scene, creatures=(*pair, *rest))
    if not scene.creatures and len(scene.gizmos) > 1:
        one, other, *rest = scene.gizmos
        pair = (
            replace(other, x=one.x, y=one.y, radius=one.radius),
            replace(one, x=other.x, y=other.y, radius=other.radius),
        )
        return replace(scene, gizmos=(*pair, *rest))
    return None


def with_blend(scene: Scene) -> Scene | None:
    """The scene with the first creature halfway to the second in every part; None where there are no two."""
    if len(scene.creatures) < 2:
        return None
    one, other = (vars(c.anatomy) for c in scene.creatures[:2])
    mean: dict[str, Any] = {}
    for name, value in one.items():
        if isinstance(value, tuple):
            mean[name] = tuple((a + b) / 2 for a, b in zip(value, other[name], strict=True))
        else:
            middle = (value + other[name]) / 2
            mean[name] = round(middle) if isinstance(value, int) else middle
    new = replace(scene.creatures[0], anatomy=Anatomy(**mean))
    return replace(scene, creatures=(new, *scene.creatures[1:]))
