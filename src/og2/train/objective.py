"""The flow-matching objective: times, noisy latents, targets, and a loss weighted by tokens.

x_t = (1 - t) x_0 + t x_1 with x_0 noise and x_1 the picture's latents; the model predicts v = x_1 - x_0.
Time: t = 0 is noise, t = 1 the picture. Losses are taken in float32.

Legend: B samples, C channels, hw latent size.
Source: OmniGen2 (arXiv 2506.18871) and the official training configuration; shift of SD3 (arXiv 2403.03206).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from og2.model.blocks import fine
from og2.sampling.time import shift, shift_factor

V1_TOKENS = (256, 4096)
V1_MU = (0.5, 1.15)

Shift = Literal["none", "sampler", "v1"]


@dataclass(frozen=True)
class TimeConfig:
    """Density of training times: sigmoid of a normal draw, then a shift by the target's size.

    shift "sampler": the sampler's own (the official "v2"); "v1": the official default, linear in tokens;
    "none". num_tokens: patches of the target to take instead of the sample's own (the official static shift).
    """

    mean: float = 0.0
    std: float = 1.0
    shift: Shift = "sampler"
    num_tokens: int | None = None


def sample_times(config: TimeConfig, sizes: Sequence[tuple[int, int]], generator: torch.Generator) -> Tensor:
    """Training times (B,) for targets of these latent sizes (h, w)."""
    return times_from_normal(config, torch.randn(len(sizes), generator=generator), sizes)


def times_from_normal(config: TimeConfig, normal: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Times (B,) from standard-normal draws (B,); sizes are latent (h, w) of the targets."""
    t = torch.sigmoid(config.mean + config.std * normal.float())
    if config.shift == "none":
        return t
    patches = [config.num_tokens or (height // 2) * (width // 2) for height, width in sizes]
    strength = _v1_factor if config.shift == "v1" else _sampler_factor
    factors = torch.tensor([strength(count) for count in patches], dtype=torch.float32)
    return shift(t, factors)


def noisy(picture: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
    """x_t (C, h, w) of one sample."""
    return t * picture + (1 - t) * noise


def squared_errors(
    predicted: Sequence[Tensor], pictures: Sequence[Tensor], noises: Sequence[Tensor]
) -> Tensor:
    """The squared error of each sample, summed over its values, (B,).

    Divided by the number of values of the whole step it is the token-weighted loss: a large target weighs as
    much as its area. In float32, or in float64 where the prediction is.
    Shapes: lists of B tensors (C, h, w) of any sizes.
    """
    return torch.stack(
        [
            (fine(v) - (fine(x1) - fine(x0))).square().sum()
            for v, x1, x0 in zip(predicted, pictures, noises, strict=True)
        ]
    )


def time_bins(times: Sequence[float], num_bins: int = 10) -> list[int]:
    """The bin of each time in [0, 1]; bin 0 is nearest to noise."""
    return [min(num_bins - 1, int(t * num_bins)) for t in times]


def _v1_factor(patches: int) -> float:
    slope = (V1_MU[1] - V1_MU[0]) / (V1_TOKENS[1] - V1_TOKENS[0])
    return math.exp(V1_MU[0] + slope * (patches - V1_TOKENS[0]))


def _sampler_factor(patches: int) -> float:
    return shift_factor(4 * patches)
