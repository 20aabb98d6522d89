"""OmniGen2's diffusion transformer: predicts the velocity of noisy latents from text and reference pictures.

Time: t = 0 is noise, t = 1 is the picture; the velocity is picture - noise.

`prepare` does what depends on the request only, `velocity` what depends on latents and time; `forward` is
both at once, with the arguments of the official call. Nothing here is padded: see `packing`.

Legend: B batch, S packed tokens, T text tokens, N target tokens, D width, C latent channels, hw latent size,
c conditioning width, R rows of time (one, or one per target).
Source: OmniGen2 (arXiv 2506.18871).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional

from og2.errors import ConfigError, RequestError
from og2.model.blocks import (
    MAX_CONDITIONING_WIDTH,
    BlockConfig,
    ModulatedNorm,
    Modulation,
    OmniGen2TransformerBlock,
    OutputHead,
    TimeCaptionEmbedding,
    feed_forward_width,
)
from og2.model.inputs import (
    check_latents,
    check_text,
    check_times,
    references_per_sample,
    targets_per_sample,
    texts_per_sample,
)
from og2.model.offload import brings_weights
from og2.model.packing import (
    MAX_REFERENCES,
    Joint,
    Layout,
    LayoutOptions,
    Parts,
    Segments,
    Sequence,
    Sharing,
    build_layout,
    check_sequences,
    patchify,
    unpatchify,
)
from og2.model.rope import PositionIds, rotary_table, sequence_ids, text_ids

__all__ = ["OmniGen2Transformer2DModel", "Prepared", "Sequence"]

TIMES_AT_ONCE = 64
"""So many of a run's times are embedded together; what they say to all blocks is kept until they are over."""


@dataclass(frozen=True)
class Moment:
    """What the time says at one step: silu of its embedding (R, c), and the factors of every block."""

    activated: Tensor
    modulations: dict[nn.Module, Modulation]

    def row(self, number: int) -> Moment:
        """One time of several."""
        rows = slice(number, number + 1)
        some = {block: modulation.rows(rows) for block, modulation in self.modulations.items()}
        return Moment(self.activated[rows], some)


@dataclass(frozen=True)
class Prepared:
    """What one request needs at every step; made by `prepare`, good for any number of `velocity` calls.

    `texts` (T, D) are the refined texts, `references` the patch-embedded references (tokens, D), one entry
    per picture, still without their place's index embedding. `times`, if known, are those of all
    steps; `moments` is what some of them say.
    """

    parts: Parts
    sequences: tuple[Sequence, ...]
    options: LayoutOptions
    official: bool
    texts: Tensor
    references: tuple[Tensor, ...]
    times: tuple[float, ...] = ()
    _layouts: dict[tuple[int, ...], Layout] = field(default_factory=dict)
    moments: dict[float, Moment] = field(default_factory=dict)

    def layout(self, active: Iterable[int] | None = None) -> Layout:
        """The layout of the active sequences (default: all), built on first use."""
        chosen = tuple(range(len(self.sequences))) if active is None else tuple(active)
        if chosen not in self._layouts:
            self._layouts[chosen] = build_layout(self.parts, self.sequences, chosen, self.options)
        return self._layouts[chosen]


