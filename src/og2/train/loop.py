"""The training loop every recipe goes through: step, average, log, save, resume, evaluate.

What differs between VAE, language model and transformer is a `Task`: its module, the loss of step n, and what
to measure now and then. Data are a pure function of (seed, step), so a resumed run sees what the
uninterrupted one would have seen.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from og2.errors import Og2Error
from og2.tracking import Tracker
from og2.train import checkpoint, distributed
from og2.train.distributed import average_gradients, is_first, rank
from og2.train.optim import OptimConfig, WeightAverage, adamw, learning_rate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and how often it reports.   Units: *_every in steps, save_every_s in seconds."""

    folder: Path
    seed: int = 0
    threads: int = 2
    log_every: int = 20
    eval_every: int = 500
    save_every_s: float = 150.0
    tensorboard: bool = False


class Task(Protocol):
    """What a recipe trains."""

    module: nn.Module

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of step `step` (0-based) and figures to log; all randomness is from (step, generator)."""
        ...

    def evaluate(self, step: int) -> dict[str, float]:
        """Figures of the averaged weights, which are in `module` during this call."""
        ...

    def export(self, folder: Path) -> None:
        """Write the averaged weights, which are in `module` during this call, in the published layout."""
        ...


def train(task: Task, run: RunConfig, optim: OptimConfig) -> None:
    """Train `task` to the end of its schedule, resuming from the newest checkpoint of the run's folder.

    Raises: Og2Error when the loss is not finite (state as of the last checkpoint is kept).
    """
    torch.set_num_threads(run.threads)
    distributed.start()
    try:
        _Trainer(task, run, optim).run_to_end()
    finally:
        distributed.stop()


class _Trainer:
    def __init__(self, task: Task, run: RunConfig, optim: OptimConfig) -> None:
        self.task, self.run, self.optim = task, run, optim
        named = [(n, p) for n, p in task.module.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self.names = {id(p): n for n, p in named}
        self.optimizer = adamw(named, optim)
        self.average = WeightAverage(named, optim.ema)
        self.step = 0
        self.train_s = 0.0
        self._resume()

    def run_to_end(self) -> None:
        saved_at = logged_at = time.monotonic()
        sums: dict[str, float] = {}
        count = 0
        folder = self.run.folder if is_first() else self.run.folder / f"rank-{rank()}"
        with Tracker(folder, self.run.tensorboard) as tracker:
            while self.step < self.optim.steps:
                metrics = self._one_step()
                count += 1
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + value
                if self.step % self.run.log_every == 0 or self.step == self.optim.steps:
                    now = time.monotonic()
                    means = {name: value / count for name, value in sums.items()}
                    self.train_s += now - logged_at
                    tracker.log(
                        self.step, {**means, "s_per_step": (now - logged_at) / count, "train_s": self.train_s}
                    )
                    sums, count, logged_at = {}, 0, now
                if is_first() and (self.step % self.run.eval_every == 0 or self.step == self.optim.steps):
                    self._evaluate(tracker)
                due = time.monotonic() - saved_at > self.run.save_every_s
                if is_first() and (due or self.step == self.optim.steps):
                    self._save()
                    saved_at = time.monotonic()

    def _one_step(self) -> dict[str, float]:
        generator = torch.Generator().manual_seed((self.run.seed * 1_000_003 + self.step) * 64 + rank())
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.optim, self.step)
        self.task.module.train()
        loss, metrics = self.task.loss(self.step, generator)
        value = loss.item()
        if not math.isfinite(value):
            raise Og2Error(
                f"the loss of step {self.step} is {value}; lower lr, or look at the data of this step"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.optim.clip)
        self.optimizer.step()
        self.average.update()
        self.step += 1
        return {
            "loss": value,
            **metrics,
            "grad_norm": float(norm),
            "lr": self.optimizer.param_groups[0]["lr"],
        }

    def _evaluate(self, tracker: Tracker) -> None:
        self.average.swap()
        self.task.module.eval()
        try:
            with torch.no_grad():
                started = time.monotonic()
                metrics = self.task.evaluate(self.step)
            if metrics:
                tracker.log(
                    self.step,
                    {**{f"eval/{k}": v for k, v in metrics.items()}, "eval_s": time.monotonic() - started},
                )
            self.task.export(self.run.folder / "export")
        finally:
            self.average.swap()

    def _save(self) -> None:
        tensors = {
            "parameters": {self.names[id(p)]: p for p in self.parameters},
            "average": self.average.tensors,
            "optimizer": checkpoint.optimizer_tensors(self.optimizer, self.names),
        }
        values = {"num_updates": self.average.num_updates, "train_s": self.train_s}
        checkpoint.save(self.run.folder / "checkpoints", self.step, checkpoint.Snapshot(tensors, values))

    def _resume(self) -> None:
        snapshot = checkpoint.load_last(self.run.folder / "checkpoints")
        if snapshot is None:
            return
        with torch.no_grad():
            for parameter in self.parameters:
                parameter.copy_(snapshot.tensors["parameters"][self.names[id(parameter)]])
        self.average.tensors = {n: snapshot.tensors["average"][n] for n in self.average.tensors}
        self.average.num_updates = snapshot.values["num_updates"]
        self.train_s = snapshot.values["train_s"]
        self.step = snapshot.values["step"]
        checkpoint.restore_optimizer(self.optimizer, self.names, snapshot.tensors["optimizer"])
