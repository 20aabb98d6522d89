"""Trains OmniGen2's transformer, all weights or a LoRA, on any mixture of rows; `kind: transformer`.

Steps come from the data room's loader: packs of any sizes and tasks. Time and noise of a sample follow from
(seed, stage, number of its draw), so that a step's gradient does not depend on how it is cut into packs and
ranks. Rows that are answered in words train the language model in the same step, where the recipe says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from og2.conditioning.processor import load_processor
from og2.data.cache import Cache, folder_hash
from og2.data.encode import Encoder, Networks, generator_of
from og2.data.examples import Reader
from og2.data.loader import Loader, merge_states
from og2.data.mix import open_mix
from og2.data.packing import Pack
from og2.device import chosen_device, computes_half, half_precision
from og2.errors import ConfigError
from og2.files import replaced
from og2.model.lora import WEIGHTS, new_adapter, save_adapter, transformer_hash
from og2.model.mllm import save_mllm
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.model.weights import load_mllm, load_transformer, load_vae, resolve_folder
from og2.train.answers import plain_mllm, trained_mllm
from og2.train.compiled import compile_blocks
from og2.train.cost import Lengths, forward_flops, step_flops
from og2.train.distributed import Parallel, gathered, process_group, rank, world_size
from og2.train.halves import quicken_blocks
from og2.train.loop import train
from og2.train.network import FlowInputs, TrainedNetworks, flow_errors
from og2.train.objective import times_from_normal
from og2.train.optim import OptimConfig
from og2.train.recipe import DataConfig, TransformerRecipe
from og2.train.samples import check_samples, draw_samples
from og2.train.task import Figures, Part, PartLoss, Work
from og2.train.validation import Validation

logger = logging.getLogger(__name__)
NOISE_STREAM = 11


def run(recipe: TransformerRecipe) -> None:
    """Train (or resume) what `recipe` says."""
    with process_group():
        train(make_task(recipe), recipe.run, whole_schedule(recipe), recipe.rate)


def make_task(recipe: TransformerRecipe) -> TransformerTask:
    """The recipe's task, fresh; the process group, if there is one, must be there."""
    torch.manual_seed(recipe.run.seed)
    return TransformerTask(recipe)


def whole_schedule(recipe: TransformerRecipe) -> OptimConfig:
    """The optimizer's configuration with the steps of all stages."""
    return OptimConfig(**{**vars(recipe.optim), "steps": recipe.num_steps})


def trained_networks(
    recipe: TransformerRecipe, device: torch.device, is_anchored: bool = False
) -> TrainedNetworks:
    """What the recipe trains, with the weights it starts from.

    Weights under an adapter are in bfloat16 on an accelerator that computes in it; what learns is in float32.
    """
    folder, lora, answers = resolve_folder(recipe.model), recipe.lora, recipe.answers
    if recipe.fresh is not None:
        transformer = OmniGen2Transformer2DModel(**vars(recipe.fresh))
    else:
        is_half = lora is not None and recipe.compute.precision == "bf16" and device.type == "cuda"
        transformer = load_transformer(folder, torch.bfloat16 if is_half else torch.float32)
    if lora is not None:
        new_adapter(transformer, lora.rank, lora.scale * lora.rank, lora.targets, lora.dropout)
    mllm = None if answers is None else trained_mllm(load_mllm(folder / "mllm"), answers)
    return TrainedNetworks(transformer, mllm, is_anchored).train().to(device)


