"""A pool of training material for the transformer: latents and text features computed once, drawn many times.

Pictures are encoded by the frozen VAE (posterior mean and deviation are kept, so sampling stays), prompts by
the frozen language model. What the system turn gives is the same for every prompt (attention is causal) and
is kept once. What lies where in each target is kept too, for training that asks for it. The files
`pictures.safetensors`, `texts.safetensors` and `sights.safetensors` are each made whole or not at all; a run
that was stopped goes on behind the pictures that it had.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.conditioning.processor import Processor, load_processor
from og2.conditioning.templates import render_chat, render_prompt
from og2.conditioning.vlm import tokenize
from og2.data.cache import folder_hash
from og2.data.sight import CellWords, covered_labels
from og2.data.world_source import item_rng, pictures
from og2.device import DeviceName, chosen_device, half_precision
from og2.errors import ConfigError
from og2.files import written
from og2.world.choose import pick_by_odds
from og2.world.spec import (
    PROMPT_TASKS,
    Scene,
    WorldName,
    caption,
    plainly,
    sample_edit,
    sample_incontext,
    sample_prompt,
    sample_scene,
)

logger = logging.getLogger(__name__)
CHAT_SHARE = 0.12
PART = 2000
"""Pictures that are encoded and saved together."""
CELL_PX = 16
"""Side of the cells that say what lies there: a patch of 2 x 2 latents."""
EMPTY = ""


@dataclass(frozen=True)
class PoolConfig:
    """What the pool holds: drawings with 1, 2, 3 objects, and edits.   Units: counts; size_px pixels.

    world: in the full one drawings are of its prompts, whatever their number of objects (the sum of
    num_drawings counts), edits of all its kinds, and there are num_contexts in-context requests. There,
    tasks: shares of drawings by `PROMPT_TASKS`, which add up to 1; none: all alike. plain_share: of drawings,
    those that show no pattern and no backdrop but what the prompt asks for (og2.world.prompts.plainly).
    """

    seed: int = 31
    num_drawings: tuple[int, int, int] = (24000, 7000, 5000)
    num_edits: int = 35000
    size_px: int = 64
    world: WorldName = "plain"
    num_contexts: int = 0
    tasks: dict[str, float] = field(default_factory=dict)
    plain_share: float = 0.0

    def __post_init__(self) -> None:
        if self.world == "plain" and (self.num_contexts or self.tasks or self.plain_share):
            raise ConfigError(
                f"num_contexts={self.num_contexts}, tasks={self.tasks}, plain_share={self.plain_share}: "
                "the plain world has none of these; use world: full"
            )
        if unknown := sorted(set(self.tasks) - set(PROMPT_TASKS)):
            raise ConfigError(f"tasks: {unknown} are unknown; there are {', '.join(PROMPT_TASKS)}")
        if self.tasks and (min(self.tasks.values()) < 0 or abs(sum(self.tasks.values()) - 1.0) > 1e-6):
            raise ConfigError(f"tasks: {self.tasks}; shares are 0 or more and add up to 1")
        if not 0.0 <= self.plain_share <= 1.0:
            raise ConfigError(f"plain_share={self.plain_share}; use a share from 0 to 1")


@dataclass(frozen=True)
class LatentsRecipe:
    """The recipe `kind: latents`; `stages` names what to make.

    pictures needs the VAE, texts the language model, sights neither.
    """

    folder: Path
    vae: Path
    mllm: Path
    processor: Path
    pool: PoolConfig = PoolConfig()
    stages: tuple[str, ...] = ("pictures", "texts", "sights")
    threads: int = 2
    batch: int = 50
    device: DeviceName = "auto"


@dataclass(frozen=True)
class Item:
    """One training sample: a prompt, its target, and the pictures that go in (of an edit its source)."""

    prompt: str
    target: Scene
    references: tuple[Scene, ...] = ()
    is_chat: bool = False


def run(recipe: LatentsRecipe) -> None:
    """Make the stages that are not there yet.

    Raises: ConfigError when one that is there was made from another pool or by other networks.
    """
    torch.set_num_threads(recipe.threads)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    makers = {"pictures": encode_pictures, "texts": encode_texts, "sights": find_sights}
    for stage in recipe.stages:
        if stage not in makers:
            raise ConfigError(f"stages: {stage!r} is unknown; use {' and '.join(makers)}")
    paths = {stage: recipe.folder / f"{stage}.safetensors" for stage in recipe.stages}
    samples = [] if all(path.exists() for path in paths.values()) else items(recipe.pool)
    for stage, path in paths.items():
        origin = _origin(recipe, stage)
        if path.exists():
            _check_origin(path, origin)
        else:
            _save(makers[stage](recipe, samples), path, origin)
            if stage == "pictures":
                shutil.rmtree(_parts_folder(recipe))
        logger.info("%s is ready", path)


def _origin(recipe: LatentsRecipe, stage: str) -> dict[str, str]:
    """What decides about the numbers of a stage."""
    networks = {"pictures": (recipe.vae,), "texts": (recipe.mllm, recipe.processor)}.get(stage)
    made_by = {} if networks is None else {"networks": folder_hash(*networks)}
    return {"pool": repr(recipe.pool), **made_by}


def _check_origin(path: Path, origin: dict[str, str]) -> None:
    with safe_open(path, "pt") as stored:
        found = stored.metadata() or {}
    for what, asked in origin.items():
        if what not in found:
            logger.warning("%s does not say of which %s it is", path, what)
        elif found[what] != asked:
            raise ConfigError(
                f"{path} was made with {what} {found[what]}, the recipe has {asked}; remove the file to make "
                "it again, or restore the recipe"
            )


def _save(tensors: dict[str, Tensor], path: Path, origin: dict[str, str] | None = None) -> None:
    with written(path) as place:
        save_file(tensors, place, metadata=origin)


def items(pool: PoolConfig) -> list[Item]:
    """All samples of the pool, drawings, edits, then in-context; a pure function of the configuration."""
    numbers = [number for number, count in enumerate(pool.num_drawings, start=1) for _ in range(count)]
    result = [_drawing(pool, index, number) for index, number in enumerate(numbers)]
    for index in range(len(result), len(result) + pool.num_edits):
        edit = sample_edit(item_rng(pool.seed, index), world=pool.world)
        result.append(Item(edit.instruction, edit.target, (edit.source,)))
    for index in range(len(result), len(result) + pool.num_contexts):
        rng = item_rng(pool.seed, index)
        made = sample_incontext(rng)
        result.append(Item(made.instruction, made.target, made.references))
    return result


def _drawing(pool: PoolConfig, index: int, number: int) -> Item:
    rng = item_rng(pool.seed, index)
    if pool.world == "full":
        prompt = sample_prompt(rng, pick_by_odds(rng, pool.tasks) if pool.tasks else None)
        scene = plainly(rng, prompt) if rng.random() < pool.plain_share else prompt.scene
        return Item(prompt.text, scene, is_chat=rng.random() < CHAT_SHARE)
    scene = sample_scene(rng, num_objects=number)
    return Item(caption(scene, rng), scene, is_chat=rng.random() < CHAT_SHARE)


@torch.no_grad()
def encode_pictures(recipe: LatentsRecipe, samples: Sequence[Item]) -> dict[str, Tensor]:
    """target_mean, target_std (N, 16, h, w) float16; source_*: all references, item after item, if any."""
    vae = AutoencoderKL.from_pretrained(recipe.vae).eval().to(chosen_device(recipe.device))
    folder = _parts_folder(recipe)
    folder.mkdir(exist_ok=True)
    result = {}
    for name, scenes in (
        ("target", [i.target for i in samples]),
        ("source", [scene for i in samples for scene in i.references]),
    ):
        parts = []
        for first in range(0, len(scenes), PART):
            path = folder / f"{name}-{first}.safetensors"
            if not path.exists():
                _save(_encoded(vae, scenes[first : first + PART], recipe), path)
                logger.info("%s %d of %d", name, min(first + PART, len(scenes)), len(scenes))
            parts.append(load_file(path))
        if parts:
            result |= {f"{name}_{what}": torch.cat([p[what] for p in parts]) for what in ("mean", "std")}
    return {**result, "source_starts": _starts([len(i.references) for i in samples])}


def _parts_folder(recipe: LatentsRecipe) -> Path:
    """Where a run keeps what it has: of these pictures through this VAE, and no others."""
    return recipe.folder / f"parts-{folder_hash(recipe.vae, note=repr(recipe.pool))[:10]}"


def _encoded(vae: AutoencoderKL, scenes: Sequence[Scene], recipe: LatentsRecipe) -> dict[str, Tensor]:
    """Mean and deviation of the posterior, scaled, (N, 16, h, w) float16."""
    means, stds = [], []
    for first in range(0, len(scenes), recipe.batch):
        pixels = pictures(scenes[first : first + recipe.batch], recipe.pool.size_px)
        with half_precision(vae.device):
            posterior = vae.encode(pixels.to(vae.device)).latent_dist
        mean, std = posterior.mean.float().cpu(), posterior.std.float().cpu()
        means.append(((mean - vae.config.shift_factor) * vae.config.scaling_factor).half())
        stds.append((std * vae.config.scaling_factor).half())
    return {"mean": torch.cat(means), "std": torch.cat(stds)}


def encode_texts(recipe: LatentsRecipe, samples: Sequence[Item]) -> dict[str, Tensor]:
    """Features of all prompts, see `encode_suffixes`; the last is the empty prompt."""
    mllm = Qwen2_5_VLForConditionalGeneration.from_pretrained(recipe.mllm).eval()
    mllm.to(chosen_device(recipe.device))
    mllm.set_attn_implementation("eager")
    processor = load_processor(recipe.processor)
    texts = [render_chat(i.prompt, 0) if i.is_chat else render_prompt(i.prompt) for i in samples]
    return encode_suffixes(mllm, processor, [*texts, render_prompt(EMPTY)])


@torch.no_grad()
def encode_suffixes(
    mllm: Qwen2_5_VLForConditionalGeneration, processor: Processor, texts: Sequence[str]
) -> dict[str, Tensor]:
    """Features of rendered prompts in bfloat16, their common beginning kept once.

    Shapes: prefix (P, F), suffix (sum of lengths, F), starts (N + 1,) its rows where prompts begin.
    """
    ids = [tokenize(processor, text) for text in texts]
    shared = len(tokenize(processor, render_prompt(EMPTY).removesuffix("<|im_end|>\n")))
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(ids):
        by_length.setdefault(len(row), []).append(index)
    found: dict[int, Tensor] = {}
    prefix = torch.empty(0)
    for length, indices in sorted(by_length.items()):
        for first in range(0, len(indices), 64):
            chunk = indices[first : first + 64]
            input_ids = torch.tensor([ids[i] for i in chunk], device=mllm.device)
            with half_precision(mllm.device):
                states = mllm.model(input_ids=input_ids, use_cache=False).last_hidden_state.cpu()
            prefix = states[0, :shared].bfloat16().clone()
            found.update(
                {i: row.bfloat16().clone() for i, row in zip(chunk, states[:, shared:], strict=True)}
            )
        logger.info("prompts of %d tokens: %d", length, len(indices))
    rows = [found[i] for i in range(len(texts))]
    return {"prefix": prefix, "suffix": torch.cat(rows), "starts": _starts([len(row) for row in rows])}


def find_sights(recipe: LatentsRecipe, samples: Sequence[Item]) -> dict[str, Tensor]:
    """What covers each cell of the targets, see `covered_labels`: labels (N, cells * cells, kinds) uint8."""
    asked, cells = CellWords.of(recipe.pool.world), recipe.pool.size_px // CELL_PX
    labels = [covered_labels(item.target, cells, asked).to(torch.uint8) for item in samples]
    return {"labels": torch.stack(labels)}


def _starts(lengths: Sequence[int]) -> Tensor:
    """(N + 1,) where each of N runs of these lengths begins, and where the last ends."""
    return torch.tensor([0, *lengths]).cumsum(0)


class LatentPool:
    """The pool, read back: samples by task and length of their text."""

    def __init__(self, folder: Path, pool: PoolConfig) -> None:
        for name in ("pictures", "texts"):
            if not (folder / f"{name}.safetensors").is_file():
                raise ConfigError(
                    f"{folder} has no {name}.safetensors; make the pool first (recipe of kind latents)"
                )
            _check_origin(folder / f"{name}.safetensors", {"pool": repr(pool)})
        self.folder, self.pool = folder, pool
        self._pictures, self._texts = (
            load_file(folder / "pictures.safetensors"),
            load_file(folder / "texts.safetensors"),
        )
        self.num_drawings, self.num_edits = sum(pool.num_drawings), pool.num_edits
        self.lengths = self._texts["starts"].diff()
        found = len(self._pictures["target_mean"])
        plain = _starts([0] * self.num_drawings + [1] * pool.num_edits)  # of pools that do not say it
        self._references = self._pictures.get("source_starts", plain)
        if found != self.num_drawings + pool.num_edits + pool.num_contexts:
            raise ConfigError(f"the pool in {folder} holds {found} samples, not what the recipe says")
        self.drawing_objects = torch.repeat_interleave(torch.arange(1, 4), torch.tensor(pool.num_drawings))

    def text(self, index: int) -> Tensor:
        """Features (T, F) of the item's whole prompt, float32; index -1 is the empty prompt."""
        index = index % (len(self._texts["starts"]) - 1)
        start, end = self._texts["starts"][index : index + 2].tolist()
        return torch.cat([self._texts["prefix"], self._texts["suffix"][start:end]]).float()

    def target(self, index: int, generator: torch.Generator | None = None) -> Tensor:
        """The item's target (16, h, w), scaled: a draw from its posterior, or the mean."""
        return (
            self._draw("target", index, generator)
            if generator
            else self._pictures["target_mean"][index].float()
        )

    def sights(self, indices: Sequence[int], tokens: int) -> Tensor:
        """What lies at each token of these items' targets, row by row: (len(indices), tokens, kinds).

        Raises: ConfigError when the pool does not say it, says it of other pictures, or tokens are no
        refinement of its cells.
        """
        labels, side = self._sights[list(indices)].long(), math.isqrt(tokens)
        cells = math.isqrt(labels.shape[1])
        if side * side != tokens or side % cells:
            raise ConfigError(f"{tokens} tokens a picture do not refine the pool's {cells} x {cells} cells")
        finer = labels.unflatten(1, (cells, cells)).repeat_interleave(side // cells, dim=1)
        return finer.repeat_interleave(side // cells, dim=2).flatten(1, 2)

    @cached_property
    def _sights(self) -> Tensor:
        path = self.folder / "sights.safetensors"
        if not path.is_file():
            raise ConfigError(f"{self.folder} has no {path.name}; make it (kind latents, stages=[sights])")
        _check_origin(path, {"pool": repr(self.pool)})
        labels, count = load_file(path)["labels"], len(self._pictures["target_mean"])
        if len(labels) != count:
            raise ConfigError(
                f"{path} is of {len(labels)} pictures, the pool has {count}; remove it to make it again"
            )
        return labels

    def contrasts(self) -> Tensor:
        """Of every target, how far it lies from its plain background: mean square of its latents minus their
        median over the picture, (N,).
        """
        chunks = self._pictures["target_mean"].split(1000)
        return torch.cat([_contrast(chunk.float()) for chunk in chunks])

    @property
    def num_references(self) -> Tensor:
        """How many pictures go into each item, (N,)."""
        return self._references.diff()

    def references(self, index: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draws from the posteriors of the pictures that go in."""
        first, end = self._references[index : index + 2].tolist()
        return tuple(self._draw("source", row, generator) for row in range(first, end))

    def _draw(self, name: str, index: int, generator: torch.Generator) -> Tensor:
        mean, std = (
            self._pictures[f"{name}_mean"][index].float(),
            self._pictures[f"{name}_std"][index].float(),
        )
        return mean + std * torch.randn(mean.shape, generator=generator)


def _contrast(latents_NChw: Tensor) -> Tensor:
    plain = latents_NChw.flatten(2).median(dim=2).values[..., None, None]
    return (latents_NChw - plain).square().mean(dim=(1, 2, 3))