class OmniGen2Transformer2DModel(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):
    """The transformer, under the published configuration names and tensor names.

    `axes_lens` is kept for published configurations; angles are computed, so nothing depends on it.

    Raises: ConfigError for sizes that do not fit together.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["OmniGen2TransformerBlock"]  # noqa: RUF012
    _repeated_blocks = ["OmniGen2TransformerBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["embedder", "norm"]  # noqa: RUF012

    @register_to_config
    def __init__(  # noqa: PLR0913  the published configuration
        self,
        patch_size: int = 2,
        in_channels: int = 16,
        out_channels: int | None = None,
        hidden_size: int = 2304,
        num_layers: int = 26,
        num_refiner_layers: int = 2,
        num_attention_heads: int = 24,
        num_kv_heads: int = 8,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = 1e-5,
        axes_dim_rope: tuple[int, int, int] = (32, 32, 32),
        axes_lens: tuple[int, int, int] = (300, 512, 512),  # noqa: ARG002  published, without effect
        text_feat_dim: int = 1024,
        timestep_scale: float = 1.0,
    ) -> None:
        super().__init__()
        _check_heads(hidden_size, num_attention_heads, num_kv_heads, tuple(axes_dim_rope))
        conditioning_width = min(hidden_size, MAX_CONDITIONING_WIDTH)
        patch_width = patch_size * patch_size
        block = BlockConfig(
            width=hidden_size,
            num_heads=num_attention_heads,
            num_kv_heads=num_kv_heads,
            inner_width=feed_forward_width(hidden_size, multiple_of, ffn_dim_multiplier),
            conditioning_width=conditioning_width,
            norm_eps=norm_eps,
        )
        self.x_embedder = nn.Linear(patch_width * in_channels, hidden_size)
        self.ref_image_patch_embedder = nn.Linear(patch_width * in_channels, hidden_size)
        self.image_index_embedding = nn.Parameter(torch.empty(MAX_REFERENCES, hidden_size))
        self.time_caption_embed = TimeCaptionEmbedding(hidden_size, text_feat_dim, norm_eps, timestep_scale)
        self.noise_refiner = _blocks(num_refiner_layers, block, modulated=True)
        self.ref_image_refiner = _blocks(num_refiner_layers, block, modulated=True)
        self.context_refiner = _blocks(num_refiner_layers, block, modulated=False)
        self.layers = _blocks(num_layers, block, modulated=True)
        self.norm_out = OutputHead(
            hidden_size, conditioning_width, patch_width * (out_channels or in_channels)
        )
        self.patch_size, self.in_channels, self.text_feat_dim = patch_size, in_channels, text_feat_dim
        self.axes_dim = (axes_dim_rope[0], axes_dim_rope[1], axes_dim_rope[2])
        self.gradient_checkpointing = False
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Fresh weights, with which the velocity is exactly zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.image_index_embedding, std=0.02)
        time_mlp = self.time_caption_embed.timestep_embedder
        nn.init.normal_(time_mlp.linear_1.weight, std=0.02)
        nn.init.normal_(time_mlp.linear_2.weight, std=0.02)
        nn.init.trunc_normal_(self.time_caption_embed.text_projection.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, ModulatedNorm):
                nn.init.zeros_(module.linear.weight)
        nn.init.zeros_(self.norm_out.linear_1.weight)
        nn.init.zeros_(self.norm_out.linear_2.weight)

    def forward(
        self,
        hidden_states: Tensor | list[Tensor],
        timestep: Tensor | float,
        text_hidden_states: Tensor,
        text_attention_mask: Tensor,
        ref_image_hidden_states: list[list[Tensor] | None] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor | list[Tensor]]:
        """Velocities of noisy latents, in the form these came in.

        Shapes: hidden_states (B, C, h, w), or a list of B latents (C, h, w) of any sizes; timestep (B,) or
        one for all, in [0, 1], 0 = noise; text_hidden_states (B, T, text_feat_dim) with its mask (B, T),
        1 = valid, valid ones first; references: per sample a list of (C, h, w), or None.
        Raises: RequestError for shapes, sizes and counts that cannot be.
        """
        latents = targets_per_sample(hidden_states)
        texts = texts_per_sample(text_hidden_states, text_attention_mask, len(latents))
        references = references_per_sample(ref_image_hidden_states, len(latents))
        flat = [picture for pictures in references for picture in pictures]
        starts = [sum(map(len, references[:i])) for i in range(len(references))]
        sequences = [
            Sequence(i, tuple(range(starts[i], starts[i] + len(references[i]))), i)
            for i in range(len(latents))
        ]
        prepared = self.prepare(texts, flat, [(x.shape[-2], x.shape[-1]) for x in latents], sequences)
        velocities = self.velocity(latents, torch.as_tensor(timestep), prepared)
        sample = torch.stack(velocities) if isinstance(hidden_states, Tensor) else velocities
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    @apply_forward_hook
    @brings_weights
    def prepare(  # noqa: PLR0913  parts, how they combine, and four choices of how to compute
        self,
        texts: list[Tensor],
        references: list[Tensor],
        target_sizes: list[tuple[int, int]],
        sequences: list[Sequence],
        *,
        numerics: str = "native",
        together: bool = True,
        times: Iterable[float] | None = None,
        position_ids: PositionIds = sequence_ids,
    ) -> Prepared:
        """Everything about a request that depends on neither latents nor time.

        Shapes: texts (T, text_feat_dim), references (C, h, w), target sizes (h, w) in latent pixels.
        `numerics="official"` computes every sequence by itself and rotates in float64, which in half
        precision gives the official implementation's roundings. `together=False` runs the joint layers
        sequence after sequence. `times` promises one time for all targets, and names the times that will be
        asked: targets may share references, and what the times say is computed for many steps at once.
        `position_ids`: other than Omni-RoPE's, for comparisons.
        Raises: RequestError.
        """
        if numerics not in ("native", "official"):
            raise RequestError(f"numerics={numerics!r} is unknown; use 'native' or 'official'")
        check_text(texts, self.text_feat_dim)
        check_latents("reference picture", references, self.in_channels, self.patch_size)
        official, one_time = numerics == "official", times is not None
        parts = Parts(
            text_lengths=tuple(len(text) for text in texts),
            reference_sizes=tuple((picture.shape[-2], picture.shape[-1]) for picture in references),
            target_sizes=tuple((height, width) for height, width in target_sizes),
        )
        check_sequences(parts, tuple(sequences))
        options = LayoutOptions(
            patch_size=self.patch_size,
            axes_dim=self.axes_dim,
            sharing=Sharing(between_sequences=not official, between_targets=one_time and not official),
            together=together,
            rotary_dtype=torch.float64 if official or texts[0].dtype == torch.float64 else torch.float32,
            device=texts[0].device,
            position_ids=position_ids,
        )
        return Prepared(
            parts=parts,
            sequences=tuple(sequences),
            options=options,
            official=official,
            texts=self._refined_texts(texts, options),
            references=tuple(
                self.ref_image_patch_embedder(patchify(picture, options.patch_size)) for picture in references
            ),
            times=() if official or times is None else tuple(torch.tensor(list(times)).tolist()),
        )

    @apply_forward_hook
    @brings_weights
    def velocity(
        self, latents: list[Tensor], t: Tensor, prepared: Prepared, active: Iterable[int] | None = None
    ) -> list[Tensor]:
        """Velocity of each active sequence's target, (C, h, w), in the order of `active` (default: all).

        Shapes: latents (C, h, w), one per target; t () for all or (targets,), in [0, 1], 0 = noise.
        Raises: RequestError.
        """
        sizes = prepared.parts.target_sizes
        check_latents("latents", latents, self.in_channels, self.patch_size, sizes)
        t_R = check_times(t, len(sizes), prepared.options.sharing.between_targets)
        layout = prepared.layout(active)
        moment = self._moment(t_R, prepared, latents[0])
        pool_SD = self._refined_pool(latents, prepared, layout, moment)
        velocities = {}
        for joint in layout.joints:
            x_ND = self._joint_layers(pool_SD, joint, moment)
            patches = self.norm_out(x_ND, moment.activated, joint.targets.time_rows)
            for index, part in zip(joint.sequences, patches.split(joint.targets.lengths), strict=True):
                size = sizes[prepared.sequences[index].target]
                velocities[index] = unpatchify(part, size, self.patch_size)
        return [velocities[index] for joint in layout.joints for index in joint.sequences]

    def _refined_texts(self, texts: list[Tensor], options: LayoutOptions) -> Tensor:
        """All texts (sum T, D) after embedding and context refiner."""
        lengths = tuple(len(text) for text in texts)
        ids = torch.cat([text_ids(length) for length in lengths]).to(options.device)
        rotary = rotary_table(ids, options.axes_dim, options.rotary_dtype)
        segments = Segments(lengths, rotary, time_rows=torch.zeros_like(ids[:, 0]))
        x_TD = self.time_caption_embed.embed_text(torch.cat(texts))
        for block in self.context_refiner:
            x_TD = self._run(block, x_TD, segments)
        return x_TD

    def _moment(self, t_R: Tensor, prepared: Prepared, like: Tensor) -> Moment:
        """What the times of a step say; if a run's times are known, its next steps' are found with it."""
        t = t_R.item() if prepared.times and len(t_R) == 1 and not torch.is_grad_enabled() else None
        if t is None or t not in prepared.times:
            return self._embedded(t_R, prepared, like)
        if t not in prepared.moments:
            first = prepared.times.index(t)
            coming = prepared.times[first : first + TIMES_AT_ONCE]
            together = self._embedded(torch.tensor(coming), prepared, like)
            prepared.moments.clear()
            prepared.moments.update((time, together.row(i)) for i, time in enumerate(coming))
        return prepared.moments[t]

    def _embedded(self, t_R: Tensor, prepared: Prepared, like: Tensor) -> Moment:
        t_R = t_R.to(like.device, like.dtype if prepared.official else t_R.dtype)
        activated_Rc = functional.silu(self.time_caption_embed.embed_time(t_R, like.dtype))
        reference_blocks = self.ref_image_refiner if prepared.references else ()
        blocks = (*reference_blocks, *self.noise_refiner, *self.layers)
        return Moment(activated_Rc, {block: block.modulation(activated_Rc) for block in blocks})

    def _refined_pool(
        self, latents: list[Tensor], prepared: Prepared, layout: Layout, moment: Moment
    ) -> Tensor:
        """Rows that joint sequences are put together from: texts, refined references, refined targets."""
        pool = [prepared.texts]
        if layout.reference_segments is not None:
            x_SD = torch.cat(
                [
                    prepared.references[r.picture] + self.image_index_embedding[r.slot]
                    for r in layout.references
                ]
            )
            for block in self.ref_image_refiner:
                x_SD = self._run(block, x_SD, layout.reference_segments, moment.modulations[block])
            pool.append(x_SD)
        patches = [patchify(latents[target.picture], self.patch_size) for target in layout.targets]
        x_ND = self.x_embedder(torch.cat(patches))
        for block in self.noise_refiner:
            x_ND = self._run(block, x_ND, layout.target_segments, moment.modulations[block])
        return torch.cat([*pool, x_ND])

    def _joint_layers(self, pool_SD: Tensor, joint: Joint, moment: Moment) -> Tensor:
        """Target tokens (N, D) after all joint layers; the last one computes nothing else."""
        x_SD = pool_SD.index_select(0, joint.sources)
        *blocks, last = self.layers
        for block in blocks:
            x_SD = self._run(block, x_SD, joint.segments, moment.modulations[block])
        modulation = moment.modulations[last]
        return self._run(last, x_SD, joint.segments, modulation, joint.targets, joint.target_tokens)

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            assert self._gradient_checkpointing_func is not None
            return self._gradient_checkpointing_func(block, *arguments)
        return block(*arguments)


def _blocks(count: int, config: BlockConfig, modulated: bool) -> nn.ModuleList:
    return nn.ModuleList([OmniGen2TransformerBlock(config, modulated) for _ in range(count)])


def _check_heads(width: int, num_heads: int, num_kv_heads: int, axes_dim: tuple[int, ...]) -> None:
    if width % num_heads or num_heads % num_kv_heads:
        raise ConfigError(
            f"hidden_size={width}, num_attention_heads={num_heads}, num_kv_heads={num_kv_heads}: "
            "each must be a multiple of the next"
        )
    if len(axes_dim) != 3 or sum(axes_dim) != width // num_heads or any(dim % 2 for dim in axes_dim):
        raise ConfigError(
            f"axes_dim_rope={axes_dim} must be three even numbers "
            f"that add up to the head dim {width // num_heads}"
        )
