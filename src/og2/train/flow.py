"""Trains mini's transformer on a pool of latents, judged by pixels: `kind: flow`.

Packs, networks, errors and the loop are those of `kind: transformer`. Its own are where packs come from (a
pool in memory, drawn from with the step's generator, which times and noise follow too), that gradients are
averaged once a step, and previews scored by the world's rules.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.conditioning.processor import load_processor
from og2.conditioning.vlm import encode_prompt
from og2.data.latents import LatentPool, PoolConfig
from og2.data.packing import Pack
from og2.data.pool_packs import PoolDataConfig, PoolPacks
from og2.data.sight import CellWords, missed
from og2.data.world_source import item_rng, to_model
from og2.device import DeviceName, chosen_device, half_precision
from og2.errors import ConfigError
from og2.files import replaced
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.train.compiled import compile_blocks
from og2.train.distributed import Parallel, process_group
from og2.train.halves import quicken_blocks
from og2.train.loop import RunConfig, train
from og2.train.network import FlowInputs, TrainedNetworks, flow_errors
from og2.train.objective import TimeConfig, sample_times
from og2.train.optim import OptimConfig
from og2.train.preview import PreviewConfig, Wish, decode, draw
from og2.train.repatch import give_body, repatched
from og2.train.task import Part, PartLoss, Work
from og2.world.language import describe
from og2.world.render import render_batch
from og2.world.score import score_edit, score_t2i
from og2.world.spec import PROMPT_TASKS, sample_edit, sample_prompt, sample_scene

logger = logging.getLogger(__name__)
EVAL_SEED = 900_301


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
class FlowEvalConfig:
    """Where previews get their VAE and language model, and how many are drawn and scored."""

    vae: Path
    mllm: Path
    processor: Path
    num_drawings: int = 60
    num_edits: int = 30
    preview: PreviewConfig = field(default_factory=PreviewConfig)


@dataclass(frozen=True)
class FlowLossConfig:
    """sight: weight of asking target tokens, after joint layer `layer` (from 1), what they draw; 0 = not.

    Asked is the pool of `data`; those of `also` may be of another world.
    """

    sight: float = 0.0
    layer: int = 3


@dataclass(frozen=True)
class FlowRecipe:
    """The recipe `kind: flow`; `start`: a transformer folder to go on from instead of fresh weights.

    Its patches may be a multiple of the model's (og2.train.repatch), its other sizes are the same.
    start_body: a transformer folder to take everything from but what reads and writes latents; these may be
    of another VAE and in other patches.
    also: other pools that every step takes packs of as well, of pictures of another size or world; previews
    are of `data`'s.
    compile: compile each block of the transformer (og2.train.compiled).
    """

    run: RunConfig
    optim: OptimConfig
    data: PoolDataConfig
    evaluation: FlowEvalConfig
    model: FlowModelConfig = FlowModelConfig()
    time: TimeConfig = field(default_factory=TimeConfig)
    loss: FlowLossConfig = FlowLossConfig()
    start: Path | None = None
    start_body: Path | None = None
    also: tuple[PoolDataConfig, ...] = ()
    compile: bool = False
    device: DeviceName = "auto"

    def __post_init__(self) -> None:
        if self.start is not None and self.start_body is not None:
            raise ConfigError("start and start_body both name weights to begin from; give one of them")


def run(recipe: FlowRecipe) -> None:
    """Train (or resume) the transformer of `recipe`."""
    with process_group():
        train(make_task(recipe), recipe.run, recipe.optim)


def make_task(recipe: FlowRecipe) -> FlowTask:
    """The recipe's task, fresh."""
    torch.manual_seed(recipe.run.seed)
    return FlowTask(recipe)


class SightHead(nn.Module):
    """Asks states of target tokens (N, D) what they draw, kind by kind of word; for training only."""

    def __init__(self, width: int, asked: CellWords) -> None:
        super().__init__()
        self.asked = asked
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.words = nn.Linear(width, sum(asked.sizes))

    def forward(self, states_ND: Tensor, labels_NK: Tensor) -> Tensor:
        """Cross-entropy with the labels, summed over tokens and kinds."""
        scores = self.words(functional.silu(self.hidden(self.norm(states_ND))))
        return missed(scores.float(), labels_NK, self.asked)


