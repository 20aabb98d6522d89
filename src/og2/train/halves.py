"""What a block does before and after attention, for training on a CPU without a compiler.

The same numbers as the block's own halves up to rounding, with gradients written out. Norm weights and the
time's factors are multiplied first, one row per time. The arithmetic is float32 (float64 stays), rounded
once, and goes through a few tokens at a time, which stay in the cache. The backward computes norms again
instead of reading what the forward kept.

Legend: as in `blocks`; r tokens of one run, P = E/2 rotated pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

from og2.model.blocks import (
    QK_NORM_EPS,
    Heads,
    ModulatedNorm,
    Modulation,
    OmniGen2TransformerBlock,
    fine,
)
from og2.model.rope import Rotary

RUN_VALUES = 1 << 18
"""Values that go through together: what the cache of one core holds a few times over, in float32."""


def quicken_blocks(transformer: nn.Module) -> None:
    """Give every block these halves, in place; parameters and their names stay."""
    for block in transformer.modules():
        if isinstance(block, OmniGen2TransformerBlock):
            vars(block)["before"] = partial(before, block)
            vars(block)["after"] = partial(after, block)


def before(
    block: OmniGen2TransformerBlock,
    x_SD: Tensor,
    modulation: Modulation | None,
    time_rows_S: Tensor,
    rotaries: tuple[Rotary, Rotary],
    asking_tokens: Tensor | None,
) -> Heads:
    """As `OmniGen2TransformerBlock.before`."""
    first = block.norm1.norm if isinstance(block.norm1, ModulatedNorm) else block.norm1
    factor = None if modulation is None else modulation.scale_attn
    normed_SD = normed(x_SD, _weight(first, factor), time_rows_S, block.config.norm_eps)
    asking_ND = normed_SD if asking_tokens is None else normed_SD.index_select(0, asking_tokens)
    attn = block.attn
    q_NHE = attn.to_q(asking_ND).unflatten(-1, (-1, attn.head_dim))
    k_SKE, v_SKE = (to(normed_SD).unflatten(-1, (-1, attn.head_dim)) for to in (attn.to_k, attn.to_v))
    k_SKE = turned(k_SKE, attn.norm_k.weight, rotaries[0])
    return turned(q_NHE, attn.norm_q.weight, rotaries[1]), k_SKE, v_SKE


def after(
    block: OmniGen2TransformerBlock,
    x_SD: Tensor,
    attended_NHE: Tensor,
    modulation: Modulation | None,
    time_rows_N: Tensor,
    asking_tokens: Tensor | None,
) -> Tensor:
    """As `OmniGen2TransformerBlock.after`."""
    eps = block.config.norm_eps
    gates = (None, None) if modulation is None else (modulation.gate_attn, modulation.gate_mlp)
    scale = None if modulation is None else modulation.scale_mlp
    x_ND = x_SD if asking_tokens is None else x_SD.index_select(0, asking_tokens)
    attended_ND = block.attn.output(attended_NHE)
    x_ND = normed(attended_ND, _weight(block.norm2, gates[0]), time_rows_N, eps, x_ND)
    scaled_ND = normed(x_ND, _weight(block.ffn_norm1, scale), time_rows_N, eps)
    inner_ND = block.feed_forward(scaled_ND)
    return normed(inner_ND, _weight(block.ffn_norm2, gates[1]), time_rows_N, eps, x_ND)


def normed(
    x_SD: Tensor, weight_RD: Tensor, rows_S: Tensor, eps: float, onto_SD: Tensor | None = None
) -> Tensor:
    """RMS norm of x times its row of weights, added `onto` a tensor of that shape if there is one.

    rows: (S,) the weights' row of each token; without effect where there is one for all. The result has the
    dtype of `onto`; without one that of matrix products.
    """
    dtype = _product_dtype(x_SD) if onto_SD is None else onto_SD.dtype
    return cast(Tensor, _Normed.apply(x_SD, weight_RD, rows_S, onto_SD, eps, dtype))


def turned(x_SHE: Tensor, weight_E: Tensor, rotary: Rotary) -> Tensor:
    """Queries or keys, normed and turned by their tokens' angles, in the dtype of matrix products."""
    turn_SP = torch.complex(rotary.cos, rotary.sin)
    return cast(Tensor, _Turned.apply(x_SHE, weight_E, turn_SP, _product_dtype(x_SHE)))


