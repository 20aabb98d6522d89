"""Attention over packed sequences: every segment of tokens sees itself and nothing else.

No mask and no padding: a segment is a run of rows, and rows of other segments are never read for it, so what
they hold (even NaN) cannot matter.

Legend: S packed key tokens, N packed query tokens, H query heads, K key/value heads, E head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def packed_attention(
    q_NHE: Tensor,
    k_SKE: Tensor,
    v_SKE: Tensor,
    query_lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
) -> Tensor:
    """Attention of each segment's queries to the same segment's keys; softmax scale E ** -0.5.

    Shapes: (N, H, E), (S, K, E), (S, K, E) -> (N, H, E); lengths add up to N and S; query head h reads
    key/value head h // (H / K).
    """
    if len(set(query_lengths)) == 1 and len(set(key_lengths)) == 1:
        return _attend(q_NHE, k_SKE, v_SKE, num_segments=len(query_lengths))
    segments = zip(
        q_NHE.split(query_lengths), k_SKE.split(key_lengths), v_SKE.split(key_lengths), strict=True
    )
    return torch.cat([_attend(q, k, v, num_segments=1) for q, k, v in segments])


def _attend(q_NHE: Tensor, k_SKE: Tensor, v_SKE: Tensor, num_segments: int) -> Tensor:
    """Queries of all heads that read one key/value head become rows of one product: keys are not repeated."""
    shared = k_SKE.shape[1]
    q = q_NHE.unflatten(1, (shared, -1)).unflatten(0, (num_segments, -1)).transpose(1, 2)
    group = q.shape[3]
    k, v = (x.unflatten(0, (num_segments, -1)).transpose(1, 2) for x in (k_SKE, v_SKE))
    is_learning = torch.is_grad_enabled() and q.requires_grad and q.device.type == "cpu"
    attend = _by_products if is_learning else functional.scaled_dot_product_attention
    out = attend(q.flatten(2, 3), k, v)
    return out.unflatten(2, (-1, group)).transpose(1, 2).flatten(2, 3).flatten(0, 1).contiguous()


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by two products and a softmax, whose backward is faster than that of a CPU's fused kernel.

    Shapes: (segments, K, n, E), (segments, K, m, E), (segments, K, m, E) -> (segments, K, n, E).
    """
    rows, keys, values = (x.flatten(0, 1) for x in (q, k, v))
    nothing = rows.new_empty(())
    scores = torch.baddbmm(nothing, rows, keys.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), values).unflatten(0, q.shape[:2])
