"""What `og2 doctor` says, and the estimates of cost and memory that it and the dry run share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomllib

from og2 import doctor, footprint
from og2.cli import run as og2
from og2.errors import CheckpointError

MODEL = Path(__file__).parent / "golden" / "pipeline" / "model"
PUBLISHED = {
    "hidden_size": 2520,
    "num_layers": 32,
    "num_refiner_layers": 2,
    "num_attention_heads": 21,
    "num_kv_heads": 7,
    "text_feat_dim": 2048,
    "in_channels": 16,
}


def test_doctor_reports_every_part_as_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert og2(["doctor", "--model", str(MODEL), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = {check["name"] for check in report["checks"]}
    assert {"Python", "torch", "threads", "float32", "bfloat16", "extra dev", str(MODEL)} <= names
    assert any(row["fits"] for row in report["placements"])
    assert {row["dtype"] for row in report["published"]} == {"fp32", "bf16"}


def test_doctor_checks_every_extra_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"])


def test_doctor_says_the_same_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert og2(["doctor", "--model", str(MODEL)]) == 0
    said = capsys.readouterr().out
    assert "float32" in said
    assert "fits" in said


def test_doctor_of_a_missing_model_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert og2(["doctor", "--model", "./none"]) == 3
    assert "there is no folder" in capsys.readouterr().out


def test_what_does_not_fit_is_said() -> None:
    on_a_laptop = doctor.placements(footprint.PUBLISHED, None, ram_gb=8.0)
    assert not any(row.fits for row in on_a_laptop)
    on_a_small_card = doctor.placements(footprint.PUBLISHED, 12.0, ram_gb=32.0)
    fitting = {(row.how, row.dtype) for row in on_a_small_card if row.fits}
    assert ("--model-cpu-offload", "bf16") in fitting
    assert ("all on the accelerator", "bf16") not in fitting


def test_the_published_shape_costs_what_the_formula_of_one_forward_says() -> None:
    """One unguided step at 1024 px, 100 text tokens: 32.94 TFLOP by PyTorch's counter."""
    shape = footprint.Shape.from_config(PUBLISHED)
    once = footprint.request_flops(shape, [footprint.Branch(100, (), 4096, 1)])
    assert once / 1e12 == pytest.approx(32.94, rel=2e-3)
    edit = footprint.request_flops(shape, [footprint.Branch(100, (4096,), 4096, 1)])
    assert edit / 1e12 == pytest.approx(76.06, rel=2e-3)


def test_branches_share_the_refiners() -> None:
    shape = footprint.Shape.from_config(PUBLISHED)
    one = footprint.request_flops(shape, [footprint.Branch(100, (), 4096, 1)])
    two = footprint.request_flops(shape, [footprint.Branch(100, (), 4096, 1)] * 2)
    assert one * 1.9 < two < one * 2


def test_parameters_are_read_from_headers_alone() -> None:
    found = footprint.tensors(MODEL / "transformer")
    assert footprint.num_parameters(found) > 1_000_000
    assert {dtype for dtype, _ in found.values()} == {"F32"}


@pytest.mark.parametrize(
    "content", [b"", b"12", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x04\0\0\0\0\0\0\0nope"]
)
def test_a_damaged_header_is_a_checkpoint_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        footprint.tensors(tmp_path)


def test_a_config_that_is_no_transformer_is_refused() -> None:
    with pytest.raises(CheckpointError, match="num_layers"):
        footprint.Shape.from_config({"hidden_size": 8})
