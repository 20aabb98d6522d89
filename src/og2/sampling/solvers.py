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


class EulerStochastic:
    """t' p + (1 - t') e: the predicted picture p = x + (1 - t) v, noised anew to the next time.

    What an early step got wrong is not carried along with its noise: a small or little trained model draws
    what was asked far more often. The price is variety: of a normal distribution it draws one with 0.71
    of the spread, whatever the number of steps. Source: `stochastic_sampling` of diffusers'
    FlowMatchEulerDiscreteScheduler. The fresh noise e is drawn on the CPU from `seed`, so that it is
    the same on every device and beside every neighbour.
    """

    def __init__(self, times_N: Tensor, numerics: Numerics = "float32", seed: int = 0) -> None:
        self._times = times_N
        self._numerics = numerics
        self._generator = torch.Generator().manual_seed(seed)

    def step(self, x_Chw: Tensor, v_Chw: Tensor, index: int) -> Tensor:
        """The state after step `index`; steps must come in order."""
        now, then = self._times[index].item(), self._times[index + 1].item()
        state = x_Chw.float() + (1.0 - now) * v_Chw.float()
        if then < 1.0:
            noise = torch.randn(state.shape, generator=self._generator, dtype=torch.float32)
            state = then * state + (1.0 - then) * noise.to(state.device)
        return state if self._numerics == "float32" else state.to(v_Chw.dtype)


SOLVERS: dict[str, Callable[[Tensor, Numerics, int], Solver]] = {
    "euler": lambda times_N, numerics, _: Euler(times_N, numerics),
    "euler-stochastic": EulerStochastic,
    "dpmsolver++": lambda times_N, numerics, _: DPMSolverPP(times_N, numerics),
}
NOISY_SOLVERS = frozenset({"euler-stochastic"})
"""Those that draw noise of their own at every step."""


def make_solver(name: str, times_N: Tensor, numerics: Numerics = "float32", seed: int = 0) -> Solver:
    """A fresh solver by its name; `seed` is of the noise it draws, if it draws any.

    Raises: RequestError naming the solvers there are.
    """
    if name not in SOLVERS:
        raise RequestError(f"scheduler={name!r} is unknown; use one of {', '.join(sorted(SOLVERS))}")
    return SOLVERS[name](times_N, numerics, seed)


def sample(  # noqa: PLR0913  state, field, grid, and how
    velocity: Velocity,
    latents: Sequence[Tensor],
    times: Sequence[Tensor],
    solver: str = "euler",
    on_step: OnStep | None = None,
    numerics: Numerics = "float32",
    seeds: Sequence[int] | None = None,
) -> list[Tensor]:
    """Pictures' latents at t = 1, from their noise.

    Shapes: latents one (C, h, w) per picture, sizes free; times one (N + 1,) per picture, N shared.
    seeds: one per picture, of the noise that the steps of some solvers draw; 0 for all if None.
    velocity(latents, ts, step) gets every picture's state and its own t (0-dim float32) and returns
    one velocity each. on_step(step, latents) is called after each step; a list that it returns
    takes the place of the latents; an error that it raises ends the run.
    """
    num_steps = len(times[0]) - 1
    assert all(len(grid) == num_steps + 1 for grid in times), "pictures of one run share their step count"
    solvers = [
        make_solver(solver, grid, numerics, seed)
        for grid, seed in zip(times, seeds or [0] * len(times), strict=True)
    ]
    states = list(latents)
    for step in range(num_steps):
        velocities = velocity(states, [grid[step] for grid in times], step)
        states = [s.step(x, v, step) for s, x, v in zip(solvers, states, velocities, strict=True)]
        changed = on_step(step, states) if on_step is not None else None
        states = states if changed is None else list(changed)
    return states
