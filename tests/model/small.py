"""A small transformer with random weights, and random requests for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from og2.model.transformer import OmniGen2Transformer2DModel, Prepared, Sequence

CHANNELS, TEXT_WIDTH = 4, 20


def small_model(seed: int = 0, **changes: object) -> OmniGen2Transformer2DModel:
    """All weights random, also those that a fresh model has at zero."""
    config = {
        "in_channels": CHANNELS, "hidden_size": 48, "num_layers": 2, "num_refiner_layers": 1,
        "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 16, "axes_dim_rope": (4, 4, 4),
        "text_feat_dim": TEXT_WIDTH, "timestep_scale": 1000.0,
    }  # fmt: skip
    model = OmniGen2Transformer2DModel(**{**config, **changes}).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter.ndim == 1 and parameter.mean() == 1 else 0.0
            parameter.copy_(centre + 0.25 * torch.randn(parameter.shape, generator=generator))
    return model


@dataclass
class Sample:
    """One sequence's inputs."""

    text: Tensor
    references: list[Tensor]
    latents: Tensor
    t: float


def random_sample(
    generator: torch.Generator,
    text_length: int,
    reference_sizes: list[tuple[int, int]],
    size: tuple[int, int],
) -> Sample:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Sample(
        text=draw(text_length, TEXT_WIDTH),
        references=[draw(CHANNELS, *hw) for hw in reference_sizes],
        latents=draw(CHANNELS, *size),
        t=torch.rand((), generator=generator).item(),
    )


def pack(model: OmniGen2Transformer2DModel, samples: list[Sample], **options: object) -> Prepared:
    """The samples as one request, each with its own parts."""
    sequences, references = [], []
    for index, sample in enumerate(samples):
        places = range(len(references), len(references) + len(sample.references))
        references += sample.references
        sequences.append(Sequence(index, tuple(places), index))
    sizes = [(s.latents.shape[1], s.latents.shape[2]) for s in samples]
    return model.prepare([s.text for s in samples], references, sizes, sequences, **options)


def velocities(model: OmniGen2Transformer2DModel, samples: list[Sample], **options: object) -> list[Tensor]:
    times = torch.tensor([s.t for s in samples])
    return model.velocity([s.latents for s in samples], times, pack(model, samples, **options))
