"""Packs drawn from a pool of latents: one task, one text length and one number of references each, so that
attention runs as one batch.

What a pack holds follows from the generator it is drawn with, and from nothing else. Some packs lose their
text, half of these their references too: what guidance needs at sampling time is trained under the very
prompt (the empty one) that sampling uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from og2.data.latents import LatentPool, PoolConfig, items
from og2.data.packing import Pack, picture_tokens
from og2.errors import ConfigError
from og2.world.palette import COLORS, SHAPES

NO_TEXT = -1


@dataclass(frozen=True)
class PoolDataConfig:
    """What a step sees: samples per pack, shares of drawings with 1, 2, 3 objects, rates of dropping.

    drawings, edits, contexts (in-context requests): samples of each pack; 0 leaves it out.
    sample_targets: draw targets from the VAE's posterior instead of taking its mean (references are always
    drawn, as the pipeline does). The mini VAE leaves some channels unused, and drawing fills those with noise
    to learn.
    balance: when positive, a sample weighs 1 / (balance + its target's contrast), one on average. The latents
    of some colours are many times as large as those of others and would drown them in a squared error.
    emphasis: how many times as often a drawing is chosen that shows this shape or colour, such as
    {"star": 3}; of several the largest counts. Within a number of objects, so `drawing_shares` stay.
    """

    pool_folder: Path
    pool: PoolConfig = field(default_factory=PoolConfig)
    drawings: int = 40
    edits: int = 24
    contexts: int = 0
    drawing_shares: tuple[float, float, float] = (0.6, 0.25, 0.15)
    drop_text: float = 0.1
    drop_references: float = 0.5
    sample_targets: bool = False
    balance: float = 0.0
    emphasis: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"drawings": self.drawings, "edits": self.edits, "contexts": self.contexts}
        if min(counts.values()) < 0 or not any(counts.values()):
            asked = ", ".join(f"{name}={count}" for name, count in counts.items())
            raise ConfigError(f"data: {asked}; use 0 or more samples of each, and some of one")


class PoolPacks:
    """Draws packs from the pool; `patch_size` counts their tokens."""

    def __init__(self, pool: LatentPool, config: PoolDataConfig, patch_size: int = 2) -> None:
        self.pool, self.config, self.patch_size = pool, config, patch_size
        count = pool.num_drawings
        weights = _emphasised(config)
        shares = torch.tensor(config.drawing_shares)
        per_object = torch.bincount(pool.drawing_objects, weights, minlength=4)[1:].clamp(min=1e-9)
        weights = weights * (shares / per_object)[pool.drawing_objects - 1]
        self._drawings = _buckets(torch.arange(count), pool.lengths[:count], weights)
        self._edits = self._even(count, count + pool.num_edits)
        self._contexts = self._even(count + pool.num_edits, len(pool.lengths) - 1)
        for asked, buckets, source in (
            ("drawings", self._drawings, "num_drawings"),
            ("edits", self._edits, "num_edits"),
            ("contexts", self._contexts, "num_contexts"),
        ):
            if getattr(config, asked) and not buckets.members:
                raise ConfigError(
                    f"data.{asked}={getattr(config, asked)}, but the pool has none; set {source}"
                )
        self._weights = None
        if config.balance > 0:
            weights = 1.0 / (config.balance + pool.contrasts())
            self._weights = weights / weights.mean()

    def step(self, generator: Generator) -> list[Pack]:
        """A step's packs: one of each kind that has samples."""
        kinds = (
            (self.config.drawings, self.drawings),
            (self.config.edits, self.edits),
            (self.config.contexts, self.contexts),
        )
        return [draw(generator) for count, draw in kinds if count]

    def drawings(self, generator: Generator) -> Pack:
        """A pack of text-to-image samples."""
        chosen = _choose(self._drawings, self.config.drawings, generator)
        texts = self._texts(chosen, _chance(self.config.drop_text, generator))
        return self._pack("draw", chosen, texts, (), self._targets(chosen, generator))

    def edits(self, generator: Generator) -> Pack:
        """A pack of edits: text, one reference, target."""
        return self._with_references("edit", _choose(self._edits, self.config.edits, generator), generator)

    def contexts(self, generator: Generator) -> Pack:
        """A pack of in-context requests: text, references, target."""
        chosen = _choose(self._contexts, self.config.contexts, generator)
        return self._with_references("context", chosen, generator)

    def _even(self, first: int, end: int) -> _Buckets:
        """Buckets of these samples by text length and number of references, all equally likely."""
        both = torch.stack([self.pool.num_references[first:end], self.pool.lengths[first:end]])
        kinds = both.unique(dim=1, return_inverse=True)[1]
        return _buckets(torch.arange(first, end), kinds, torch.ones(end - first))

    def _with_references(self, task: str, chosen: list[int], generator: Generator) -> Pack:
        dropped = _chance(self.config.drop_text, generator)
        texts = self._texts(chosen, dropped)
        targets = self._targets(chosen, generator)
        if dropped and _chance(self.config.drop_references, generator):
            return self._pack(task, chosen, texts, (), targets)
        found = tuple(self.pool.references(i, generator) for i in chosen)
        return self._pack(task, chosen, texts, found, targets)

    def _pack(
        self,
        task: str,
        chosen: list[int],
        texts: tuple[Tensor, ...],
        given: tuple[tuple[Tensor, ...], ...],
        targets: tuple[Tensor, ...],
    ) -> Pack:
        """given: the references of every sample, all as many; () where none has any."""
        references = tuple(picture for own in given for picture in own)
        each = len(given[0]) if given else 0
        own = [tuple(range(k * each, (k + 1) * each)) for k in range(len(chosen))]
        sequences = tuple((k % len(texts), own[k], k) for k in range(len(chosen)))
        num_targets, num_references = (
            sum(picture_tokens(x, self.patch_size) for x in pictures) for pictures in (targets, references)
        )
        return Pack(
            texts=texts,
            references=references,
            targets=targets,
            sequences=sequences,
            ids=tuple(f"{self.pool.folder.name}:{index}" for index in chosen),
            tasks=(task,) * len(chosen),
            draws=tuple(chosen),
            num_tokens=len(texts[0]) * len(chosen) + num_references + num_targets,
            num_target_tokens=num_targets,
            weights=None if self._weights is None else self._weights[chosen],
        )

    def _targets(self, chosen: list[int], generator: Generator) -> tuple[Tensor, ...]:
        return tuple(self.pool.target(i, generator if self.config.sample_targets else None) for i in chosen)

    def _texts(self, chosen: list[int], dropped: bool) -> tuple[Tensor, ...]:
        return (self.pool.text(NO_TEXT),) if dropped else tuple(self.pool.text(i) for i in chosen)


def _emphasised(config: PoolDataConfig) -> Tensor:
    """How often each drawing is chosen among those of as many objects, before shares."""
    count = sum(config.pool.num_drawings)
    if not config.emphasis:
        return torch.ones(count)
    unknown = sorted(set(config.emphasis) - {*SHAPES, *COLORS})
    if unknown:
        raise ConfigError(
            f"data.emphasis: {', '.join(unknown)} is unknown; allowed: {', '.join((*SHAPES, *COLORS))}"
        )
    if min(config.emphasis.values()) <= 0:
        raise ConfigError(f"data.emphasis: {config.emphasis}; every number must be above 0")
    return torch.tensor(
        [
            max(config.emphasis.get(word, 1.0) for o in item.target.objects for word in (o.shape, o.color))
            for item in items(replace(config.pool, num_edits=0, num_contexts=0))
        ]
    )


@dataclass
class _Buckets:
    members: list[Tensor]
    weights: list[Tensor]
    odds: Tensor


def _buckets(indices: Tensor, kinds: Tensor, weights: Tensor) -> _Buckets:
    """One bucket of every kind, in the kinds' order."""
    masks = [kinds == kind for kind in kinds.unique()]
    return _Buckets(
        [indices[mask] for mask in masks],
        [weights[mask] for mask in masks],
        torch.tensor([weights[mask].sum() for mask in masks]),
    )


def _choose(buckets: _Buckets, count: int, generator: Generator) -> list[int]:
    which = int(torch.multinomial(buckets.odds, 1, generator=generator))
    picked = torch.multinomial(buckets.weights[which], count, replacement=True, generator=generator)
    return buckets.members[which][picked].tolist()


def _chance(probability: float, generator: Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability
