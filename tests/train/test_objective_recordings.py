"""The objective reproduces recorded training times, losses and gradients of the official implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from og2.model.transformer import OmniGen2Transformer2DModel
from og2.train.objective import TimeConfig, noisy, squared_errors, times_from_normal

GOLDEN = Path(__file__).parents[1] / "golden"
META = json.loads((GOLDEN / "train" / "meta.json").read_text())
RECORDED = load_file(GOLDEN / "train" / "train.safetensors")
VARIANTS = sorted(name.removeprefix("time.") for name in META if name.startswith("time."))


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_times_equal_the_recorded_ones(variant: str) -> None:
    meta = META[f"time.{variant}"]
    version = {"v1": "v1", "v2": "sampler"}[meta.get("time_shift_version", "v1")]
    config = TimeConfig(shift=version if meta["do_shift"] else "none", num_tokens=meta.get("seq_len"))
    sizes = [tuple(hw) for hw in meta["latent_hw"]]
    u, expected = RECORDED[f"time.{variant}.u"], RECORDED[f"time.{variant}.t"]
    torch.testing.assert_close(times_from_normal(config, u, sizes), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("step", ["edit", "t2i"])
def test_noisy_latents_and_targets_equal_the_recorded_ones(step: str) -> None:
    count = len(META[step]["samples"])
    for i in range(count):
        x1, x0 = RECORDED[f"{step}.x1.{i}"], RECORDED[f"{step}.x0.{i}"]
        torch.testing.assert_close(
            noisy(x1, x0, RECORDED[f"{step}.t"][i]), RECORDED[f"{step}.xt.{i}"], rtol=0, atol=1e-6
        )
        torch.testing.assert_close(x1 - x0, RECORDED[f"{step}.ut.{i}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("step", ["edit", "t2i"])
def test_one_recorded_step_gives_the_same_loss_and_gradients(step: str) -> None:
    model = _recorded_model()
    count = len(META[step]["samples"])
    pictures = [RECORDED[f"{step}.x1.{i}"] for i in range(count)]
    noises = [RECORDED[f"{step}.x0.{i}"] for i in range(count)]
    times = RECORDED[f"{step}.t"]
    references = [_references(step, i) for i in range(count)]
    latents = [noisy(x1, x0, t) for x1, x0, t in zip(pictures, noises, times, strict=True)]
    predicted = model(
        latents,
        times,
        RECORDED[f"{step}.text"],
        RECORDED[f"{step}.text_mask"],
        references if any(references) else None,
    ).sample
    for i, v in enumerate(predicted):
        recorded = RECORDED[f"{step}.pred.{i}"]
        assert (v - recorded).abs().max() <= 1e-4 * recorded.abs().max()
    errors = squared_errors(predicted, pictures, noises)
    counts = torch.tensor([x.numel() for x in pictures])
    means = errors.detach() / counts
    torch.testing.assert_close(means, RECORDED[f"{step}.task_loss.mean"], rtol=1e-4, atol=0)
    loss = errors.sum() / counts.sum()
    torch.testing.assert_close(loss.reshape(1), RECORDED[f"{step}.total_loss"], rtol=1e-4, atol=0)
    loss.backward()
    _compare_gradients(model, step)


def _compare_gradients(model: OmniGen2Transformer2DModel, step: str) -> None:
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    norms = META[step]["grad_l2_norms"]
    assert set(norms) <= set(gradients)
    for name, norm in norms.items():
        assert float(gradients[name].norm()) == pytest.approx(norm, rel=1e-4, abs=1e-6), name
    for key, recorded in RECORDED.items():
        if key.startswith(f"{step}.grad."):
            scale = float(recorded.abs().max())
            difference = (gradients[key.removeprefix(f"{step}.grad.")] - recorded).abs().max()
            assert float(difference) <= 1e-4 * scale + 1e-7, key


def _references(step: str, sample: int) -> list[torch.Tensor] | None:
    shapes = META[step]["samples"][sample]["refs_hw"]
    return None if shapes is None else [RECORDED[f"{step}.ref.{sample}.{j}"] for j in range(len(shapes))]


def _recorded_model() -> OmniGen2Transformer2DModel:
    folder = GOLDEN / "transformer" / "A"
    config = json.loads((folder / "meta.json").read_text())["config"]
    model = OmniGen2Transformer2DModel(**config)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model
