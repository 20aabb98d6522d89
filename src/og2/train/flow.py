"""Trains the transformer by flow matching on a pool of latents: drawings and edits, all guidance branches.

A step is a few packs. The samples of a pack have the same task and text length (attention then runs as one
batch); which pack a step draws is random. Some packs lose their text, half of these their references too:
what guidance needs at sampling time is trained under the very prompt (the empty one) that sampling uses.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.conditioning.processor import load_processor
from og2.conditioning.vlm import encode_prompt
from og2.config import build
from og2.data.latents import LatentPool, PoolConfig
from og2.data.world_source import item_rng, to_model
from og2.model.transformer import OmniGen2Transformer2DModel, Sequence
from og2.train.distributed import Parallel, process_group
from og2.train.loop import RunConfig, train
from og2.train.objective import TimeConfig, noisy, sample_times, squared_errors
from og2.train.optim import OptimConfig
from og2.train.preview import PreviewConfig, Wish, decode, draw
from og2.train.task import Part, PartLoss, Work
from og2.world.language import describe
from og2.world.render import render_batch
from og2.world.score import score_edit, score_t2i
from og2.world.spec import sample_edit, sample_scene

logger = logging.getLogger(__name__)
EVAL_SEED = 900_301
NO_TEXT = -1


@dataclass(frozen=True)
class FlowModelConfig:
    """Constructor arguments of OmniGen2Transformer2DModel, under their published names."""

    patch_size: int = 2
    in_channels: int = 16
    hidden_size: int = 240
    num_layers: int = 6
    num_refiner_layers: int = 1
    num_attention_heads: int = 5
    num_kv_heads: int = 1
    multiple_of: int = 64
    ffn_dim_multiplier: float | None = 0.5
    norm_eps: float = 1e-5
    axes_dim_rope: tuple[int, int, int] = (16, 16, 16)
    axes_lens: tuple[int, int, int] = (1024, 1664, 1664)
    text_feat_dim: int = 192
    timestep_scale: float = 1000.0


@dataclass(frozen=True)
class FlowDataConfig:
    """What a step sees: samples per pack, shares of drawings with 1, 2, 3 objects, rates of dropping.

    sample_targets: draw targets from the VAE's posterior instead of taking its mean (references are always
    drawn, as the pipeline does). The mini VAE leaves some channels unused, and drawing fills those with noise
    to learn.
    balance: when positive, a sample weighs 1 / (balance + its target's contrast), one on average. The latents
    of some colours are many times as large as those of others and would drown them in a squared error.
    """

    pool_folder: Path
    pool: PoolConfig = field(default_factory=PoolConfig)
    drawings: int = 40
    edits: int = 24
    drawing_shares: tuple[float, float, float] = (0.6, 0.25, 0.15)
    drop_text: float = 0.1
    drop_references: float = 0.5
    sample_targets: bool = False
    balance: float = 0.0


@dataclass(frozen=True)
class FlowEvalConfig:
    """Where previews get their VAE and language model, and how many are drawn and scored."""

    vae: Path
    mllm: Path
    processor: Path
    num_drawings: int = 60
    num_edits: int = 30
    preview: PreviewConfig = field(default_factory=PreviewConfig)


@dataclass(frozen=True)
class FlowRecipe:
    """The recipe `kind: flow`; `start`: a transformer folder to go on from instead of fresh weights."""

    run: RunConfig
    optim: OptimConfig
    data: FlowDataConfig
    evaluation: FlowEvalConfig
    model: FlowModelConfig = FlowModelConfig()
    time: TimeConfig = field(default_factory=TimeConfig)
    start: Path | None = None


def run(recipe: FlowRecipe) -> None:
    """Train (or resume) the transformer of `recipe`."""
    with process_group():
        train(make_task(recipe), recipe.run, recipe.optim)


def make_task(recipe: FlowRecipe) -> FlowTask:
    """The recipe's task, fresh."""
    torch.manual_seed(recipe.run.seed)
    return FlowTask(recipe)


@dataclass
class Pack:
    """Samples that go through the model together."""

    texts: list[Tensor]
    references: list[Tensor]
    targets: list[Tensor]
    sequences: list[Sequence]
    weights: Tensor | None


class FlowTask:
    """The transformer as the loop sees it."""

    kinds = ("loss",)

    def __init__(self, recipe: FlowRecipe) -> None:
        self.recipe = recipe
        self.module = make_transformer(recipe.model, recipe.start)
        self.parallel = Parallel(self.module)
        self.pool = LatentPool(recipe.data.pool_folder, recipe.data.pool)
        self.packer = Packer(self.pool, recipe.data)
        self._judge: Judge | None = None

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        """One drawing pack and one edit pack."""
        del step
        packs = {"draw": self.packer.drawings(generator), "edit": self.packer.edits(generator)}
        return [self._part(name, pack, generator) for name, pack in packs.items()]

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:
        """Scores of previews on unseen prompts and edits."""
        del step, module
        if self._judge is None:
            self._judge = Judge(self.recipe.evaluation, self.recipe.data.pool.size_px)
        return self._judge.scores(self.module)

    def export(self, folder: Path, module: nn.Module) -> None:
        """diffusers' layout."""
        del module
        self.module.save_pretrained(folder)

    def _part(self, name: str, pack: Pack, generator: torch.Generator) -> Part:
        def compute() -> PartLoss:
            # Plain attention: at these lengths the fused CPU kernel's backward was measured slower.
            with sdpa_kernel(SDPBackend.MATH):
                loss = self._pack_loss(pack, generator)
            return PartLoss({"loss": loss}, {f"loss_{name}": (loss.detach(), count)})

        count = float(sum(x.numel() for x in pack.targets))
        return Part({"loss": count}, compute, work=Work(samples=len(pack.targets)))

    def _pack_loss(self, pack: Pack, generator: torch.Generator) -> Tensor:
        """The squared error summed over the pack."""
        sizes = [(x.shape[-2], x.shape[-1]) for x in pack.targets]
        times = sample_times(self.recipe.time, sizes, generator)
        noises = [torch.randn(x.shape, generator=generator) for x in pack.targets]
        latents = [noisy(x1, x0, t) for x1, x0, t in zip(pack.targets, noises, times, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            prepared = self.module.prepare(pack.texts, pack.references, sizes, pack.sequences)
            predicted = self.module.velocity(latents, times, prepared)
        errors = squared_errors(predicted, pack.targets, noises)
        return (errors if pack.weights is None else errors * pack.weights).sum()


class Packer:
    """Draws packs of one task and one text length from the pool."""

    def __init__(self, pool: LatentPool, config: FlowDataConfig) -> None:
        self.pool, self.config = pool, config
        count = pool.num_drawings
        shares = torch.tensor(config.drawing_shares)
        per_object = torch.bincount(pool.drawing_objects, minlength=4)[1:].clamp(min=1)
        weights = (shares / per_object)[pool.drawing_objects - 1]
        self._drawings = _buckets(torch.arange(count), pool.lengths[:count], weights)
        edits = torch.arange(count, len(pool.lengths) - 1)
        self._edits = _buckets(edits, pool.lengths[count:-1], torch.ones(len(edits)))
        self._weights = None
        if config.balance > 0:
            weights = 1.0 / (config.balance + pool.contrasts())
            self._weights = weights / weights.mean()

    def drawings(self, generator: torch.Generator) -> Pack:
        """A pack of text-to-image samples."""
        chosen = _choose(self._drawings, self.config.drawings, generator)
        texts = self._texts(chosen, _chance(self.config.drop_text, generator))
        targets = self._targets(chosen, generator)
        sequences = [Sequence(i % len(texts), (), i) for i in range(len(chosen))]
        return Pack(texts, [], targets, sequences, self._weights_of(chosen))

    def edits(self, generator: torch.Generator) -> Pack:
        """A pack of edits: text, one reference, target."""
        chosen = _choose(self._edits, self.config.edits, generator)
        dropped = _chance(self.config.drop_text, generator)
        texts = self._texts(chosen, dropped)
        targets = self._targets(chosen, generator)
        if dropped and _chance(self.config.drop_references, generator):
            sequences = [Sequence(0, (), i) for i in range(len(chosen))]
            return Pack(texts, [], targets, sequences, self._weights_of(chosen))
        sources = [self.pool.source(i, generator) for i in chosen]
        sequences = [Sequence(i % len(texts), (i,), i) for i in range(len(chosen))]
        return Pack(texts, sources, targets, sequences, self._weights_of(chosen))

    def _weights_of(self, chosen: list[int]) -> Tensor | None:
        return None if self._weights is None else self._weights[chosen]

    def _targets(self, chosen: list[int], generator: torch.Generator) -> list[Tensor]:
        return [self.pool.target(i, generator if self.config.sample_targets else None) for i in chosen]

    def _texts(self, chosen: list[int], dropped: bool) -> list[Tensor]:
        return [self.pool.text(NO_TEXT)] if dropped else [self.pool.text(i) for i in chosen]


class Judge:
    """Fixed unseen prompts and edits, drawn with fixed seeds and scored from pixels."""

    def __init__(self, config: FlowEvalConfig, size_px: int) -> None:
        self.config = config
        self.vae = AutoencoderKL.from_pretrained(config.vae).eval()
        mllm = Qwen2_5_VLForConditionalGeneration.from_pretrained(config.mllm).eval()
        processor = load_processor(config.processor)
        size = (size_px // 8, size_px // 8)
        self.empty = encode_prompt(mllm, processor, "")
        self.requirements, self.drawings = [], []
        for index in range(config.num_drawings):
            rng = item_rng(EVAL_SEED, index)
            said = describe(sample_scene(rng, num_objects=1, split="test"), rng)
            self.requirements.append(said.requirements)
            self.drawings.append(Wish(encode_prompt(mllm, processor, said.text), (), size, index))
        self.edits, wishes = [], []
        for index in range(config.num_edits):
            edit = sample_edit(item_rng(EVAL_SEED + 1, index), split="test")
            source = render_batch([edit.source], size_px)
            latents = self._encode(source)
            self.edits.append((edit, source[0]))
            wishes.append(Wish(encode_prompt(mllm, processor, edit.instruction), (latents,), size, index))
        self.edit_wishes = wishes

    @torch.no_grad()
    def scores(self, model: OmniGen2Transformer2DModel) -> dict[str, float]:
        """Shares of right drawings and of successful edits, and of what was kept."""
        pictures = decode(self.vae, draw(model, self.drawings, self.empty, self.config.preview))
        verdicts = [score_t2i(p.numpy(), r) for p, r in zip(pictures, self.requirements, strict=True)]
        edited = decode(self.vae, draw(model, self.edit_wishes, self.empty, self.config.preview))
        judged = [
            (edit.kind, score_edit(source.numpy(), picture.numpy(), edit.requirements))
            for (edit, source), picture in zip(self.edits, edited, strict=True)
        ]
        result = {"draw_all": float(np.mean([v.passed for v in verdicts]))}
        for atom in ("count", "color", "shape"):
            hits = [[met for name, met in v.atoms.items() if atom in name] for v in verdicts]
            result[f"draw_{atom}"] = float(np.mean([bool(h) and all(h) for h in hits]))
        result["edit_success"] = float(np.mean([v.success for _, v in judged]))
        result["edit_kept"] = float(np.nanmean([v.kept for _, v in judged]))
        for kind in sorted({kind for kind, _ in judged}):
            result[f"edit_{kind}"] = float(np.mean([v.success for k, v in judged if k == kind]))
        return result

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        mean = self.vae.encode(to_model(pixels)).latent_dist.mean[0]
        return (mean - self.vae.config.shift_factor) * self.vae.config.scaling_factor


def make_transformer(config: FlowModelConfig, start: Path | None = None) -> OmniGen2Transformer2DModel:
    """A transformer with fresh weights, or with those of the folder `start`."""
    if start is not None:
        return OmniGen2Transformer2DModel.from_pretrained(start)
    return OmniGen2Transformer2DModel(**vars(config))


def model_config(tree: dict[str, Any]) -> FlowModelConfig:
    """The configuration written in a transformer's config.json, its private keys left out."""
    return build(
        FlowModelConfig, {k: v for k, v in tree.items() if not k.startswith("_") and k != "out_channels"}
    )


@dataclass
class _Buckets:
    members: list[Tensor]
    weights: list[Tensor]
    odds: Tensor


def _buckets(indices: Tensor, lengths: Tensor, weights: Tensor) -> _Buckets:
    kinds = lengths.unique().tolist()
    masks = [lengths == length for length in kinds]
    return _Buckets(
        [indices[mask] for mask in masks],
        [weights[mask] for mask in masks],
        torch.stack([weights[mask].sum() for mask in masks]),
    )


def _choose(buckets: _Buckets, count: int, generator: torch.Generator) -> list[int]:
    which = int(torch.multinomial(buckets.odds, 1, generator=generator))
    picked = torch.multinomial(buckets.weights[which], count, replacement=True, generator=generator)
    return buckets.members[which][picked].tolist()


def _chance(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability
