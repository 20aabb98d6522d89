"""A run that is killed at any moment, also while it saves, ends bit-equal to one that was not."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from small_runs import last_snapshot, recipe

from og2.errors import Cancelled
from og2.train import checkpoint
from og2.train.checkpoint import Snapshot
from og2.train.transformer import run

STEPS = 24
KILLS = int(os.environ.get("OG2_KILLS", "3"))
"""Kills of one run; `OG2_KILLS=20 pytest tests/train/test_resume.py` is the long check."""
CHANGES = (f"optim.steps={STEPS}", "run.save_every=1", "run.log_every=8", "optim.ema=0.9")
STAGES = (
    "stages=[{name: drawings, steps: 10, mix: {data: [{kind: world, options: {sizes_px: [[32, 32]]}}]}}, "
    "{name: mixed, steps: 14, lr: 2.0e-4, max_pixels: 1024}]",
    "optim.steps=0",
)


def _work(folder: Path) -> None:
    torch.set_num_threads(1)
    run(recipe(folder, *CHANGES, *STAGES))
    os._exit(0)


def _start(folder: Path) -> BaseProcess:
    process = get_context("fork").Process(target=_work, args=(folder,))
    process.start()
    return process


def _final(folder: Path) -> Snapshot:
    snapshot = last_snapshot(folder / "checkpoints")
    assert snapshot is not None
    assert snapshot.values["step"] == STEPS
    return snapshot


def test_a_run_killed_again_and_again_ends_bit_equal(tmp_path: Path) -> None:
    started = time.monotonic()
    whole = _start(tmp_path / "whole")
    whole.join()
    took = time.monotonic() - started
    rng, killed_while_saving = random.Random(7), 0
    for number in range(KILLS):
        begun = time.time()
        process = _start(tmp_path / "cut")
        if number % 2:
            process.join(timeout=rng.uniform(0.2, 1.0) * took)
        else:  # while it saves, after any number of saves
            process.join(timeout=rng.uniform(0.0, 0.7) * took)
            while process.is_alive() and not _saving(tmp_path / "cut", begun):
                time.sleep(0.0005)
            time.sleep(rng.uniform(0.0, 0.004))
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        killed_while_saving += _saving(tmp_path / "cut", begun)
    _start(tmp_path / "cut").join()
    expected, found = _final(tmp_path / "whole"), _final(tmp_path / "cut")
    for group, tensors in expected.tensors.items():
        assert tensors.keys() == found.tensors[group].keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, found.tensors[group][name]), (group, name)
    assert expected.values["data"] == found.values["data"]
    assert killed_while_saving


def _saving(folder: Path, since: float) -> bool:
    """Whether a checkpoint is half written, begun since that time."""
    for path in (folder / "checkpoints").glob(".writing-*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime >= since:
                return True
    return False


def test_asked_to_stop_it_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    process = get_context("fork").Process(target=_stopped, args=(tmp_path,))
    process.start()
    while not (tmp_path / "checkpoints").is_dir() and process.is_alive():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 0
    assert 0 < checkpoint.step_of(checkpoint.finished(tmp_path / "checkpoints")[-1]) < STEPS


def _stopped(folder: Path) -> None:
    torch.set_num_threads(1)
    with pytest.raises(Cancelled, match=r"stopped after step \d+ of 24.*the same command goes on"):
        run(recipe(folder, *CHANGES))
    os._exit(0)
