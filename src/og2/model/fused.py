"""The same blocks, cheaper on a CPU: an optional transform of a finished model for inference.

`fuse(model)` replaces every block by one that computes the same numbers up to rounding:
- weights are repacked once into the matrix library's own layout;
- everything but attention goes through a chunk of tokens at a time, which stays in the cache;
- norm weights and the time's scales are multiplied once per step instead of once per token;
- attention over long segments is done as blocks of plain matrix products.
No compiler is needed. `unfuse` gives the plain blocks back, bit by bit; a fused model saves under the
published names. It cannot be trained.

Legend: as in `blocks`; P = E/2 rotated pairs, G = H/K query heads per key/value head, k some key/value heads,
n some queries, M = n G.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from og2.device import has_products
from og2.errors import ConfigError
from og2.model.blocks import (
    QK_NORM_EPS,
    Attention,
    FeedForward,
    ModulatedNorm,
    Modulation,
    OmniGen2TransformerBlock,
)
from og2.model.elementwise import norm_floor, norm_weight, normed, plus_normed, turned
from og2.model.packed_linear import PackedLinear, batch_product
from og2.model.packing import Segments
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.model.wide import WideLinear

# Below this many keys the stock attention kernel is faster than blocks of matrix products.
MIN_BLOCKED_KEYS = 192
# Tokens that go through the token-wise part together, and scores of one block of attention: what the cache of
# one core holds.
CHUNK_TOKENS = 512
BLOCK_BYTES = 3 << 19
# A core's share of a chunk is a multiple of so many tokens: at odd ones matrix products are slower.
TOKEN_STEP = 16
# Where one batched product of all heads is faster than one product after another.
BATCHED_DTYPES = (torch.bfloat16, torch.float16)
# Scores up to here cannot overflow when they become powers of two and are added up.
MAX_POWER = 100.0
LOG2_E = 1 / math.log(2)
Kind = TypeVar("Kind", bound=nn.Module)


def fuse(model: OmniGen2Transformer2DModel) -> OmniGen2Transformer2DModel:
    """The model with fused blocks and packed linear layers, changed in place; plain weights are freed.

    Raises: ConfigError for a model that is not on the CPU, has adapters, is quantized, or is fused already.
    """
    _check(model)
    for blocks, index in _places(model):
        block = blocks[index]
        assert isinstance(block, OmniGen2TransformerBlock)
        blocks[index] = FusedBlock(block)
    for parent, name, linear in _children(model, nn.Linear):
        setattr(parent, name, PackedLinear(linear.weight, linear.bias))
    return model


def unfuse(model: OmniGen2Transformer2DModel) -> OmniGen2Transformer2DModel:
    """The plain model again, changed in place; its weights are as before, bit by bit."""
    for blocks, index in _places(model):
        block = blocks[index]
        if isinstance(block, FusedBlock):
            blocks[index] = block.plain()
    for parent, name, packed in _children(model, PackedLinear):
        setattr(parent, name, packed.plain())
    return model


def _places(model: OmniGen2Transformer2DModel) -> Iterator[tuple[nn.ModuleList, int]]:
    for blocks in (model.noise_refiner, model.ref_image_refiner, model.context_refiner, model.layers):
        for index in range(len(blocks)):
            yield blocks, index


def _children(model: nn.Module, kind: type[Kind]) -> list[tuple[nn.Module, str, Kind]]:
    """Every module of that kind with the module and the name that hold it."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]


def _check(model: OmniGen2Transformer2DModel) -> None:
    for name, module in model.named_modules():
        if isinstance(module, FusedBlock):
            raise ConfigError("the model is fused already")
        is_linear = isinstance(module, nn.Linear) or hasattr(module, "in_features")
        if is_linear and type(module) not in (nn.Linear, WideLinear):
            raise ConfigError(
                f"cannot fuse {name}, a {type(module).__module__}.{type(module).__name__}; "
                "merge or unload adapters first, and leave quantized models as they are"
            )
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices != {"cpu"}:
        raise ConfigError(
            f"fused blocks are for the CPU, but the weights are on {', '.join(sorted(devices))}"
        )


