"""What a run measures about itself between two log lines: means of figures, rates, waiting, memory, MFU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from og2.device import has_products, peak_gb
from og2.train.distributed import gathered, world_size
from og2.train.task import Figures, Part

MOST_NAMES = 20
PROBE_SIZE = {"cpu": 512, "cuda": 8192}


class Meters:
    """Collects since the last `take`; sums over all ranks when taken. Units are in the names."""

    def __init__(self, peak_tflops: float | None, device: torch.device) -> None:
        self.device = device
        self.peak_flops = peak_tflops * 1e12 if peak_tflops else matrix_rate(device)
        self.train_s = 0.0
        self.num_skipped = 0
        self._clear()

    def _clear(self) -> None:
        self._started, self._left_out, self._waited, self._steps = time.monotonic(), 0.0, 0.0, 0
        self._sums: dict[str, tuple[Tensor | float, float]] = {}
        self._work = [0.0, 0.0, 0.0]
        self._skipped: list[str] = []

    def see(self, figures: Figures) -> None:
        """Take in the figures of one part: (sum, count) by name."""
        for name, (value, count) in figures.items():
            old, old_count = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (old + value, old_count + count)

    def add(self, parts: Sequence[Part], figures: Mapping[str, float]) -> None:
        """Take in a finished step: what it cost, and figures that are the same on every rank."""
        self._steps += 1
        for part in parts:
            self._skipped += part.skipped
            for place, value in enumerate((part.work.samples, part.work.tokens, part.work.flops)):
                self._work[place] += value
        self.see({name: (value, 1.0) for name, value in figures.items()})

    @property
    def flops(self) -> float:
        """Matrix FLOPs of this rank's steps since the last `take`."""
        return self._work[2]

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in here counts as waiting for data."""
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    def leave_out(self, seconds: float) -> None:
        """These seconds were no training (an evaluation)."""
        self._left_out += seconds

    def take(self) -> dict[str, Any]:
        """Everything since the last call, over all ranks; every rank must call this.

        Where rows were left out, `rows_skipped` is how often, and `skipped` names them.
        """
        seconds = max(1e-9, time.monotonic() - self._started - self._left_out)
        self.train_s += seconds
        mine = [[name, float(value), count] for name, (value, count) in sorted(self._sums.items())]
        sums: dict[str, list[float]] = {}
        work, waited = [0.0, 0.0, 0.0], 0.0
        skipped: list[str] = []
        for figures, cost, wait, rows in gathered([mine, self._work, self._waited, self._skipped]):
            waited += wait / world_size()
            skipped += rows
            work = [a + b for a, b in zip(work, cost, strict=True)]
            for name, value, count in figures:
                known = sums.setdefault(name, [0.0, 0.0])
                known[0], known[1] = known[0] + value, known[1] + count
        found: dict[str, Any] = {name: value / count for name, (value, count) in sums.items() if count}
        samples, tokens, flops = work
        found |= {
            "s_per_step": seconds / max(1, self._steps),
            "data_wait_share": waited / seconds,
            "peak_gb": peak_gb(self.device),
            "train_s": self.train_s,
        }
        if samples:
            found |= {"samples_per_s": samples / seconds, "tokens_per_s": tokens / seconds}
        if flops:
            found["mfu"] = flops / seconds / (self.peak_flops * world_size())
        if skipped:
            found |= {"rows_skipped": len(skipped), "skipped": _names(skipped)}
            self.num_skipped += len(skipped)
        self._clear()
        return found

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"train_s": self.train_s, "num_skipped": self.num_skipped}

    def go_on(self, values: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.train_s = float(values["train_s"])
        self.num_skipped = int(values.get("num_skipped", 0))  # runs begun before it was counted


def _names(rows: Sequence[str]) -> str:
    """Each row once, and how many more there are."""
    names = list(dict.fromkeys(rows))
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of the device's fastest matrix products, float32 or bfloat16, best of ten each."""
    size = PROBE_SIZE[device.type]
    best = float("inf")
    for dtype in (torch.float32, torch.bfloat16):
        if device.type == "cpu" and not has_products(dtype):
            continue
        a = torch.ones(size, size, dtype=dtype, device=device)
        for _ in range(10):
            _wait_for(device)
            started = time.perf_counter()
            torch.mm(a, a)
            _wait_for(device)
            best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
