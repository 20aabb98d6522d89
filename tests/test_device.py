"""bfloat16 is computed in where the CPU has it, and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from og2 import device


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    device.computes_half.cache_clear()
    yield
    device.computes_half.cache_clear()


def product_dtype() -> torch.dtype:
    with device.half_precision(torch.device("cpu")):
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_a_cpu_without_bfloat16_computes_in_float32_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "has_products", lambda dtype: dtype == torch.float32)
    with caplog.at_level(logging.WARNING):
        assert [product_dtype(), product_dtype()] == [torch.float32] * 2
    assert [record.message for record in caplog.records] == [
        "this CPU has no bfloat16 instructions: computing in float32"
    ]


def test_a_cpu_with_bfloat16_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "has_products", lambda dtype: True)  # noqa: ARG005
    assert product_dtype() == torch.bfloat16
    assert not caplog.records


def test_a_build_of_torch_without_onednn_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops, "mkldnn")
    assert device.has_products(torch.bfloat16)
