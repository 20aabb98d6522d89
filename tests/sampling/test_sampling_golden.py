"""Time grids and solver trajectories equal the official recordings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from og2.sampling.solvers import DPMSolverPP, Euler, sample
from og2.sampling.time import custom_steps, time_grid

GOLDEN = Path(__file__).parents[1] / "golden" / "scheduler"
META = json.loads((GOLDEN / "meta.json").read_text())
RECORDED = load_file(GOLDEN / "scheduler.safetensors")
EULER = [f"euler.{k}" for k in range(5)]
DPM = [f"dpm.{k}" for k in range(5)]
TABLES = sorted(name for name in RECORDED if name.startswith("table."))


def grid_of(name: str) -> torch.Tensor:
    case = META[name]
    return time_grid(case["num_inference_steps"], case["num_tokens"], case["dynamic_time_shift"])


def errors(solver: object, name: str) -> float:
    x, v = RECORDED[f"{name}.x"], RECORDED[f"{name}.v"]
    state, worst = x[0], 0.0
    for step in range(len(v)):
        state = solver.step(state, v[step], step)
        worst = max(worst, (state - x[step + 1]).abs().max().item() / x.abs().max().item())
    return worst


@pytest.mark.parametrize("name", TABLES)
def test_time_tables_equal_the_official_ones(name: str) -> None:
    _, steps, tokens = name.split(".")
    grid = time_grid(int(steps), int(tokens))
    assert (grid[:-1] - RECORDED[name]).abs().max() <= 1e-6
    assert grid[-1] == 1.0


@pytest.mark.parametrize("name", EULER)
def test_euler_follows_the_official_trajectory(name: str) -> None:
    grid = grid_of(name)
    assert (grid - RECORDED[f"{name}.timesteps_with_end"]).abs().max() <= 1e-6
    assert errors(Euler(grid), name) <= 1e-6


def test_euler_follows_the_official_trajectory_on_a_grid_given_by_hand() -> None:
    grid = torch.tensor(custom_steps(META["euler.custom"]["custom_timesteps"]))
    assert (grid[:-1] - RECORDED["euler.custom.timesteps"]).abs().max() <= 1e-6
    assert errors(Euler(grid), "euler.custom") <= 1e-6


def test_euler_with_official_numerics_is_bit_equal_in_bfloat16() -> None:
    x, v = RECORDED["euler.0.bf16.x"], RECORDED["euler.0.bf16.v"]
    solver = Euler(grid_of("euler.0.bf16"), "official")
    state = x[0]
    for step in range(len(v)):
        state = solver.step(state, v[step], step)
        assert state.dtype == torch.bfloat16
        assert torch.equal(state, x[step + 1])


@pytest.mark.parametrize("name", DPM)
def test_dpmsolver_follows_the_official_trajectory(name: str) -> None:
    case, grid = META[name], grid_of(name)
    assert (1 - grid - RECORDED[f"{name}.sigmas"]).abs().max() <= 1e-6
    solver = DPMSolverPP(grid, "float32", case["solver_order"], case["solver_type"])
    assert errors(solver, name) <= 1e-6


@pytest.mark.parametrize("name", ["euler.0", "dpm.0"])
def test_sample_runs_several_pictures_side_by_side_as_if_alone(name: str) -> None:
    x, v = RECORDED[f"{name}.x"], RECORDED[f"{name}.v"]
    grids = [grid_of(name), time_grid(len(v), 4096)]
    seen: list[int] = []

    def velocity(states: list[torch.Tensor], ts: list[torch.Tensor], step: int) -> list[torch.Tensor]:
        assert ts[0] == grids[0][step]
        return [v[step], -states[1]]

    solver = "euler" if name.startswith("euler") else "dpmsolver++"
    done = sample(velocity, [x[0], x[0]], grids, solver, lambda step, _: seen.append(step))
    assert (done[0] - x[-1]).abs().max() <= 1e-6 * x.abs().max()
    assert seen == list(range(len(v)))
