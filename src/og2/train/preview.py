"""Pictures from a transformer in training, through the sampler that users call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from og2.model.transformer import OmniGen2Transformer2DModel
from og2.model.transformer import Sequence as TokenSequence
from og2.sampling.guidance import Branch, Guidance, all_branches, branches, combine
from og2.sampling.solvers import sample
from og2.sampling.time import time_grid


@dataclass(frozen=True)
class PreviewConfig:
    """How previews are drawn; shifted: time steps by the sampler's rule, else even ones."""

    num_steps: int = 20
    text_guidance: float = 3.0
    image_guidance: float = 1.5
    shifted: bool = True


@dataclass(frozen=True)
class Wish:
    """One picture to draw: text features (T, F), reference latents (C, h, w), latent size, noise seed."""

    text: Tensor
    references: tuple[Tensor, ...]
    size_hw: tuple[int, int]
    seed: int


@torch.no_grad()
def draw(
    model: OmniGen2Transformer2DModel, wishes: Sequence[Wish], empty: Tensor, config: PreviewConfig
) -> list[Tensor]:
    """Final latents (C, h, w) of each wish; `empty` are the features of the empty prompt."""
    guidance = Guidance(config.text_guidance, config.image_guidance)
    references = [picture for wish in wishes for picture in wish.references]
    sequences, owners = [], []
    start = 0
    for index, wish in enumerate(wishes):
        own = tuple(range(start, start + len(wish.references)))
        start += len(own)
        for branch in all_branches(guidance, config.num_steps, bool(own)):
            text = index + 1 if branch == "cond" else 0
            sequences.append(TokenSequence(text, () if branch == "uncond" else own, index))
            owners.append((index, branch))
    texts = [empty, *(wish.text for wish in wishes)]
    prepared = model.prepare(texts, references, [w.size_hw for w in wishes], sequences)

    def velocity(latents: list[Tensor], times: list[Tensor], step: int) -> list[Tensor]:
        found: list[dict[Branch, Tensor]] = [{} for _ in wishes]
        for (index, branch), v in zip(
            owners, model.velocity(latents, torch.stack(times), prepared), strict=True
        ):
            found[index][branch] = v.float()
        chosen = [branches(guidance, step, config.num_steps, bool(w.references)) for w in wishes]
        return [combine({b: v[b] for b in names}, guidance) for v, names in zip(found, chosen, strict=True)]

    channels = model.config.in_channels
    noise = [
        torch.randn(channels, *w.size_hw, generator=torch.Generator().manual_seed(w.seed)).to(model.device)
        for w in wishes
    ]
    grids = [time_grid(config.num_steps, w.size_hw[0] * w.size_hw[1], config.shifted) for w in wishes]
    return sample(velocity, noise, grids)


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Sequence[Tensor]) -> Tensor:
    """uint8 pictures (B, H, W, 3), on the CPU, of latents of one size."""
    stacked = torch.stack(list(latents)) / vae.config.scaling_factor + vae.config.shift_factor
    pixels = (vae.decode(stacked).sample.float() / 2 + 0.5).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
