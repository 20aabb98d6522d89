"""The same blocks, cheaper on a CPU: an optional transform of a finished model for inference.

`fuse(model)` replaces every block by one that computes the same numbers up to rounding:
- weights are repacked once into the matrix library's own layout, and silu and the product of the feed-forward
  happen while the matrix product is written;
- norm weights and the time's scales are multiplied once per step instead of once per token;
- channels of queries and keys are reordered so that rotary pairs lie in two halves;
- attention over long segments is done as blocks of plain matrix products.
No compiler is needed. `unfuse` gives the plain blocks back, bit by bit; a fused model saves under the
published names. It cannot be trained.

Legend: as in `blocks`; P = E/2 rotated pairs, G = H/K query heads per key/value head.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from og2.errors import ConfigError
from og2.model.blocks import QK_NORM_EPS, Modulation, OmniGen2TransformerBlock
from og2.model.packing import Segments
from og2.model.rope import Rotary
from og2.model.transformer import OmniGen2Transformer2DModel

# Below this many keys the stock attention kernel is faster than blocks of matrix products.
MIN_BLOCKED_KEYS = 192
BLOCK_ELEMENTS = 1 << 18


def fuse(model: OmniGen2Transformer2DModel) -> OmniGen2Transformer2DModel:
    """The model with fused blocks, changed in place; the plain weights are freed block by block.

    Raises: ConfigError for a model that is not on the CPU, has adapters, or is fused already.
    """
    for blocks, index in _places(model):
        block = blocks[index]
        _check(block)
        blocks[index] = FusedBlock(block)
    return model


def unfuse(model: OmniGen2Transformer2DModel) -> OmniGen2Transformer2DModel:
    """The model with plain blocks again, changed in place; their weights are as before, bit by bit."""
    for blocks, index in _places(model):
        if isinstance(blocks[index], FusedBlock):
            blocks[index] = blocks[index].plain()
    return model


def _places(model: OmniGen2Transformer2DModel) -> Iterator[tuple[nn.ModuleList, int]]:
    for blocks in (model.noise_refiner, model.ref_image_refiner, model.context_refiner, model.layers):
        for index in range(len(blocks)):
            yield blocks, index


def _check(block: nn.Module) -> None:
    if not isinstance(block, OmniGen2TransformerBlock):
        raise ConfigError(f"cannot fuse a {type(block).__name__}; only plain transformer blocks can be fused")
    attention, feed_forward = block.attn, block.feed_forward
    linears = [attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]]
    for linear in (*linears, feed_forward.linear_1, feed_forward.linear_2, feed_forward.linear_3):
        if type(linear) is not nn.Linear:
            raise ConfigError(
                f"cannot fuse a {type(linear).__module__}.{type(linear).__name__}; merge or unload adapters, "
                "and leave quantized models as they are"
            )
    devices = {parameter.device.type for parameter in block.parameters()}
    if devices != {"cpu"}:
        raise ConfigError(
            f"fused blocks are for the CPU, but the weights are on {', '.join(sorted(devices))}"
        )


class PackedLinear:
    """A linear layer without bias whose weight is kept in the matrix library's layout."""

    def __init__(self, weight: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)

    def __call__(self, x: Tensor) -> Tensor:
        """x @ weight.T."""
        return _product(x, self._packed)

    def silu(self, x: Tensor) -> Tensor:
        """silu(x @ weight.T)."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "swish", [], "")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """(x @ weight.T) * factor."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, factor, self._packed, None, "mul")

    @property
    def weight(self) -> Tensor:
        """The plain weight, bit by bit."""
        return self._packed.to_dense()


def _product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


