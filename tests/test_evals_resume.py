"""A benchmark or a certificate that is killed at any moment, and started again, ends with the same JSON."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch

from og2.evals.certify import Plan, certify
from og2.evals.command import eval_mini

KILLS = int(os.environ.get("OG2_KILLS", "2"))
"""Kills of one run; `OG2_KILLS=10 pytest tests/test_evals_resume.py` is the long check."""
FEW = ("--world", "plain", "--limit", "2", "--chunk", "1", "--steps", "2", "--no-controls", "--json")
PLAN = Plan(60, 3, tasks=("t2i/plain single",), conditions=("clean", "noise 8"), kinds=1)


def _benchmark(folder: Path) -> None:
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    eval_mini([*FEW, "--out", str(folder), "--save", str(folder) + ".json"])
    os._exit(0)


def _certificate(folder: Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    found = certify(PLAN, folder / "state.jsonl")
    Path(str(folder) + ".json").write_text(json.dumps(found.to_dict()))
    os._exit(0)


def _run(work: Callable[[Path], None], folder: Path, seconds: float | None = None) -> float:
    """Runs the work in a process of its own, killed after so long. Returns how long it took."""
    process = get_context("fork").Process(target=work, args=(folder,))
    started = time.monotonic()
    process.start()
    process.join(timeout=seconds)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return time.monotonic() - started


def _cut_equals_whole(work: Callable[[Path], None], folder: Path) -> None:
    took, rng = _run(work, folder / "whole"), random.Random(5)
    for _ in range(KILLS):
        _run(work, folder / "cut", rng.uniform(0.1, 0.9) * took)
        (folder / "cut.json").unlink(missing_ok=True)
    _run(work, folder / "cut")
    whole, cut = (json.loads((folder / name).read_text()) for name in ("whole.json", "cut.json"))
    assert cut == whole


def test_a_benchmark_killed_again_and_again_ends_with_the_same_json(tmp_path: Path) -> None:
    _cut_equals_whole(_benchmark, tmp_path)


def test_a_certificate_killed_again_and_again_ends_with_the_same_json(tmp_path: Path) -> None:
    _cut_equals_whole(_certificate, tmp_path)
