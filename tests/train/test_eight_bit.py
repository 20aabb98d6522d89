"""AdamW with moments in 8 bits: it learns as AdamW does, whatever the number of processes, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import in_processes, last_snapshot
from torch import Tensor, nn

from og2.train.distributed import Parallel, process_group, world_size
from og2.train.eight_bit import BLOCK, AdamW8bit, dynamic_levels
from og2.train.loop import RunConfig, train
from og2.train.optim import OptimConfig
from og2.train.task import Part, mean_part

WIDTH = 300  # more than a block, and no multiple of one


class Fit:
    """Fits a two-layer network to a fixed map."""

    kinds = ("loss",)

    def __init__(self, strategy: str = "gradients") -> None:
        torch.manual_seed(0)
        self.module = self.unsharded()
        self.parallel = Parallel(self.module, strategy)

    def unsharded(self) -> nn.Module:
        return nn.Sequential(nn.Linear(16, WIDTH), nn.GELU(), nn.Linear(WIDTH, 17))

    def parts(self, step: int, generator: torch.Generator) -> list[Part]:
        del generator
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(step))
        y = (x @ torch.linspace(-1, 1, 16 * 17).view(16, 17)).sin()
        return [Part({"loss": 1.0}, lambda: mean_part((self.parallel.call(x) - y).square().mean(), {}))]

    def evaluate(self, step: int, module: nn.Module) -> dict[str, float]:
        del step
        x = torch.randn(256, 16, generator=torch.Generator().manual_seed(99))
        y = (x @ torch.linspace(-1, 1, 16 * 17).view(16, 17)).sin()
        return {"loss": float((module(x) - y).square().mean())}

    def export(self, folder: Path, module: nn.Module) -> None:
        del folder, module


def _fit(folder: Path, optimizer: str, steps: int, strategy: str = "gradients") -> None:
    run = RunConfig(folder, threads=1, save_every=steps, log_every=steps)
    with process_group():
        train(Fit(strategy), run, OptimConfig(5e-3, steps, 1, "constant", ema=0.0, optimizer=optimizer))


def _state(folder: Path) -> dict[str, Tensor]:
    snapshot = last_snapshot(folder / "checkpoints")
    assert snapshot is not None
    return snapshot.tensors["parameters"] | snapshot.tensors["optimizer"]


def test_eight_bits_learn_as_float32_does_in_a_quarter_of_the_state(tmp_path: Path) -> None:
    losses = {}
    for name in ("adamw", "adamw8bit"):
        _fit(tmp_path / name, name, 60)
        task = Fit()
        task.module.load_state_dict({k: v for k, v in _state(tmp_path / name).items() if "|" not in k})
        losses[name] = task.evaluate(0, task.module)["loss"]
    assert losses["adamw8bit"] == pytest.approx(losses["adamw"], rel=0.05)
    assert losses["adamw"] < 0.95 * Fit().evaluate(0, Fit().module)["loss"]
    state = _state(tmp_path / "adamw8bit")
    held = [t for name, t in state.items() if name.startswith("0.weight|exp")]
    assert sum(t.numel() * t.element_size() for t in held) <= 2.6 * 16 * WIDTH
    assert state["0.bias|exp_avg"].dtype == torch.float32  # small ones stay as they are


def test_sharded_over_two_processes_it_learns_as_in_one_and_goes_on_in_one(tmp_path: Path) -> None:
    _fit(tmp_path / "one", "adamw8bit", 6)
    in_processes(2, _fit, tmp_path / "two", "adamw8bit", 4, "fsdp")
    _fit(tmp_path / "two", "adamw8bit", 6)
    one, two = _state(tmp_path / "one"), _state(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.shape == two[name].shape, name
        if tensor.dtype == torch.uint8:  # a gradient that was summed in another order may take the next level
            assert int((tensor.int() - two[name].int()).abs().max()) <= 1, name
        else:
            torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert world_size() == 1


@given(st.integers(1, 3 * BLOCK), st.floats(1e-12, 1e6), st.booleans())
def test_a_stored_moment_is_near_what_it_stands_for_and_stays_as_it_is(
    width: int, size: float, signed: bool
) -> None:
    weights = nn.Parameter(torch.zeros(5000 // width + 1, width))
    optimizer = AdamW8bit([weights], 1e-3)
    state, name = optimizer._fresh(weights), "exp_avg" if signed else "exp_avg_sq"
    values = torch.randn(weights.shape, generator=torch.Generator().manual_seed(width)) * size
    values = values if signed else values.abs()
    optimizer._write(state, name, values.clone(), signed)
    stored = optimizer._read(state, name, signed)
    blocks = state[f"{name}_scales"].repeat_interleave(BLOCK, 1)[:, :width]
    assert bool(((stored - values).abs() <= 0.009 * blocks + 1e-30).all())
    assert bool((stored > 0).all()) or signed


@pytest.mark.parametrize("signed", [True, False])
def test_the_levels_are_256_and_only_signed_ones_hold_zero(signed: bool) -> None:
    levels = dynamic_levels(signed)
    assert levels.shape == (256,)
    assert bool((levels.diff() > 0).all())
    assert levels[-1] == 1.0
    assert bool((levels == 0).any()) == signed
