"""The benchmark of packed against padded steps keeps up with the model that it measures."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "packing.py"


def test_padded_sequences_in_the_benchmark_have_the_losses_of_packed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    module = import_module(SCRIPT.stem)
    found = tmp_path / "packing.json"
    asked = ["--model", "mini", "--size", "64", "--samples", "4", "--rounds", "1", "--threads", "1"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *asked, "--json", str(found)])
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of the whole process
    module.main()  # its bar is of speed, which a test does not judge
    measured = json.loads(found.read_text())["measured"]
    assert measured["difference"] < module.TOLERANCE
    assert measured["padding_share"] > 0
