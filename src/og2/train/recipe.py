"""The recipe of the general transformer training: what its YAML file may say.

Every class is one section; unknown keys are refused. The table in docs/train.md lists them with examples.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from og2.data.encode import EncodeConfig
from og2.data.examples import ReadConfig
from og2.data.loader import LoaderConfig
from og2.data.mix import MixConfig
from og2.device import DeviceName
from og2.errors import ConfigError
from og2.train.flow import FlowModelConfig
from og2.train.loop import RunConfig
from og2.train.objective import TimeConfig
from og2.train.optim import OptimConfig, learning_rate

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class DataConfig:
    """What is trained on; `cache`: folder of latents and text features, None for none."""

    mix: MixConfig
    read: ReadConfig = field(default_factory=ReadConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    cache: Path | None = None


@dataclass(frozen=True)
class StageConfig:
    """One stage of a curriculum; what is None is taken from `data` and `optim`.

    `steps`: optimizer steps of the stage; the schedule of the learning rate runs within it. `max_pixels`,
    `input_pixels`, `budget`, `packs_per_step`: as in data.read, data.loader.packing and data.loader.
    """

    name: str
    steps: int
    mix: MixConfig | None = None
    max_pixels: int | None = None
    input_pixels: tuple[int, ...] | None = None
    budget: int | None = None
    packs_per_step: int | None = None
    lr: float | None = None
    warmup: int | None = None

    def data(self, base: DataConfig) -> DataConfig:
        """The data of this stage."""
        pixels = {"max_pixels": self.max_pixels, "input_pixels": self.input_pixels}
        read = replace(base.read, **{k: v for k, v in pixels.items() if v is not None})
        packing = replace(base.loader.packing, budget=self.budget or base.loader.packing.budget)
        packs = self.packs_per_step or base.loader.packs_per_step
        loader = replace(base.loader, packing=packing, packs_per_step=packs)
        return replace(base, mix=self.mix or base.mix, read=read, loader=loader)

    def optim(self, base: OptimConfig) -> OptimConfig:
        """The learning rate and its schedule in this stage."""
        lr = base.lr if self.lr is None else self.lr
        warmup = base.warmup if self.warmup is None else self.warmup
        return replace(base, steps=self.steps, lr=lr, warmup=warmup)


@dataclass(frozen=True)
class LoraConfig:
    """An adapter instead of all weights; `targets`: ends of the names of the linear layers it is put on.

    Its effect is scaled by alpha / rank; None takes alpha = rank.
    """

    rank: int = 16
    alpha: float | None = None
    targets: tuple[str, ...] = ATTENTION
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets:
            raise ConfigError(
                f"lora: rank={self.rank}, targets={self.targets}; a rank and a target are needed"
            )

    @property
    def scale(self) -> float:
        """What the adapter's product is multiplied by."""
        return (self.rank if self.alpha is None else self.alpha) / self.rank


@dataclass(frozen=True)
class ComputeConfig:
    """How the step is computed.

    device: auto takes an accelerator where there is one. precision: bf16 is autocast over float32 weights; on
    a CPU without its instructions it is float32, which the log says.
    strategy: auto is ddp for adapters and fsdp for all weights; it matters with several processes only.
    checkpointing: compute activations of blocks twice instead of keeping them. compile: compile each block
    of the transformer (og2.train.compiled); the first steps then take minutes.
    """

    device: DeviceName = "auto"
    precision: Literal["bf16", "fp32"] = "bf16"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    checkpointing: bool = False
    compile: bool = False


@dataclass(frozen=True)
class AnswerConfig:
    """Rows answered in words: what of the language model learns from them, and what they weigh.

    weight: of the mean loss of a said token beside the mean loss of a latent value. rank, alpha: of the
    adapter. The text features that the transformer is trained with are those of the language model as it was.
    """

    train: Literal["lora", "full"] = "lora"
    weight: float = 0.1
    rank: int = 16
    alpha: float | None = None


@dataclass(frozen=True)
class ValidationConfig:
    """Loss on rows that are not trained on: `num_samples` of each source of `mix`, always the same noise.

    times: where on the way from noise (0) to picture (1) each sample is asked for.
    """

    mix: MixConfig
    num_samples: int = 16
    times: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class SampleConfig:
    """One picture of the sample grid, in the words of the command line."""

    prompt: str
    input_images: tuple[Path, ...] = ()
    seed: int = 0
    num_inference_steps: int | None = None
    text_guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class TransformerRecipe:
    """The recipe `kind: transformer`.

    `model`: folder, hub id or mini: frozen networks, and the weights that training starts from. `fresh`:
    sizes of a transformer that starts from random weights instead. `stages`: a curriculum; without it one
    stage of optim.steps.
    """

    run: RunConfig
    optim: OptimConfig
    data: DataConfig
    model: str = "mini"
    fresh: FlowModelConfig | None = None
    stages: tuple[StageConfig, ...] = ()
    time: TimeConfig = field(default_factory=TimeConfig)
    lora: LoraConfig | None = None
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    answers: AnswerConfig | None = None
    validation: ValidationConfig | None = None
    samples: tuple[SampleConfig, ...] = ()

    def __post_init__(self) -> None:
        total = sum(stage.steps for stage in self.stages)
        if self.stages and self.optim.steps not in (0, total):
            raise ConfigError(
                f"optim.steps={self.optim.steps}, but the stages have {total} steps; leave optim.steps out"
            )
        if not self.stages and self.optim.steps < 1:
            raise ConfigError("no steps: give optim.steps, or stages with steps")
        if self.lora is not None and self.fresh is not None:
            raise ConfigError("lora and fresh exclude each other: an adapter needs trained weights under it")

    def curriculum(self) -> tuple[StageConfig, ...]:
        """The stages, at least one."""
        return self.stages or (StageConfig("all", self.optim.steps),)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return sum(stage.steps for stage in self.curriculum())

    def stage_at(self, step: int) -> tuple[int, int]:
        """The index of the stage that the 0-based step is in, and the step within it."""
        for index, stage in enumerate(self.curriculum()):
            if step < stage.steps:
                return index, step
            step -= stage.steps
        raise IndexError(step)

    def rate(self, step: int) -> float:
        """The learning rate of the update with that 0-based index."""
        index, within = self.stage_at(step)
        return learning_rate(self.curriculum()[index].optim(self.optim), within)
