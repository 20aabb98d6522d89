"""A run that is stopped and resumed ends with the very weights of a run that was not."""

from __future__ import annotations

import json
import os
import resource
import signal
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_runs import in_processes, last_snapshot
from torch import Tensor, nn

from og2.errors import CheckpointError, ConfigError, Og2Error
from og2.train import checkpoint
from og2.train.checkpoint import Retention, Snapshot, Writer
from og2.train.distributed import Parallel, process_group, rank
from og2.train.loop import RunConfig, train
from og2.train.optim import OptimConfig, WeightAverage, learning_rate
from og2.train.task import Part, mean_part

OPTIM = OptimConfig(steps=12, lr=1e-2, warmup=3, decay=0.5, ema=0.9)


class Line:
    """Fits a small linear map; can be told to fail at a step."""

    kinds = ("loss",)

    def __init__(self, fail_at: int | None = None, bad: float = float("nan")) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
        self.fail_at, self.bad = fail_at, bad
        self.parallel = Parallel(self.module)

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        if step == self.fail_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=generator)
        return [
            Part(
                {"loss": 1.0}, lambda: mean_part(self.mean(x), {"step_seen": float(step)}), (f"rows:{step}",)
            )
        ]

    def mean(self, x: Tensor) -> Tensor:
        return (self.module(x) - x.sum(1, keepdim=True)).square().mean()

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:  # noqa: ARG002
        return {"at": float(step)}

    def export(self, folder: Path, module: nn.Module) -> None:  # noqa: ARG002
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({}, folder / "exported")


def _config(folder: Path) -> RunConfig:
    return RunConfig(folder, threads=1, log_every=4, eval_every=6, save_every_s=0.0)


def test_a_seed_below_zero_is_refused_before_the_first_draw(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.seed=-1; it starts at 0"):
        RunConfig(tmp_path, seed=-1)


def _final(folder: Path) -> Snapshot:
    snapshot = last_snapshot(folder / "checkpoints")
    assert snapshot is not None
    return snapshot


def test_subnormal_numbers_count_as_zero_in_training_and_not_afterwards(tmp_path: Path) -> None:
    class Tiny(Line):
        def mean(self, x: Tensor) -> Tensor:
            seen.append(float(tiny / 2))
            return super().mean(x)

    seen: list[float] = []
    tiny = torch.tensor(1e-38)
    train(Tiny(), _config(tmp_path), replace(OPTIM, steps=2, warmup=0))
    assert seen == [0.0, 0.0]
    assert float(tiny / 2) > 0


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
    assert {"loss", "s_per_step", "lr", "grad_norm", "step_seen", "data_wait_share", "peak_gb"} <= set(
        records[0]
    )


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run_and_its_rows_are_written(tmp_path: Path, where: str) -> None:
    class Broken(Line):
        def parts(self, step: int, generator: torch.Generator) -> list[Part]:
            parts = super().parts(step, generator)
            if step != 3:
                return parts
            bad = {
                "loss": lambda: self.module.sum_of().log(),
                "gradient": lambda: self.module.sum_of().sqrt(),
            }
            return [Part({"loss": 1.0}, lambda: mean_part(bad[where](), {}), parts[0].ids)]

    broken = Broken()
    first = next(broken.module.parameters())
    broken.module.sum_of = lambda: (first * 0).sum() - float(where == "loss")
    with pytest.raises(Og2Error, match=f"the {where} of step 3 is (nan|inf)"):
        train(broken, _config(tmp_path), OPTIM)
    assert _final(tmp_path).values["step"] == 3
    report = json.loads((tmp_path / "bad-step-00000003.json").read_text())
    assert report["rows"] == [[["rows:3"]]]


def test_a_half_written_checkpoint_is_not_seen_and_old_ones_go(tmp_path: Path) -> None:
    writer = Writer(tmp_path, Retention(last=2, every=4))
    for step in (1, 2, 3, 4, 5, 6, 7):
        writer.save(step, _snapshot(step))
    writer.finish()
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / ".writing-00000010").mkdir()
    last = last_snapshot(tmp_path)
    assert last is not None
    assert last.values == {"step": 7, "a": 7}
    Writer(tmp_path)
    assert not (tmp_path / ".writing-00000010").exists()
    assert last.tensors["parameters"]["w"].tolist() == [7.0, 7.0]
    assert [checkpoint.step_of(p) for p in checkpoint.finished(tmp_path)] == [4, 6, 7]


class Stopped(Line):
    """Is asked to stop during its last step."""

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        if step == OPTIM.steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().parts(step, generator)


def test_a_run_stopped_in_its_last_step_is_exported_and_a_finished_one_exports_again(tmp_path: Path) -> None:
    exported = tmp_path / "export" / "exported"
    train(Stopped(), replace(_config(tmp_path), eval_every=1000), OPTIM)
    assert exported.is_file()
    exported.unlink()
    train(Line(), _config(tmp_path), OPTIM)
    assert exported.is_file()


def test_a_failed_evaluation_loses_no_step(tmp_path: Path) -> None:
    class Unjudged(Line):
        def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:  # noqa: ARG002
            raise ConfigError("no judge")

    with pytest.raises(ConfigError, match="no judge"):
        train(Unjudged(), _config(tmp_path), OPTIM)
    assert _final(tmp_path).values["step"] == 6


@pytest.mark.parametrize(
    ("begun", "resumed", "message"),
    [
        ({}, {"optimizer": "adamw8bit"}, "was saved with optim.optimizer=adamw, the recipe says adamw8bit"),
        ({"ema": 0.0}, {}, "holds no average: it was saved with optim.ema=0"),
    ],
)
def test_a_run_that_cannot_go_on_says_what_differs(
    tmp_path: Path, begun: dict[str, Any], resumed: dict[str, Any], message: str
) -> None:
    train(Line(), _config(tmp_path), replace(OPTIM, steps=2, **begun))
    with pytest.raises(Og2Error, match=message):
        train(Line(), _config(tmp_path), replace(OPTIM, **resumed))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(3, 5), nn.Linear(5, 1)], r"of shape \[4.*\], the recipe makes it \[5.*\]"),
        ([nn.Linear(3, 4)], r"holds parameters of 1\.\w+, which the recipe does not train"),
        ([nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(1, 1)], r"holds no parameters of 2\.\w+"),
    ],
)
def test_a_run_goes_on_with_the_weights_it_began_with_alone(
    tmp_path: Path, layers: list[nn.Module], message: str
) -> None:
    train(Line(), _config(tmp_path), replace(OPTIM, steps=2))
    other = Line()
    other.module = nn.Sequential(*layers)
    with pytest.raises(CheckpointError, match=message):
        train(other, _config(tmp_path), OPTIM)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip": 0.0},
        {"lr": -1.0},
        {"ema": 1.0},
        {"betas": (0.9, 1.0)},
        {"decay": 1.5},
        {"warmup": -1},
        {"eps": 0.0},
    ],
)
def test_a_setting_that_would_train_nothing_or_worse_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"optim\.{name}=.*; use "):
        OptimConfig(**{"lr": 1e-3, **wrong})


def test_what_is_saved_is_what_was_there_when_it_was_asked_for(tmp_path: Path) -> None:
    writer, snapshot = Writer(tmp_path), _snapshot(1, size=200_000)
    writer.save(1, snapshot)
    snapshot.tensors["parameters"]["w"].zero_()
    writer.finish()
    last = last_snapshot(tmp_path)
    assert last is not None
    assert bool((last.tensors["parameters"]["w"] == 1).all())


def test_a_full_disk_leaves_the_last_checkpoint_standing(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.save(1, _snapshot(1))
    writer.finish()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .* still stands"):  # noqa: PT012
            writer.save(2, _snapshot(2, size=100_000))
            writer.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_checkpoints_of_the_first_form_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000005"
    folder.mkdir()
    for group in ("parameters", "average", "optimizer"):
        save_file({"w": torch.ones(2)}, folder / f"{group}.safetensors")
    (folder / "state.json").write_text('{"step": 5}')
    last = last_snapshot(tmp_path)
    assert last is not None
    assert last.tensors["average"]["w"].tolist() == [1.0, 1.0]


def _snapshot(step: int, size: int = 2) -> Snapshot:
    value = torch.full((size,), float(step))
    return Snapshot({"parameters": {"w": value}, "average": {}, "optimizer": {}}, {"a": step})


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    rates = [learning_rate(OPTIM, step) for step in range(13)]
    assert rates[0] == pytest.approx(OPTIM.lr / 3)
    assert rates[3:7] == [OPTIM.lr] * 4
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert all(a >= b for a, b in pairwise(rates[6:]))


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "muon"])
def test_the_optimizer_goes_on_where_it_was(tmp_path: Path, name: str) -> None:
    class Wide(Line):
        def __init__(self, fail_at: int | None = None) -> None:
            super().__init__(fail_at)
            self.module = nn.Sequential(nn.Linear(3, 512), nn.Linear(512, 16), nn.Linear(16, 1))
            self.parallel = Parallel(self.module)

    optim = replace(OPTIM, optimizer=name)
    train(Wide(), _config(tmp_path / "whole"), optim)
    with pytest.raises(KeyboardInterrupt):
        train(Wide(fail_at=7), _config(tmp_path / "cut"), optim)
    train(Wide(), _config(tmp_path / "cut"), optim)
    whole, cut = _final(tmp_path / "whole"), _final(tmp_path / "cut")
    for group, tensors in whole.tensors.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, cut.tensors[group][key]), (group, key)
    codes = [key for key, tensor in whole.tensors["optimizer"].items() if tensor.dtype == torch.uint8]
    assert bool(codes) == (name == "adamw8bit")


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


def _mean_gradients() -> None:
    with process_group():
        _check_means()


def _check_means() -> None:
    module = nn.Linear(3, 2)
    parallel, parameters = Parallel(module), list(module.parameters())
    for step in (1, 2):
        for index, parameter in enumerate(parameters):
            numbers = torch.arange(float(parameter.numel())).view_as(parameter)
            parameter.grad = numbers * (rank() + 1) * step + index
        parallel.finish(parameters)
        for index, parameter in enumerate(parameters):
            numbers = torch.arange(float(parameter.numel())).view_as(parameter)
            torch.testing.assert_close(parameter.grad, 2.0 * numbers * step + index)


def test_after_a_step_every_rank_has_the_mean_of_all_gradients() -> None:
    in_processes(3, _mean_gradients)


def _train_with_ddp(folder: Path) -> None:
    with process_group():
        task = Line()
        task.parallel = Parallel(task.module, "ddp")
        wrapped = weakref.ref(task.parallel.call)
        train(task, _config(folder), replace(OPTIM, steps=2))
        assert wrapped() is None
        assert task.parallel.call is task.module


def test_a_run_lets_go_of_its_process_group_before_it_leaves(tmp_path: Path) -> None:
    in_processes(2, _train_with_ddp, tmp_path)
