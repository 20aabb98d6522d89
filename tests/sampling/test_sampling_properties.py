"""What time, guidance and solvers promise for every input."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import Cancelled, RequestError
from og2.sampling.guidance import Guidance, all_branches, branches, combine
from og2.sampling.solvers import make_solver, sample
from og2.sampling.time import custom_steps, shift, shift_factor, time_grid, time_steps

STEPS = st.integers(1, 200)
TOKENS = st.integers(4, 100_000)
SHARE = st.floats(0, 1, allow_nan=False)


@given(STEPS, TOKENS)
def test_a_time_grid_rises_strictly_from_noise_to_picture(num_steps: int, num_tokens: int) -> None:
    times = time_steps(num_steps, num_tokens)
    assert times[0] == 0.0
    assert times[-1] == 1.0
    assert len(times) == num_steps + 1
    assert all(a < b for a, b in itertools.pairwise(times))


@given(SHARE, st.floats(0.1, 10))
def test_the_shift_is_undone_by_its_inverse_factor(t: float, m: float) -> None:
    assert shift(shift(t, m), 1 / m) == pytest.approx(t, abs=1e-9)


def test_the_shift_factor_counts_latent_pixels() -> None:
    assert shift_factor(40 * 40) == 1.0
    assert shift_factor(128 * 128) == 3.2


def test_no_token_count_or_no_dynamic_shift_leaves_the_grid_even() -> None:
    even = torch.linspace(0, 1, 9)
    assert torch.equal(time_grid(8, None), even)
    assert torch.equal(time_grid(8, 4096, dynamic=False), even)


def test_a_factor_given_by_hand_replaces_the_size_dependent_one() -> None:
    assert time_steps(10, 64, factor=3.2) == time_steps(10, 128 * 128)


@pytest.mark.parametrize("times", [[], [0.5, 0.5], [0.5, 0.2], [-0.1, 0.5], [0.0, 1.0], [0.0, math.nan]])
def test_times_that_do_not_rise_within_zero_and_one_are_refused(times: list[float]) -> None:
    with pytest.raises(RequestError, match="timesteps"):
        custom_steps(times)


@pytest.mark.parametrize(
    ("num_steps", "start", "end", "guided"),
    [(30, 0.0, 0.8, 25), (50, 0.0, 0.6, 31), (50, 0.1, 0.9, 41), (5, 0.4, 0.4, 1), (5, 0.0, 0.8, 5)],
)
def test_the_guided_range_counts_steps_and_includes_both_ends(
    num_steps: int, start: float, end: float, guided: int
) -> None:
    guidance = Guidance(4.0, 1.0, start, end)
    assert sum(guidance.is_active(step, num_steps) for step in range(num_steps)) == guided


@given(st.floats(0, 10), st.floats(0, 10), SHARE, SHARE, st.integers(1, 50), st.booleans())
def test_branches_follow_the_table_of_guidance(
    text: float, image: float, a: float, b: float, num_steps: int, has_references: bool
) -> None:
    guidance = Guidance(text, image, min(a, b), max(a, b))
    for step in range(num_steps):
        active = guidance.start <= step / num_steps <= guidance.end and text > 1
        expected = ["cond"] + ["ref"] * (active and has_references and image > 1) + ["uncond"] * active
        assert list(branches(guidance, step, num_steps, has_references)) == expected
    assert set(all_branches(guidance, num_steps, has_references)) == {
        branch for step in range(num_steps) for branch in branches(guidance, step, num_steps, has_references)
    }


def test_guidance_scale_of_one_equals_the_conditional_velocity() -> None:
    v = {name: torch.randn(4, 6, 6, dtype=torch.float64) for name in ("cond", "ref", "uncond")}
    assert torch.allclose(combine(v, Guidance(1.0, 1.0)), v["cond"])
    assert torch.equal(combine({"cond": v["cond"]}, Guidance(7.0, 3.0)), v["cond"])


def test_without_references_three_branches_equal_two() -> None:
    v_c, v_u = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    three = combine({"cond": v_c, "ref": v_u, "uncond": v_u}, Guidance(5.0, 2.0))
    assert torch.allclose(three, combine({"cond": v_c, "uncond": v_u}, Guidance(5.0)))


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, 1e6, True, "5"])
def test_a_guidance_scale_that_makes_no_sense_is_refused(scale: float) -> None:
    with pytest.raises(RequestError, match="text_guidance_scale"):
        Guidance(text=scale)
    with pytest.raises(RequestError, match="image_guidance_scale"):
        Guidance(image=scale)


@pytest.mark.parametrize("ends", [(-0.1, 1.0), (0.0, 1.1), (0.6, 0.4), (math.nan, 1.0), (0.0, math.nan)])
def test_a_guidance_range_outside_zero_and_one_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(RequestError, match="cfg_range"):
        Guidance(4.0, 1.0, *ends)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["euler", "dpmsolver++"]), st.integers(1, 12), TOKENS)
def test_a_constant_velocity_carries_noise_straight_to_the_picture(
    solver: str, num_steps: int, num_tokens: int
) -> None:
    noise, picture = torch.randn(2, 4, 4, 4)
    field = lambda x, t, step: [picture - noise]  # noqa: E731, ARG005
    (done,) = sample(field, [noise], [time_grid(num_steps, num_tokens)], solver)
    assert torch.allclose(done, picture, atol=1e-5)


def test_dpmsolver_ends_exactly_at_its_last_prediction_of_the_picture() -> None:
    grid = time_grid(6, 1024)
    states: list[torch.Tensor] = []

    def velocity(x: list[torch.Tensor], _: list[torch.Tensor], step: int) -> list[torch.Tensor]:
        states.append(x[0])
        return [torch.sin(x[0] + step)]

    (done,) = sample(velocity, [torch.randn(4, 4, 4)], [grid], "dpmsolver++")
    last = states[-1] + (1 - grid[-2]) * torch.sin(states[-1] + 5)
    assert torch.allclose(done, last, atol=1e-6)


def test_a_solver_keeps_its_state_in_float32_for_a_16_bit_network() -> None:
    solver = make_solver("euler", time_grid(4, None))
    assert (
        solver.step(torch.zeros(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bfloat16), 0).dtype == torch.float32
    )


def to_normal(x: list[torch.Tensor], t: list[torch.Tensor], _: int) -> list[torch.Tensor]:
    """The exact velocity from N(0, 1) to pictures whose values are N(3, 0.5)."""
    time = t[0]
    variance = time**2 * 0.25 + (1 - time) ** 2
    slope = (time * 0.25 - (1 - time)) / variance
    return [3.0 + slope * (x[0] - time * 3.0)]


@pytest.mark.parametrize("num_steps", [60, 200])
def test_stochastic_steps_keep_the_mean_forget_the_first_noise_and_narrow_the_spread(num_steps: int) -> None:
    noise = torch.randn(1, 100, 100, generator=torch.Generator().manual_seed(0))
    (plain,) = sample(to_normal, [noise], [time_grid(num_steps, None)], "euler")
    (renewed,) = sample(to_normal, [noise], [time_grid(num_steps, None)], "euler-stochastic")
    for done, spread in ((plain, 0.5), (renewed, 0.5 / math.sqrt(2))):
        assert done.mean().item() == pytest.approx(3.0, abs=0.03)
        assert done.std().item() == pytest.approx(spread, rel=0.06)
    first = noise.flatten()
    assert torch.corrcoef(torch.stack([first, plain.flatten()]))[0, 1] > 0.99
    assert abs(torch.corrcoef(torch.stack([first, renewed.flatten()]))[0, 1].item()) < 0.05


def test_stochastic_steps_are_those_of_diffusers_stochastic_sampling() -> None:
    grid, seed = time_grid(6, 1024), 5
    theirs = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    theirs.set_timesteps(6)
    theirs.sigmas = 1.0 - grid
    theirs.timesteps = torch.arange(6, dtype=torch.float32)
    theirs.set_begin_index(0)
    state = expected = torch.randn(4, 8, 8)
    ours = make_solver("euler-stochastic", grid, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(6):
            v = torch.sin(expected + step)
            state = ours.step(state, v, step)
            expected = theirs.step(-v, theirs.timesteps[step], expected).prev_sample
            assert torch.allclose(state, expected, atol=1e-5)


def test_stochastic_noise_follows_from_the_pictures_own_seed_alone() -> None:
    noise, grid = torch.randn(2, 8, 8), time_grid(4, None)

    def velocity(x: list[torch.Tensor], _: list[torch.Tensor], __: int) -> list[torch.Tensor]:
        return [torch.sin(y) for y in x]

    def run(*seeds: int) -> list[torch.Tensor]:
        count = len(seeds)
        return sample(velocity, [noise] * count, [grid] * count, "euler-stochastic", seeds=seeds)

    alone, (beside, other) = run(7)[0], run(7, 8)
    assert torch.equal(alone, beside)
    assert not torch.allclose(alone, other)


def test_an_unknown_solver_is_refused_by_naming_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"dpmsolver\+\+, euler, euler-stochastic"):
        make_solver("ddim", time_grid(4, None))


def test_an_error_in_the_step_callback_ends_the_run() -> None:
    def stop(step: int, _: list[torch.Tensor]) -> None:
        if step == 1:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        sample(lambda x, t, step: x, [torch.zeros(1, 2, 2)], [time_grid(4, None)], on_step=stop)  # noqa: ARG005
