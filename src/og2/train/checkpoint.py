"""Everything a run needs to go on after it was stopped: safetensors for tensors, JSON for the rest.

A checkpoint is one folder `step-N` that is written under another name and renamed when it is complete, so a
run killed while saving still finds the one before. No pickle anywhere. Old folders go when a new one stands.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from og2.errors import CheckpointError

logger = logging.getLogger(__name__)
KEEP_LAST = 2


@dataclass
class Snapshot:
    """The state of a run: named groups of named tensors, and plain values (step, counters)."""

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, step: int, snapshot: Snapshot, keep: int = KEEP_LAST) -> Path:
    """The finished folder `folder/step-N` holding the snapshot; all but the last `keep` are removed.

    Raises: CheckpointError when the disk refuses (the previous checkpoint then still stands).
    """
    final, partial = folder / f"step-{step:08d}", folder / f".writing-{step:08d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for group, tensors in snapshot.tensors.items():
            save_file(
                {k: v.detach().contiguous().clone() for k, v in tensors.items()},
                partial / f"{group}.safetensors",
            )
        (partial / "state.json").write_text(
            json.dumps({"step": step, **snapshot.values}, indent=1), encoding="utf-8"
        )
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"cannot write the checkpoint {final}: {error}; the last complete one still stands"
        ) from error
    for old in finished(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def finished(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def load_last(folder: Path) -> Snapshot | None:
    """The newest complete snapshot under `folder`, or None when there is none."""
    folders = finished(folder)
    if not folders:
        return None
    values = json.loads((folders[-1] / "state.json").read_text(encoding="utf-8"))
    groups = {path.stem: load_file(path) for path in sorted(folders[-1].glob("*.safetensors"))}
    logger.info("resuming from %s", folders[-1])
    return Snapshot(groups, values)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Tensor]:
    """The optimizer's per-parameter state as flat named tensors; `names` maps id(parameter) to its name."""
    flat: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                flat[f"{names[id(parameter)]}|{key}"] = torch.as_tensor(value)
    return flat


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], flat: Mapping[str, Tensor]
) -> None:
    """Put `optimizer_tensors` back.   Raises: CheckpointError when the state of a parameter is missing."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in flat.items():
        name, _, field_name = key.rpartition("|")
        by_name.setdefault(name, {})[field_name] = value
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            if name not in by_name:
                raise CheckpointError(
                    f"the checkpoint holds no optimizer state for {name}; it is of another model"
                )
            optimizer.state[parameter] = dict(by_name[name])
