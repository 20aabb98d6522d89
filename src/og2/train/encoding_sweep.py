"""Runs of the experiment on position encodings: which, each one once, and what came out.

First every encoding meets every learning rate with `run.seed`; then its best rate (lowest final loss) meets
the seeds that count, which took no part in the choice. Each run is a folder of its own with `result.json` at
the end, so a sweep that was stopped goes on where it was. After every run the table and the figure are
written anew.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from og2.config import nearest, to_tree
from og2.errors import ConfigError, Og2Error
from og2.files import write_text
from og2.train.distributed import process_group, world_size
from og2.train.encoding_report import Outcome, write_report
from og2.train.encodings import ENCODINGS, CopyConfig, CopyTask
from og2.train.flow import FlowModelConfig
from og2.train.loop import RunConfig, train
from og2.train.objective import TimeConfig
from og2.train.optim import OptimConfig

logger = logging.getLogger(__name__)
RESULT = "result.json"


@dataclass(frozen=True)
class EncodingsRecipe:
    """The recipe `kind: encodings`.

    run: its folder holds a folder for each run, its seed is that of the search for the learning rate; optim:
    of each run, its rate times each of `rate_factors` is tried. seeds: of the runs that count. threshold:
    loss whose first crossing is reported.
    """

    run: RunConfig
    optim: OptimConfig
    model: FlowModelConfig
    task: CopyConfig = field(default_factory=CopyConfig)
    time: TimeConfig = field(default_factory=lambda: TimeConfig(shift="none"))
    encodings: tuple[str, ...] = tuple(ENCODINGS)
    rate_factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    seeds: tuple[int, ...] = (1, 2, 3)
    threshold: float = 0.1

    def __post_init__(self) -> None:
        for name in self.encodings:
            if name not in ENCODINGS:
                raise ConfigError(f"encodings: {name!r}; {nearest(name, ENCODINGS)}")
        if not self.encodings or not self.rate_factors or not self.seeds:
            raise ConfigError("encodings, rate_factors and seeds must each hold something")
        if self.run.seed in self.seeds:
            raise ConfigError(
                f"run.seed={self.run.seed} chooses the learning rate, so it cannot be one of seeds too"
            )
        if self.optim.ema:
            raise ConfigError(f"optim.ema={self.optim.ema}; use 0, the weights themselves are compared")


def run(recipe: EncodingsRecipe) -> None:
    """All runs that are not finished yet, then the table and the figure in `run.folder`.

    Raises: ConfigError when a finished run has other settings, or there are several processes; Og2Error as
    the training loop.
    """
    with process_group():
        if world_size() > 1:
            raise ConfigError("kind encodings is one process; leave torchrun out")
        outcomes: list[Outcome] = []
        for encoding, factor in search(recipe):
            outcomes.append(outcome_of(recipe, encoding, factor, recipe.run.seed))
            write_report(recipe.run.folder, outcomes, {}, recipe.threshold)
        best = {name: best_factor(outcomes, name) for name in recipe.encodings}
        for seed in recipe.seeds:
            for encoding in recipe.encodings:
                outcomes.append(outcome_of(recipe, encoding, best[encoding], seed))
            write_report(recipe.run.folder, outcomes, best, recipe.threshold)
    logger.info("\n%s", (recipe.run.folder / "report.md").read_text(encoding="utf-8"))


def search(recipe: EncodingsRecipe) -> Iterator[tuple[str, float]]:
    """Every encoding with every factor of the learning rate."""
    for factor in recipe.rate_factors:
        for encoding in recipe.encodings:
            yield encoding, factor


def best_factor(outcomes: list[Outcome], encoding: str) -> float:
    """The factor whose run ended with the lowest loss."""
    return min((o for o in outcomes if o.encoding == encoding), key=lambda o: o.final_loss).factor


def outcome_of(recipe: EncodingsRecipe, encoding: str, factor: float, seed: int) -> Outcome:
    """What came out of one run, which is trained now unless it is finished."""
    folder = recipe.run.folder / f"{encoding}-x{factor:g}-seed{seed}"
    optim = replace(recipe.optim, lr=recipe.optim.lr * factor)
    settings = _settings(recipe, encoding, optim, seed)
    path = folder / RESULT
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise ConfigError(
                f"{folder} holds a run with other settings; take another run.folder, or remove it"
            )
        return _outcome(found, encoding, factor, seed)
    torch.manual_seed(seed)
    task = CopyTask(recipe.model, recipe.task, recipe.time, encoding)
    is_finite = True
    try:
        train(task, replace(recipe.run, folder=folder, seed=seed), optim)
    except Og2Error:
        if not any(folder.glob("bad-step-*.json")):
            raise
        is_finite = False  # the rate was too high for this encoding: that is a result
    found = {"settings": settings, "is_finite": is_finite, **_measured(folder)}
    write_text(path, json.dumps(found, indent=1) + "\n")
    return _outcome(found, encoding, factor, seed)


def _settings(recipe: EncodingsRecipe, encoding: str, optim: OptimConfig, seed: int) -> dict[str, Any]:
    """All that a run's numbers depend on, as JSON has it."""
    parts = {"model": recipe.model, "task": recipe.task, "time": recipe.time, "optim": optim}
    tree = {name: to_tree(part) for name, part in parts.items()}
    return json.loads(json.dumps({"encoding": encoding, "seed": seed, **tree}))


def _measured(folder: Path) -> dict[str, Any]:
    """The loss by step, and the last evaluation; of a step that was logged twice the later record counts."""
    losses: dict[int, float] = {}
    last: dict[str, float] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "loss" in record:
            losses[record["step"]] = float(record["loss"])
        last |= {k.removeprefix("eval/"): float(v) for k, v in record.items() if k.startswith("eval/")}
    return {"curve": sorted(losses.items()), "evaluation": last}


def _outcome(found: dict[str, Any], encoding: str, factor: float, seed: int) -> Outcome:
    curve = tuple((int(step), float(loss)) for step, loss in found["curve"])
    accuracy = float(found["evaluation"].get("accuracy", math.nan))
    rate = float(found["settings"]["optim"]["lr"])
    return Outcome(encoding, factor, rate, seed, curve, accuracy, bool(found["is_finite"]))
