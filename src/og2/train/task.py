"""What a recipe trains, as the loop sees it: a module, the parts of a step, figures, and what to measure.

A step is one or more parts, each a forward and a backward. Losses are sums, and what they are divided by is
known before anything is computed: so the loop can divide by the count of the whole step, over all parts and
all ranks, and a sample weighs the same wherever it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from og2.train.distributed import Parallel

Figures: TypeAlias = "dict[str, tuple[Tensor | float, float]]"
"""Things to log: name -> (sum, count); what is logged is sum / count over parts, steps and ranks."""


@dataclass(frozen=True)
class PartLoss:
    """What one part computed: summed losses by kind (the kinds of `Part.counts`), and figures."""

    losses: Mapping[str, Tensor]
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a part costs: samples, tokens, and matrix FLOPs of a forward and a backward."""

    samples: int = 0
    tokens: int = 0
    flops: float = 0.0


@dataclass(frozen=True)
class Part:
    """One forward and backward of a step; `counts`: by kind, how many values the summed loss is over.

    `skipped`: rows that were left out while it was put together.
    """

    counts: Mapping[str, float]
    compute: Callable[[], PartLoss]
    ids: tuple[str, ...] = ()
    work: Work = Work()
    skipped: tuple[str, ...] = ()


class Task(Protocol):
    """What a recipe trains. `kinds`: the kinds of loss of a step; each is a mean, and they are added up."""

    module: nn.Module
    parallel: Parallel
    kinds: tuple[str, ...]

    def parts(self, step: int, generator: torch.Generator) -> Sequence[Part]:
        """This rank's parts of step `step` (0-based), at least one; all randomness is from its arguments."""
        ...

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:
        """Figures of the averaged weights, which are in `module` during this call."""
        ...

    def export(self, folder: Path, module: nn.Module) -> None:
        """Write the averaged weights, which are in `module` during this call, in the published layout."""
        ...


@runtime_checkable
class Shardable(Protocol):
    """A task whose module may be sharded: it can give an unsharded twin to evaluate with."""

    def unsharded(self) -> nn.Module:
        """A module of the same parameter names, in evaluation mode; its values do not matter."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A task with a position in its data; plain values for JSON, the same on every rank."""

    def position(self) -> dict[str, Any]:
        """Where the data are after the last step."""
        ...

    def go_to(self, position: Mapping[str, Any]) -> None:
        """Continue from there.   Raises: ConfigError when the data are others."""
        ...

    def close(self) -> None:
        """End what reads the data."""
        ...


@runtime_checkable
class Sampling(Protocol):
    """A task that shows what its weights can do."""

    def sample(self, step: int, exported: Path) -> None:
        """Write samples of step `step`, drawn from the folder that `export` has just written."""
        ...


def mean_part(loss: Tensor, figures: Mapping[str, float]) -> PartLoss:
    """The result of a part whose loss is a mean already (`counts` {"loss": 1.0})."""
    return PartLoss({"loss": loss}, {name: (value, 1.0) for name, value in figures.items()})
