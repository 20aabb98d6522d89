"""The layers of the transformer: norms, attention, feed-forward, blocks, embeddings, output head.

All of them work on packed tokens (S, D); which tokens belong together is told by `Segments`. Module names are
those of the published checkpoint.

Roundings in half precision follow the official implementation: norms over the width multiply by their weight
in float32 and round once, norms of queries and keys round before they multiply, silu is taken in float32.

Legend: S packed tokens, N tokens that ask (queries), D width, H heads, K key/value heads, E head dim,
c conditioning width, R rows of the modulation (one per time, or one in all).
Source: OmniGen2 (arXiv 2506.18871), after Lumina-Image 2.0 (arXiv 2503.21758).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from og2.model.attention import packed_attention
from og2.model.offload import brings_weights
from og2.model.packing import Segments
from og2.model.rope import Rotary, rotate

QK_NORM_EPS = 1e-5
NUM_TIME_FREQUENCIES = 128
MAX_CONDITIONING_WIDTH = 1024
Heads: TypeAlias = "tuple[Tensor, Tensor, Tensor]"
"""Queries (N, H, E), keys and values (S, K, E)."""


@dataclass(frozen=True)
class Modulation:
    """What the time says to one block: four (R, D) factors, ready to multiply with.

    R is 1, or the number of times in the pack; then `Segments.time_rows` says which row is whose.
    """

    scale_attn: Tensor
    gate_attn: Tensor
    scale_mlp: Tensor
    gate_mlp: Tensor

    def per_token(self, time_rows_S: Tensor) -> Modulation:
        """The same with one row per token; unchanged if one row serves all."""
        factors = (self.scale_attn, self.gate_attn, self.scale_mlp, self.gate_mlp)
        return Modulation(*(of_tokens(factor, time_rows_S) for factor in factors))

    def rows(self, rows: slice) -> Modulation:
        """Some tokens' rows; unchanged if one row serves all."""
        if self.scale_attn.shape[0] == 1:
            return self
        return Modulation(
            self.scale_attn[rows], self.gate_attn[rows], self.scale_mlp[rows], self.gate_mlp[rows]
        )


def of_tokens(factor_RD: Tensor, time_rows_S: Tensor) -> Tensor:
    """A factor with one row per token; unchanged if one row serves all."""
    return factor_RD if factor_RD.shape[0] == 1 else factor_RD.index_select(0, time_rows_S)


class HeadNorm(nn.Module):
    """RMS norm over the channels of each head, for queries and keys."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x_SHE: Tensor) -> Tensor:
        """Normalised heads; shapes (S, H, E) -> same."""
        mean_square = fine(x_SHE).square().mean(-1, keepdim=True)
        normed = x_SHE * torch.rsqrt(mean_square + QK_NORM_EPS)
        return normed.to(self.weight.dtype) * self.weight


class Attention(nn.Module):
    """Projections of self-attention, with grouped key/value heads, q/k norms and Omni-RoPE."""

    def __init__(self, width: int, num_heads: int, num_kv_heads: int) -> None:
        super().__init__()
        self.head_dim = width // num_heads
        kv_width = num_kv_heads * self.head_dim
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, kv_width, bias=False)
        self.to_v = nn.Linear(width, kv_width, bias=False)
        self.norm_q = HeadNorm(self.head_dim)
        self.norm_k = HeadNorm(self.head_dim)
        self.to_out = nn.ModuleList([nn.Linear(width, width, bias=False)])

    def heads(self, x_SD: Tensor, asking_ND: Tensor, rotaries: tuple[Rotary, Rotary]) -> Heads:
        """Queries (N, H, E) of the asking tokens, keys and values (S, K, E) of all, normed and rotated.

        rotaries: of all tokens, and of those that ask.
        """
        q_NHE = self.norm_q(self.to_q(asking_ND).unflatten(-1, (-1, self.head_dim)))
        k_SKE = self.norm_k(self.to_k(x_SD).unflatten(-1, (-1, self.head_dim)))
        v_SKE = self.to_v(x_SD).unflatten(-1, (-1, self.head_dim))
        q_NHE, k_SKE = rotate(q_NHE, rotaries[1]), rotate(k_SKE, rotaries[0])
        return q_NHE.to(v_SKE.dtype), k_SKE.to(v_SKE.dtype), v_SKE

    def output(self, attended_NHE: Tensor) -> Tensor:
        """What attention says to each asking token; (N, H, E) -> (N, D)."""
        return self.to_out[0](attended_NHE.flatten(-2))


class FeedForward(nn.Module):
    """SwiGLU feed-forward: linear_2(silu(linear_1 x) * linear_3 x)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, inner_width, bias=False)
        self.linear_2 = nn.Linear(inner_width, width, bias=False)
        self.linear_3 = nn.Linear(width, inner_width, bias=False)

    def forward(self, x_SD: Tensor) -> Tensor:
        """Shapes: (S, D) -> same."""
        return self.linear_2(functional.silu(self.linear_1(x_SD)) * self.linear_3(x_SD))


