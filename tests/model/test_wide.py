"""bfloat16 networks on a CPU that has no instructions for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from og2 import OmniGen2Pipeline
from og2.model import wide

MODEL = Path(__file__).parents[1] / "golden" / "pipeline" / "model"


@pytest.fixture
def _no_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "has_products", lambda dtype: dtype == torch.float32)


def networks() -> list[tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    return [
        (nn.Linear(12, 20), torch.randn(3, 7, 12)),
        (nn.Linear(12, 20, bias=False), torch.randn(9, 12)),
        (nn.Conv2d(3, 8, 3, padding=1, stride=2), torch.randn(2, 3, 9, 11)),
        (nn.Conv3d(3, 8, (2, 4, 4), stride=(2, 4, 4), bias=False), torch.randn(5, 3, 2, 4, 4)),
    ]


@pytest.mark.usefixtures("_no_products")
@pytest.mark.parametrize("index", range(4))
def test_a_widened_layer_rounds_what_float32_gives_and_keeps_its_weights(index: int) -> None:
    network, x = networks()[index]
    network, x = network.bfloat16(), x.bfloat16()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    exact = networks()[index][0]
    exact.load_state_dict(before)
    outer = nn.Sequential(network)
    assert wide.widen(outer) is outer
    with torch.no_grad():
        assert torch.equal(network(x), exact(x.float()).bfloat16())
        assert torch.equal(network.float()(x.float()), exact(x.float()))
    after = network.bfloat16().state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert list(after) == list(before)


@pytest.mark.usefixtures("_no_products")
def test_a_row_or_two_are_multiplied_as_ever() -> None:
    network, _ = networks()[0]
    x, expected = torch.randn(1, 2, 12).bfloat16(), network.bfloat16()
    with torch.no_grad():
        before = expected(x)
        assert torch.equal(wide.widen(network)(x), before)


def test_nothing_changes_where_the_cpu_has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "has_products", lambda dtype: True)  # noqa: ARG005
    kinds = [type(wide.widen(network)) for network, _ in networks()]
    assert kinds == [nn.Linear, nn.Linear, nn.Conv2d, nn.Conv3d]


@pytest.mark.usefixtures("_no_products")
def test_a_pipeline_in_bfloat16_draws_with_widened_layers_what_float32_draws() -> None:
    def drawn(dtype: torch.dtype) -> tuple[OmniGen2Pipeline, np.ndarray]:
        pipe = OmniGen2Pipeline.from_pretrained(MODEL, dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        made = pipe("a red circle", height=32, width=32, num_inference_steps=2, seed=1, output_type="np")
        return pipe, made.images[0]

    half, picture = drawn(torch.bfloat16)
    _, exact = drawn(torch.float32)
    for network in (half.vae, half.mllm):
        assert {m.weight.dtype for m in network.modules() if isinstance(m, wide.WideLinear)} <= {
            torch.bfloat16
        }
        assert not [m for m in network.modules() if type(m) in (nn.Linear, nn.Conv2d, nn.Conv3d)]
    assert np.abs(picture - exact).mean() < 0.05
