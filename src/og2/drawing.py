"""Pictures on their way from noise to latents: which are computed together, and their guided velocity.

Joins the transformer and the solvers. A pack is prepared once; each step asks the transformer for the
branches that guidance needs at that step, and for no others.

Legend: C latent channels, hw latent grid, T text tokens, F feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from og2.call import OnStep, Pack, Progress, check_noise
from og2.errors import Cancelled
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.model.transformer import Sequence as BranchSequence
from og2.placement import plain_blocks
from og2.request import Plan
from og2.sampling.guidance import Branch, combine
from og2.sampling.solvers import sample


@dataclass(frozen=True)
class Picture:
    """One picture of a call, ready to be drawn.

    noise (C, h, w), float32; text and negative (T, F); references (C, h, w) each, of any sizes;
    step_seed is of the noise that some solvers draw at every step.
    """

    plan: Plan
    noise: Tensor
    text: Tensor
    negative: Tensor | None
    references: tuple[Tensor, ...]
    step_seed: int = 0

    @property
    def kind(self) -> tuple[int, str | None, str]:
        """What the pictures of one pack must share: steps, solver, numerics."""
        return self.plan.num_steps, self.plan.request.scheduler, self.plan.request.numerics


def packs(pictures: Sequence[Picture], pack: Pack) -> list[list[int]]:
    """Numbers of the pictures that are computed together, pack by pack."""
    if pack == "picture":
        return [[number] for number in range(len(pictures))]
    kinds: dict[Any, list[int]] = {}
    for number, picture in enumerate(pictures):
        kinds.setdefault(picture.kind, []).append(number)
    return list(kinds.values())


def draw_latents(
    transformer: OmniGen2Transformer2DModel,
    pictures: Sequence[Picture],
    pack: Pack = "picture",
    together: bool = True,
    on_step: OnStep | None = None,
) -> list[Tensor]:
    """Final latents (C, h, w) of all pictures, in order. Raises: Cancelled if `on_step` returns False."""
    done: dict[int, Tensor] = {}
    total = sum(picture.plan.num_evaluations for picture in pictures)
    for numbers in packs(pictures, pack):
        members = [pictures[number] for number in numbers]
        before = sum(pictures[number].plan.num_evaluations for number in done)
        report = _reporter(members, tuple(numbers), (before, total, len(pictures)), on_step)
        is_official = members[0].plan.request.numerics == "official"
        with plain_blocks(transformer) if is_official else nullcontext():
            latents = GuidedPack(transformer, members, together).sample(report)
        done |= dict(zip(numbers, latents, strict=True))
    return [done[number] for number in range(len(pictures))]


class GuidedPack:
    """Pictures that are computed together: prepared once, then a velocity for each at every step."""

    def __init__(
        self,
        transformer: OmniGen2Transformer2DModel,
        pictures: Sequence[Picture],
        together: bool = True,
    ) -> None:
        self.transformer, self.pictures = transformer, pictures
        self.dtype = transformer.dtype  # found by walking over all modules, so once and not per step
        self.num_steps, self.solver, self.numerics = pictures[0].kind
        self.has_one_time = len({picture.plan.times for picture in pictures}) == 1
        self.places: dict[tuple[int, Branch], int] = {}
        texts, references, sequences = self._parts()
        self.prepared = transformer.prepare(
            texts,
            references,
            [picture.plan.latent_size for picture in pictures],
            sequences,
            numerics="official" if self.numerics == "official" else "native",
            together=together,
            times=pictures[0].plan.times[:-1] if self.has_one_time else None,
        )

    def sample(
        self, on_step: Callable[[int, list[Tensor]], list[Tensor] | None] | None = None
    ) -> list[Tensor]:
        """Latents (C, h, w) of each picture at t = 1."""
        is_official = self.numerics == "official"
        dtype = self.dtype if is_official else torch.float32
        return sample(
            self.velocity,
            [picture.noise.to(dtype) for picture in self.pictures],
            [torch.tensor(picture.plan.times) for picture in self.pictures],
            self.solver or "euler",
            on_step,
            "official" if is_official else "float32",
            [picture.step_seed for picture in self.pictures],
        )

    def velocity(self, latents: list[Tensor], times: list[Tensor], step: int) -> list[Tensor]:
        """Guided velocity (C, h, w) of each picture; float32 unless numerics are official."""
        wanted: list[tuple[int, Branch]] = [
            (i, branch) for i, p in enumerate(self.pictures) for branch in p.plan.branches[step]
        ]
        found = self.transformer.velocity(
            [x.to(self.dtype) for x in latents],
            times[0] if self.has_one_time else torch.stack(times),
            self.prepared,
            [self.places[key] for key in wanted],
        )
        if self.numerics != "official":
            found = [v.float() for v in found]
        by_picture: list[dict[Branch, Tensor]] = [{} for _ in self.pictures]
        for (i, branch), v in zip(wanted, found, strict=True):
            by_picture[i][branch] = v
        return [
            combine(v, picture.plan.request.guidance)
            for v, picture in zip(by_picture, self.pictures, strict=True)
        ]

    def _parts(self) -> tuple[list[Tensor], list[Tensor], list[BranchSequence]]:
        """Distinct texts and references, and one sequence per branch that some step needs."""
        texts, references, sequences = _Distinct(), _Distinct(), []
        for i, picture in enumerate(self.pictures):
            pictured = tuple(references.place(reference) for reference in picture.references)
            text = texts.place(picture.text)
            for branch in max(picture.plan.branches, key=len):
                self.places[i, branch] = len(sequences)
                if branch == "cond":
                    sequences.append(BranchSequence(text, pictured, i))
                else:
                    assert picture.negative is not None
                    seen = pictured if branch == "ref" else ()
                    sequences.append(BranchSequence(texts.place(picture.negative), seen, i))
        return texts.items, references.items, sequences


class _Distinct:
    """Tensors, each kept once by identity."""

    def __init__(self) -> None:
        self.items: list[Tensor] = []
        self._places: dict[int, int] = {}

    def place(self, item: Tensor) -> int:
        if id(item) not in self._places:
            self._places[id(item)] = len(self.items)
            self.items.append(item)
        return self._places[id(item)]


def _reporter(
    pictures: Sequence[Picture],
    numbers: tuple[int, ...],
    counts: tuple[int, int, int],
    on_step: OnStep | None,
) -> Callable[[int, list[Tensor]], list[Tensor] | None] | None:
    """The solver's step callback that tells the caller's where the whole call stands."""
    if on_step is None:
        return None
    before, total, num_pictures = counts
    costs = [sum(len(p.plan.branches[step]) for p in pictures) for step in range(pictures[0].plan.num_steps)]

    def report(step: int, latents: list[Tensor]) -> list[Tensor] | None:
        progress = Progress(
            step=step,
            num_steps=len(costs),
            pictures=numbers,
            num_pictures=num_pictures,
            latents=list(latents),
            time=pictures[0].plan.times[step + 1],
            share=(before + sum(costs[: step + 1])) / total,
        )
        answer = on_step(progress)
        if answer is False:
            raise Cancelled(f"stopped by on_step after step {step + 1} of {len(costs)}")
        if not isinstance(answer, list):
            return None
        shapes = [tuple(x.shape) for x in latents]
        return [check_noise(x, shape, "latents") for x, shape in zip(answer, shapes, strict=True)]

    return report
