"""The training loop every recipe goes through: step, average, log, save, resume, evaluate.

What differs between VAE, language model and transformer is a `Task`. Gradients are those of the mean over
the whole step, whatever it is cut into: parts of a step, ranks. All randomness of a step follows from (seed,
step, rank) or from the numbers of its samples, and the global generator is seeded anew at every step; so a
resumed run sees what the uninterrupted one would have seen, and there is no state of generators to keep.
"""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from og2.errors import Cancelled, ConfigError, Og2Error
from og2.tracking import Tracker
from og2.train import checkpoint
from og2.train.checkpoint import Retention, Snapshot
from og2.train.distributed import gathered, is_first, largest, process_group, rank, summed, world_size
from og2.train.faults import bad_step
from og2.train.memory import keep_freed_memory
from og2.train.meters import Meters
from og2.train.optim import OptimConfig, WeightAverage, learning_rate, make_optimizer, set_rate
from og2.train.task import Part, Sampling, Shardable, Stateful, Task

logger = logging.getLogger(__name__)
_NOT_SHOWN = ("train_s", "peak_gb", "samples_per_s", "mfu")


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives and how often it reports.   Units: *_every in steps, save_every_s in seconds.

    save_every: also save at multiples of so many steps (0: by time only). keep_last, keep_every: which
    checkpoints stay. evaluate_first: evaluate before the first step. peak_tflops: what the device can do, for
    MFU; None measures matrix products at the start. tensorboard, wandb: write there too.
    """

    folder: Path
    seed: int = 0
    threads: int = 2
    log_every: int = 20
    eval_every: int = 500
    evaluate_first: bool = False
    save_every_s: float = 150.0
    save_every: int = 0
    keep_last: int = 2
    keep_every: int = 0
    peak_tflops: float | None = None
    tensorboard: bool = False
    wandb: str | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "log_every", "eval_every", "keep_last"):
            if getattr(self, name) < 1:
                raise ConfigError(f"run.{name}={getattr(self, name)}; it starts at 1")
        if self.seed < 0:
            raise ConfigError(f"run.seed={self.seed}; it starts at 0")


def train(task: Task, run: RunConfig, optim: OptimConfig, rate: Callable[[int], float] | None = None) -> None:
    """Train `task` to the end of its schedule, resuming from the newest checkpoint of the run's folder.

    `rate`: the learning rate of the update with that 0-based index; by default `optim`'s schedule.
    Ctrl-C or SIGTERM saves after the step under way. Raises: Og2Error when loss or gradient is not finite
    (the last checkpoint stands), Cancelled when it was asked to stop, CheckpointError when the disk refuses.
    """
    if optim.steps < 1:
        raise ConfigError(f"optim.steps={optim.steps}; give the number of steps")
    with _computing(run), process_group(), _asked_to_stop() as stop:
        trainer = Trainer(task, run, optim, rate or (lambda step: learning_rate(optim, step)))
        try:
            trainer.run_to_end(stop)
        finally:
            trainer.writer.settle()
            if isinstance(task, Stateful):
                task.close()
            task.parallel.leave()


@dataclass(frozen=True)
class Trial:
    """What one step took: seconds, the most memory held (GB), samples and tokens; values that learn.

    state_gb: weights, average and optimizer, as a checkpoint holds them.
    """

    seconds: float
    peak_gb: float
    samples: int
    tokens: int
    num_parameters: int
    state_gb: float


def try_step(
    task: Task, run: RunConfig, optim: OptimConfig, rate: Callable[[int], float] | None = None
) -> Trial:
    """One step that is not kept, after one that warms up; nothing is written.   Raises: as `train`."""
    with _computing(run):
        trainer = Trainer(task, run, optim, rate or (lambda step: learning_rate(optim, step)))
        trainer.advance(threading.Event())
        trainer.meters.take()
        trainer.advance(threading.Event())
        found = trainer.meters.take()
    if isinstance(task, Stateful):
        task.close()
    seconds = found["s_per_step"]
    return Trial(
        seconds,
        found["peak_gb"],
        round(found.get("samples_per_s", 0.0) * seconds),
        round(found.get("tokens_per_s", 0.0) * seconds),
        sum(p.numel() for p in trainer.parameters),
        sum(x.nbytes for group in trainer.groups().values() for x in group.values()) / 1e9,
    )


class Trainer:
    """The state of a run, and one step of it after the other; starts from the newest checkpoint there is."""

    def __init__(self, task: Task, run: RunConfig, optim: OptimConfig, rate: Callable[[int], float]) -> None:
        self.task, self.run, self.optim, self.rate = task, run, optim, rate
        named = [(n, p) for n, p in task.module.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self.names = {id(p): n for n, p in named}
        self.optimizer = make_optimizer(named, optim)
        self.average = WeightAverage(named, optim.ema)
        self.writer = checkpoint.Writer(run.folder / "checkpoints", Retention(run.keep_last, run.keep_every))
        self.meters = Meters(run.peak_tflops, self.parameters[0].device)
        if self.meters.device.type == "cpu":
            keep_freed_memory()
        self.step = 0
        self.saved_at = time.monotonic()
        self._resume()

    def run_to_end(self, stop: threading.Event) -> None:
        """Train until the schedule ends or `stop` is set; log, save and evaluate on the way.

        A run that is at its end already evaluates and exports once more; it may have been cut off there.
        """
        run = self.run
        board = Tracker(run.folder, run.tensorboard, run.wandb) if is_first() else nullcontext()
        with board as tracker, _progress(self.step, self.optim.steps) as show:
            if (self.run.evaluate_first and self.step == 0) or self.step >= self.optim.steps:
                self._evaluate(tracker)
            while self.step < self.optim.steps:
                is_due, is_asked = self.advance(stop)
                is_last = self.step == self.optim.steps
                if self.step % self.run.log_every == 0 or is_last:
                    found = self.meters.take()
                    found["left_s"] = found["s_per_step"] * (self.optim.steps - self.step)
                    if tracker is not None:
                        tracker.log(self.step, found, _is_shown)
                    show(self.step, found["loss"], self.meters.num_skipped)
                if is_due or is_last or is_asked:
                    self._save()
                if is_last or (self.step % self.run.eval_every == 0 and not is_asked):
                    self._evaluate(tracker)
                if is_asked and not is_last:
                    self.writer.finish()
                    raise Cancelled(
                        f"stopped after step {self.step} of {self.optim.steps}, saved in {self.run.folder}; "
                        "the same command goes on from there"
                    )
            self.writer.finish()

    def advance(self, stop: threading.Event) -> tuple[bool, bool]:
        """Trains one step; whether a save is due, and whether some rank was asked to stop."""
        seed = (self.run.seed * 1_000_003 + self.step) * 64 + rank()
        torch.manual_seed(seed)
        rate = self.rate(self.step)
        set_rate(self.optimizer, rate)
        self.task.module.train()
        with self.meters.waiting():
            parts = self.task.parts(self.step, torch.Generator().manual_seed(seed))
        self.optimizer.zero_grad(set_to_none=True)
        losses, is_due, is_asked = self._backward(parts, stop)
        norm = float(self._clipped())
        if not all(map(math.isfinite, [*losses.values(), norm])):
            raise Og2Error(bad_step(self.run.folder, self.step, parts, losses, norm))
        self.optimizer.step()
        self.average.update()
        self.step += 1
        self.meters.add(parts, {"loss": sum(losses.values()), "grad_norm": norm, "lr": rate})
        return is_due, is_asked

    def _backward(self, parts: Sequence[Part], stop: threading.Event) -> tuple[dict[str, float], bool, bool]:
        """Gradients of the mean over the whole step; its losses by kind; whether to save, whether to stop."""
        kinds = self.task.kinds
        counts = summed([sum(part.counts.get(kind, 0.0) for part in parts) for kind in kinds])
        rounds = largest(len(parts))
        sums = [0.0] * len(kinds)
        for index in range(rounds):
            # A rank with fewer parts repeats its last one for nothing, so that all ranks do the same calls.
            part, weight = parts[min(index, len(parts) - 1)], float(index < len(parts)) * world_size()
            with self.task.parallel.part(is_last=index == rounds - 1):
                found = part.compute()
                scaled = [
                    found.losses[kind] * (weight / (count or 1.0))
                    for kind, count in zip(kinds, counts, strict=True)
                    if kind in found.losses
                ]
                torch.stack(scaled).sum().backward()
            if weight:
                self.meters.see(found.figures)
                for place, kind in enumerate(kinds):
                    sums[place] += found.losses[kind].item() if kind in found.losses else 0.0
        self.task.parallel.finish(self.parameters)
        flags = [is_first() and self._is_due(), self.writer.is_written, stop.is_set()]
        *sums, due, written, asked = summed([*sums, *map(float, flags)])
        if written == world_size():
            self.writer.finish()
        losses = {k: s / c if c else 0.0 for k, s, c in zip(kinds, sums, counts, strict=True)}
        return losses, bool(due), bool(asked)

    def _clipped(self) -> torch.Tensor:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.optim.clip)
        return norm.full_tensor() if isinstance(norm, torch.distributed.tensor.DTensor) else norm

    def _is_due(self) -> bool:
        """Whether the step under way is one to save after."""
        by_step = self.run.save_every and (self.step + 1) % self.run.save_every == 0
        return bool(by_step) or time.monotonic() - self.saved_at > self.run.save_every_s

    def _evaluate(self, tracker: Tracker | None) -> None:
        started = time.monotonic()
        with self._averaged() as module:
            if module is not None:
                with torch.no_grad():
                    metrics = self.task.evaluate(self.step, module)
                if metrics and tracker is not None:
                    figures = {f"eval/{k}": v for k, v in metrics.items()}
                    tracker.log(self.step, {**figures, "eval_s": time.monotonic() - started})
                self.task.export(self.run.folder / "export", module)
                if isinstance(self.task, Sampling):
                    self.task.sample(self.step, self.run.folder / "export")
        self.meters.leave_out(time.monotonic() - started)

    @contextmanager
    def _averaged(self) -> Iterator[nn.Module | None]:
        """A module with the averaged weights in evaluation mode on the first rank; None on the others."""
        if self.task.parallel.is_sharded:
            assert isinstance(self.task, Shardable)
            tensors = self.average.gathered()
            module = self.task.unsharded() if is_first() else None
            if module is not None:
                module.load_state_dict(tensors, strict=False)
            yield module
            return
        if not is_first():
            yield None
            return
        self.average.swap()
        self.task.module.eval()
        try:
            yield self.task.module
        finally:
            self.average.swap()

    def groups(self) -> checkpoint.Groups:
        """The tensors that a checkpoint holds."""
        return {
            "parameters": {self.names[id(p)]: p.detach() for p in self.parameters},
            "average": self.average.tensors,
            "optimizer": checkpoint.optimizer_tensors(self.optimizer, self.names),
        }

    def _save(self) -> None:
        values = {
            "num_updates": self.average.num_updates,
            "seed": self.run.seed,
            "ranks": world_size(),
            "optimizer": self.optim.optimizer,
            **self.meters.state(),
        }
        if isinstance(self.task, Stateful):
            values["data"] = self.task.position()
        self.writer.save(self.step, Snapshot(self.groups(), values))
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        folders = checkpoint.finished(self.run.folder / "checkpoints")
        agreed = gathered([folder.name for folder in folders[-1:]])
        if any(name != agreed[0] for name in agreed):
            raise ConfigError(
                f"ranks see different checkpoints ({agreed}); run.folder must be on a shared disk"
            )
        if not folders:
            return
        values = checkpoint.read_values(folders[-1])
        kept, asked = values.get("optimizer", self.optim.optimizer), self.optim.optimizer
        if kept != asked and (kept, asked) != ("adamw", "muon"):
            raise ConfigError(
                f"{folders[-1]} was saved with optim.optimizer={kept}, the recipe says {asked}; restore it, "
                "or take another run.folder (adamw alone may become muon on the way)"
            )
        parameters = {self.names[id(p)]: p.detach() for p in self.parameters}
        for name, tensor in checkpoint.read_fitting(folders[-1], "parameters", parameters).items():
            parameters[name].copy_(tensor)
        if self.average.tensors:
            for name, tensor in checkpoint.read_fitting(folders[-1], "average", self.average.tensors).items():
                self.average.tensors[name].copy_(tensor)
        stored = checkpoint.read_group(folders[-1], "optimizer", parameters)
        checkpoint.restore_optimizer(self.optimizer, self.names, stored)
        self.average.num_updates = values["num_updates"]
        self.step = values["step"]
        self.meters.go_on(values)
        if isinstance(self.task, Stateful) and "data" in values:
            self.task.go_to(values["data"])
        logger.info("resuming from %s", folders[-1])


def _is_shown(name: str) -> bool:
    """Whether a figure is in the line for people; all of them are in metrics.jsonl."""
    return name not in _NOT_SHOWN and not name.removeprefix("loss_t").isdigit()


@contextmanager
def _progress(first: int, total: int) -> Iterator[Callable[[int, float, int], None]]:
    """A bar with the time that is left, where the first rank writes to a terminal.

    Told (step, loss, rows left out so far).
    """
    if not is_first() or not sys.stderr.isatty():
        yield lambda *_: None
        return
    with tqdm(total=total, initial=first, unit="step") as bar, logging_redirect_tqdm():

        def show(step: int, loss: float, num_skipped: int) -> None:
            left_out = f", {num_skipped} rows left out" if num_skipped else ""
            bar.set_postfix_str(f"loss {loss:.4f}{left_out}", refresh=False)
            bar.update(step - bar.n)

        yield show


@contextmanager
def _computing(run: RunConfig) -> Iterator[None]:
    """The run's threads; subnormal numbers count as zero while the context is open.

    Behind a softmax gradients are full of those, and a CPU takes up to a hundred times as long for one.
    """
    torch.set_num_threads(run.threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set while the context is open; a second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        del number, frame
        event.set()
        logger.info("stopping after this step; once more stops at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
