"""Samples of any size and task, put together until a pack holds its budget of tokens.

A packer takes items one after another and gives a pack when it is full. An item that does not fit waits in a
small buffer for the next pack, so that one large picture does not close a pack early. Its whole state between
packs is the list of waiting draw numbers. Packs hold plain tensors and tuples; what a sequence is to the
transformer is for the caller to say (attention is block-diagonal there).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from og2.errors import ConfigError, DataError


@dataclass(frozen=True)
class PackingConfig:
    """`budget`: tokens of a pack (text, references and targets together); `waiting`: items that may wait."""

    budget: int = 9216
    waiting: int = 8


@dataclass(frozen=True)
class Answer:
    """A text-output row, ready for the language model: predict `input_ids` where `said` is true.

    Shapes: input_ids (T,), said (T,) bool; pixel_values, image_grid_thw and mm_token_type_ids (1, T) as the
    language model takes them, None where the row has no picture (or the library does not know the last).
    """

    input_ids: Tensor
    said: Tensor
    pixel_values: Tensor | None = None
    image_grid_thw: Tensor | None = None
    mm_token_type_ids: Tensor | None = None


@dataclass(frozen=True)
class Item:
    """One sample, encoded: text features (L, F), latents (C, h, w) of references and target; or an answer.

    `text_key` is equal for items whose text features are equal (dropped prompts), so that a pack holds them
    once.
    """

    draw: int
    id: str
    task: str
    text: Tensor | None = None
    text_key: str = ""
    references: tuple[Tensor, ...] = ()
    target: Tensor | None = None
    answer: Answer | None = None

    def num_tokens(self, patch_size: int) -> int:
        """Tokens it takes in a pack."""
        if self.answer is not None:
            return len(self.answer.input_ids)
        assert self.text is not None
        assert self.target is not None
        return len(self.text) + sum(picture_tokens(x, patch_size) for x in (*self.references, self.target))


@dataclass(frozen=True)
class Pack:
    """Samples that go through the transformer together.

    Shapes: texts (L, F), references and targets (C, h, w), scaled latents, references drawn from their
    posterior. `sequences`: per target (index of its text, indices of its references, index of the target);
    texts may be shared. `ids`, `tasks`, `draws` are one per target, in order; noise and time of a sample
    should follow from its draw number, so that they do not depend on the pack. `answers` are for the language
    model, with `answer_ids` and `answer_tasks`; a pack of a mixture without pictures has no targets.
    `weights` (targets,) multiply the errors of the samples; None is one each.
    """

    texts: tuple[Tensor, ...]
    references: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    sequences: tuple[tuple[int, tuple[int, ...], int], ...]
    ids: tuple[str, ...]
    tasks: tuple[str, ...]
    draws: tuple[int, ...]
    answers: tuple[Answer, ...] = ()
    answer_ids: tuple[str, ...] = ()
    answer_tasks: tuple[str, ...] = ()
    num_tokens: int = 0
    num_target_tokens: int = 0
    weights: Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Pack:
        """The pack elsewhere; `dtype` is that of texts, references and targets."""
        moved = {
            name: tuple(x.to(device, dtype) for x in getattr(self, name))
            for name in ("texts", "references", "targets")
        }
        answers = tuple(
            Answer(*(None if x is None else x.to(device) for x in vars(answer).values()))
            for answer in self.answers
        )
        weights = None if self.weights is None else self.weights.to(device)
        return type(self)(**{**vars(self), **moved, "answers": answers, "weights": weights})


class Packer:
    """Takes items in order and gives packs; the same items always give the same packs.

    `patch_size`: the model's; latents by it are tokens.
    """

    def __init__(self, config: PackingConfig, patch_size: int = 2) -> None:
        if config.budget < 1 or config.waiting < 0:
            raise ConfigError(f"{config}: budget starts at 1, waiting at 0")
        self.config, self.patch_size = config, patch_size
        self._open: list[Item] = []
        self._filled = 0
        self._waiting: list[Item] = []

    @property
    def waiting(self) -> tuple[int, ...]:
        """Draw numbers of the items that are in no pack yet; between packs, the whole state."""
        return tuple(item.draw for item in (*self._open, *self._waiting))

    def add(self, item: Item) -> Pack | None:
        """Take the next item; the finished pack when one is full, else None.

        Raises: DataError for an item that is larger than the whole budget.
        """
        size = item.num_tokens(self.patch_size)
        if size > self.config.budget:
            raise too_large(item.id, size, self.config.budget)
        if self._take(item, size):
            return None
        self._waiting.append(item)
        if len(self._waiting) <= self.config.waiting:
            return None
        pack = make_pack(self._open, self.patch_size)
        held, self._open, self._filled, self._waiting = self._waiting, [], 0, []
        for old in held:
            if not self._take(old, old.num_tokens(self.patch_size)):
                self._waiting.append(old)
        return pack

    def _take(self, item: Item, size: int) -> bool:
        if self._filled + size > self.config.budget:
            return False
        self._open.append(item)
        self._filled += size
        return True


def make_pack(items: Iterable[Item], patch_size: int = 2) -> Pack:
    """The pack of these items, in order; equal texts are held once."""
    items = list(items)
    pictures = [item for item in items if item.answer is None]
    answered = [item for item in items if item.answer is not None]
    texts: dict[str, tuple[int, Tensor]] = {}
    references: list[Tensor] = []
    targets: list[Tensor] = []
    sequences = []
    for item in pictures:
        assert item.text is not None
        assert item.target is not None
        own = tuple(range(len(references), len(references) + len(item.references)))
        references += item.references
        text = texts.setdefault(item.text_key or f"draw {item.draw}", (len(texts), item.text))
        sequences.append((text[0], own, len(targets)))
        targets.append(item.target)
    return Pack(
        texts=tuple(text for _, text in texts.values()),
        references=tuple(references),
        targets=tuple(targets),
        sequences=tuple(sequences),
        ids=tuple(item.id for item in pictures),
        tasks=tuple(item.task for item in pictures),
        draws=tuple(item.draw for item in pictures),
        answers=tuple(item.answer for item in answered if item.answer is not None),
        answer_ids=tuple(item.id for item in answered),
        answer_tasks=tuple(item.task for item in answered),
        num_tokens=sum(item.num_tokens(patch_size) for item in items),
        num_target_tokens=sum(picture_tokens(x, patch_size) for x in targets),
    )


def too_large(row_id: str, size: int, budget: int) -> DataError:
    """What is wrong with a row of more tokens than a pack may have."""
    return DataError(
        f"{row_id} has {size} tokens, the budget of a pack is {budget}; raise budget, or lower max_pixels or "
        "input_pixels"
    )


def picture_tokens(latents: Tensor, patch_size: int = 2) -> int:
    """Tokens of one picture's latents (C, h, w)."""
    return (latents.shape[-2] // patch_size) * (latents.shape[-1] // patch_size)
