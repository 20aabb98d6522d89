"""How good a VAE is on unseen pictures of the whole world, and how even its latents are.

Even: seen from the flow model, every direction of the latents is as large as the others, and every colour
lies as far from its background. A squared error hardly sees what is faint.
"""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from og2.data.world_pictures import PictureView, view_scenes
from og2.data.world_source import item_rng, pictures
from og2.world.spec import Scene, sample_scene

SAMPLE = PictureView(share=1.0, batch=64)
CONTEXT = PictureView(share=1.0, batch=8, px=256, kinds={"context": 1.0})
PLAIN = PictureView(share=1.0, batch=32, px=64, kinds={"plain": 1.0})
_BATCH = 8
NUM_COLOR_SCENES = 96


def measure(vae: AutoencoderKL, seed: int) -> tuple[dict[str, float], Tensor]:
    """Figures of the VAE on pictures of the test split, and the latents (C, positions) of those at 128 px.

    psnr_*_db: by what a picture shows (`labels_of`), of plain ones at 64 px and in-context ones at 256 px.
    eigenvalue_*: of the latents' covariance, as shares of their mean variance. color_*: how far an object's
    latents lie from its background's, in standard deviations, for the faintest and the strongest colour.
    """
    found: dict[str, list[float]] = {}
    seen: list[Tensor] = []
    for name, view in (("", SAMPLE), ("plain", PLAIN), ("context_256", CONTEXT)):
        scenes = view_scenes(view, seed, 0, "test")
        for first in range(0, len(scenes), _BATCH):
            part = scenes[first : first + _BATCH]
            pixels = pictures(part, view.px).to(vae.device)
            mean = vae.encode(pixels).latent_dist.mean
            if view is SAMPLE:
                seen.append(mean.transpose(0, 1).flatten(1))
            for scene, value in zip(part, psnrs(vae.decode(mean).sample, pixels), strict=True):
                for label in (name,) if name else ("all", *labels_of(scene)):
                    found.setdefault(f"psnr_{label}_db", []).append(value)
    latents = torch.cat(seen, dim=1)
    figures = {name: sum(values) / len(values) for name, values in found.items()}
    figures |= {"worst_db": min(v for name, values in found.items() for v in values)}
    figures |= evenness(latents) | color_distances(vae, seed, latents.std())
    return figures, latents


def labels_of(scene: Scene) -> tuple[str, ...]:
    """What is hard to keep in the scene's picture; "objects" where nothing is."""
    parts = {"plates": scene.plates, "creatures": scene.creatures, "gizmos": scene.gizmos}
    parts |= {"look": scene.style or scene.tone, scene.backdrop_kind: scene.backdrop_kind != "plain"}
    return tuple(name for name, shown in parts.items() if shown) or ("objects",)


def evenness(latents: Tensor) -> dict[str, float]:
    """Largest, middle and smallest eigenvalue of the covariance of latents (C, N), over the mean variance."""
    values = torch.linalg.eigvalsh(torch.cov(latents.float()))
    shares = values / values.mean()
    middle = shares[len(shares) // 2]
    return {
        "eigenvalue_max": shares[-1].item(),
        "eigenvalue_mid": middle.item(),
        "eigenvalue_min": shares[0].item(),
    }


def uneven(latents: Tensor) -> Tensor:
    """How far latents (B, C, h, w) are from zero mean and from one as their covariance: a scalar.

    The product of the deviations of the two halves of the batch: its expectation is the squared deviation of
    all pictures, whatever the scatter of so few of them. Single values may be below zero.
    """
    halves = [half.transpose(0, 1).flatten(1).float() for half in latents.chunk(2)]
    means = [half.mean(dim=1) for half in halves]
    unit = torch.eye(latents.shape[1], device=latents.device)
    off = [half @ half.T / half.shape[1] - unit for half in halves]
    return (means[0] * means[1]).mean() + (off[0] * off[1]).sum() / latents.shape[1]


def color_distances(vae: AutoencoderKL, seed: int, unit: Tensor) -> dict[str, float]:
    """Over plain pictures at 128 px: the largest distance from the background, its median for each colour."""
    scenes = [sample_scene(item_rng(seed, i), 1) for i in range(NUM_COLOR_SCENES)]
    found: dict[str, list[float]] = {}
    for first in range(0, len(scenes), _BATCH):
        part = scenes[first : first + _BATCH]
        mean = vae.encode(pictures(part, SAMPLE.px).to(vae.device)).latent_dist.mean.flatten(2) / unit
        far = (mean - mean.median(dim=2, keepdim=True).values).norm(dim=1).amax(dim=1)
        for scene, value in zip(part, far.tolist(), strict=True):
            found.setdefault(scene.objects[0].color, []).append(value)
    medians = {color: float(torch.tensor(values).median()) for color, values in found.items()}
    return {"color_min": min(medians.values()), "color_max": max(medians.values())}


def psnrs(decoded: Tensor, pixels: Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB of each picture; both (B, 3, H, W) in [-1, 1]."""
    error = functional.mse_loss(decoded.float().clamp(-1, 1), pixels, reduction="none").mean(dim=(1, 2, 3))
    return (-10.0 * torch.log10((error / 4.0).clamp(min=1e-10))).tolist()
