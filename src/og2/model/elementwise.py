"""What fused blocks do between matrix products, token by token: norms, gates, rotation.

All arithmetic is float32 and is rounded once, at the end; written for few passes over memory.

Legend: S tokens, D width, H heads, E head dim, P = E/2 rotated pairs, R rows of weights (1 or S).
"""

from __future__ import annotations

import torch
from torch import Tensor

from og2.model.blocks import QK_NORM_EPS


def normed(x_SD: Tensor, weight_RD: Tensor, eps: float) -> Tensor:
    """RMS norm times weight, in the dtype of x."""
    return (x_SD * _inverse_rms(x_SD, eps)).mul_(weight_RD).to(x_SD.dtype)


def plus_normed(x_SD: Tensor, y_SD: Tensor, weight_RD: Tensor, eps: float) -> Tensor:
    """x + RMS norm of y times weight, in the dtype of x."""
    return torch.addcmul(x_SD, y_SD * _inverse_rms(y_SD, eps), weight_RD).to(x_SD.dtype)


def turned(x: Tensor, weight_E: Tensor, cos_SP: Tensor, sin_SP: Tensor, out_HSE: Tensor) -> None:
    """Heads normalised, times weight, rotated, into `out`: (S, H * E) -> (H, S, E).

    The first halves of a head's channels form pairs with the second halves.
    """
    x_SHE = x.unflatten(-1, (-1, weight_E.shape[0]))
    x_SHE = (x_SHE * _inverse_rms(x_SHE, QK_NORM_EPS)).mul_(weight_E)
    even_SHP, odd_SHP = x_SHE.chunk(2, dim=-1)
    cos_S1P, sin_S1P = cos_SP[:, None], sin_SP[:, None]
    first_SHP, second_SHP = out_HSE.transpose(0, 1).chunk(2, dim=-1)
    first_SHP.copy_((even_SHP * cos_S1P).addcmul_(odd_SHP, sin_S1P, value=-1))
    second_SHP.copy_((even_SHP * sin_S1P).addcmul_(odd_SHP, cos_S1P))


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / root mean square of the last dimension, float32; shape (..., 1)."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
