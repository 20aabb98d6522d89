"""What fused blocks do between matrix products, token by token: norms, gates, rotation.

All arithmetic is float32 and is rounded once, at the end; written for few passes over memory and few calls.
An RMS norm over n channels, x / sqrt(mean(x^2) + eps) * weight, is computed as
x / hypot(length of x, sqrt(n * eps)) * (weight * sqrt(n)); callers pass the two constants.

Legend: S tokens, D width, A heads, H of them in use, H = K G, E head dim, P = E/2 rotated pairs, R rows of
weights (1 or S).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from og2.model.rope import Rotary


def norm_weight(weight: Tensor) -> Tensor:
    """The weight of an RMS norm over its last dimension, as wanted here: float32, times sqrt(n)."""
    return weight.detach().float() * math.sqrt(weight.shape[-1])


def norm_floor(num_channels: int, eps: float) -> Tensor:
    """The least length that an RMS norm divides by: sqrt(n * eps), float32."""
    return torch.tensor(math.sqrt(num_channels * eps), dtype=torch.float32)


def normed(x_SD: Tensor, weight_RD: Tensor, floor: Tensor) -> Tensor:
    """RMS norm times weight, in the dtype of x."""
    return _of_length_one(x_SD, floor).mul_(weight_RD).to(x_SD.dtype)


def plus_normed(x_SD: Tensor, y_SD: Tensor, weight_RD: Tensor, floor: Tensor) -> Tensor:
    """x + RMS norm of y times weight, in the dtype of x."""
    return torch.addcmul(x_SD, _of_length_one(y_SD, floor), weight_RD).to(x_SD.dtype)


def turned(x_SAE: Tensor, weight: Tensor, floor: Tensor, rotary: Rotary, outs: tuple[Tensor, ...]) -> None:
    """Heads normalised, times weight (E,) or (H, E), rotated, into `outs`: each takes the next (K, S, G, E).

    x may have more heads than they take.
    """
    counts = [len(out) * out.shape[2] for out in outs]
    heads = sum(counts)
    if x_SAE.dtype == torch.float32:  # lengths of all heads, which lie side by side, are found much faster
        heads_SHE = x_SAE[:, :heads] / _length(x_SAE, floor)[:, :heads]
    else:
        heads_SHE = _of_length_one(x_SAE[:, :heads], floor)
    pairs_SHP = torch.view_as_complex(heads_SHE.mul_(weight).unflatten(-1, (-1, 2)))
    pairs_SHP *= torch.complex(rotary.cos, rotary.sin)[:, None]
    for out_KSGE, next_SHE in zip(outs, heads_SHE.split(counts, dim=1), strict=True):
        out_KSGE.copy_(next_SHE.unflatten(1, (len(out_KSGE), -1)).transpose(0, 1))


def _of_length_one(x: Tensor, floor: Tensor) -> Tensor:
    """x over its length in the last dimension, float32, in new memory."""
    wide = x.float()  # once: an operation on two dtypes would widen x for itself, and slowly
    length = _length(wide, floor)
    return wide / length if wide is x else wide.div_(length)


def _length(x: Tensor, floor: Tensor) -> Tensor:
    return torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor)
