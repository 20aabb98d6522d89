"""The experiment on position encodings: a transformer learns to copy the k-th of several random pictures.

Four ways to number the tokens of pictures are compared, all with the same transformer class, data and noise:
only `position_ids` of `prepare` differs, and whether the image-index embedding learns. The pictures are
latents of independent normal values, so nothing but copying cell by cell from the right picture solves the
task; which one is right is said by the text, one token that stands for k.

Source: OmniGen2 (arXiv 2506.18871), table 1 and figure 9. Sizes, data and what the paper leaves open are
ours: see docs/omni-rope.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from og2.config import Registry
from og2.errors import ConfigError
from og2.model.packing import MAX_REFERENCES
from og2.model.rope import PositionIds, image_ids, image_offsets, sequence_ids, text_ids
from og2.model.transformer import Sequence
from og2.train.distributed import Parallel
from og2.train.flow import FlowModelConfig, make_transformer
from og2.train.objective import TimeConfig, noisy, sample_times, squared_errors
from og2.train.task import Part, PartLoss, Work

EVAL_SEED = 900_401
TEXT_SEED = 900_402
Grid = tuple[int, int]


def shifted_ids(text_length: int, reference_grids: list[Grid], target_grid: Grid) -> list[Tensor]:
    """Ids (D, row + D, column + D), D the picture's offset as in Omni-RoPE; the scheme of Qwen2-VL."""
    offsets = image_offsets(text_length, reference_grids)
    grids = [*reference_grids, target_grid]
    pictures = [image_ids(0, grid) + offset for grid, offset in zip(grids, offsets, strict=True)]
    return [text_ids(text_length), *pictures]


def diagonal_ids(text_length: int, reference_grids: list[Grid], target_grid: Grid) -> list[Tensor]:
    """Ids (0, row + Dh, column + Dw): heights and widths add up from the text on; the scheme of Lumina."""
    grids = [*reference_grids, target_grid]
    down, across = text_length, text_length
    pictures = []
    for height, width in grids:
        pictures.append(image_ids(0, (height, width)) + torch.tensor([0, down, across]))
        down, across = down + height, across + width
    return [text_ids(text_length), *pictures]


@dataclass(frozen=True)
class Encoding:
    """One row of the paper's table: the ids, and whether the image-index embedding learns (else it is 0).

    paper_steps, paper_loss: what the paper reports.
    """

    label: str
    position_ids: PositionIds
    has_index: bool
    paper_steps: int
    paper_loss: float


ENCODINGS: Registry[Encoding] = Registry(
    "position encoding",
    {
        "lumina": Encoding("Lumina-Image 2.0 (0, h + Dh, w + Dw)", diagonal_ids, False, 2500, 0.017),
        "qwen": Encoding("Qwen2-VL (D, h + D, w + D)", shifted_ids, False, 1200, 0.005),
        "omni": Encoding("Omni-RoPE (D, h, w)", sequence_ids, False, 800, 0.003),
        "omni_index": Encoding("Omni-RoPE and index embedding", sequence_ids, True, 800, 0.002),
    },
)


@dataclass(frozen=True)
class CopyConfig:
    """What a step sees: `batch` samples of `num_pictures` random pictures, and how accuracy is measured.

    size: of a picture in latent pixels (height, width). eval_samples: fresh samples for the accuracy.
    """

    num_pictures: int = 3
    size: tuple[int, int] = (8, 8)
    batch: int = 24
    eval_samples: int = 256

    def __post_init__(self) -> None:
        if not 2 <= self.num_pictures <= MAX_REFERENCES:
            raise ConfigError(f"task.num_pictures={self.num_pictures} is outside 2 to {MAX_REFERENCES}")


@dataclass(frozen=True)
class Samples:
    """Pictures (batch, num_pictures, C, h, w) and which one to reproduce (batch,), from 0."""

    pictures: Tensor
    wanted: Tensor

    @property
    def targets(self) -> list[Tensor]:
        """The wanted picture of every sample."""
        return [own[k] for own, k in zip(self.pictures, self.wanted.tolist(), strict=True)]


class CopyTask:
    """The task as the training loop sees it."""

    kinds = ("loss",)

    def __init__(self, model: FlowModelConfig, config: CopyConfig, time: TimeConfig, encoding: str) -> None:
        self.config, self.time, self.channels = config, time, model.in_channels
        self.encoding = ENCODINGS[encoding]
        self.module = make_transformer(model)
        index = self.module.image_index_embedding
        if not self.encoding.has_index:
            nn.init.zeros_(index)
            index.requires_grad_(False)
        self.parallel = Parallel(self.module)
        generator = torch.Generator().manual_seed(TEXT_SEED)
        # A frozen encoder's words for "first", "second", ...: one token each, the same in every run.
        self.words = torch.randn(config.num_pictures, 1, model.text_feat_dim, generator=generator)

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        """One part: a batch of fresh random pictures."""
        del step
        samples = self.draw(self.config.batch, generator)
        times = sample_times(self.time, [self.config.size] * self.config.batch, generator)
        noises = torch.randn(samples.pictures[:, 0].shape, generator=generator)

        def compute() -> PartLoss:
            latents = [noisy(x1, x0, t) for x1, x0, t in zip(samples.targets, noises, times, strict=True)]
            velocities = self.velocity(samples, latents, times)
            return PartLoss({"loss": squared_errors(velocities, samples.targets, list(noises)).sum()})

        return [Part({"loss": float(noises.numel())}, compute, work=Work(samples=self.config.batch))]

    def draw(self, count: int, generator: torch.Generator) -> Samples:
        """Random samples."""
        shape = (count, self.config.num_pictures, self.channels, *self.config.size)
        pictures = torch.randn(shape, generator=generator)
        return Samples(pictures, torch.randint(self.config.num_pictures, (count,), generator=generator))

    def velocity(self, samples: Samples, latents: list[Tensor], times: Tensor) -> list[Tensor]:
        """What the transformer says about noisy targets (C, h, w) at these times (batch,)."""
        count, places = len(latents), self.config.num_pictures
        sequences = [Sequence(i, tuple(range(i * places, (i + 1) * places)), i) for i in range(count)]
        prepared = self.module.prepare(
            [self.words[k] for k in samples.wanted.tolist()],
            list(samples.pictures.flatten(0, 1)),
            [self.config.size] * count,
            sequences,
            position_ids=self.encoding.position_ids,
        )
        return self.module.velocity(latents, times, prepared)

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:
        """The k-th-picture accuracy: from noise alone, is the picture that the model heads for the k-th one?

        One step from t = 0 (where the target cannot be seen) to t = 1, and the nearest of the sample's
        pictures; also the squared error of that step. Always of the same samples.
        """
        del step, module
        generator = torch.Generator().manual_seed(EVAL_SEED)
        hits, errors = [], []
        left = self.config.eval_samples
        while left > 0:
            samples = self.draw(min(left, self.config.batch), generator)
            noises = torch.randn(samples.pictures[:, 0].shape, generator=generator)
            velocities = self.velocity(samples, list(noises), torch.zeros(len(noises)))
            found = noises + torch.stack(velocities)
            apart = (samples.pictures - found[:, None]).square().flatten(2).mean(dim=2)
            hits.append(apart.argmin(dim=1) == samples.wanted)
            errors.append(apart.gather(1, samples.wanted[:, None])[:, 0])
            left -= len(noises)
        return {
            "accuracy": float(torch.cat(hits).float().mean()),
            "error_t0": float(torch.cat(errors).mean()),
        }

    def export(self, folder: Path, module: nn.Module) -> None:
        """diffusers' layout."""
        del module
        self.module.save_pretrained(folder)
