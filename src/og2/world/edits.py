"""Edits: a scene, an instruction, and the scene that obeys it with everything else left exactly as it was.

The fifteen kinds are the union of what ImgEdit and GEdit ask for (arXiv 2505.20275, 2504.17761).
"""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

from og2.errors import RequestError
from og2.world.choose import pick
from og2.world.edit_words import Edit
from og2.world.edits_combined import make_hybrid, make_multi_turn
from og2.world.edits_objects import (
    make_add,
    make_material,
    make_recolour,
    make_remove,
    make_replace,
    make_resize,
)
from og2.world.edits_pictures import (
    make_background,
    make_extract,
    make_motion,
    make_retouch,
    make_style,
    make_text,
    make_tone,
)
from og2.world.scenes import World, world_named
from og2.world.split import check_split

EDIT_KINDS = ("recolour", "add", "remove")  # of the plain world
_MAKERS: dict[str, Callable[[Generator, str, World], Edit | None]] = {
    "recolour": make_recolour,
    "add": make_add,
    "remove": make_remove,
    "replace": make_replace,
    "material": make_material,
    "resize": make_resize,
    "motion": make_motion,
    "retouch": make_retouch,
    "background": make_background,
    "style": make_style,
    "tone": make_tone,
    "text": make_text,
    "extract": make_extract,
    "hybrid": make_hybrid,
    "multi_turn": make_multi_turn,
}
ALL_EDIT_KINDS: tuple[str, ...] = tuple(_MAKERS)


def edit_kinds(world: str) -> tuple[str, ...]:
    """The kinds of edits of a world.   Raises: RequestError for an unknown world."""
    return EDIT_KINDS if world_named(world).name == "plain" else ALL_EDIT_KINDS


def sample_edit(
    rng: Generator, kinds: tuple[str, ...] | None = None, split: str = "train", world: str = "plain"
) -> Edit:
    """A random edit of one of the kinds; None = all of that world.

    The changed object keeps its numbers (a recolour only its colour differs), all else is identical. The
    phrase that names the object fits exactly one object of the source. split "train": every tuple before
    and after is a training tuple; "test": the changed object's tuple (recolour: the new one), creature or
    word is held out (hybrid, multi_turn: a tuple of the source).
    Raises: RequestError for an unknown kind, split or world.
    """
    allowed = edit_kinds(world)
    kinds = allowed if kinds is None else kinds
    unknown = [k for k in kinds if k not in allowed]
    if unknown or not kinds:
        raise RequestError(f"edit kinds {kinds!r}: allowed in the {world} world are {', '.join(allowed)}")
    check_split(split)
    kind, level = pick(rng, kinds), world_named(world)
    while True:
        edit = _MAKERS[kind](rng, split, level)
        if edit is not None:
            return edit
