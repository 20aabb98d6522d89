"""Solvers of dx/dt = v(x, t) from noise (t = 0) to picture (t = 1).

A solver is made per picture from its own time grid, so pictures of different sizes run side by
side. State is float32; with numerics="official" it takes the dtype of the velocity and is rounded
where the official implementation rounds. DPM-Solver++ is the scheduler of diffusers, given our grid.

Legend: C latent channels, hw latent grid, N steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from og2.errors import RequestError

Numerics = Literal["float32", "official"]
Velocity = Callable[[list[Tensor], list[Tensor], int], list[Tensor]]
OnStep = Callable[[int, list[Tensor]], "list[Tensor] | None"]


class Solver(Protocol):
    """One picture's solver: it may remember earlier steps, and is used for one run only."""

    def step(self, x_Chw: Tensor, v_Chw: Tensor, index: int) -> Tensor:
        """The state after step `index`, from the state and the velocity before it."""
        ...


class Euler:
    """x + (t' - t) v.

    Official rounding for a 16-bit velocity: dt is rounded to its dtype and so is the product; the
    sum is taken in float32 and rounded back.
    """

    def __init__(self, times_N: Tensor, numerics: Numerics = "float32") -> None:
        self._dt = times_N.diff()
        self._numerics = numerics

    def step(self, x_Chw: Tensor, v_Chw: Tensor, index: int) -> Tensor:
        """The state after step `index`."""
        dt = self._dt[index].to(v_Chw.device)
        if self._numerics == "float32":
            return x_Chw.float() + dt * v_Chw.float()
        return (x_Chw.float() + dt.to(v_Chw.dtype) * v_Chw).to(v_Chw.dtype)


class DPMSolverPP:
    """DPM-Solver++ (arXiv 2211.01095), second order, by the scheduler of diffusers on our grid.

    The scheduler's own flow grid starts just below sigma = 1 and rounds times to integers, so its
    grid is overwritten by sigma = 1 - t. Its velocity has the other sign (noise - picture).
    The first step and the last are of first order, and so in effect is the second, because
    sigma_0 = 1 makes lambda_0 infinite; the last step returns the predicted picture.
    """

    def __init__(
        self,
        times_N: Tensor,
        numerics: Numerics = "float32",
        order: int = 2,
        solver_type: Literal["midpoint", "heun"] = "midpoint",
    ) -> None:
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

        num_steps = len(times_N) - 1
        self._scheduler: Any = DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++",
            solver_type=solver_type,
            solver_order=order,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
        )
        self._scheduler.set_timesteps(num_steps)
        self._scheduler.sigmas = 1.0 - times_N.cpu()
        self._scheduler.timesteps = torch.arange(num_steps, dtype=torch.float32)
        self._scheduler.set_begin_index(0)
        self._numerics = numerics

    def step(self, x_Chw: Tensor, v_Chw: Tensor, index: int) -> Tensor:
        """The state after step `index`; steps must come in order."""
        if self._numerics == "float32":
            x_Chw, v_Chw = x_Chw.float(), v_Chw.float()
        time = self._scheduler.timesteps[index]
        return self._scheduler.step(-v_Chw, time, x_Chw).prev_sample


SOLVERS: dict[str, Callable[[Tensor, Numerics], Solver]] = {"euler": Euler, "dpmsolver++": DPMSolverPP}


def make_solver(name: str, times_N: Tensor, numerics: Numerics = "float32") -> Solver:
    """A fresh solver by its name. Raises: RequestError naming the solvers there are."""
    if name not in SOLVERS:
        raise RequestError(f"scheduler={name!r} is unknown; use one of {', '.join(sorted(SOLVERS))}")
    return SOLVERS[name](times_N, numerics)


def sample(
    velocity: Velocity,
    latents: Sequence[Tensor],
    times: Sequence[Tensor],
    solver: str = "euler",
    on_step: OnStep | None = None,
    numerics: Numerics = "float32",
) -> list[Tensor]:
    """Pictures' latents at t = 1, from their noise.

    Shapes: latents one (C, h, w) per picture, sizes free; times one (N + 1,) per picture, N shared.
    velocity(latents, ts, step) gets every picture's state and its own t (0-dim float32) and returns
    one velocity each. on_step(step, latents) is called after each step; a list that it returns
    takes the place of the latents; an error that it raises ends the run.
    """
    num_steps = len(times[0]) - 1
    assert all(len(grid) == num_steps + 1 for grid in times), "pictures of one run share their step count"
    solvers = [make_solver(solver, grid, numerics) for grid in times]
    states = list(latents)
    for step in range(num_steps):
        velocities = velocity(states, [grid[step] for grid in times], step)
        states = [s.step(x, v, step) for s, x, v in zip(solvers, states, velocities, strict=True)]
        changed = on_step(step, states) if on_step is not None else None
        states = states if changed is None else list(changed)
    return states
