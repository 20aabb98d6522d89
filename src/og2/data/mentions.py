"""What a word points at in the picture that is talked about: the one object of that shape or colour.

Its state is asked for all that is said of the object, so that looking it up is learned at every mention
instead of only where an answer depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from og2.conditioning.processor import Processor
from og2.data.sight import CellWords, word_indices
from og2.world.scenes import Object, Scene
from og2.world.spec import ALL_SHAPES, COLORS, FILLS, POSITIONS, SIZES

MENTION_WORDS = CellWords((tuple(ALL_SHAPES), tuple(COLORS), tuple(SIZES), tuple(FILLS), tuple(POSITIONS)))


def naming_tokens(processor: Processor) -> dict[int, str]:
    """The shapes and colours among the tokens."""
    texts = ((i, processor.tokenizer.decode([i]).strip().lower()) for i in range(len(processor.tokenizer)))
    return {i: text for i, text in texts if text in ALL_SHAPES or text in COLORS}


def mentions(ids: Sequence[int], scene: Scene, names: Mapping[int, str]) -> list[tuple[int, Tensor]]:
    """Places of tokens that mean one object of the scene, each with what is said of it, (kinds of word,).

    A shape right behind a colour means both.
    """
    found = []
    for place, name in ((place, names[i]) for place, i in enumerate(ids) if i in names):
        before = names.get(ids[place - 1]) if place else None
        said = {name, before} if name in ALL_SHAPES and before in COLORS else {name}
        meant = [o for o in scene.objects if said <= {o.shape, o.color}]
        if len(meant) == 1:
            found.append((place, _said_of(meant[0])))
    return found


def _said_of(thing: Object) -> Tensor:
    words = (thing.shape, thing.color, thing.size, thing.fill_name, thing.position)
    return word_indices(words, MENTION_WORDS)
