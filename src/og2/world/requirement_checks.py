"""Refuses requirements that no verdict can be given on. Part of the scorer: a wrong picture is no error, a
request that cannot be judged is one."""

from __future__ import annotations

from collections.abc import Iterable

from og2.errors import RequestError
from og2.world import palette
from og2.world.palette import POSE_WORDS
from og2.world.requirements import SIZE_RELATIONS, CreatureRequirement, EditRequirements, Requirements

# Of a creature or gizmo: a column, a row, or both; what is not named is free.
PLACES: tuple[str, ...] = (*palette.POSITIONS, "center")
# What a kind of edit cannot be judged without.
_NEEDED: dict[str, tuple[str, ...]] = {
    "recolour": ("subject", "color"),
    "add": ("subject",),
    "remove": ("subject",),
    "replace": ("subject", "shape"),
    "material": ("subject", "fill"),
    "resize": ("subject", "factor"),
    "motion": ("creature",),
    "retouch": ("creature",),
    "background": (),
    "style": ("style",),
    "tone": ("tone",),
    "text": ("old_text", "text"),
    "extract": (),
    "hybrid": ("parts",),
    "multi_turn": ("parts",),
}


def check_requirements(rule: Requirements, num_references: int) -> None:
    """Raises RequestError for more references than there are, and for words that cannot be judged."""
    used = [one.reference.picture for one in (*rule.creatures, *rule.gizmos) if one.reference is not None]
    used += [] if rule.scene_of is None else [rule.scene_of]
    needed = max(used, default=-1) + 1
    if needed > num_references:
        raise RequestError(
            f"{num_references} references came and the requirements need {needed}; hand in {needed} to "
            "`score_context`"
        )
    for creature in rule.creatures:
        _check_pose(creature)
    for one in (*rule.creatures, *rule.gizmos):
        if one.position is not None:
            _one_of("position", one.position, PLACES)
    subjects = len(rule.objects) + len(rule.creatures) + len(rule.gizmos) + len(rule.plates)
    for a, name, b in rule.relations:
        if not (0 <= a < subjects and 0 <= b < subjects):
            raise RequestError(f"relation ({a}, {name!r}, {b}) is about subjects 0 to {subjects - 1} only")
        both_objects = max(a, b) < len(rule.objects)
        # Creatures, gizmos and plates have no size in words.
        _one_of("relation", name, (*palette.RELATIONS, *(SIZE_RELATIONS if both_objects else ())))


def check_edit(rule: EditRequirements) -> None:
    """Raises RequestError for an unknown kind, a field it needs that is not set, or an unknown word."""
    _one_of("kind", rule.kind, _NEEDED)
    missing = [name for name in _NEEDED[rule.kind] if not getattr(rule, name)]
    if missing:
        raise RequestError(f"an edit of kind {rule.kind!r} came without {', '.join(missing)}; set them")
    if rule.kind == "background" and rule.background is None and rule.backdrop is None:
        raise RequestError("an edit of kind 'background' came without background and backdrop; set one")
    if rule.kind == "extract" and rule.subject is None and rule.creature is None:
        raise RequestError("an edit of kind 'extract' came without subject and creature; set one")
    for name, value, allowed in (
        ("tone", rule.tone, palette.TONES),
        ("style", rule.style, palette.STYLES),
        ("color", rule.color, palette.COLORS),
        ("relation", rule.relation, palette.RELATIONS),
    ):
        if value is not None:
            _one_of(name, value, allowed)
    if rule.creature is not None:
        _check_pose(rule.creature)
        if rule.kind == "motion" and all(getattr(rule.creature, word) is None for word in POSE_WORDS):
            raise RequestError(f"motion came without a word of the pose; set one of {', '.join(POSE_WORDS)}")
    for part in rule.parts:
        check_edit(part)


def _check_pose(creature: CreatureRequirement) -> None:
    for word, allowed in POSE_WORDS.items():
        value = getattr(creature, word)
        if value is not None:
            _one_of(word, value, allowed)


def _one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in tuple(allowed):
        raise RequestError(f"{name}={value!r} cannot be judged here; use one of {', '.join(allowed)}")