class FlowTask:
    """The transformer as the loop sees it; with a head, checkpoints name both."""

    def __init__(self, recipe: FlowRecipe) -> None:
        self.recipe = recipe
        self.device = chosen_device(recipe.device)
        self.transformer = make_transformer(recipe.model, recipe.start, recipe.start_body).to(self.device)
        if recipe.compile:
            compile_blocks(self.transformer, self.device)
        elif self.device.type == "cpu":
            quicken_blocks(self.transformer)
        self.module: nn.Module = self.transformer
        self.kinds: tuple[str, ...] = ("loss",)
        self.head, watched = None, None
        if recipe.loss.sight:
            last = recipe.model.num_layers - 1
            if not 1 <= recipe.loss.layer <= last:
                raise ConfigError(
                    f"loss.layer={recipe.loss.layer}; layers whose states go on are 1 to {last}"
                )
            asked = CellWords.of(recipe.data.pool.world)
            self.head = SightHead(recipe.model.hidden_size, asked).to(self.device)
            watched = recipe.loss.layer - 1
            self.module = nn.ModuleDict({"transformer": self.transformer, "head": self.head})
            self.kinds = ("loss", "sight")
        self.networks = TrainedNetworks(self.transformer, watched=watched)
        self.parallel = Parallel(self.module)
        self.sources = [
            PoolPacks(LatentPool(data.pool_folder, data.pool), data, recipe.model.patch_size)
            for data in (recipe.data, *recipe.also)
        ]
        self._judge: Judge | None = None

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        """Of every pool one pack each of the drawings, edits and in-context requests that are asked for."""
        del step
        return [
            self._part(pack, source.pool, generator)
            for source in self.sources
            for pack in source.step(generator)
        ]

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:
        """Scores of previews on unseen prompts and edits."""
        del step, module
        if self._judge is None:
            self._judge = Judge(self.recipe.evaluation, self.recipe.data.pool, self.device)
        return self._judge.scores(self.transformer)

    def export(self, folder: Path, module: nn.Module) -> None:
        """diffusers' layout."""
        del module
        replaced(folder, self.transformer.save_pretrained)

    def _part(self, pack: Pack, pool: LatentPool, generator: torch.Generator) -> Part:
        counts, labels = {"loss": float(sum(x.numel() for x in pack.targets))}, None
        if self.head is not None and pool is self.sources[0].pool:
            tokens = pack.num_target_tokens // len(pack.targets)
            labels = pool.sights(pack.draws, tokens).flatten(0, 1).to(self.device)
            counts["sight"] = float(labels.numel())
        return Part(
            counts,
            lambda: self._loss(pack, generator, labels),
            pack.ids,
            Work(samples=len(pack.targets), tokens=pack.num_tokens),
        )

    def _loss(self, pack: Pack, generator: torch.Generator, labels: Tensor | None = None) -> PartLoss:
        """The squared error and what the head missed, each summed over the pack."""
        sizes = [(x.shape[-2], x.shape[-1]) for x in pack.targets]
        times = sample_times(self.recipe.time, sizes, generator)
        noises = [torch.randn(x.shape, generator=generator).to(self.device) for x in pack.targets]
        pack = pack.to(self.device)
        unseen = None
        with half_precision(self.device):
            found = self.networks(FlowInputs.of(pack, times.to(self.device), noises))
            if self.head is not None and labels is not None:
                unseen = self.head(found.states, labels)
        errors, figures = flow_errors(found.velocities, pack, noises, times)
        losses = {"loss": errors.sum()}
        if unseen is not None and labels is not None:
            losses["sight"] = self.recipe.loss.sight * unseen
            figures["loss_sight"] = (unseen.detach(), float(labels.numel()))
        return PartLoss(losses, figures)