class FusedAttention:
    """Attention with packed projections; queries and keys have their rotary pairs in two halves."""

    def __init__(self, attention: nn.Module) -> None:
        self.head_dim = attention.head_dim
        self.to_q = PackedLinear(_halved(attention.to_q.weight, self.head_dim))
        self.to_k = PackedLinear(_halved(attention.to_k.weight, self.head_dim))
        self.to_v = PackedLinear(attention.to_v.weight)
        self.to_out = PackedLinear(attention.to_out[0].weight)
        self.norm_q = _halved(attention.norm_q.weight.detach(), self.head_dim)
        self.norm_k = _halved(attention.norm_k.weight.detach(), self.head_dim)
        self.scale = self.head_dim**-0.5

    def __call__(
        self, x_SD: Tensor, segments: Segments, asking: Segments, asking_tokens: Tensor | None
    ) -> Tensor:
        """As `Attention.forward`."""
        asking_ND = x_SD if asking_tokens is None else x_SD.index_select(0, asking_tokens)
        q_HNE = self._turned(self.to_q(asking_ND), self.norm_q.float() * self.scale, asking.rotary)
        k_KSE = self._turned(self.to_k(x_SD), self.norm_k.float(), segments.rotary)
        v_SKE = self.to_v(x_SD).unflatten(-1, (-1, self.head_dim))
        out_NHE = x_SD.new_empty(q_HNE.shape[1], q_HNE.shape[0], self.head_dim)
        first_query, first_key = 0, 0
        for num_queries, num_keys in zip(asking.lengths, segments.lengths, strict=True):
            queries = slice(first_query, first_query + num_queries)
            keys = slice(first_key, first_key + num_keys)
            attend = _attend_blocked if num_keys >= MIN_BLOCKED_KEYS else _attend_stock
            attend(q_HNE[:, queries], k_KSE[:, keys], v_SKE[keys], out_NHE[queries])
            first_query, first_key = queries.stop, keys.stop
        return self.to_out(out_NHE.flatten(1))

    def plain_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights under their published names."""
        yield "attn.to_q.weight", _paired(self.to_q.weight, self.head_dim)
        yield "attn.to_k.weight", _paired(self.to_k.weight, self.head_dim)
        yield "attn.to_v.weight", self.to_v.weight
        yield "attn.to_out.0.weight", self.to_out.weight
        yield "attn.norm_q.weight", _paired(self.norm_q, self.head_dim)
        yield "attn.norm_k.weight", _paired(self.norm_k, self.head_dim)

    def _turned(self, x: Tensor, weight_E: Tensor, rotary: Rotary) -> Tensor:
        """Normalised and rotated heads, head by head: (S, H * E) -> (H, S, E), float32."""
        x_SHE = x.unflatten(-1, (-1, self.head_dim))
        x_SHE = (x_SHE * _inverse_rms(x_SHE, QK_NORM_EPS)).mul_(weight_E)
        even_SHP, odd_SHP = x_SHE.chunk(2, dim=-1)
        cos_S1P, sin_S1P = rotary.cos[:, None], rotary.sin[:, None]
        out = x_SHE.new_empty(x_SHE.shape[1], x_SHE.shape[0], self.head_dim)
        first, second = out.transpose(0, 1).chunk(2, dim=-1)
        torch.mul(even_SHP, cos_S1P, out=first).addcmul_(odd_SHP, sin_S1P, value=-1)
        torch.mul(even_SHP, sin_S1P, out=second).addcmul_(odd_SHP, cos_S1P)
        return out


def _attend_stock(q_HNE: Tensor, k_KSE: Tensor, v_SKE: Tensor, out_NHE: Tensor) -> None:
    v_KSE = v_SKE.transpose(0, 1)
    q, k, v = (x.to(out_NHE.dtype)[None] for x in (q_HNE, k_KSE, v_KSE))
    out = functional.scaled_dot_product_attention(q, k, v, scale=1.0, enable_gqa=q.shape[1] != k.shape[1])
    out_NHE.copy_(out[0].transpose(0, 1))


def _attend_blocked(q_HNE: Tensor, k_KSE: Tensor, v_SKE: Tensor, out_NHE: Tensor) -> None:
    """Attention of one segment into `out`: scores and softmax in float32, values in the model's dtype."""
    num_heads, num_queries, _ = q_HNE.shape
    num_keys = k_KSE.shape[1]
    values_KES = v_SKE.permute(1, 2, 0).contiguous()
    group = num_heads // k_KSE.shape[0]
    num_blocks = max(1, round(num_queries * num_keys / BLOCK_ELEMENTS))
    for head in range(num_heads):
        keys, values = k_KSE[head // group], values_KES[head // group]
        for q_nE, out_nHE in zip(q_HNE[head].chunk(num_blocks), out_NHE.chunk(num_blocks), strict=True):
            weights = torch.softmax(_product(q_nE, keys), dim=-1).to(values.dtype)
            out_nHE[:, head] = _product(weights, values)


class FusedFeedForward:
    """SwiGLU with packed weights; silu and product are part of the matrix products."""

    def __init__(self, feed_forward: nn.Module) -> None:
        self.linear_1 = PackedLinear(feed_forward.linear_1.weight)
        self.linear_2 = PackedLinear(feed_forward.linear_2.weight)
        self.linear_3 = PackedLinear(feed_forward.linear_3.weight)

    def __call__(self, x_SD: Tensor) -> Tensor:
        """As `FeedForward.forward`."""
        return self.linear_2(self.linear_3.times(x_SD, self.linear_1.silu(x_SD)))

    def plain_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights under their published names."""
        for name in ("linear_1", "linear_2", "linear_3"):
            yield f"feed_forward.{name}.weight", getattr(self, name).weight


class FusedBlock(nn.Module):
    """Stands in for a block; same call, same numbers up to rounding."""

    def __init__(self, block: OmniGen2TransformerBlock) -> None:
        super().__init__()
        self.config, self.modulated = block.config, block.modulated
        self.attn = FusedAttention(block.attn)
        self.feed_forward = FusedFeedForward(block.feed_forward)
        self.norm1 = block.norm1
        self.norm2, self.ffn_norm1, self.ffn_norm2 = block.norm2, block.ffn_norm1, block.ffn_norm2

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
        asking = asking or segments
        modulation = self.modulation(None) if modulation is None else modulation
        every, those = modulation.per_token(segments.time_rows), modulation.per_token(asking.time_rows)
        attended_ND = self.attn(_normed(x_SD, every.scale_attn, self.eps), segments, asking, asking_tokens)
        x_ND = x_SD if asking_tokens is None else x_SD.index_select(0, asking_tokens)
        x_ND = _plus_normed(x_ND, attended_ND, those.gate_attn, self.eps)
        inner_ND = self.feed_forward(_normed(x_ND, those.scale_mlp, self.eps))
        return _plus_normed(x_ND, inner_ND, those.gate_mlp, self.eps)

    @property
    def eps(self) -> float:
        """Epsilon of the norms over the width."""
        return self.config.norm_eps

    def modulation(self, activated_Rc: Tensor | None) -> Modulation:
        """The time's factors with the norm weights multiplied in, float32; without a time only these."""
        norms = (
            self.norm1.norm if self.modulated else self.norm1,
            self.norm2,
            self.ffn_norm1,
            self.ffn_norm2,
        )
        weights_4D = torch.stack([norm.weight for norm in norms]).float()
        if activated_Rc is None:
            return Modulation(*weights_4D.split(1))
        factors_R4D = self.norm1.linear(activated_Rc).float().unflatten(-1, (4, -1))
        factors_R4D[:, 0::2] += 1
        factors_R4D[:, 1::2].tanh_()
        return Modulation(*(factors_R4D * weights_4D).unbind(1))

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


def _normed(x_SD: Tensor, weight_RD: Tensor, eps: float) -> Tensor:
    """RMS norm times weight, in the dtype of x; R is 1 or S."""
    return (x_SD * _inverse_rms(x_SD, eps)).mul_(weight_RD).to(x_SD.dtype)


def _plus_normed(x_SD: Tensor, y_SD: Tensor, weight_RD: Tensor, eps: float) -> Tensor:
    """x + RMS norm of y times weight, in the dtype of x; R is 1 or S."""
    return torch.addcmul(x_SD, y_SD * _inverse_rms(y_SD, eps), weight_RD).to(x_SD.dtype)


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / root mean square of the last dimension, float32; shape (..., 1)."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _halved(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of each head reordered: first of every rotary pair, then second of every pair."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def _paired(weight: Tensor, head_dim: int) -> Tensor:
    """The inverse of `_halved`."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)
