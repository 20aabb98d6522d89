"""Fused blocks: the plain model's numbers, weights and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from recorded import CASES, golden_case, golden_model, relative_error
from small import random_sample, small_model, velocities

from og2.errors import ConfigError
from og2.model import fused, packed_linear
from og2.model.transformer import OmniGen2Transformer2DModel


def three_samples():
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, [(4, 4)], (4, 6)), (3, [], (2, 4)), (5, [(6, 6), (2, 2)], (8, 8))]
    return [random_sample(generator, *shape) for shape in shapes]


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(("min_keys", "max_power"), [(1, 100.0), (1, 0.0), (10**6, 100.0)])
@pytest.mark.parametrize(("config", "name"), [case for case in CASES if case[1] != "eps_sensitive"])
def test_fused_model_equals_the_recordings(config, name, min_keys: int, max_power: float, monkeypatch):
    monkeypatch.setattr(fused, "MAX_POWER", max_power)
    monkeypatch.setattr(fused, "MIN_BLOCKED_KEYS", min_keys)
    monkeypatch.setattr(fused, "BLOCK_BYTES", 400)
    monkeypatch.setattr(fused, "CHUNK_TOKENS", 9)
    case, model = golden_case(config, name), fused.fuse(golden_model(config))
    with torch.inference_mode():
        outputs = model(**case.arguments()).sample
    for output, recorded in zip(outputs, case.recorded("out"), strict=True):
        assert relative_error(output, recorded) <= 1e-4


@pytest.fixture(params=["this CPU", "a CPU with AVX2 alone"])
def cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """This CPU's matrix library and instructions, and those of a CPU with AVX2 alone."""
    if request.param != "this CPU":
        monkeypatch.setattr(packed_linear, "prepacks", lambda dtype: False)  # noqa: ARG005
        for module in (fused, packed_linear):
            monkeypatch.setattr(module, "has_products", lambda dtype: dtype == torch.float32)


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("min_keys", [1, 10**6])
def test_fused_bfloat16_is_as_close_to_float32_as_the_plain_one(min_keys: int, monkeypatch):
    monkeypatch.setattr(fused, "MIN_BLOCKED_KEYS", min_keys)
    case, model = golden_case("C", "edit_b1_ref2"), golden_model("C", torch.bfloat16)
    exact = case.recorded("out_fp32_tbf16")[0].double()
    with torch.inference_mode():
        plain = model(**case.arguments(torch.bfloat16)).sample[0]
        quick = fused.fuse(model)(**case.arguments(torch.bfloat16)).sample[0]
    assert quick.dtype == torch.bfloat16
    assert (quick.double() - exact).norm() <= 1.1 * (plain.double() - exact).norm()


def test_poisoned_neighbour_changes_not_a_bit_of_a_fused_pack():
    model, samples = fused.fuse(small_model()), three_samples()
    with torch.inference_mode():
        benign = velocities(model, samples)
        samples[1].latents.fill_(float("nan"))
        samples[1].t = float("inf")
        poisoned = velocities(model, samples)
    assert torch.equal(benign[0], poisoned[0])
    assert torch.equal(benign[2], poisoned[2])


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_weights_come_back_bit_by_bit_under_their_published_names(dtype: torch.dtype, tmp_path: Path):
    model = small_model().to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused.fuse(model)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    model.save_pretrained(tmp_path)
    loaded = OmniGen2Transformer2DModel.from_pretrained(tmp_path, torch_dtype=dtype)
    fused.unfuse(model)
    for state in (model.state_dict(), loaded.state_dict()):
        assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())
    assert [name for name, _ in model.named_parameters()] == list(before)


def test_a_model_that_cannot_be_fused_is_refused():
    model = fused.fuse(small_model())
    with pytest.raises(ConfigError, match="fused already"):
        fused.fuse(model)
    with pytest.raises(ConfigError, match="no gradients"):
        velocities(model, three_samples())
    with torch.inference_mode(), pytest.raises(ConfigError, match="official roundings"):
        velocities(model, three_samples(), numerics="official")
    adapted = small_model()
    adapted.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(ConfigError, match="adapters"):
        fused.fuse(adapted)
    config = dict(small_model().config)
    with torch.device("meta"):
        elsewhere = OmniGen2Transformer2DModel(**config)
    with pytest.raises(ConfigError, match="weights are on meta"):
        fused.fuse(elsewhere)