class Judge:
    """Unseen prompts and edits of the pool's world and tasks, with fixed seeds, scored from pixels."""

    def __init__(self, config: FlowEvalConfig, pool: PoolConfig, device: torch.device) -> None:
        self.config = config
        self.vae = AutoencoderKL.from_pretrained(config.vae).eval().to(device)
        mllm = Qwen2_5_VLForConditionalGeneration.from_pretrained(config.mllm).eval().to(device)
        processor = load_processor(config.processor)
        size = (pool.size_px // 8, pool.size_px // 8)
        tasks = tuple(pool.tasks) or PROMPT_TASKS
        self.empty = encode_prompt(mllm, processor, "")
        self.requirements, self.drawings = [], []
        for index in range(config.num_drawings):
            rng = item_rng(EVAL_SEED, index)
            said = (
                describe(sample_scene(rng, num_objects=1, split="test"), rng)
                if pool.world == "plain"
                else sample_prompt(rng, tasks[index % len(tasks)], "test")
            )
            self.requirements.append(said.requirements)
            self.drawings.append(Wish(encode_prompt(mllm, processor, said.text), (), size, index))
        self.edits, wishes = [], []
        for index in range(config.num_edits):
            edit = sample_edit(item_rng(EVAL_SEED + 1, index), split="test", world=pool.world)
            source = render_batch([edit.source], pool.size_px)
            latents = self._encode(source)
            self.edits.append((edit, source[0]))
            wishes.append(Wish(encode_prompt(mllm, processor, edit.instruction), (latents,), size, index))
        self.edit_wishes = wishes

    @torch.no_grad()
    def scores(self, model: OmniGen2Transformer2DModel) -> dict[str, float]:
        """Shares of right drawings and of successful edits, and of what was kept; nothing without any."""
        return {
            **(self._drawn(model) if self.drawings else {}),
            **(self._edited(model) if self.edits else {}),
        }

    def _drawn(self, model: OmniGen2Transformer2DModel) -> dict[str, float]:
        pictures = decode(self.vae, draw(model, self.drawings, self.empty, self.config.preview))
        verdicts = [score_t2i(p.numpy(), r) for p, r in zip(pictures, self.requirements, strict=True)]
        result = {"draw_all": float(np.mean([v.passed for v in verdicts]))}
        for atom in ("count", "color", "shape"):
            hits = [[met for name, met in v.atoms.items() if atom in name] for v in verdicts]
            result[f"draw_{atom}"] = float(np.mean([bool(h) and all(h) for h in hits]))
        return result

    def _edited(self, model: OmniGen2Transformer2DModel) -> dict[str, float]:
        edited = decode(self.vae, draw(model, self.edit_wishes, self.empty, self.config.preview))
        judged = [
            (edit.kind, score_edit(source.numpy(), picture.numpy(), edit.requirements))
            for (edit, source), picture in zip(self.edits, edited, strict=True)
        ]
        result = {
            "edit_success": float(np.mean([v.success for _, v in judged])),
            "edit_kept": float(np.nanmean([v.kept for _, v in judged])),
        }
        for kind in sorted({kind for kind, _ in judged}):
            result[f"edit_{kind}"] = float(np.mean([v.success for k, v in judged if k == kind]))
        return result

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        mean = self.vae.encode(to_model(pixels).to(self.vae.device)).latent_dist.mean[0]
        return (mean - self.vae.config.shift_factor) * self.vae.config.scaling_factor


def make_transformer(
    config: FlowModelConfig, start: Path | None = None, start_body: Path | None = None
) -> OmniGen2Transformer2DModel:
    """A transformer with fresh weights, with those of `start`, repatched where patches differ, or its body's.

    Raises: ConfigError when weights to begin from are of another size, in anything but their patches or, for
    a body, latents.
    """
    if start is not None:
        found = _of_same_size(config, start, {"patch_size"})
        return found if found.patch_size == config.patch_size else repatched(found, config.patch_size)
    fresh = OmniGen2Transformer2DModel(**vars(config))
    if start_body is not None:
        give_body(_of_same_size(config, start_body, {"patch_size", "in_channels"}), fresh)
    return fresh


def _of_same_size(config: FlowModelConfig, folder: Path, free: set[str]) -> OmniGen2Transformer2DModel:
    found = OmniGen2Transformer2DModel.from_pretrained(folder)
    for name, asked in vars(config).items():
        has = found.config[name]
        if name not in free and asked != (tuple(has) if isinstance(asked, tuple) else has):
            raise ConfigError(f"model.{name}={asked}, but the weights in {folder} have {has}; say the same")
    return found
