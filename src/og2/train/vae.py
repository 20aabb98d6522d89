"""Trains the mini VAE: diffusers' AutoencoderKL on pictures of the world.

Loss: squared and absolute error, heavier along edges (where a small VAE blurs), plus a small KL term. The
posterior is sampled, so the decoder learns to forgive latents that are a little off. At the end the latents'
mean and standard deviation become `shift_factor` and `scaling_factor`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from og2.data import world_source
from og2.data.world_pictures import PictureView, view_pictures, view_scenes
from og2.device import DeviceName, chosen_device, half_precision
from og2.errors import ConfigError
from og2.files import replaced
from og2.train.distributed import Parallel, process_group, rank, world_size
from og2.train.loop import RunConfig, train
from og2.train.optim import OptimConfig
from og2.train.task import Part, PartLoss, mean_part
from og2.train.vae_measures import measure, uneven
from og2.world.scenes import Scene

logger = logging.getLogger(__name__)
EVAL_SEED = 900_001
FIRST_LOGVAR = -4.0


@dataclass(frozen=True)
class VaeModelConfig:
    """Sizes of the AutoencoderKL (four levels give a factor of 8)."""

    block_out_channels: tuple[int, ...] = (32, 48, 96, 128)
    layers_per_block: int = 1
    latent_channels: int = 16
    norm_num_groups: int = 16
    mid_block_add_attention: bool = False


@dataclass(frozen=True)
class VaeDataConfig:
    """Pictures per step, their side in pixels, shares of scenes with 1, 2, 3 objects, and of empty ones.

    The first `crop_steps` steps see squares of `crop_px` around objects instead of whole pictures: most of a
    picture is plain background, and a step costs a fraction.

    views: what is said so far is of the plain world; with views every step draws one of them instead, and
    evaluation is about the whole world.
    """

    batch: int = 16
    size_px: int = 64
    num_objects: tuple[float, ...] = (0.3, 0.35, 0.35)
    empty: float = 0.0
    crop_px: int = 32
    crop_steps: int = 0
    crop_batch: int = 16
    views: tuple[PictureView, ...] = ()

    def __post_init__(self) -> None:
        if self.views and not sum(view.share for view in self.views):
            raise ConfigError("data.views: every share is 0; give one that is more")


@dataclass(frozen=True)
class VaeLossConfig:
    """Weights of the loss terms; `edge` multiplies the local contrast of the picture.

    `edge_gain` multiplies the contrast before it is cut at 1, so that faint edges count too.
    `latent_noise` is added to latents before decoding, as a share of their standard deviation.
    `plain` weighs the absolute error of 8 x 8 averages: shades of plain areas.
    `even` weighs how far latents are from zero mean and unit covariance (`vae_measures.uneven`).
    """

    squared: float = 1.0
    plain: float = 0.0
    edge_gain: float = 1.0
    latent_noise: float = 0.0
    absolute: float = 0.1
    edge: float = 4.0
    kl: float = 1e-6
    even: float = 0.0


@dataclass(frozen=True)
class VaeRecipe:
    """The recipe `kind: vae`; `start`: the folder of a VAE to go on from instead of fresh weights.

    With `train_encoder: false` only the decoder learns; latents made before stay good.
    """

    run: RunConfig
    optim: OptimConfig
    model: VaeModelConfig = VaeModelConfig()
    data: VaeDataConfig = VaeDataConfig()
    loss: VaeLossConfig = VaeLossConfig()
    start: Path | None = None
    train_encoder: bool = True
    device: DeviceName = "auto"


def run(recipe: VaeRecipe) -> None:
    """Train (or resume) the VAE of `recipe`."""
    with process_group():
        train(make_task(recipe), recipe.run, recipe.optim)


def make_task(recipe: VaeRecipe) -> VaeTask:
    """The recipe's task, fresh."""
    torch.manual_seed(recipe.run.seed)
    return VaeTask(recipe)


class VaeTask:
    """The VAE as the loop sees it."""

    kinds = ("loss",)

    def __init__(self, recipe: VaeRecipe) -> None:
        self.recipe = recipe
        if recipe.start is None:
            self.module = build_vae(recipe.model, recipe.data.size_px)
        else:
            self.module = AutoencoderKL.from_pretrained(recipe.start)
        self.device = chosen_device(recipe.device)
        self.module.to(self.device).encoder.requires_grad_(recipe.train_encoder)
        self.parallel = Parallel(self.module)

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        """One batch."""
        return [Part({"loss": 1.0}, lambda: self._loss(step, generator))]

    def _loss(self, step: int, generator: torch.Generator) -> PartLoss:
        """Weighted reconstruction error plus KL of one batch."""
        weights = self.recipe.loss
        pixels = self._pixels(step, generator).to(self.device)
        with half_precision(self.device):
            posterior = self.module.encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator).to(self.device)
        latents = mean + noise * torch.exp(0.5 * logvar)
        if weights.latent_noise:
            extra = torch.randn(mean.shape, generator=generator)
            amount = weights.latent_noise * torch.rand(len(mean), 1, 1, 1, generator=generator)
            latents = latents + (amount * extra).to(self.device) * mean.detach().std()
        with half_precision(self.device):
            decoded = self.module.decode(latents).sample.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum(dim=(1, 2, 3)).mean()
        error = decoded - pixels
        weight = edge_weight(pixels, weights.edge, weights.edge_gain)
        value = (weight * (weights.squared * error.square() + weights.absolute * error.abs())).mean()
        if weights.even:
            value = value + weights.even * uneven(mean)
        if weights.plain:
            value = value + weights.plain * functional.avg_pool2d(error, 8).abs().mean()
        with torch.no_grad():
            metrics = {
                "mse": error.square().mean().item(),
                "kl": kl.item(),
                "std": logvar.mul(0.5).exp().mean().item(),
            }
        return mean_part(value + weights.kl * kl, metrics)

    def _pixels(self, step: int, generator: torch.Generator) -> Tensor:
        """This rank's pictures of the step: every rank has a batch of its own."""
        data, batches = self.recipe.data, step * world_size() + rank()
        if data.views:
            shares = torch.tensor([view.share for view in data.views])
            view = data.views[int(torch.multinomial(shares, 1, generator=generator))]
            first = batches * max(view.batch for view in data.views)
            return view_pictures(view, view_scenes(view, self.recipe.run.seed, first), generator)
        crops = step < data.crop_steps
        count = data.crop_batch if crops else data.batch
        batch = world_source.scenes(
            self.recipe.run.seed,
            batches * max(data.batch, data.crop_batch),
            count,
            data.num_objects,
            0.0 if crops else data.empty,
        )
        pixels = world_source.pictures(batch, data.size_px)
        return crop_objects(pixels, batch, data.crop_px, generator) if crops else pixels

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:
        """PSNR on unseen scenes by number of objects or kind, and the latents' statistics for `export`."""
        del step, module
        if self.recipe.data.views:
            figures, seen = measure(self.module, EVAL_SEED)
            self.statistics = (seen.mean().item(), seen.std().item())
            return figures
        result, latents = {}, []
        for number in (1, 2, 3):
            shares = [float(number == k) for k in (1, 2, 3)]
            scenes = world_source.scenes(EVAL_SEED + number, 0, 48, shares)
            pixels = world_source.pictures(scenes, self.recipe.data.size_px).to(self.device)
            mean = self.module.encode(pixels).latent_dist.mean
            latents.append(mean)
            decoded = self.module.decode(mean).sample.clamp(-1, 1)
            result[f"psnr_{number}_db"] = psnr(decoded, pixels)
        values = torch.cat(latents)
        self.statistics = (values.mean().item(), values.std().item())
        channel_std = values.std(dim=(0, 2, 3))
        return {
            **result,
            "latent_mean": self.statistics[0],
            "latent_std": self.statistics[1],
            "channel_std_min": channel_std.min().item(),
            "channel_std_max": channel_std.max().item(),
        }

    def export(self, folder: Path, module: nn.Module) -> None:
        """diffusers' layout with shift_factor and scaling_factor measured by `evaluate`."""
        del module
        if self.recipe.train_encoder:
            mean, std = self.statistics
            self.module.register_to_config(shift_factor=round(mean, 6), scaling_factor=round(1.0 / std, 6))
        replaced(folder, self.module.save_pretrained)


def build_vae(model: VaeModelConfig, size_px: int) -> AutoencoderKL:
    """A fresh AutoencoderKL without quant convolutions, as OmniGen2's."""
    levels = len(model.block_out_channels)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=model.block_out_channels,
        layers_per_block=model.layers_per_block,
        latent_channels=model.latent_channels,
        norm_num_groups=model.norm_num_groups,
        mid_block_add_attention=model.mid_block_add_attention,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=size_px,
        scaling_factor=1.0,
    )
    with torch.no_grad():  # begin with a narrow posterior: early noise only hides the pictures
        vae.encoder.conv_out.bias[model.latent_channels :] = FIRST_LOGVAR
    return vae


def crop_objects(pixels: Tensor, batch: Sequence[Scene], side: int, generator: torch.Generator) -> Tensor:
    """(B, 3, side, side): of each picture a square near one of its objects."""
    size = pixels.shape[-1]
    result = []
    for picture, scene in zip(pixels, batch, strict=True):
        which, dx, dy = torch.rand(3, generator=generator).tolist()
        obj = scene.objects[int(which * len(scene.objects))]
        left, top = (
            min(max(0, round(at * size + (jitter - 1.0) * side)), size - side)
            for at, jitter in ((obj.x, dx), (obj.y, dy))
        )
        result.append(picture[:, top : top + side, left : left + side])
    return torch.stack(result)


def edge_weight(pixels: Tensor, strength: float, gain: float = 1.0) -> Tensor:
    """(B, 1, H, W), one plus `strength` times the local contrast (range in 3 x 3, times gain, cut at 1)."""
    largest = functional.max_pool2d(pixels, 3, 1, 1)
    smallest = -functional.max_pool2d(-pixels, 3, 1, 1)
    return 1.0 + strength * ((largest - smallest).amax(dim=1, keepdim=True) * gain).clamp(max=1.0)


def psnr(decoded: Tensor, pixels: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB; both (B, 3, H, W) in [-1, 1]."""
    error = (decoded.float() - pixels).square().mean(dim=(1, 2, 3)) / 4.0
    return float((-10.0 * torch.log10(error.clamp(min=1e-10))).mean())
