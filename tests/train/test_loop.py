"""A run that is stopped and resumed ends with the very weights of a run that was not."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from og2.errors import CheckpointError, Og2Error
from og2.train import checkpoint
from og2.train.checkpoint import Snapshot
from og2.train.loop import RunConfig, train
from og2.train.optim import OptimConfig, WeightAverage, learning_rate

OPTIM = OptimConfig(steps=12, lr=1e-2, warmup=3, decay=0.5, ema=0.9)


class Line:
    """Fits a small linear map; can be told to fail at a step."""

    def __init__(self, fail_at: int | None = None, bad: float = float("nan")) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        self.fail_at, self.bad = fail_at, bad

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if step == self.fail_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=generator)
        return (self.module(x) - x.sum(1, keepdim=True)).square().mean(), {"step_seen": float(step)}

    def evaluate(self, step: int) -> dict[str, float]:
        return {"at": float(step)}

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({}, folder / "exported")


def _config(folder: Path) -> RunConfig:
    return RunConfig(folder, threads=1, log_every=4, eval_every=6, save_every_s=0.0)


def _final(folder: Path) -> Snapshot:
    snapshot = checkpoint.load_last(folder / "checkpoints")
    assert snapshot is not None
    return snapshot


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_resumed_run_ends_bit_equal(tmp_path: Path, stop: int) -> None:
    train(Line(), _config(tmp_path / "whole"), OPTIM)
    with pytest.raises(KeyboardInterrupt):
        train(Line(fail_at=stop), _config(tmp_path / "cut"), OPTIM)
    train(Line(), _config(tmp_path / "cut"), OPTIM)
    whole, cut = _final(tmp_path / "whole"), _final(tmp_path / "cut")
    assert whole.values["step"] == cut.values["step"] == 12
    for group, tensors in whole.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, cut.tensors[group][name]), (group, name)


def test_metrics_are_lines_of_json_with_units(tmp_path: Path) -> None:
    train(Line(), _config(tmp_path), OPTIM)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [4, 6, 8, 12, 12]
    assert {"loss", "s_per_step", "lr", "grad_norm"} <= set(records[0])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    class Broken(Line):
        def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            loss, metrics = super().loss(step, generator)
            return (loss * float("nan"), metrics) if step == 3 else (loss, metrics)

    with pytest.raises(Og2Error, match="step 3 is nan"):
        train(Broken(), _config(tmp_path), OPTIM)
    assert _final(tmp_path).values["step"] == 3


def test_a_half_written_checkpoint_is_not_seen_and_old_ones_go(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(
            tmp_path, step, Snapshot({"parameters": {"w": torch.full((2,), float(step))}}, {"a": step})
        )
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / ".writing-00000010").mkdir()
    last = checkpoint.load_last(tmp_path)
    assert last is not None
    assert last.values == {"step": 3, "a": 3}
    assert [p.name for p in checkpoint.finished(tmp_path)] == ["step-00000002", "step-00000003"]


def test_a_full_disk_leaves_the_last_checkpoint_standing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot({"parameters": {"w": torch.zeros(2)}}, {})
    checkpoint.save(tmp_path, 1, snapshot)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save(tmp_path, 2, snapshot)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    rates = [learning_rate(OPTIM, step) for step in range(13)]
    assert rates[0] == pytest.approx(OPTIM.lr / 3)
    assert rates[3:7] == [OPTIM.lr] * 4
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert all(a >= b for a, b in pairwise(rates[6:]))


def test_the_average_follows_and_swaps_back() -> None:
    layer = nn.Linear(2, 1)
    average = WeightAverage(layer.named_parameters(), decay=0.5)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    average.update()
    average.swap()
    torch.testing.assert_close(layer.weight.detach(), before + 0.9)
    average.swap()
    torch.testing.assert_close(layer.weight.detach(), before + 1.0)
