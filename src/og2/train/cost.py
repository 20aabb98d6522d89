"""Matrix FLOPs of training steps, each thing counted once, two per multiply-add.

Counted as the transformer computes them: the last layer asks only for target tokens, modulations are one row
per sample, attention sees one sequence at a time. A backward costs twice a forward; frozen weights need no
gradient of their own, but the gradient passes through them. What is recomputed for activation checkpointing
is not counted: it is how the step is done, not what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from og2.model.transformer import OmniGen2Transformer2DModel


@dataclass(frozen=True)
class Lengths:
    """One training sequence in tokens: its text, its references, its target."""

    text: int
    references: tuple[int, ...]
    target: int

    @property
    def total(self) -> int:
        """All tokens of the sequence."""
        return self.text + sum(self.references) + self.target


def forward_flops(
    model: OmniGen2Transformer2DModel, sequences: Sequence[Lengths], texts: Sequence[int] | None = None
) -> float:
    """FLOPs of one forward over these sequences; `texts`: lengths of texts refined, where some are shared."""
    config = model.config
    width, inner = config.hidden_size, model.layers[0].feed_forward.linear_1.out_features
    kv_width = config.num_kv_heads * width // config.num_attention_heads
    patch = config.patch_size**2 * config.in_channels
    conditioning = model.norm_out.linear_1.in_features
    asked, read = 4 * width * width + 6 * width * inner, 4 * width * kv_width

    def block(tokens: int) -> float:
        return tokens * (asked + read) + 4.0 * width * tokens * tokens

    total = 0.0
    for tokens in texts if texts is not None else [s.text for s in sequences]:
        total += 2.0 * config.text_feat_dim * width * tokens + config.num_refiner_layers * block(tokens)
    for s in sequences:
        for tokens in (*s.references, s.target):
            total += 2.0 * patch * width * tokens + config.num_refiner_layers * block(tokens)
        total += (config.num_layers - 1) * block(s.total)
        total += s.target * asked + s.total * read + 4.0 * width * s.target * s.total
        total += 2.0 * patch * width * s.target
        modulated = config.num_layers + config.num_refiner_layers * (2 if s.references else 1)
        total += 8.0 * conditioning * width * modulated + 2.0 * conditioning * (256 + conditioning + width)
    return total


def step_flops(forward: float, trains_all: bool = True) -> float:
    """FLOPs of a forward and its backward; without gradients of frozen weights the backward is half."""
    return forward * (3.0 if trains_all else 2.0)