def _weight(norm: nn.RMSNorm, factor_RD: Tensor | None) -> Tensor:
    return norm.weight[None] if factor_RD is None else norm.weight * factor_RD


def _product_dtype(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class _Normed(Function):
    @staticmethod
    def forward(  # noqa: PLR0913  what autograd hands on
        ctx: Any,
        x_SD: Tensor,
        weight_RD: Tensor,
        rows_S: Tensor,
        onto_SD: Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x_SD, weight_RD, rows_S)
        ctx.eps = eps
        weight_RD = fine(weight_RD)
        out_SD = x_SD.new_empty(x_SD.shape, dtype=dtype)
        for run in _runs(x_SD):
            unit_rD = _unit(x_SD[run], eps)[0].mul_(_own(weight_RD, rows_S[run]))
            out_SD[run] = unit_rD if onto_SD is None else unit_rD.add_(onto_SD[run])
        return out_SD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_SD, weight_RD, rows_S = ctx.saved_tensors
        dx_SD, weight = torch.empty_like(x_SD), fine(weight_RD)
        dweight_RD = torch.zeros_like(weight)
        is_own_RS = (torch.arange(len(weight))[:, None] == rows_S).to(weight.dtype)
        for run in _runs(x_SD):
            unit_rD, inverse_r1 = _unit(x_SD[run], ctx.eps)
            grad_rD = fine(grads[0][run])
            if len(weight) > 1:
                dweight_RD.addmm_(is_own_RS[:, run], grad_rD * unit_rD)
            else:
                dweight_RD += (grad_rD * unit_rD).sum(0)
            dx_SD[run] = _through_unit(grad_rD * _own(weight, rows_S[run]), unit_rD, inverse_r1)
        onto = grads[0] if ctx.needs_input_grad[3] else None
        return dx_SD, dweight_RD.to(weight_RD.dtype), None, onto, None, None


class _Turned(Function):
    @staticmethod
    def forward(ctx: Any, x_SHE: Tensor, weight_E: Tensor, turn_SP: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x_SHE, weight_E, turn_SP)
        weight_E = fine(weight_E)
        out_SHE = x_SHE.new_empty(x_SHE.shape, dtype=dtype)
        for run in _runs(x_SHE):
            unit_rHE = _unit(x_SHE[run], QK_NORM_EPS)[0].mul_(weight_E)
            out_SHE[run] = _rotated(unit_rHE, turn_SP[run])
        return out_SHE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_SHE, weight_E, turn_SP = ctx.saved_tensors
        dx_SHE, weight = torch.empty_like(x_SHE), fine(weight_E)
        dweight_E, back_SP = torch.zeros_like(weight), turn_SP.conj().resolve_conj()
        for run in _runs(x_SHE):
            unit_rHE, inverse_rH1 = _unit(x_SHE[run], QK_NORM_EPS)
            grad_rHE = _rotated(grads[0][run].to(weight.dtype, copy=True), back_SP[run])
            dweight_E += (grad_rHE * unit_rHE).sum((0, 1))
            dx_SHE[run] = _through_unit(grad_rHE.mul_(weight), unit_rHE, inverse_rH1)
        return dx_SHE, dweight_E.to(weight_E.dtype), None, None


def _unit(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x over the root of its mean square in the last dimension, in new memory; and one over that root."""
    wide = fine(x)
    mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    inverse = mean_square.add_(eps).rsqrt_()
    return wide * inverse if wide is x else wide.mul_(inverse), inverse


def _through_unit(grad: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of `_unit`'s x, in the memory of that of its result."""
    along = (grad * unit).mean(-1, keepdim=True)
    return grad.addcmul_(unit, along, value=-1).mul_(inverse)


def _rotated(x_rHE: Tensor, turn_rP: Tensor) -> Tensor:
    """Pairs of channels turned, in place where they lie side by side."""
    x_rHE = x_rHE.contiguous()
    pairs = torch.view_as_complex(x_rHE.unflatten(-1, (-1, 2)))
    pairs *= turn_rP[:, None]
    return x_rHE


def _own(weight_RD: Tensor, rows_r: Tensor) -> Tensor:
    return weight_RD if len(weight_RD) == 1 else weight_RD.index_select(0, rows_r)


def _runs(x: Tensor) -> Iterator[slice]:
    size = max(1, RUN_VALUES * torch.get_num_threads() // x[:1].numel()) if len(x) else 1
    return (slice(start, start + size) for start in range(0, len(x), size))
