"""Pictures that are almost right: the wrong pictures a scorer must refuse.

Each kind imitates a failure that a generative model really has. A kind that would not be wrong for a request
(the other colour of an object whose colour was not asked for) gives None. All functions are pure in the
generator. Pictures are uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from og2.world.choose import pick
from og2.world.creatures import near_miss, visible_parts
from og2.world.fills import second_tone
from og2.world.glyphs import LETTERS
from og2.world.palette import COLORS
from og2.world.props import GIZMO_PARTS, near_miss_gizmo
from og2.world.render import render, render_batch
from og2.world.requirements import SIZE_RELATIONS, ObjectRequirement, Requirements
from og2.world.scenes import Object, Scene, World, place_object, relation, sample_color
from og2.world.spec import Edit

Picture: TypeAlias = NDArray[np.uint8]
Drawn: TypeAlias = dict[int, tuple[Scene, Picture]]

_MIN_OVERLAP = 0.1  # of the smaller of two merged objects
_PAINTED = 12  # sum over the channels by which a painted pixel differs


@dataclass(frozen=True)
class Draft:
    """What a near miss starts from: the right scene with its request, its world, and the side in pixels."""

    scene: Scene
    rule: Requirements
    world: World
    size: int
    hand: str = "clean"
    drawn: Drawn = field(default_factory=dict[int, tuple[Scene, Picture]], compare=False, repr=False)

    def draw(self, scene: Scene) -> Picture:
        """A scene's picture in this draft's manner, drawn once."""
        if id(scene) not in self.drawn:
            self.drawn[id(scene)] = (scene, render(scene, self.size, hand=self.hand).numpy())
        return self.drawn[id(scene)][1]

    def wrong(self, scene: Scene) -> Picture | None:
        """The picture of a scene, None when the scene is right."""
        return None if meets(scene, self.rule) else self.draw(scene)


def meets(scene: Scene, rule: Requirements) -> bool:
    """Whether a scene of objects fulfils a request, by its words: what is right and wrong is decided here."""
    if len(scene.objects) != len(rule.objects):
        return False
    if any(_is(o, words) for words in rule.absent for o in scene.objects):
        return False
    if rule.background not in (None, scene.background) or rule.backdrop not in (None, scene.backdrop_kind):
        return False
    return any(_fulfils(chosen, rule) for chosen in permutations(scene.objects))


def _fulfils(chosen: tuple[Object, ...], rule: Requirements) -> bool:
    if not all(_is(o, words) for o, words in zip(chosen, rule.objects, strict=True)):
        return False
    for a, name, b in rule.relations:
        one, other = chosen[a], chosen[b]
        if name in SIZE_RELATIONS:
            if (one.radius > other.radius) != (name == SIZE_RELATIONS[0]):
                return False
        elif relation(one, other) != name:
            return False
    return True


def _is(obj: Object, words: ObjectRequirement) -> bool:
    own = {"shape": obj.shape, "color": obj.color, "size": obj.size, "position": obj.position}
    own["fill"] = obj.fill_name
    return all(getattr(words, name) in (None, value) for name, value in own.items())


def wrong_color(draft: Draft, rng: Generator) -> Picture | None:
    """One object in another colour."""
    i, obj = _any(draft.scene, rng)
    return draft.wrong(_with(draft.scene, i, recolored(obj, rng)))


def wrong_shape(draft: Draft, rng: Generator) -> Picture | None:
    """One object of another shape in the right colour and place."""
    i, obj = _any(draft.scene, rng)
    shape = pick(rng, tuple(s for s in draft.world.shapes if s != obj.shape))
    return draft.wrong(_with(draft.scene, i, replace(obj, shape=shape)))


def extra_object(draft: Draft, rng: Generator) -> Picture | None:
    """An object too many, of any kind."""
    more = place_object(rng, draft.scene, 4, world=draft.world)
    return None if more is None else draft.wrong(more)


def missing_object(draft: Draft, rng: Generator) -> Picture | None:
    """An object too few."""
    i, _ = _any(draft.scene, rng)
    return draft.wrong(replace(draft.scene, objects=_without(draft.scene, i)))


def swapped(draft: Draft, rng: Generator) -> Picture | None:
    """Two objects with their colours exchanged."""
    if len(draft.scene.objects) < 2:
        return None
    i, j = (int(k) for k in rng.permutation(len(draft.scene.objects))[:2])
    a, b = draft.scene.objects[i], draft.scene.objects[j]
    scene = _with(draft.scene, i, replace(a, color=b.color, lab=b.lab, fill=b.fill))
    return draft.wrong(_with(scene, j, replace(b, color=a.color, lab=a.lab, fill=a.fill)))


def mirrored(draft: Draft, _rng: Generator) -> Picture | None:
    """The picture mirrored from side to side, or top to bottom where only that makes it wrong.

    Wrong is a place or a relation said that turns into its opposite; an offset that mirroring an outline
    moves a little is not.
    """
    for axis in (1, 0):
        turned = replace(
            draft.rule,
            objects=tuple(replace(o, position=_turned(o.position, axis)) for o in draft.rule.objects),
            relations=tuple((a, str(_turned(name, axis)), b) for a, name, b in draft.rule.relations),
        )
        if not meets(draft.scene, turned):  # the scene meets the turned words as its mirror image the given
            return np.flip(draft.draw(draft.scene), axis).copy()
    return None


def half_removed(draft: Draft, rng: Generator) -> Picture | None:
    """One object with 35 to 65 % of it painted over with background, cut along a straight line.

    A triangle loses a corner: cut off, a corner is a triangle again and no near miss.
    """
    i, obj = _any(draft.scene, rng)
    picture = draft.draw(draft.scene)
    empty = draft.draw(replace(draft.scene, objects=_without(draft.scene, i)))
    along = _along(draft.size, obj, _cut_angle(obj, rng))
    covered = np.abs(picture.astype(int) - empty).sum(axis=-1) > 0
    cut = np.quantile(along[covered], float(rng.uniform(0.35, 0.65)))
    return np.where((along > cut)[..., None], empty, picture)


def merged(draft: Draft, rng: Generator) -> Picture | None:
    """One object with another grown into it: of the scene if there is one, else a new one.

    Only where the two really overlap: a star in the mouth of a crescent is a picture of both.
    """
    i, obj = _any(draft.scene, rng)
    others = _without(draft.scene, i)
    if others:
        j = int(rng.integers(len(others)))
        other, rest = others[j], (*others[:j], *others[j + 1 :])
    else:
        shape = pick(rng, tuple(s for s in draft.world.shapes if s != obj.shape))
        other, rest = recolored(replace(obj, shape=shape), rng), ()
    angle, reach = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.8, 1.3)) * obj.radius
    x, y = obj.x + reach * np.cos(angle), obj.y + reach * np.sin(angle)
    x, y = (float(np.clip(v, 0.2, 0.8)) for v in (x, y))
    if np.hypot(x - obj.x, y - obj.y) > 1.4 * obj.radius:
        x, y = obj.x + 0.9 * obj.radius * np.sign(0.5 - obj.x), obj.y
    other = replace(other, x=x, y=y)
    one, two = (_covered(draft, replace(draft.scene, objects=(o,))) for o in (obj, other))
    if (one & two).sum() < _MIN_OVERLAP * min(one.sum(), two.sum()):
        return None
    return draft.draw(replace(draft.scene, objects=(*rest, obj, other)))


def _covered(draft: Draft, scene: Scene) -> NDArray[np.bool_]:
    """The pixels that the objects of a scene paint."""
    empty = draft.draw(replace(scene, objects=()))
    return np.abs(draft.draw(scene).astype(int) - empty).sum(axis=-1) > _PAINTED


def gradient(draft: Draft, rng: Generator) -> Picture | None:
    """One object's colour running into another's from side to side."""
    i, obj = _any(draft.scene, rng)
    others = [o for o in _without(draft.scene, i) if o.color != obj.color]
    other = others[int(rng.integers(len(others)))] if others else recolored(obj, rng)
    turned = replace(obj, color=other.color, lab=other.lab, fill=other.fill)
    picture, second = draft.draw(draft.scene), draft.draw(_with(draft.scene, i, turned))
    along = _along(draft.size, obj, float(rng.uniform(0, 2 * np.pi))) / obj.radius
    weight = np.clip(0.5 + along / 2.0, 0.0, 1.0)[..., None]
    return (picture * (1 - weight) + second * weight + 0.5).astype(np.uint8)


def wrong_letter(draft: Draft, rng: Generator) -> Picture | None:
    """A plate with one letter exchanged, left out or doubled."""
    plate = draft.scene.plates[0]
    i, how = int(rng.integers(len(plate.text))), int(rng.integers(3))
    other = pick(rng, tuple(c for c in LETTERS if c != plate.text[i]))
    middle = ("" if how == 1 and len(plate.text) > 2 else other) if how < 2 else plate.text[i] * 2
    text = (plate.text[:i] + middle + plate.text[i + 1 :])[:6]
    if text == plate.text:
        return None
    return draft.draw(replace(draft.scene, plates=(replace(plate, text=text),)))


def no_plate(draft: Draft, _rng: Generator) -> Picture | None:
    """The backdrop without the plate."""
    return draft.draw(replace(draft.scene, plates=()))


T2I_NEAR_MISSES: dict[str, Callable[[Draft, Generator], Picture | None]] = {
    "wrong colour": wrong_color,
    "wrong shape": wrong_shape,
    "extra object": extra_object,
    "missing object": missing_object,
    "swapped": swapped,
    "mirrored": mirrored,
    "half removed": half_removed,
    "merged": merged,
    "gradient": gradient,
}
TEXT_NEAR_MISSES: dict[str, Callable[[Draft, Generator], Picture | None]] = {
    "wrong letter": wrong_letter,
    "no plate": no_plate,
}


def recolored(obj: Object, rng: Generator) -> Object:
    """The object in another colour of the palette, its pattern likewise."""
    color = pick(rng, tuple(c for c in COLORS if c != obj.color))
    lab = sample_color(rng, color)
    fill = replace(obj.fill, lab=second_tone(rng, color, lab)) if obj.fill else None
    return replace(obj, color=color, lab=lab, fill=fill)


@dataclass(frozen=True)
class EditDraft:
    """What a wrong edit starts from: the edit, the side of the pictures in pixels, and who draws."""

    edit: Edit
    size: int
    hand: str = "clean"
    drawn: Drawn = field(default_factory=dict[int, tuple[Scene, Picture]], compare=False, repr=False)

    def draw(self, scene: Scene) -> Picture:
        """A scene's picture in this draft's manner, drawn once."""
        if id(scene) not in self.drawn:
            self.drawn[id(scene)] = (scene, render(scene, self.size, hand=self.hand).numpy())
        return self.drawn[id(scene)][1]

    def draw_together(self, scenes: Sequence[Scene]) -> None:
        """Draws several scenes at once, which takes less time; `draw` then finds them."""
        new = [scene for scene in scenes if id(scene) not in self.drawn]
        pictures = render_batch(new, self.size, hand=self.hand).numpy() if new else ()
        for scene, picture in zip(new, pictures, strict=True):
            self.drawn[id(scene)] = (scene, picture)


def nothing_done(draft: EditDraft, _rng: Generator) -> Picture | None:
    """The source, unchanged."""
    return draft.draw(draft.edit.source)


def ghost(draft: EditDraft, rng: Generator) -> Picture | None:
    """Source and target blended: the change is there only by 40 to 60 %."""
    weight = float(rng.uniform(0.4, 0.6))
    before, after = draft.draw(draft.edit.source), draft.draw(draft.edit.target)
    return (before * (1 - weight) + after * weight + 0.5).astype(np.uint8)


def half_done(draft: EditDraft, rng: Generator) -> Picture | None:
    """Source and target side by side inside the changed area: one half edited, the other not."""
    before, after = draft.draw(draft.edit.source), draft.draw(draft.edit.target)
    covered = np.abs(before.astype(int) - after).sum(axis=-1) > 0
    obj = changed_object(draft.edit)
    if obj is None or not covered.any():
        return None
    return halves(before, after, _along(draft.size, obj, _cut_angle(obj, rng)), covered, rng)


def halves(
    before: Picture, after: Picture, along: NDArray[np.float64], changed: NDArray[np.bool_], rng: Generator
) -> Picture:
    """`after` on one side of a line and `before` on the other, 35 to 65 % of the changed pixels on each.

    Shapes: pictures (H, W, 3); along, every pixel's place across the line, and changed (H, W).
    """
    cut = np.quantile(along[changed], float(rng.uniform(0.35, 0.65)))
    return np.where((along > cut)[..., None], before, after)


def wrong_value(draft: EditDraft, rng: Generator) -> Picture | None:
    """The edit with a wrong new colour; for a removal, the object recoloured instead."""
    edit, obj = draft.edit, changed_object(draft.edit)
    if obj is None:
        return None
    scene = edit.target if obj in edit.target.objects else edit.source
    taken = {o.color for o in (*edit.source.objects, *edit.target.objects)}
    new = recolored(obj, rng)
    while new.color in taken:
        new = recolored(obj, rng)
    return draft.draw(_swap(scene, obj, new))


def side_damage(draft: EditDraft, rng: Generator) -> Picture | None:
    """The edit is right, but another object changed its colour, or a new one appeared."""
    edit, obj = draft.edit, changed_object(draft.edit)
    others = [o for o in edit.target.objects if o is not obj]
    if obj is not None and others:
        victim = others[int(rng.integers(len(others)))]
        new = recolored(victim, rng)
        while new.color in {o.color for o in edit.target.objects}:
            new = recolored(victim, rng)
        return draft.draw(_swap(edit.target, victim, new))
    more = place_object(rng, edit.target, 3)
    return draft.draw(more) if more is not None else None


def with_stranger(scene: Scene, rng: Generator) -> Scene:
    """The scene with one creature, or else one gizmo, exchanged for another that differs in a single part."""
    if scene.creatures:
        old = scene.creatures[0]
        part = pick(rng, visible_parts(old.anatomy))
        new = replace(old, anatomy=near_miss(rng, old.anatomy, part))
        return replace(scene, creatures=(new, *scene.creatures[1:]))
    gizmo = near_miss_gizmo(rng, scene.gizmos[0], pick(rng, GIZMO_PARTS))
    return replace(scene, gizmos=(gizmo, *scene.gizmos[1:]))


def changed_object(edit: Edit) -> Object | None:
    """The object an edit is about, as in the target, or for a removal as in the source; None if no object
    is."""
    new = [o for o in edit.target.objects if o not in edit.source.objects]
    old = [o for o in edit.source.objects if o not in edit.target.objects]
    return new[0] if new else old[0] if old else None


def _any(scene: Scene, rng: Generator) -> tuple[int, Object]:
    i = int(rng.integers(len(scene.objects)))
    return i, scene.objects[i]


def _with(scene: Scene, index: int, obj: Object) -> Scene:
    return replace(scene, objects=(*scene.objects[:index], obj, *scene.objects[index + 1 :]))


def _without(scene: Scene, index: int) -> tuple[Object, ...]:
    return (*scene.objects[:index], *scene.objects[index + 1 :])


def _swap(scene: Scene, old: Object, new: Object) -> Scene:
    return replace(scene, objects=tuple(new if o is old else o for o in scene.objects))


def _turned(words: str | None, axis: int) -> str | None:
    """The words for a place or relation, as they are in a mirror across that axis."""
    pairs = (("left", "right"),) if axis == 1 else (("top", "bottom"), ("above", "below"))
    for one, other in pairs:
        if words and one in words:
            return words.replace(one, other)
        if words and other in words:
            return words.replace(other, one)
    return words


def _cut_angle(obj: Object, rng: Generator) -> float:
    """A direction to cut in: any, but for a triangle toward a corner (a corner is a triangle again)."""
    if obj.shape == "triangle":
        return obj.rotation + np.pi * (-0.5 + int(rng.integers(3)) * 2 / 3 + float(rng.uniform(-0.08, 0.08)))
    return float(rng.uniform(0, 2 * np.pi))


def _along(size: int, obj: Object, angle: float) -> NDArray[np.float64]:
    """Signed distance of every pixel from the object's middle along a direction, as a share of the side."""
    ys, xs = (np.mgrid[0:size, 0:size] + 0.5) / size
    return (xs - obj.x) * np.cos(angle) + (ys - obj.y) * np.sin(angle)
