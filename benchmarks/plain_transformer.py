"""A plain implementation of OmniGen2's transformer, for comparison in benchmarks only.

It computes as the official implementation does: one padded batch per guidance branch, boolean key masks,
complex rotary tables in float64, float32 casts around norms and silu, key/value heads repeated, and
everything recomputed at every step. It uses the weights of our model, by name, in the standard linear layers.

Legend: B batch, S tokens, T text tokens, N target tokens, R reference tokens, D width, H heads, E head dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from og2.model.transformer import OmniGen2Transformer2DModel


class PlainTransformer:
    """One call per guidance branch; batch size one, as the official pipeline runs a single picture."""

    def __init__(self, model: OmniGen2Transformer2DModel) -> None:
        self.config = model.config
        self.weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self.head_dim = self.config.hidden_size // self.config.num_attention_heads

    def __call__(
        self, latents: Tensor, t: Tensor, text: Tensor, text_mask: Tensor, references: list[Tensor]
    ) -> Tensor:
        """Velocity (1, C, h, w); latents (1, C, h, w), t (1,), text (1, T, F), mask (1, T)."""
        patch = self.config.patch_size
        temb = self._time(t, latents.dtype)
        text = self._linear("time_caption_embed.caption_embedder.1", self._norm(
            "time_caption_embed.caption_embedder.0", text, self.config.norm_eps))  # fmt: skip
        num_text = int(text_mask.sum())
        grids = [(x.shape[1] // patch, x.shape[2] // patch) for x in (*references, latents[0])]
        table = self._rotary(num_text, grids)
        lengths = [h * w for h, w in grids]
        starts = [num_text + sum(lengths[:i]) for i in range(len(lengths) + 1)]
        for index in range(self.config.num_refiner_layers):
            text = self._block(f"context_refiner.{index}", text, text_mask.bool(), table[:, :num_text], None)
        tokens = self._linear("x_embedder", self._patches(latents))
        mask = torch.ones(1, lengths[-1], dtype=torch.bool)
        for index in range(self.config.num_refiner_layers):
            tokens = self._block(f"noise_refiner.{index}", tokens, mask, table[:, starts[-2] :], temb)
        parts = [text[:, :num_text], *self._references(references, lengths, starts, table, temb), tokens]
        x = torch.cat(parts, dim=1)
        mask = torch.ones(1, x.shape[1], dtype=torch.bool)
        for index in range(self.config.num_layers):
            x = self._block(f"layers.{index}", x, mask, table, temb)
        scale = self._linear("norm_out.linear_1", functional.silu(temb))
        x = functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale)[:, None]
        x = self._linear("norm_out.linear_2", x)[:, starts[-2] :]
        height, width = grids[-1]
        x = x.view(1, height, width, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(1, -1, height * patch, width * patch)

    def _references(
        self, references: list[Tensor], lengths: list[int], starts: list[int], table: Tensor, temb: Tensor
    ) -> list[Tensor]:
        """Refined references, each (1, R, D): rows of one batch, padded to the longest."""
        if not references:
            return []
        longest = max(lengths[:-1])
        rows = self.weights["image_index_embedding"].new_zeros(
            len(references), longest, self.config.hidden_size
        )
        tables = table.new_zeros(len(references), longest, table.shape[-1])
        mask = torch.zeros(len(references), longest, dtype=torch.bool)
        for k, picture in enumerate(references):
            embedded = self._linear("ref_image_patch_embedder", self._patches(picture[None]))
            rows[k, : lengths[k]] = embedded[0] + self.weights["image_index_embedding"][k]
            tables[k, : lengths[k]] = table[0, starts[k] : starts[k] + lengths[k]]
            mask[k, : lengths[k]] = True
        temb = temb.expand(len(references), -1)
        for index in range(self.config.num_refiner_layers):
            rows = self._block(f"ref_image_refiner.{index}", rows, mask, tables, temb)
        return [rows[k : k + 1, : lengths[k]] for k in range(len(references))]

    def _block(self, name: str, x: Tensor, mask: Tensor, table: Tensor, temb: Tensor | None) -> Tensor:
        eps = self.config.norm_eps
        if temb is None:
            x = x + self._norm(f"{name}.norm2", self._attention(
                name, self._norm(f"{name}.norm1", x, eps), mask, table), eps)  # fmt: skip
            inner = self._feed_forward(name, self._norm(f"{name}.ffn_norm1", x, eps))
            return x + self._norm(f"{name}.ffn_norm2", inner, eps)
        modulation = self._linear(f"{name}.norm1.linear", functional.silu(temb))
        scale_attn, gate_attn, scale_mlp, gate_mlp = modulation[:, None].chunk(4, dim=-1)
        u = self._norm(f"{name}.norm1.norm", x, eps) * (1 + scale_attn)
        attended = self._norm(f"{name}.norm2", self._attention(name, u, mask, table), eps)
        x = x + gate_attn.tanh() * attended
        v = self._norm(f"{name}.ffn_norm1", x, eps) * (1 + scale_mlp)
        return x + gate_mlp.tanh() * self._norm(f"{name}.ffn_norm2", self._feed_forward(name, v), eps)

    def _attention(self, name: str, x: Tensor, mask: Tensor, table: Tensor) -> Tensor:
        q, k, v = (
            self._linear(f"{name}.attn.{which}", x).unflatten(-1, (-1, self.head_dim))
            for which in ("to_q", "to_k", "to_v")
        )
        q = _turn(self._head_norm(f"{name}.attn.norm_q", q), table)
        k = _turn(self._head_norm(f"{name}.attn.norm_k", k), table)
        group = q.shape[2] // k.shape[2]
        k, v = (part.repeat_interleave(group, dim=2) for part in (k, v))
        out = functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            attn_mask=mask[:, None, None, :], scale=self.head_dim**-0.5,
        )  # fmt: skip
        return self._linear(f"{name}.attn.to_out.0", out.transpose(1, 2).flatten(2))

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        gate = self._linear(f"{name}.feed_forward.linear_1", x)
        up = self._linear(f"{name}.feed_forward.linear_3", x)
        return self._linear(
            f"{name}.feed_forward.linear_2", functional.silu(gate.float()).to(gate.dtype) * up
        )

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def _norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], eps)

    def _head_norm(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        normed = x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)
        return normed.to(weight.dtype) * weight

    def _time(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(128, dtype=torch.float32) / 128)
        angles = self.config.timestep_scale * (t.float()[:, None] * frequencies)
        e = torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype)
        name = "time_caption_embed.timestep_embedder"
        return self._linear(f"{name}.linear_2", functional.silu(self._linear(f"{name}.linear_1", e)))

    def _patches(self, latents: Tensor) -> Tensor:
        batch, channels, height, width = latents.shape
        p = self.config.patch_size
        grid = latents.view(batch, channels, height // p, p, width // p, p)
        return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def _rotary(self, num_text: int, grids: list[tuple[int, int]]) -> Tensor:
        """Complex rotary table (1, S, E/2) of the whole sequence."""
        text = torch.arange(num_text)
        ids, offset = [torch.stack((text, text, text), dim=1)], num_text
        for height, width in grids:
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            ids.append(torch.stack((torch.full_like(rows, offset), rows, columns), dim=-1).flatten(0, 1))
            offset += max(height, width)
        position = torch.cat(ids)
        angles = [
            position[:, axis, None] * 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
            for axis, dim in enumerate(self.config.axes_dim_rope)
        ]
        angle = torch.cat(angles, dim=1)
        return torch.polar(torch.ones_like(angle), angle)[None]


def _turn(x: Tensor, table: Tensor) -> Tensor:
    """Heads (B, S, H, E) turned by complex numbers (B, S, E/2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table[:, :, None]).flatten(3).to(x.dtype)