def frozen_networks(folder: Path, device: torch.device) -> Networks:
    """VAE and language model of a model folder, to encode rows with; on an accelerator in bfloat16."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    processor = processor_folder(folder)
    return Networks(
        load_vae=lambda: load_vae(folder / "vae", dtype).to(device),
        load_mllm=lambda: load_mllm(folder / "mllm", dtype).to(device),
        load_processor=lambda: load_processor(processor),
        vae_hash=folder_hash(folder / "vae", note=str(dtype)),
        mllm_hash=folder_hash(folder / "mllm", processor, note=str(dtype)),
    )


def data_of(
    recipe: TransformerRecipe,
    data: DataConfig,
    device: torch.device,
    networks: Networks | None = None,
    stage: int = 0,
) -> tuple[Reader, Encoder]:
    """What reads and what encodes the rows of `data`, through the recipe's cache.

    Every stage of a curriculum draws with a seed of its own: the run's plus the stage's number.
    """
    seed = recipe.run.seed + stage
    cache = Cache(recipe.data.cache) if recipe.data.cache else None
    networks = networks or frozen_networks(resolve_folder(recipe.model), device)
    encoder = Encoder(networks, data.encode, seed, cache)
    return Reader(open_mix(data.mix, seed), data.read, encoder.keys), encoder


def processor_folder(folder: Path) -> Path:
    """Where a model folder has its tokenizer."""
    return next(folder / name for name in ("processor", "mllm_processor") if (folder / name).is_dir())


def base_hash(recipe: TransformerRecipe) -> str:
    """The hash of the transformer that the run starts from; empty where it starts from random weights."""
    return "" if recipe.fresh else transformer_hash(resolve_folder(recipe.model))


class TransformerTask:
    """The transformer as the loop sees it."""

    def __init__(self, recipe: TransformerRecipe) -> None:
        self.recipe = recipe
        self.device = chosen_device(recipe.compute.device)
        self.folder = resolve_folder(recipe.model)
        self.kinds = ("flow",) if recipe.answers is None else ("flow", "answers")
        strategy = _strategy(recipe)
        check_samples(recipe.samples)
        self.module = trained_networks(recipe, self.device, is_anchored=world_size() > 1)
        transformer = self.module.transformer
        if recipe.compute.checkpointing:
            transformer.enable_gradient_checkpointing()
        if recipe.compute.compile:
            compile_blocks(transformer, self.device)
        elif self.device.type == "cpu":
            quicken_blocks(transformer)
        half = recipe.compute.precision == "bf16" and computes_half(self.device.type)
        self.parallel = Parallel(self.module, strategy, _shards(transformer), half)
        self.networks = frozen_networks(self.folder, self.device)
        self._loader: Loader | None = None
        self._stage = -1
        self._position: dict[str, Any] | None = None
        self._validation: Validation | None = None

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        """The packs of this rank."""
        del generator  # noise follows from the samples
        stage, _ = self.recipe.stage_at(step)
        self._enter(stage)
        assert self._loader is not None
        batch = next(self._loader)
        first, *others = (self.part(pack, stage) for pack in batch.packs)
        return [replace(first, skipped=tuple(row.id for row in batch.skipped)), *others]

    def part(self, pack: Pack, stage: int) -> Part:
        """One pack as a part of a step of stage `stage`."""
        if pack.answers and "answers" not in self.kinds:
            raise ConfigError(
                f"row {pack.answer_ids[0]} is answered in words, but the language model is frozen; "
                "give the recipe a section `answers`, or take such rows out of the mix"
            )
        counts = {"flow": float(sum(x.numel() for x in pack.targets))}
        counts["answers"] = float(sum(int(answer.said[1:].sum()) for answer in pack.answers))
        return Part(
            {kind: counts[kind] for kind in self.kinds},
            lambda: self._loss(pack, stage),
            (*pack.ids, *pack.answer_ids),
            self._work(pack),
        )

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:
        """Validation loss per task, always of the same rows, noise and times."""
        del step
        config = self.recipe.validation
        if config is None:
            return {}
        assert isinstance(module, TrainedNetworks)
        if self._validation is None:
            data = data_of(self.recipe, replace(self.recipe.data, mix=config.mix), self.device, self.networks)
            self._validation = Validation(config, *data)
        with self._precision():
            return self._validation.losses(module.transformer)

    def export(self, folder: Path, module: nn.Module) -> None:
        """What was trained: the adapter's file, or the transformer in diffusers' layout; and the mllm/."""
        assert isinstance(module, TrainedNetworks)
        if self.recipe.lora is not None:
            save_adapter(module.transformer, folder / WEIGHTS, self._base)
        else:
            replaced(folder / "transformer", module.transformer.save_pretrained)
        if self.recipe.answers is not None:
            replaced(folder / "mllm", lambda place: save_mllm(plain_mllm(module.mllm), place, "5GB"))

    def sample(self, step: int, exported: Path) -> None:
        """The sample grid of this step, drawn from the files that `export` wrote."""
        if self.recipe.samples:
            place = self.recipe.run.folder / "samples" / f"step-{step:08d}"
            draw_samples(self.recipe, exported, place, self.device)

    def unsharded(self) -> nn.Module:
        """A twin to evaluate with, on this rank's device."""
        config = dict(self.module.transformer.config)
        twin = OmniGen2Transformer2DModel.from_config(config)
        return TrainedNetworks(twin).to(self.device).eval()

    def position(self) -> dict[str, Any]:
        """The stage, and the position of its loader over all ranks."""
        assert self._loader is not None
        base = {} if self.recipe.lora is None else {"base": self._base}
        return {"stage": self._stage, "loader": merge_states(gathered(self._loader.state_dict())), **base}

    def go_to(self, position: Mapping[str, Any]) -> None:
        """Continue there.   Raises: ConfigError when an adapter was learned on other weights."""
        if "base" in position and position["base"] != self._base:
            raise ConfigError(
                f"this run's adapter was learned on transformer {position['base'][:10]}, that of "
                f"model={self.recipe.model} is {self._base[:10]}; give the former, or take another run.folder"
            )
        self._position = dict(position)

    def _precision(self) -> AbstractContextManager[Any]:
        return half_precision(self.device) if self.recipe.compute.precision == "bf16" else nullcontext()

    @cached_property
    def _base(self) -> str:
        return base_hash(self.recipe)

    def close(self) -> None:
        """End the data workers."""
        if self._loader is not None:
            self._loader.close()

    def _loss(self, pack: Pack, stage: int) -> PartLoss:
        """Summed errors of a pack, by kind, with figures by time and by task."""
        pack = pack.to(self.device)
        inputs, noises = self.noised(pack, stage)
        with self._precision():
            found = self.parallel.call(inputs, pack.answers)
        losses: dict[str, Tensor] = {}
        figures: Figures = {}
        if pack.targets:
            errors, figures = flow_errors(found.velocities, pack, noises, inputs.times)
            losses["flow"] = errors.sum() if found.anchor is None else errors.sum() + found.anchor
        elif found.anchor is not None:
            losses["flow"] = found.anchor
        if found.answers:
            total = torch.stack(found.answers).sum()
            figures["loss_answers"] = (
                total.detach(),
                float(sum(int(a.said[1:].sum()) for a in pack.answers)),
            )
            assert self.recipe.answers is not None
            losses["answers"] = total * self.recipe.answers.weight
        return PartLoss(losses, figures)

    def noised(self, pack: Pack, stage: int) -> tuple[FlowInputs, list[Tensor]]:
        """The pack at its times with its noise, and the noise (C, h, w) of each target."""
        noises: list[Tensor] = []
        times: list[float] = []
        for draw, target in zip(pack.draws, pack.targets, strict=True):
            generator = generator_of(self.recipe.run.seed, stage, draw, NOISE_STREAM)
            # By itself: a vectorised sigmoid rounds by the place in the vector.
            normal, size = torch.randn(1, generator=generator), (target.shape[-2], target.shape[-1])
            times.append(float(times_from_normal(self.recipe.time, normal, [size])))
            noises.append(torch.randn(target.shape, generator=generator).to(target))
        return FlowInputs.of(pack, torch.tensor(times, device=self.device), noises), noises

    def _work(self, pack: Pack) -> Work:
        transformer = self.module.transformer
        patch = transformer.patch_size**2
        pictures = [x.shape[-2] * x.shape[-1] // patch for x in pack.references]
        sequences = [
            Lengths(
                len(pack.texts[text]),
                tuple(pictures[k] for k in references),
                pack.targets[target].shape[-2] * pack.targets[target].shape[-1] // patch,
            )
            for text, references, target in pack.sequences
        ]
        forward = forward_flops(transformer, sequences, [len(text) for text in pack.texts])
        samples = len(pack.targets) + len(pack.answers)
        return Work(samples, pack.num_tokens, step_flops(forward, self.recipe.lora is None))

    def _enter(self, stage: int) -> None:
        """Opens the loader of that stage, unless it is open."""
        if stage == self._stage:
            return
        self.close()
        data = self.recipe.curriculum()[stage].data(self.recipe.data)
        reader, encoder = data_of(self.recipe, data, self.device, self.networks, stage)
        patch_size = self.module.transformer.patch_size
        self._loader = Loader(reader, encoder, data.loader, rank(), world_size(), patch_size)
        self._stage = stage
        if self._position is not None and self._position["stage"] == stage:
            self._loader.load_state_dict(self._position["loader"])
        self._position = None
        logger.info("stage %s begins or goes on", self.recipe.curriculum()[stage].name)


def _strategy(recipe: TransformerRecipe) -> Any:
    partial = recipe.lora is not None or recipe.answers is not None
    asked = recipe.compute.strategy
    if asked == "fsdp" and partial:
        raise ConfigError(
            "compute.strategy=fsdp trains all weights of the transformer, no adapter and no answers; "
            "use ddp, or leave out lora and answers"
        )
    return ("ddp" if partial else "fsdp") if asked == "auto" else asked


def _shards(transformer: OmniGen2Transformer2DModel) -> list[nn.Module]:
    """What is sharded by itself: each block, and its modulation, which all blocks compute before they run."""
    found: list[nn.Module] = []
    for blocks in (
        transformer.noise_refiner,
        transformer.ref_image_refiner,
        transformer.context_refiner,
        transformer.layers,
    ):
        for block in blocks:
            found += [block.norm1.linear, block] if block.modulated else [block]
    return found
