"""What a run leaves behind when a step goes wrong: which rows it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from og2.train.distributed import gathered, is_first
from og2.train.task import Part


def bad_step(
    folder: Path, step: int, parts: Sequence[Part], losses: Mapping[str, float], grad_norm: float
) -> str:
    """The sentence for a step whose loss or gradient is no number; its row ids are written to a file.

    Every rank must call this; the first one writes `folder/bad-step-N.json`, by rank and part.
    """
    ids = gathered([list(part.ids) for part in parts])
    path = folder / f"bad-step-{step:08d}.json"
    report = {
        "step": step,
        "losses": {kind: str(value) for kind, value in losses.items()},
        "grad_norm": str(grad_norm),
        "rows": ids,
    }
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    values = ", ".join(f"{value}" for value in losses.values())
    what = (
        "the loss" if any(value != value or abs(value) == float("inf") for value in losses.values()) else ""
    )
    said = f"{what} of step {step} is {values}" if what else f"the gradient of step {step} is {grad_norm}"
    return f"{said}; its rows are in {path}; look at them, or lower lr; the last checkpoint still stands"