class ModulatedNorm(nn.Module):
    """The first norm of a modulated block, and the projection that gives all of the block's modulation."""

    def __init__(self, width: int, conditioning_width: int, eps: float) -> None:
        super().__init__()
        self.linear = nn.Linear(conditioning_width, 4 * width)
        self.norm = nn.RMSNorm(width, eps=eps)

    def forward(self, x_SD: Tensor) -> Tensor:
        """Normalised tokens, not yet scaled; shapes (S, D) -> same."""
        return self.norm(x_SD)


class OmniGen2TransformerBlock(nn.Module):
    """Attention and feed-forward, each normed before and after; optionally modulated by the time."""

    def __init__(self, config: BlockConfig, modulated: bool) -> None:
        super().__init__()
        self.config, self.modulated = config, modulated
        width, eps = config.width, config.norm_eps
        self.attn = Attention(width, config.num_heads, config.num_kv_heads)
        self.feed_forward = FeedForward(width, config.inner_width)
        if modulated:
            self.norm1: ModulatedNorm | nn.RMSNorm = ModulatedNorm(width, config.conditioning_width, eps)
        else:
            self.norm1 = nn.RMSNorm(width, eps=eps)
        self.norm2 = nn.RMSNorm(width, eps=eps)
        self.ffn_norm1 = nn.RMSNorm(width, eps=eps)
        self.ffn_norm2 = nn.RMSNorm(width, eps=eps)

    def forward(
        self,
        x_SD: Tensor,
        segments: Segments,
        modulation: Modulation | None = None,
        asking: Segments | None = None,
        asking_tokens: Tensor | None = None,
    ) -> Tensor:
        """The tokens after the block; with `asking` (see Attention) only those of the asking tokens.

        Shapes: (S, D) -> (S, D), or (N, D).
        """
        asking = asking or segments
        rotaries = (segments.rotary, asking.rotary)
        heads = self.before(x_SD, modulation, segments.time_rows, rotaries, asking_tokens)
        attended_NHE = packed_attention(*heads, asking.lengths, segments.lengths)
        return self.after(x_SD, attended_NHE, modulation, asking.time_rows, asking_tokens)

    def before(
        self,
        x_SD: Tensor,
        modulation: Modulation | None,
        time_rows_S: Tensor,
        rotaries: tuple[Rotary, Rotary],
        asking_tokens: Tensor | None,
    ) -> Heads:
        """What attention reads: token by token, nothing here knows which tokens belong together."""
        normed_SD = self.norm1(x_SD)
        if modulation is not None:
            normed_SD = normed_SD * of_tokens(modulation.scale_attn, time_rows_S)
        asking_ND = normed_SD if asking_tokens is None else normed_SD.index_select(0, asking_tokens)
        return self.attn.heads(normed_SD, asking_ND, rotaries)

    def after(
        self,
        x_SD: Tensor,
        attended_NHE: Tensor,
        modulation: Modulation | None,
        time_rows_N: Tensor,
        asking_tokens: Tensor | None,
    ) -> Tensor:
        """The asking tokens (N, D) after the block, from what attention gave them; token by token."""
        x_ND = x_SD if asking_tokens is None else x_SD.index_select(0, asking_tokens)
        attended_ND = self.norm2(self.attn.output(attended_NHE))
        if modulation is None:
            x_ND = x_ND + attended_ND
            return x_ND + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x_ND)))
        x_ND = x_ND + of_tokens(modulation.gate_attn, time_rows_N) * attended_ND
        scaled_ND = self.ffn_norm1(x_ND) * of_tokens(modulation.scale_mlp, time_rows_N)
        return x_ND + of_tokens(modulation.gate_mlp, time_rows_N) * self.ffn_norm2(
            self.feed_forward(scaled_ND)
        )

    @brings_weights
    def modulation(self, activated_Rc: Tensor) -> Modulation:
        """What each row of silu(time embedding) (R, c) says to this block."""
        assert isinstance(self.norm1, ModulatedNorm)
        scale_attn, gate_attn, scale_mlp, gate_mlp = self.norm1.linear(activated_Rc).chunk(4, dim=-1)
        return Modulation(1 + scale_attn, gate_attn.tanh(), 1 + scale_mlp, gate_mlp.tanh())


