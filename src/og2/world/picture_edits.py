"""Edits of plates and of whole pictures, judged from what is seen before and after: text, tone, extract.

Part of the scorer; it also names the judges of creatures and styles. A tone is an affine change of all
colours in a direction and by an amount that its name says; what is left after that change is undone must be
the source. The source is the benchmark's own picture: where a thing in it cannot be read, its place is
enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from og2.world.background import View, beyond_backdrops
from og2.world.creature_edits import judge_motion, judge_retouch
from og2.world.detect import Detected, box_of
from og2.world.measures import (
    MAX_TRACE,
    Aspect,
    affine_between,
    at_size,
    largest_spot,
    outer_sides,
    overlap,
    rate,
    shows_through,
    trace,
    two_levels,
)
from og2.world.object_edits import Found, Scenario, match_others
from og2.world.palette import lab_to_srgb, srgb_to_lab
from og2.world.pixels import BoolArray, FloatArray, dilate, distance, erode, quantile
from og2.world.plates import SeenPlate, two_inks
from og2.world.requirements import EditRequirements
from og2.world.same_creatures import judge_cut_out_creatures
from og2.world.style_edits import judge_style
from og2.world.subjects import Sight

_WHITE_L, _WHITE_CHROMA = 94.0, 7.0
_MIN_WHITE = 0.98
_MIN_SAME = 0.90
_MIN_SAME_CREATURE = 0.85  # gaps between its parts become white; its spots are judged by themselves
_MIN_SAME_PICTURE = 0.98  # after a change of tone: the smallest object covers 3 % of a picture
_SAME_DE = 10.0
_MAX_SPOT = 0.0006  # of a picture that is otherwise in one place: 10 px at 128 px; right: 0
_MIN_SPREAD = 0.4  # of the source's colours, or the picture was painted over; faded ones keep 0.5 of it
_MAX_UNEVEN = 1.5  # dE that one side of a picture may differ from the change of the whole; right: 0.7
_MIN_UNCLIPPED = 0.4  # of a picture, to be measured without its clipped colours
_MIN_OVERLAP = 0.85
_MAX_SHOWN_THROUGH = 0.14  # of the old letters
_MAX_BOARD_STEP, _MIN_BOARD = 6.0, 0.3  # dE between two parts of a board; of such a part, among lines
_MIN_PLACE_PX = 8
_LETTER_EDGE_PX, _LINE_PX = 1.5, 1.0
_MAX_PLATE_MOVED = 0.12  # of its height; right: 0.03
_MAX_PLATE_SCALE = 0.11  # of ln height; right: 0.05, among lines 0.10
_MAX_INK_DE, _RIM_PX, _RIM_LINE_PX = 10.0, 1.0, 2.5
_MIN_ON_A_SIDE = 0.7  # of what a tone needs
_STANDS_OUT_DE, _MIN_RICH_PX, _MIN_CHANGE_DE = 5.0, 100, 3.0
_MIN_CHANGE_SHARE = 0.25  # of the mean change of all things
_SLOPES = tuple(float(s) for s in np.arange(0.4, 2.01, 0.04))


def judge_picture_edit(scenario: Scenario, rule: EditRequirements, before: Sight, after: Sight) -> Found:
    """Aspects and region of such an edit; before and after: everything seen in both pictures."""
    found = Found(region=np.zeros(scenario.old.shape[:2], dtype=bool))
    found.everywhere = rule.kind in (*WHOLE_PICTURE_KINDS, "extract")
    _JUDGES[rule.kind](scenario, rule, (before, after), found)
    return found


def _text(_: Scenario, rule: EditRequirements, sights: tuple[Sight, Sight], found: Found) -> None:
    before, after = sights
    mask = _old_plate(before, str(rule.old_text))
    if mask is None or before.view is None:
        found.unclear_source = f"the source shows {len(before.plates)} plates, none that says {rule.old_text}"
        return
    shape = found.region.shape
    found.region = at_size(mask, shape)
    near = max(after.plates, key=lambda p: overlap(p.mask, mask), default=None) if after.view else None
    said = None if near is None else near.text.value
    why = "there is no plate" if near is None else near.text.reason
    met = said == rule.text
    reason = "" if met else f"the plate says {said}, not {rule.text} {why}".rstrip()
    found.aspects.append(Aspect("text", 10.0 if met else 5.0 if near and said is None else 0.0, met, reason))
    if near is None or after.view is None:
        return
    found.region = found.region | at_size(near.mask, shape)
    views = (before.view, after.view)
    left, lost = match_others(_but(before, mask), list(after.objects), views)
    same = not left and not lost and len(after.plates) == 1 and not (after.creatures or after.gizmos)
    reason = "" if same else f"{len(lost)} things are lost or changed, {len(left)} are new"
    found.aspects.append(Aspect("nothing else", 10.0 if same else 0.0, same, reason))
    _same_plate(found, views, mask, near)
    _clear_plate(found, views, mask, near)


def _same_plate(found: Found, views: tuple[View, View], mask: BoolArray, near: SeenPlate) -> None:
    """Whether it is the old plate but for its word: its middle, its height, and the colours of board and
    letters. Its width goes with the word."""
    old, new = box_of(mask), box_of(near.mask)
    heights = old[3] - old[1], new[3] - new[1]
    away = math.hypot(*((old[i] + old[i + 2] - new[i] - new[i + 2]) / 2 for i in (0, 1))) / heights[0]
    scale = abs(math.log(heights[1] / heights[0]))
    inner = [erode(m, _RIM_LINE_PX if near.has_line else _RIM_PX) for m in (mask, near.mask)]
    values = [
        view.lab[m if m.any() else whole]
        for view, m, whole in zip(views, inner, (mask, near.mask), strict=True)
    ]
    (was, old_ink), (board, ink) = (two_inks(lab) for lab in values)
    # Among lines the middle colour may be no board's: where enough has the old one, it is the same.
    off = min(float(distance(was, board)), quantile(distance(values[1], was), _MIN_BOARD))
    worst = max(off, float(distance(old_ink, ink)))
    met = away <= _MAX_PLATE_MOVED and scale <= _MAX_PLATE_SCALE and worst <= _MAX_INK_DE
    said = f"moved by {away:.2f} of its height, {math.exp(scale):.2f} times as high, {worst:.0f} dE off"
    found.aspects.append(
        Aspect("same plate", 10.0 if met else 4.0, met, "" if met else f"another plate ({said})")
    )


def _clear_plate(found: Found, views: tuple[View, View], mask: BoolArray, near: SeenPlate) -> None:
    """Whether nothing of the old plate is left, and the new one is as solid where there was none."""
    line = _LINE_PX if near.has_line else 0.0  # along the rim, before and after: it is no letter
    left = _old_letters(views[0].lab, views[1].lab, erode(mask & near.mask, 1.0 + line))
    place = mask & ~dilate(near.mask, 2.5)
    was = np.median(views[0].lab[mask], axis=0)
    rest = trace(views, place, was) if place.sum() >= _MIN_PLACE_PX else 0.0
    parts = (erode(near.mask, 1.5) & ~dilate(mask, 1.5), erode(near.mask & mask, 1.5))
    off = 0.0
    if min(part.sum() for part in parts) >= 3 * _MIN_PLACE_PX:
        fresh, board = (np.median(views[1].lab[part], axis=0) for part in parts)
        off = float(distance(fresh, board))
        if near.has_line:  # along a rim letters and line may be more than board
            off = min(off, quantile(distance(views[1].lab[parts[0]], board), _MIN_BOARD))
    clear = left <= _MAX_SHOWN_THROUGH and rest <= MAX_TRACE and off <= _MAX_BOARD_STEP
    said = f"{left:.2f} of its letters, {rest:.1f} dE beside it, the new board {off:.1f} dE off"
    reason = "" if clear else f"the old plate shows through ({said})"
    found.aspects.append(Aspect("clear", 10.0 if clear else 5.0, clear, reason))


def _old_plate(before: Sight, text: str) -> BoolArray | None:
    """The plate of the source that said it; the only one if it cannot be read, or the only nameless thing."""
    said = [plate for plate in before.plates if plate.text.value == text]
    unread = [plate for plate in before.plates if plate.text.value is None]
    for plates in (said, unread):
        if len(plates) == 1:
            return plates[0].mask
    nameless = [] if before.plates else [thing for thing in before.objects if thing.shape is None]
    return nameless[0].mask if len(nameless) == 1 else None


def _but(before: Sight, mask: BoolArray) -> list[Detected]:
    return [thing for thing in before.objects if overlap(thing.mask, mask) < 0.5]


def _old_letters(old: FloatArray, new: FloatArray, inside: BoolArray) -> float:
    """How much of the old letters is left: on the board clear of the new letters, whose soft edges agree with
    those of an old one at the same place; where little is clear of them, on all of it."""
    if inside.sum() < 30:
        return 0.0
    board = np.median(old[inside], axis=0)
    away = distance(old, board)
    toward = np.median(old[inside & (away >= np.quantile(away[inside], 0.93))], axis=0) - board
    if not toward.any():  # no letters stand out
        return 0.0
    was, now = ((lab - board) @ toward / float(toward @ toward) for lab in (old, new))
    is_ink = np.zeros_like(inside)
    is_ink[inside], _ = two_levels(now[inside])
    clear = inside & ~dilate(is_ink, _LETTER_EDGE_PX)
    if float(was[clear].clip(0.0).sum()) < _MIN_PLACE_PX:
        return shows_through(was[inside], now[inside], has_levels=True)
    return shows_through(was[clear], now[clear], has_levels=False)


def _tone(scenario: Scenario, rule: EditRequirements, _: tuple[Sight, Sight], found: Found) -> None:
    old, new = scenario.old.reshape(-1, 3), scenario.new.reshape(-1, 3)
    amount = _AMOUNTS[str(rule.tone)](old, new)
    if amount >= 1.0 and not _on_every_side(str(rule.tone), scenario):
        amount = 0.6
    met = amount >= 1.0
    reason = "" if met else f"the picture did not become {rule.tone} ({amount:.2f} of what is needed)"
    score = float(np.interp(amount, (0.2, 1.0, 1.25), (0.0, 7.0, 10.0)))
    found.aspects.append(Aspect("tone", score, met, reason))
    fitted = ~_is_clipped(new)
    fitted = fitted if fitted.mean() > _MIN_UNCLIPPED else np.ones_like(fitted)
    change = affine_between(old[fitted][::3], new[fitted][::3])
    expected = srgb_to_lab(np.clip(lab_to_srgb(old @ change[:3] + change[3]), 0.0, 1.0))
    rest = float((distance(expected, new) <= _SAME_DE).mean())
    off = (new - expected).reshape(scenario.old.shape)
    sides = outer_sides(np.ones(off.shape[:2], dtype=bool))
    uneven = max(float(np.linalg.norm(off[side].mean(axis=0))) for side in sides)
    if _spread(new) < _MIN_SPREAD * _spread(old):  # one colour for all fits any picture
        rest = 0.0
    spot = largest_spot(distance(off, np.zeros(3)) > _SAME_DE) / off[..., 0].size
    same = rest >= _MIN_SAME_PICTURE and uneven <= _MAX_UNEVEN and spot <= _MAX_SPOT
    said = f"only {rest:.3f} of it is the source in other colours, one side {uneven:.1f} dE off"
    reason = "" if same else f"{said}, one spot of {spot:.4f} is otherwise"
    score = rate("preservation", rest)
    score = score if spot <= _MAX_SPOT else min(score, 4.0)
    found.aspects.append(Aspect("same picture", score, same, reason))


def _spread(lab: FloatArray) -> float:
    """How far colours lie from their mean (dE, root of the mean square).   Shapes: (N, 3)."""
    return float(np.sqrt(lab.var(axis=0).sum()))


def _is_clipped(lab: FloatArray) -> BoolArray:
    """Which colours have a channel of sRGB at its end.   Shapes: (N, 3) -> (N,)."""
    shown = lab_to_srgb(lab)
    return (shown.min(axis=1) < 0.006) | (shown.max(axis=1) > 0.994)


def _shift(old: FloatArray, new: FloatArray, channel: int) -> float:
    """The usual change of a channel, pixel by pixel: of sky and ground no single middle stands for both."""
    return float(np.median(new[:, channel] - old[:, channel]))


def _night(old: FloatArray, new: FloatArray) -> float:
    """Less than seven tenths as light, and bluer."""
    lost = 1.0 - float(np.median(new[:, 0])) / max(float(np.median(old[:, 0])), 1.0)
    return min(lost / 0.31, -_shift(old, new, 2) / 4.0)


def _warm(old: FloatArray, new: FloatArray) -> float:
    return min(_shift(old, new, 2) / 12.8, 2.0 - abs(_shift(old, new, 0)) / 8.0)


def _cool(old: FloatArray, new: FloatArray) -> float:
    return min(-_shift(old, new, 2) / 12.8, 2.0 - abs(_shift(old, new, 0)) / 8.0)


def _contrast(old: FloatArray, new: FloatArray) -> float:
    """Steps of lightness a third larger, apart from what runs into black or white.

    A strong colour that has no room left changes its lightness otherwise: it does not count.
    """
    was, now = old[::3, 0], new[::3, 0]
    inside = ~_is_clipped(new[::3])
    if inside.mean() >= _MIN_UNCLIPPED:
        was, now = was[inside], now[inside]
    middles = float(np.median(was)), float(np.median(now))
    errors = [
        float(np.abs(np.clip(middles[1] + s * (was - middles[0]), 0.0, 100.0) - now).mean()) for s in _SLOPES
    ]
    fitting = [s for s, error in zip(_SLOPES, errors, strict=True) if error <= min(errors) + 0.05]
    return (max(fitting) - 1.0) / 0.37


def _faded(old: FloatArray, new: FloatArray) -> float:
    """Steps of lightness and chroma by more than a third smaller."""
    chroma = [max(float(np.hypot(lab[:, 1], lab[:, 2]).std()), 0.5) for lab in (old, new)]
    light = float(new[:, 0].std()) / max(float(old[:, 0].std()), 0.5)
    bright = 2.0 + _shift(old, new, 0) / 8.0
    return min(
        bright, (1.0 - light) / 0.36, (1.0 - chroma[1] / chroma[0]) / 0.38 if chroma[0] > 1.0 else np.inf
    )


# What a tone's name asks of the colours, as a share of the least change that deserves it.
_AMOUNTS: dict[str, Callable[[FloatArray, FloatArray], float]] = {
    "night": _night,
    "warm": _warm,
    "cool": _cool,
    "high contrast": _contrast,
    "faded": _faded,
}


def _on_every_side(tone: str, scenario: Scenario) -> bool:
    """Whether each side of the picture took part, as far as what it shows can tell.

    Things must have changed; a backdrop near a tone's fixed point need not.
    """
    rich = (beyond_backdrops(scenario.old) > _STANDS_OUT_DE) & (scenario.old[..., 0] < _WHITE_L)
    change = distance(scenario.old, scenario.new)
    if rich.sum() >= _MIN_RICH_PX:
        least = max(_MIN_CHANGE_DE, _MIN_CHANGE_SHARE * float(change[rich].mean()))
        if min(float(change[side].mean()) for side in outer_sides(rich)) < least:
            return False
    for side in outer_sides(np.ones(rich.shape, dtype=bool), directions=8):
        old, new = scenario.old[side], scenario.new[side]
        if tone in ("night", "warm", "cool") and _AMOUNTS[tone](old, new) < _MIN_ON_A_SIDE:
            return False
    return True


def _extract(scenario: Scenario, rule: EditRequirements, sights: tuple[Sight, Sight], found: Found) -> None:
    mask = _subject_mask(rule, sights[0], found)
    if mask is None:
        return
    mask = at_size(mask, found.region.shape)
    lab = scenario.new
    white = (lab[..., 0] > _WHITE_L) & (np.hypot(lab[..., 1], lab[..., 2]) < _WHITE_CHROMA)
    outside = ~dilate(mask, 3.0)
    share = float(white[outside].mean()) if outside.any() else 0.0
    met = share >= _MIN_WHITE
    reason = "" if met else f"only {share:.2f} of the rest is white"
    score = float(np.interp(share, (0.5, 0.98, 1.0), (0.0, 7.0, 10.0)))
    found.aspects.append(Aspect("white", score, met, reason))
    inside = float((distance(scenario.old, lab)[mask] <= _SAME_DE).mean())
    covered = overlap(mask, dilate(~white, 0.0) & dilate(mask, 6.0))
    kept = min(inside, 1.0 if covered >= _MIN_OVERLAP else covered)
    same = kept >= (_MIN_SAME if rule.creature is None else _MIN_SAME_CREATURE)
    reason = "" if same else f"only {kept:.2f} of it was kept"
    found.aspects.append(Aspect("kept", rate("preservation", kept), same, reason))
    if rule.creature is not None:
        judge_cut_out_creatures(*sights, white, found)


def _subject_mask(rule: EditRequirements, before: Sight, found: Found) -> BoolArray | None:
    if rule.creature is not None:
        nameless = [thing for thing in before.objects if thing.shape is None]
        subjects = before.creatures or nameless
        if len(subjects) != 1:
            found.unclear_source = f"the source shows {len(subjects)} creatures, not one"
            return None
        return subjects[0].mask
    wanted = rule.subject
    named = [o for o in before.objects if wanted and (o.shape, o.color) == (wanted.shape, wanted.color)]
    if len(named) != 1:
        found.unclear_source = f"the source shows {len(named)} of what is to be kept, not one"
        return None
    return named[0].mask


_JUDGES: dict[str, Callable[[Scenario, EditRequirements, tuple[Sight, Sight], Found], None]] = {
    "text": _text,
    "tone": _tone,
    "extract": _extract,
    "motion": judge_motion,
    "retouch": judge_retouch,
    "style": judge_style,
}
PICTURE_KINDS: tuple[str, ...] = tuple(_JUDGES)
WHOLE_PICTURE_KINDS: tuple[str, ...] = ("tone", "style")


def quality_of(kind: str, found: Found, after: Sight) -> float:
    """PQ of such an edit: the share of what is in front that is a legal thing, times 10.

    After a change of tone or manner no colour is legal; there it is what was left the same picture.
    """
    if kind in WHOLE_PICTURE_KINDS:
        return min((aspect.score for aspect in found.aspects if aspect.name == "same picture"), default=0.0)
    if after.view is None or after.reason:
        return 0.0
    in_front = float(after.view.mask.sum())
    legal = [o.mask for o in after.objects if None not in (o.shape, o.color, o.fill)]
    legal += [thing.mask for thing in (*after.creatures, *after.gizmos, *after.plates)]
    covered = sum(float((mask & after.view.mask).sum()) for mask in legal)
    return 10.0 if in_front == 0 else 10.0 * min(1.0, covered / in_front)
