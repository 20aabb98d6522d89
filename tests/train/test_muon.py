"""Muon for the matrices of blocks, AdamW for the rest: what moves how, and that a sharded run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import pytest
import torch
from small_runs import in_processes, last_snapshot
from test_eight_bit import Fit
from torch import nn

from og2.train.checkpoint import Snapshot, optimizer_tensors, restore_optimizer
from og2.train.distributed import process_group
from og2.train.loop import RunConfig, train
from og2.train.muon import is_muons
from og2.train.optim import OptimConfig, make_optimizer

RATE = 0.01
Name: TypeAlias = Literal["adamw", "muon"]


class Small(nn.Module):
    """A way in, two blocks of two shapes, and a way out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(24, 24)
        self.layers = nn.ModuleList([nn.Linear(24, 48), nn.Linear(48, 24)])
        self.out = nn.Linear(24, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x).relu()
        return self.out(x)


def _moved(optimizer: Name) -> dict[str, torch.Tensor]:
    """How far each parameter moves in the first step."""
    torch.manual_seed(0)
    model = Small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = OptimConfig(lr=RATE, weight_decay=0.0, optimizer=optimizer)
    steps = make_optimizer(model.named_parameters(), config)
    model(torch.randn(64, 24)).square().mean().backward()
    steps.step()
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def test_muon_moves_every_direction_of_a_blocks_matrix_alike_and_as_far_as_adamw_does() -> None:
    moved = _moved("muon")
    for name in ("layers.0.weight", "layers.1.weight"):
        sizes = torch.linalg.svdvals(moved[name])
        assert float(sizes.max() / sizes.min()) < 3.0, name
        # arXiv 2502.16982: 0.2 of the rate, the size AdamW's updates have on the way
        assert float(moved[name].square().mean().sqrt()) == pytest.approx(0.2 * RATE, rel=0.2), name
    sizes = torch.linalg.svdvals(_moved("adamw")["layers.0.weight"])
    assert float(sizes.max() / sizes.min()) > 5.0


def test_what_is_no_matrix_of_a_block_moves_as_with_adamw() -> None:
    muon, adamw = _moved("muon"), _moved("adamw")
    for name in ("embed.weight", "embed.bias", "layers.0.bias", "out.weight", "out.bias"):
        assert torch.equal(muon[name], adamw[name]), name
    assert not is_muons("layers.0.image_index_embedding", torch.zeros(5, 8))
    assert not is_muons("decoder.0.conv.weight", torch.zeros(4, 4, 3, 3))


def _fit(folder: Path, steps: int, strategy: str = "gradients", optimizer: Name = "muon") -> None:
    run = RunConfig(folder, threads=1, save_every=steps, log_every=steps)
    with process_group():
        train(Fit(strategy), run, OptimConfig(5e-3, steps, 1, "constant", ema=0.0, optimizer=optimizer))


def _fitted(folder: Path, steps: int, optimizer: Name = "muon") -> Snapshot:
    """The last state of a run of so many steps."""
    _fit(folder, steps, optimizer=optimizer)
    snapshot = last_snapshot(folder / "checkpoints")
    assert snapshot is not None
    return snapshot


def test_sharded_over_two_processes_it_learns_as_in_one_and_goes_on_in_one(tmp_path: Path) -> None:
    one = _fitted(tmp_path / "one", 6)
    in_processes(2, _fit, tmp_path / "two", 4, "fsdp")
    two = _fitted(tmp_path / "two", 6)
    for group in ("parameters", "optimizer"):
        assert one.tensors[group].keys() == two.tensors[group].keys()
        for name, tensor in one.tensors[group].items():
            torch.testing.assert_close(two.tensors[group][name], tensor, rtol=1e-2, atol=2e-4, msg=name)


def test_a_run_of_adamw_goes_on_with_muon_from_its_mean_gradients(tmp_path: Path) -> None:
    begun = _fitted(tmp_path, 3, "adamw")
    module = Fit().unsharded()
    names = {id(p): name for name, p in module.named_parameters()}
    optimizer = make_optimizer(module.named_parameters(), OptimConfig(lr=RATE, optimizer="muon"))
    restore_optimizer(optimizer, names, begun.tensors["optimizer"])
    now = optimizer_tensors(optimizer, names)
    for name in ("0.weight", "2.weight"):
        assert torch.equal(now[f"{name}|momentum_buffer"], begun.tensors["optimizer"][f"{name}|exp_avg"])
    assert torch.equal(now["0.bias|exp_avg_sq"], begun.tensors["optimizer"]["0.bias|exp_avg_sq"])
    gone_on = _fitted(tmp_path, 5)
    assert gone_on.values["step"] == 5
    assert now.keys() == gone_on.tensors["optimizer"].keys()
