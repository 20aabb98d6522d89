"""Edits of plates and of whole pictures, judged from what is seen before and after: text, tone, extract.

Part of the scorer. A tone is an affine change of all colours in a direction that its name says; what is left
after that change is undone must be the source.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from og2.world.measures import Aspect, affine_between, overlap, rate
from og2.world.object_edits import Found, Scenario
from og2.world.pixels import BoolArray, FloatArray, dilate, distance
from og2.world.requirements import EditRequirements
from og2.world.subjects import Sight

_WHITE_L, _WHITE_CHROMA = 94.0, 7.0
_MIN_WHITE = 0.98
_MIN_SAME = 0.90
_MIN_SAME_PICTURE = 0.98  # after a change of tone: the smallest object covers 3 % of a picture
_SAME_DE = 10.0
_MIN_OVERLAP = 0.85


def judge_picture_edit(scenario: Scenario, rule: EditRequirements, before: Sight, after: Sight) -> Found:
    """Aspects and region of such an edit; before and after: everything seen in both pictures."""
    found = Found(region=np.zeros(scenario.old.shape[:2], dtype=bool))
    if rule.kind != "text":
        found.everywhere = True
    _JUDGES[rule.kind](scenario, rule, (before, after), found)
    return found


def _text(_: Scenario, rule: EditRequirements, sights: tuple[Sight, Sight], found: Found) -> None:
    before, after = sights
    old = [plate for plate in before.plates if plate.text.value == rule.old_text]
    if len(old) != 1:
        found.unclear_source = f"the source shows {len(old)} plates with {rule.old_text}, not one"
        return
    near = min(
        after.plates,
        key=lambda p: abs(p.center[0] - old[0].center[0]) + abs(p.center[1] - old[0].center[1]),
        default=None,
    )
    shape = found.region.shape
    found.region = _at_size(old[0].mask, shape) | (_at_size(near.mask, shape) if near else found.region)
    said = None if near is None else near.text.value
    why = "there is no plate" if near is None else near.text.reason
    met = said == rule.text
    reason = "" if met else f"the plate says {said}, not {rule.text} {why}".rstrip()
    found.aspects.append(Aspect("text", 10.0 if met else 5.0 if near and said is None else 0.0, met, reason))
    counts = [(len(s.objects), len(s.creatures), len(s.gizmos), len(s.plates)) for s in sights]
    same = counts[0] == counts[1]
    reason = "" if same else f"there were {sum(counts[0])} things and are {sum(counts[1])}"
    found.aspects.append(Aspect("nothing else", 10.0 if same else 0.0, same, reason))


def _tone(scenario: Scenario, rule: EditRequirements, _: tuple[Sight, Sight], found: Found) -> None:
    old, new = scenario.old.reshape(-1, 3), scenario.new.reshape(-1, 3)
    shift = np.median(new, axis=0) - np.median(old, axis=0)
    spread = [float(new[:, i].std() / max(float(old[:, i].std()), 0.5)) for i in range(3)]
    chroma = float(
        np.hypot(new[:, 1], new[:, 2]).std() / max(float(np.hypot(old[:, 1], old[:, 2]).std()), 0.5)
    )
    amount = _AMOUNTS[str(rule.tone)](shift, spread[0], chroma)
    met = amount >= 1.0
    reason = "" if met else f"the picture did not become {rule.tone} ({amount:.2f} of what is needed)"
    found.aspects.append(
        Aspect("tone", float(np.interp(amount, (0.2, 1.0, 1.5), (0.0, 7.0, 10.0))), met, reason)
    )
    change = affine_between(old[::4], new[::4])
    rest = float((distance(old @ change[:3] + change[3], new) <= _SAME_DE).mean())
    same = rest >= _MIN_SAME_PICTURE
    reason = "" if same else f"only {rest:.3f} of the picture is the source in other colours"
    found.aspects.append(Aspect("same picture", rate("preservation", rest), same, reason))


# What a tone's name asks of the colours, as a share of the least change that deserves it: shift of the median
# (L, a, b), ratio of the spreads of lightness and of chroma.
_AMOUNTS: dict[str, Callable[[FloatArray, float, float], float]] = {
    "night": lambda shift, _light, _chroma: min(-float(shift[0]) / 14.0, -float(shift[2]) / 4.0),
    "warm": lambda shift, _light, _chroma: min(float(shift[2]) / 9.0, 2.0 - abs(float(shift[0])) / 8.0),
    "cool": lambda shift, _light, _chroma: min(-float(shift[2]) / 9.0, 2.0 - abs(float(shift[0])) / 8.0),
    "high contrast": lambda _shift, light, _chroma: (light - 1.0) / 0.18,
    "faded": lambda _shift, light, chroma: min((1.0 - light) / 0.25, (1.0 - chroma) / 0.25),
}


def _extract(scenario: Scenario, rule: EditRequirements, sights: tuple[Sight, Sight], found: Found) -> None:
    mask = _subject_mask(rule, sights[0], found)
    if mask is None:
        return
    mask = _at_size(mask, found.region.shape)
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
    same = kept >= _MIN_SAME
    reason = "" if same else f"only {kept:.2f} of it was kept"
    found.aspects.append(Aspect("kept", rate("preservation", kept), same, reason))


def _subject_mask(rule: EditRequirements, before: Sight, found: Found) -> BoolArray | None:
    if rule.creature is not None:
        if len(before.creatures) != 1:
            found.unclear_source = f"the source shows {len(before.creatures)} creatures, not one"
            return None
        return before.creatures[0].mask
    wanted = rule.subject
    named = [o for o in before.objects if wanted and (o.shape, o.color) == (wanted.shape, wanted.color)]
    if len(named) != 1:
        found.unclear_source = f"the source shows {len(named)} of what is to be kept, not one"
        return None
    return named[0].mask


def _at_size(mask: BoolArray, shape: tuple[int, ...]) -> BoolArray:
    """The mask at another resolution, nearest pixels."""
    rows = (np.arange(shape[0]) * mask.shape[0]) // shape[0]
    columns = (np.arange(shape[1]) * mask.shape[1]) // shape[1]
    return mask[rows][:, columns]


_JUDGES: dict[str, Callable[[Scenario, EditRequirements, tuple[Sight, Sight], Found], None]] = {
    "text": _text,
    "tone": _tone,
    "extract": _extract,
}
PICTURE_KINDS: tuple[str, ...] = tuple(_JUDGES)


def quality_of(kind: str, found: Found, after: Sight) -> float:
    """PQ of such an edit: the share of what is in front that is a legal thing, times 10.

    After a change of tone no colour is legal; there it is what was left the same picture.
    """
    if kind == "tone":
        return min((aspect.score for aspect in found.aspects if aspect.name == "same picture"), default=0.0)
    if after.view is None or after.reason:
        return 0.0
    in_front = float(after.view.mask.sum())
    legal = [o.mask for o in after.objects if None not in (o.shape, o.color, o.fill)]
    legal += [thing.mask for thing in (*after.creatures, *after.gizmos, *after.plates)]
    covered = sum(float((mask & after.view.mask).sum()) for mask in legal)
    return 10.0 if in_front == 0 else 10.0 * min(1.0, covered / in_front)