@dataclass(frozen=True)
class BlockConfig:
    """Sizes shared by all blocks."""

    width: int
    num_heads: int
    num_kv_heads: int
    inner_width: int
    conditioning_width: int
    norm_eps: float


def fine(x: Tensor) -> Tensor:
    """In float32; float64 stays, so that gradients can be checked to its precision."""
    return x if x.dtype == torch.float64 else x.float()


def feed_forward_width(width: int, multiple_of: int, multiplier: float | None) -> int:
    """Inner width of the feed-forward: 4 * width (times the multiplier), rounded up to a multiple."""
    inner = 4 * width if multiplier is None else int(multiplier * 4 * width)
    return multiple_of * math.ceil(inner / multiple_of)


class TimestepEmbedder(nn.Module):
    """Two-layer perceptron on the sinusoid of the time."""

    def __init__(self, conditioning_width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(2 * NUM_TIME_FREQUENCIES, conditioning_width)
        self.linear_2 = nn.Linear(conditioning_width, conditioning_width)

    def forward(self, sinusoid: Tensor) -> Tensor:
        """Shapes: (R, 256) -> (R, c)."""
        return self.linear_2(functional.silu(self.linear_1(sinusoid)))


class TimeCaptionEmbedding(nn.Module):
    """Embeds the time for the modulations, and the text features to the width of the model."""

    def __init__(self, width: int, text_feat_dim: int, norm_eps: float, timestep_scale: float) -> None:
        super().__init__()
        self.timestep_scale = timestep_scale
        self.timestep_embedder = TimestepEmbedder(min(width, MAX_CONDITIONING_WIDTH))
        self.caption_embedder = nn.Sequential(
            nn.RMSNorm(text_feat_dim, eps=norm_eps), nn.Linear(text_feat_dim, width)
        )

    def embed_time(self, t_R: Tensor, dtype: torch.dtype) -> Tensor:
        """Time embedding (R, c) in that dtype; t (R,) in [0, 1], 0 = noise."""
        return self.timestep_embedder(time_sinusoid(t_R, self.timestep_scale).to(dtype))

    @property
    def text_projection(self) -> nn.Linear:
        """The linear layer that brings text features to the width of the model."""
        projection = self.caption_embedder[1]
        assert isinstance(projection, nn.Linear)
        return projection

    def embed_text(self, features: Tensor) -> Tensor:
        """Shapes: (T, text_feat_dim) -> (T, D)."""
        return self.caption_embedder(features)


def time_sinusoid(t_R: Tensor, scale: float) -> Tensor:
    """Cosines, then sines, of the scaled time at 128 frequencies; (R,) -> (R, 256) float32."""
    steps = torch.arange(NUM_TIME_FREQUENCIES, dtype=torch.float32, device=t_R.device)
    frequencies = torch.exp(-math.log(10000.0) * steps / NUM_TIME_FREQUENCIES)
    angles = scale * (t_R.float()[:, None] * frequencies)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class OutputHead(nn.Module):
    """Layer norm scaled by the time, then the projection from tokens to patches."""

    def __init__(self, width: int, conditioning_width: int, patch_width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(conditioning_width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear_2 = nn.Linear(width, patch_width)

    def forward(self, x_ND: Tensor, activated_Rc: Tensor, time_rows_N: Tensor) -> Tensor:
        """Patches (N, p*p*C) of target tokens (N, D); `activated` is silu(time embedding) (R, c)."""
        scale = 1 + self.linear_1(activated_Rc)
        if scale.shape[0] > 1:
            scale = scale.index_select(0, time_rows_N)
        return self.linear_2(self.norm(x_ND) * scale)
