"""Pictures that are almost right: the wrong pictures a scorer must refuse.

Each kind imitates a failure that a generative model really has. All functions are pure in the generator.
Pictures are uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from og2.world.palette import COLORS, SHAPES
from og2.world.render import render
from og2.world.scenes import Object, Scene, pick, place_object, sample_color, sample_scene
from og2.world.spec import Edit

Picture: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Draft:
    """What a near miss starts from: the right scene, its right picture, and a picture side in pixels."""

    scene: Scene
    picture: Picture
    size: int


def wrong_color(draft: Draft, rng: Generator) -> Picture:
    """The right shape in another colour."""
    return _with_first(draft, _recolored(draft.scene.objects[0], rng))


def wrong_shape(draft: Draft, rng: Generator) -> Picture:
    """Another shape in the right colour and place."""
    obj = draft.scene.objects[0]
    shape = pick(rng, tuple(s for s in SHAPES if s != obj.shape))
    return _with_first(draft, replace(obj, shape=shape))


def extra_object(draft: Draft, rng: Generator) -> Picture:
    """The right object and a second one of any kind."""
    while True:
        scene = draft.scene if len(draft.scene.objects) == 1 else sample_scene(rng, 1)
        more = place_object(rng, scene, 2)
        if more is not None and more.objects[0] == draft.scene.objects[0]:
            return _draw(more, draft.size)
        if more is None:
            draft = replace(draft, scene=_shrunk(draft.scene))


def half_removed(draft: Draft, rng: Generator) -> Picture:
    """The right object with 35 to 65 % of it painted over with background, cut along a straight line.

    A triangle loses a corner: cut off, a corner is a triangle again and no near miss.
    """
    obj = draft.scene.objects[0]
    empty = _draw(replace(draft.scene, objects=()), draft.size)
    angle = _cut_angle(obj, rng)
    along = _along(draft.size, obj, angle)
    covered = np.abs(draft.picture.astype(int) - empty).sum(axis=-1) > 0
    cut = np.quantile(along[covered], float(rng.uniform(0.35, 0.65)))
    return np.where((along > cut)[..., None], empty, draft.picture)


def merged(draft: Draft, rng: Generator) -> Picture:
    """A second object of another kind grown into the right one."""
    obj = draft.scene.objects[0]
    angle, reach = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.8, 1.3)) * obj.radius
    other = _recolored(replace(obj, shape=pick(rng, tuple(s for s in SHAPES if s != obj.shape))), rng)
    x, y = (
        float(np.clip(v, 0.2, 0.8)) for v in (obj.x + reach * np.cos(angle), obj.y + reach * np.sin(angle))
    )
    return _draw(replace(draft.scene, objects=(obj, replace(other, x=x, y=y))), draft.size)


def gradient(draft: Draft, rng: Generator) -> Picture:
    """The right shape, its colour running into another one from side to side."""
    obj = draft.scene.objects[0]
    other = _with_first(draft, _recolored(obj, rng))
    along = _along(draft.size, obj, float(rng.uniform(0, 2 * np.pi))) / obj.radius
    weight = np.clip(0.5 + along / 2.0, 0.0, 1.0)[..., None]
    return (draft.picture * (1 - weight) + other * weight + 0.5).astype(np.uint8)


T2I_NEAR_MISSES: dict[str, Callable[[Draft, Generator], Picture]] = {
    "wrong colour": wrong_color,
    "wrong shape": wrong_shape,
    "extra object": extra_object,
    "half removed": half_removed,
    "merged": merged,
    "gradient": gradient,
}


def nothing_done(edit: Edit, _rng: Generator, size: int) -> Picture:
    """The source, unchanged."""
    return _draw(edit.source, size)


def wrong_value(edit: Edit, rng: Generator, size: int) -> Picture:
    """The edit with a wrong new colour or shape; for a removal, the object recoloured instead."""
    if edit.kind == "remove":
        old = _changed(edit)
        new = _recolored(old, rng)
        return _draw(_swap(edit.source, old, new), size)
    obj = _changed(edit)
    forbidden = {obj.color, *(o.color for o in edit.source.objects if o.shape == obj.shape)}
    color = pick(rng, tuple(c for c in COLORS if c not in forbidden))
    return _draw(_swap(edit.target, obj, replace(obj, color=color, lab=sample_color(rng, color))), size)


def half_done(edit: Edit, rng: Generator, size: int) -> Picture:
    """Source and target side by side inside the changed object: one half edited, the other not."""
    before, after = _draw(edit.source, size), _draw(edit.target, size)
    obj = _changed(edit)
    along = _along(size, obj, _cut_angle(obj, rng))
    covered = np.abs(before.astype(int) - after).sum(axis=-1) > 0
    cut = np.quantile(along[covered], float(rng.uniform(0.35, 0.65)))
    return np.where((along > cut)[..., None], before, after)


def ghost(edit: Edit, rng: Generator, size: int) -> Picture:
    """Source and target blended: the change is there only by 40 to 60 %."""
    weight = float(rng.uniform(0.4, 0.6))
    return (_draw(edit.source, size) * (1 - weight) + _draw(edit.target, size) * weight + 0.5).astype(
        np.uint8
    )


def side_damage(edit: Edit, rng: Generator, size: int) -> Picture:
    """The edit is right, but another object changed its colour, or a new one appeared."""
    obj = _changed(edit)
    others = [o for o in edit.target.objects if o is not obj]
    if others:
        victim = others[int(rng.integers(len(others)))]
        taken = {o.color for o in edit.target.objects}
        color = pick(rng, tuple(c for c in COLORS if c not in taken))
        changed = replace(victim, color=color, lab=sample_color(rng, color))
        return _draw(_swap(edit.target, victim, changed), size)
    more = place_object(rng, edit.target, 2)
    return _draw(more, size) if more is not None else nothing_done(edit, rng, size)


EDIT_NEAR_MISSES: dict[str, Callable[[Edit, Generator, int], Picture]] = {
    "nothing done": nothing_done,
    "wrong value": wrong_value,
    "half done": half_done,
    "ghost": ghost,
    "side damage": side_damage,
}


def _draw(scene: Scene, size: int) -> Picture:
    return render(scene, size).numpy()


def _with_first(draft: Draft, obj: Object) -> Picture:
    return _draw(replace(draft.scene, objects=(obj, *draft.scene.objects[1:])), draft.size)


def _recolored(obj: Object, rng: Generator) -> Object:
    color = pick(rng, tuple(c for c in COLORS if c != obj.color))
    return replace(obj, color=color, lab=sample_color(rng, color))


def _shrunk(scene: Scene) -> Scene:
    obj = scene.objects[0]
    return replace(scene, objects=(replace(obj, radius=obj.radius * 0.8),))


def _cut_angle(obj: Object, rng: Generator) -> float:
    """A direction to cut in: any, but for a triangle toward a corner (a corner is a triangle again)."""
    if obj.shape == "triangle":
        return obj.rotation + np.pi * (-0.5 + int(rng.integers(3)) * 2 / 3 + float(rng.uniform(-0.08, 0.08)))
    return float(rng.uniform(0, 2 * np.pi))


def _along(size: int, obj: Object, angle: float) -> NDArray[np.float64]:
    """Signed distance of every pixel from the object's middle along a direction, as a share of the side."""
    ys, xs = (np.mgrid[0:size, 0:size] + 0.5) / size
    return (xs - obj.x) * np.cos(angle) + (ys - obj.y) * np.sin(angle)


def _changed(edit: Edit) -> Object:
    """The object an edit is about: as in the target, for a removal as in the source."""
    before, after = (edit.target, edit.source) if edit.kind == "remove" else (edit.source, edit.target)
    return next(o for o in after.objects if o not in before.objects)


def _swap(scene: Scene, old: Object, new: Object) -> Scene:
    return replace(scene, objects=tuple(new if o is old else o for o in scene.objects))