class FusedAttention:
    """One packed projection to queries, keys and values."""

    def __init__(self, attention: Attention) -> None:
        self.head_dim = attention.head_dim
        linears = (attention.to_q, attention.to_k, attention.to_v)
        self.num_heads, self.num_kv_heads, _ = (x.out_features // self.head_dim for x in linears)
        self.group = self.num_heads // self.num_kv_heads
        self.to_qkv = PackedLinear(torch.cat([linear.weight.detach() for linear in linears]))
        self.to_out = PackedLinear(cast(nn.Linear, attention.to_out[0]).weight)
        self.norm_q, self.norm_k = attention.norm_q.weight.detach(), attention.norm_k.weight.detach()
        self.floor = norm_floor(self.head_dim, QK_NORM_EPS)
        scale = self.head_dim**-0.5 * LOG2_E
        self.q_weight_E = norm_weight(self.norm_q) * scale
        self.k_weight_E = norm_weight(self.norm_k)
        weights = [self.q_weight_E] * self.num_heads + [self.k_weight_E] * self.num_kv_heads
        self.qk_weight_HE = torch.stack(weights)

    def project(self, x_SD: Tensor) -> Tensor:
        """Heads (S, H + 2K, E) of queries, keys and values, not normalised and not rotated."""
        return self.to_qkv(x_SD).unflatten(-1, (-1, self.head_dim))

    def plain_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights under their published names."""
        widths = [heads * self.head_dim for heads in (self.num_heads, self.num_kv_heads, self.num_kv_heads)]
        q, k, v = self.to_qkv.weight.split(widths)
        yield "attn.to_q.weight", q.clone()
        yield "attn.to_k.weight", k.clone()
        yield "attn.to_v.weight", v.clone()
        yield "attn.to_out.0.weight", self.to_out.weight
        yield "attn.norm_q.weight", self.norm_q
        yield "attn.norm_k.weight", self.norm_k


class FusedFeedForward:
    """SwiGLU with packed weights."""

    def __init__(self, feed_forward: FeedForward) -> None:
        self.linear_1 = PackedLinear(feed_forward.linear_1.weight)
        self.linear_2 = PackedLinear(feed_forward.linear_2.weight)
        self.linear_3 = PackedLinear(feed_forward.linear_3.weight)

    def __call__(self, x_SD: Tensor) -> Tensor:
        """As `FeedForward.forward`."""
        return self.linear_2(self.linear_1(x_SD, then_silu=True).mul_(self.linear_3(x_SD)))

    def plain_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights under their published names."""
        yield "feed_forward.linear_1.weight", self.linear_1.weight
        yield "feed_forward.linear_2.weight", self.linear_2.weight
        yield "feed_forward.linear_3.weight", self.linear_3.weight


class FusedBlock(nn.Module):
    """Stands in for a block; same call, same numbers up to rounding."""

    def __init__(self, block: OmniGen2TransformerBlock) -> None:
        super().__init__()
        self.config, self.modulated = block.config, block.modulated
        self.floor = norm_floor(block.config.width, block.config.norm_eps)
        self.attn = FusedAttention(block.attn)
        self.feed_forward = FusedFeedForward(block.feed_forward)
        self.norm1 = block.norm1  # its linear layer is packed with those outside of blocks
        self.norm2, self.ffn_norm1, self.ffn_norm2 = block.norm2, block.ffn_norm1, block.ffn_norm2
        first = block.norm1.norm if isinstance(block.norm1, ModulatedNorm) else block.norm1
        norms = (first, self.norm2, self.ffn_norm1, self.ffn_norm2)
        self.norm_weights_4D = torch.stack([norm_weight(norm.weight) for norm in norms])

    def forward(
        self,
        x_SD: Tensor,
        segments: Segments,
        modulation: Modulation | None = None,
        asking: Segments | None = None,
        asking_tokens: Tensor | None = None,
    ) -> Tensor:
        """As `OmniGen2TransformerBlock.forward`; the modulation is this block's own."""
        if torch.is_grad_enabled() and x_SD.requires_grad:
            raise ConfigError(
                "a fused model has no gradients; run it in torch.inference_mode(), or unfuse it"
            )
        if segments.rotary.dtype == torch.float64:
            raise ConfigError(
                "a fused model cannot give the official roundings; unfuse it for numerics='official'"
            )
        modulation = self.modulation(None) if modulation is None else modulation
        q_KNGE, k_KSE, v_SKE = self._heads(x_SD, segments, modulation, asking, asking_tokens)
        attended_NKGE = x_SD.new_empty(q_KNGE.transpose(0, 1).shape)
        attend_segments(q_KNGE, k_KSE, v_SKE, (asking or segments).lengths, segments.lengths, attended_NKGE)
        x_ND = x_SD if asking_tokens is None else x_SD.index_select(0, asking_tokens)
        those = modulation.per_token((asking or segments).time_rows)
        out_ND = torch.empty_like(x_ND)
        for rows in _chunks(len(x_ND)):
            out_ND[rows] = self._after_attention(x_ND[rows], attended_NKGE[rows].flatten(1), those.rows(rows))
        return out_ND

    def _heads(
        self,
        x_SD: Tensor,
        segments: Segments,
        modulation: Modulation,
        asking: Segments | None,
        asking_tokens: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (K, N, G, E), scaled to give base-2 logarithms; keys (K, S, E); values (S, K, E)."""
        attn, length = self.attn, len(x_SD)
        num_queries = length if asking_tokens is None else len(asking_tokens)
        q_KNGE = x_SD.new_empty(attn.num_kv_heads, num_queries, attn.group, attn.head_dim)
        k_KSE = x_SD.new_empty(attn.num_kv_heads, length, attn.head_dim, dtype=torch.float32)
        k_KS1E = k_KSE[:, :, None]
        v_SKE = x_SD.new_empty(length, attn.num_kv_heads, attn.head_dim)
        plain_q_SHE = x_SD.new_empty(
            length if asking_tokens is not None else 0, attn.num_heads, attn.head_dim
        )
        every = modulation.per_token(segments.time_rows)
        for rows in _chunks(length):
            heads = attn.project(normed(x_SD[rows], every.rows(rows).scale_attn, self.floor))
            v_SKE[rows] = heads[:, -attn.num_kv_heads :]
            rotary = segments.rotary.rows(rows)
            if asking_tokens is None:
                turned(heads, attn.qk_weight_HE, attn.floor, rotary, (q_KNGE[:, rows], k_KS1E[:, rows]))
            else:
                plain_q_SHE[rows] = heads[:, : attn.num_heads]
                turned(heads[:, attn.num_heads :], attn.k_weight_E, attn.floor, rotary, (k_KS1E[:, rows],))
        if asking is not None and asking_tokens is not None:
            asked_NHE = plain_q_SHE.index_select(0, asking_tokens)
            turned(asked_NHE, attn.q_weight_E, attn.floor, asking.rotary, (q_KNGE,))
        return q_KNGE, k_KSE, v_SKE

    def _after_attention(self, x_SD: Tensor, attended_SD: Tensor, modulation: Modulation) -> Tensor:
        x_SD = plus_normed(x_SD, self.attn.to_out(attended_SD), modulation.gate_attn, self.floor)
        inner_SD = self.feed_forward(normed(x_SD, modulation.scale_mlp, self.floor))
        return plus_normed(x_SD, inner_SD, modulation.gate_mlp, self.floor)

    def modulation(self, activated_Rc: Tensor | None) -> Modulation:
        """The time's factors with the norm weights multiplied in, float32; without a time only these."""
        if activated_Rc is None:
            return Modulation(*self.norm_weights_4D.split(1))
        assert isinstance(self.norm1, ModulatedNorm)
        factors_R4D = self.norm1.linear(activated_Rc).float().unflatten(-1, (4, -1))
        factors_R4D[:, 0::2] += 1
        factors_R4D[:, 1::2].tanh_()
        return Modulation(*(factors_R4D * self.norm_weights_4D).unbind(1))

    def plain(self) -> OmniGen2TransformerBlock:
        """The block this one was made from, with the same weights."""
        with torch.device("meta"):
            block = OmniGen2TransformerBlock(self.config, self.modulated)
        block.load_state_dict(self.state_dict(), assign=True)
        return block.train(self.training)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, weight in (*self.attn.plain_weights(), *self.feed_forward.plain_weights()):
            destination[prefix + name] = weight


def attend_segments(
    q_KNGE: Tensor,
    k_KSE: Tensor,
    v_SKE: Tensor,
    query_lengths: tuple[int, ...],
    key_lengths: tuple[int, ...],
    out_NKGE: Tensor,
) -> None:
    """Attention of each segment's queries to its keys, into `out`; scores are logarithms to base 2."""
    if not has_products(q_KNGE.dtype):
        q_KNGE, v_SKE = q_KNGE.float(), v_SKE.float()
    queries_end = keys_end = 0
    for num_queries, num_keys in zip(query_lengths, key_lengths, strict=True):
        queries_end, keys_end = queries_end + num_queries, keys_end + num_keys
        queries, keys = slice(queries_end - num_queries, queries_end), slice(keys_end - num_keys, keys_end)
        attend = _attend_blocked if num_keys >= MIN_BLOCKED_KEYS else _attend_stock
        attend(q_KNGE[:, queries], k_KSE[:, keys], v_SKE[keys], out_NKGE[queries])


def _attend_stock(q_KNGE: Tensor, k_KSE: Tensor, v_SKE: Tensor, out_NKGE: Tensor) -> None:
    q = q_KNGE.flatten(1, 2)[None]  # queries of a group are rows of one head: all read the same keys
    k, v = k_KSE.to(q.dtype)[None], v_SKE.transpose(0, 1)[None]
    out = functional.scaled_dot_product_attention(q, k, v, scale=1 / LOG2_E)
    out_NKGE.copy_(out[0].unflatten(1, (len(out_NKGE), -1)).transpose(0, 1))


def _attend_blocked(q_KNGE: Tensor, k_KSE: Tensor, v_SKE: Tensor, out_NKGE: Tensor) -> None:
    """Block by block of queries, all in the model's dtype.

    Keys are taken relative to their mean: that moves all scores of a query by one number, which softmax does
    not see, and makes them small, so that half precision rounds them less. Where lengths of queries and keys
    show that no power can overflow, the scores' maximum is not needed.
    """
    num_kv_heads, num_queries, group, _ = q_KNGE.shape
    num_keys, dtype = k_KSE.shape[1], q_KNGE.dtype
    keys_KSE = (k_KSE - k_KSE.mean(dim=1, keepdim=True)).to(dtype)
    values_KSE = v_SKE.transpose(0, 1).contiguous()
    is_small = bool(_longest(q_KNGE) * _longest(keys_KSE) < MAX_POWER)
    together = num_kv_heads if dtype in BATCHED_DTYPES else 1
    rows_per_core = max(1, BLOCK_BYTES // (num_keys * dtype.itemsize * group))
    num_blocks = -(-num_queries * together // (rows_per_core * torch.get_num_threads()))
    for first in range(0, num_kv_heads, together):
        some = slice(first, first + together)
        queries, outs = q_KNGE[some].chunk(num_blocks, dim=1), out_NKGE[:, some].chunk(num_blocks)
        for q_knGE, out_nkGE in zip(queries, outs, strict=True):
            powers_kMS = batch_product(q_knGE.flatten(1, 2), keys_KSE[some])
            if not is_small:
                powers_kMS -= powers_kMS.amax(dim=-1, keepdim=True)
            weights_kMS = powers_kMS.exp2_()
            out_kME = batch_product(weights_kMS, values_KSE[some].mT)
            out_kME /= weights_kMS.sum(dim=-1, keepdim=True)
            out_nkGE.copy_(out_kME.unflatten(1, (-1, group)).transpose(0, 1))


def _longest(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32).amax()


def _chunks(num_tokens: int) -> Iterator[slice]:
    """Runs of tokens, about equally long, that go through the token-wise part together."""
    threads = torch.get_num_threads()
    count = -(-num_tokens // (CHUNK_TOKENS * threads))
    size = -(-num_tokens // (count * TOKEN_STEP * threads)) * TOKEN_STEP * threads
    return (slice(start, min(start + size, num_tokens)) for start in range(0, num_tokens, size))
