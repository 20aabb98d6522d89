"""Edits that are almost right, for all fifteen kinds: what `near_miss` has for objects, and for all others.

A wrong picture of each kind imitates what a model really does: nothing, another value, one half, a faint
change, the right change to another subject, and damage beside it. Pure in the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from og2.evals.near_miss import (
    EditDraft,
    Picture,
    changed_object,
    ghost,
    halves,
    nothing_done,
    with_stranger,
)
from og2.evals.near_miss import half_done as half_of_object
from og2.evals.near_miss import side_damage as damage_beside
from og2.evals.near_miss import wrong_value as wrong_color
from og2.world.backdrop_words import same_name
from og2.world.casting import place_plate
from og2.world.choose import pick
from og2.world.creatures import EYE_GAP, with_pose
from og2.world.fills import sample_fill
from og2.world.glyphs import LETTERS
from og2.world.palette import COLORS, FILLS, POSE_WORDS, STYLES, TONES
from og2.world.props import ink_on
from og2.world.scenes import Scene, empty_scene, place_object, world_named

_TRIES = 20
_SEEN = 24  # sum over the channels of a change that is seen
_SEEN_SHARE = 0.008  # of the picture; an outline of the smallest object covers 1 %
_OF_CREATURES = ("motion", "retouch", "background", "extract")
_IN_HALVES = ("motion", "retouch", "style", "tone", "text", "background", "extract")


def wrong_value(draft: EditDraft, rng: Generator) -> Picture | None:
    """Another value than was asked for: colour, word of the pose, size of the eyes, style, tone, letter."""
    make = _WRONG.get(draft.edit.kind)
    if make is None:
        return wrong_color(draft, rng)
    scene = make(draft, rng)
    return None if scene is None else draft.draw(scene)


def half_done(draft: EditDraft, rng: Generator) -> Picture | None:
    """Source and target side by side: 35 to 65 % of what changes is edited, the rest not."""
    if draft.edit.kind not in _IN_HALVES:
        return half_of_object(draft, rng)
    before, after = draft.draw(draft.edit.source), draft.draw(draft.edit.target)
    step = np.abs(before.astype(int) - after).sum(axis=-1)
    # Tones, styles and backdrops move some colours by next to nothing: what they move visibly is cut in two.
    changed = step > (0.35 * step.max() if draft.edit.kind in ("tone", "style", "background") else 0)
    if not changed.any():
        return None
    angle = float(rng.uniform(0, 2 * np.pi))
    ys, xs = np.mgrid[0 : changed.shape[0], 0 : changed.shape[1]]
    return halves(before, after, xs * np.cos(angle) + ys * np.sin(angle), changed, rng)


def side_damage(draft: EditDraft, rng: Generator) -> Picture | None:
    """The edit is right, but something else changed or is new; beside what was cut out nothing white, in
    another manner nothing that is hardly to be seen (a yellow thing on cream in sepia)."""
    if draft.edit.kind == "style":
        return _damage_seen(draft, rng)
    if draft.edit.kind != "extract":
        return damage_beside(draft, rng)
    while (more := place_object(rng, draft.edit.target, 3)) is not None:
        if more.objects[-1].color != "white":
            return draft.draw(more)
    return None


def _damage_seen(draft: EditDraft, rng: Generator) -> Picture | None:
    right = draft.draw(draft.edit.target).astype(int)
    for _ in range(_TRIES):
        picture = damage_beside(draft, rng)
        if picture is None:
            return None
        step = np.abs(picture - right).sum(axis=-1)
        if float((step >= _SEEN).mean()) >= _SEEN_SHARE:
            return picture
    return None


def another_subject(draft: EditDraft, rng: Generator) -> Picture | None:
    """The right pose, retouch, backdrop or cut-out, but of a creature that differs in one part."""
    if draft.edit.kind not in _OF_CREATURES or not draft.edit.target.creatures:
        return None
    target = draft.edit.target
    stranger = with_stranger(target, rng)
    old, new = target.creatures[0].anatomy, stranger.creatures[0].anatomy
    hidden = {"spot_size"} if old.spot_count == 0 else set()
    if replace(new, **{name: getattr(old, name) for name in hidden}) == old:
        return None
    return draft.draw(stranger)


def another_pose(draft: EditDraft, rng: Generator) -> Picture | None:
    """The right backdrop, tone or cut-out, but the creature takes another pose in one word."""
    if draft.edit.kind not in ("background", "tone", "extract") or not draft.edit.target.creatures:
        return None
    creature = draft.edit.target.creatures[0]
    word = pick(rng, tuple(POSE_WORDS))
    value = pick(rng, tuple(v for v in POSE_WORDS[word] if v != getattr(creature.pose, word)))
    return draft.draw(replace(draft.edit.target, creatures=(with_pose(rng, creature, {word: value}),)))


def wrong_fill(draft: EditDraft, rng: Generator) -> Picture | None:
    """The right size, but also another fill; no near miss but of resize."""
    obj = changed_object(draft.edit)
    if draft.edit.kind != "resize" or obj is None:
        return None
    kind = pick(rng, tuple(f for f in FILLS if f != obj.fill_name))
    new = replace(obj, fill=sample_fill(rng, kind, obj.color, obj.lab))
    others = tuple(new if o is obj else o for o in draft.edit.target.objects)
    return draft.draw(replace(draft.edit.target, objects=others))


def plate_moved(draft: EditDraft, rng: Generator) -> Picture | None:
    """The right word on a plate that stands elsewhere, or is a fifth smaller; no near miss but of text."""
    if draft.edit.kind != "text":
        return None
    target = draft.edit.target
    plate = target.plates[0]
    if rng.random() < 0.3:
        return draft.draw(replace(target, plates=(replace(plate, cell=0.8 * plate.cell),)))
    moved = place_plate(rng, replace(target, plates=draft.edit.source.plates), plate.text)
    if moved is None:
        return None
    new = moved.plates[-1]
    return draft.draw(replace(target, plates=(replace(plate, x=new.x, y=new.y, cell=new.cell),)))


def plate_recolored(draft: EditDraft, rng: Generator) -> Picture | None:
    """The right word on a board, or in letters, of another colour; no near miss but of text."""
    if draft.edit.kind != "text":
        return None
    plate = draft.edit.target.plates[0]
    others = [
        lab
        for lab in COLORS.values()
        if min(math.dist(lab, old) for old in (plate.lab, plate.ink_lab)) > 40.0
    ]
    lab = others[int(rng.integers(len(others)))]
    new = replace(plate, ink_lab=lab) if rng.random() < 0.3 else replace(plate, lab=lab, ink_lab=ink_on(lab))
    return draft.draw(replace(draft.edit.target, plates=(new,)))


def _wrong_pose(draft: EditDraft, rng: Generator) -> Scene:
    """The word asked for gets another value, or a second word changes with it."""
    rule, target = draft.edit.requirements.creature, draft.edit.target
    word = next(w for w in POSE_WORDS if getattr(rule, w) is not None)
    if rng.random() < 0.5 or word == "mouth":
        word = pick(rng, tuple(w for w in POSE_WORDS if w != word))
    now = getattr(target.creatures[0].pose, word)
    value = pick(rng, tuple(v for v in POSE_WORDS[word] if v != now))
    return replace(target, creatures=(with_pose(rng, target.creatures[0], {word: value}),))


def _wrong_retouch(draft: EditDraft, rng: Generator) -> Scene | None:
    """One or two spots are left, or the eyes went the other way."""
    before, after = draft.edit.source.creatures[0], draft.edit.target.creatures[0]
    old, new = before.anatomy, after.anatomy
    if old.spot_count != new.spot_count:
        if old.spot_count < 2:
            return None
        changed = replace(new, spot_count=1 + int(rng.integers(min(2, old.spot_count - 1))))
    else:
        size = old.eye_size * float(np.sqrt(old.eye_size / new.eye_size))
        apart = max(old.eye_separation, 2.0 * size + EYE_GAP)
        changed = replace(old, eye_size=size, eye_separation=apart)
    return replace(draft.edit.target, creatures=(replace(after, anatomy=changed),))


def _wrong_style(draft: EditDraft, rng: Generator) -> Scene:
    target = draft.edit.target
    return replace(target, style=pick(rng, tuple(s for s in STYLES if s != target.style)))


def _wrong_tone(draft: EditDraft, rng: Generator) -> Scene:
    target = draft.edit.target
    return replace(target, tone=pick(rng, tuple(t for t in TONES if t != target.tone)))


def _wrong_letter(draft: EditDraft, rng: Generator) -> Scene:
    plate = draft.edit.target.plates[0]
    i = int(rng.integers(len(plate.text)))
    letter = pick(rng, tuple(c for c in LETTERS if c != plate.text[i]))
    return replace(
        draft.edit.target, plates=(replace(plate, text=plate.text[:i] + letter + plate.text[i + 1 :]),)
    )


def _wrong_backdrop(draft: EditDraft, rng: Generator) -> Scene:
    target, source = draft.edit.target, draft.edit.source
    known = [s.background for s in (target, source)]
    while True:
        new = empty_scene(rng, world_named("full"))
        if not any(same_name(new.background, name) for name in known):
            return replace(
                target, background=new.background, background_lab=new.background_lab, backdrop=new.backdrop
            )


def _wrong_extract(draft: EditDraft, rng: Generator) -> Scene | None:
    """Another thing of the source cut out; None where there is only one."""
    target, source = draft.edit.target, draft.edit.source
    others = [o for o in source.objects if o not in target.objects]
    if not others:
        return None
    return replace(target, objects=(others[int(rng.integers(len(others)))],), creatures=())


_WRONG: dict[str, Callable[[EditDraft, Generator], Scene | None]] = {
    "motion": _wrong_pose,
    "retouch": _wrong_retouch,
    "style": _wrong_style,
    "tone": _wrong_tone,
    "text": _wrong_letter,
    "background": _wrong_backdrop,
    "extract": _wrong_extract,
}
EDIT_NEAR_MISSES: dict[str, Callable[[EditDraft, Generator], Picture | None]] = {
    "nothing done": nothing_done,
    "wrong value": wrong_value,
    "half done": half_done,
    "ghost": ghost,
    "side damage": side_damage,
    "another subject": another_subject,
    "another pose": another_pose,
    "wrong fill": wrong_fill,
    "plate moved": plate_moved,
    "plate recoloured": plate_recolored,
}
MIXTURES = ("half done", "ghost")  # kinds that are source and target, pixel by pixel in shares


def mixed_again(mixture: Picture, ends: Sequence[Picture], others: Sequence[Picture]) -> Picture:
    """The same mixture of two other pictures.

    mixture: of the two `ends`; its share of the second is found for every pixel, 1 where they are alike.
    Shapes: all (H, W, 3).
    """
    first, second, mixed = (p.astype(np.float64) for p in (*ends, mixture))
    step = second - first
    length = (step**2).sum(axis=-1, keepdims=True)
    share = ((mixed - first) * step).sum(axis=-1, keepdims=True) / np.maximum(length, 1.0)
    share = np.clip(np.where(length > 0.0, share, 1.0), 0.0, 1.0)
    return (others[0] * (1.0 - share) + others[1] * share + 0.5).astype(np.uint8)
