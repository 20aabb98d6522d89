"""What is told to Weights & Biases about a run; its package is stood in for, since no test has its server."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from og2.tracking import Tracker


def test_two_folders_of_one_name_are_two_runs_and_a_resumed_one_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, str]] = []

    def init(**options: str) -> SimpleNamespace:
        told.append(options)
        return SimpleNamespace(finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for folder in ("a/lora", "b/lora", "a/lora"):
        Tracker(tmp_path / folder, wandb="project").close()
    first, other, resumed = (options["id"] for options in told)
    assert first != other
    assert first == resumed
    assert {options["name"] for options in told} == {"lora"}
