"""Everything a run needs to go on after it was stopped: PyTorch's distributed checkpoint, as safetensors.

A checkpoint is one folder `step-N` that is written under another name, by every rank its own share, and
renamed when all of it is there: the name is the mark of completion, and a run killed while saving still finds
the one before. Tensors are copied first and written by a thread while training goes on. DCP's own file format
pickles; its safetensors writer does not, and what is no tensor is JSON in `state.json`. Any number of ranks
reads what any other number wrote.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch import Tensor, distributed
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor, zeros

from og2.errors import CheckpointError
from og2.train.distributed import gathered, is_first
from og2.train.eight_bit import AdamW8bit

logger = logging.getLogger(__name__)
Groups = dict[str, dict[str, Tensor]]
STATE = "state.json"
WRITING = ".writing-"
MEAN = "exp_avg"
"""AdamW's name for the running mean of a gradient, which Muon keeps too."""


@dataclass
class Snapshot:
    """The state of a run: named groups of named tensors, and plain values (step, counters)."""

    tensors: Groups = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: the last `last`, and those whose step is a multiple of `every` (0: none)."""

    last: int = 2
    every: int = 0


class Writer:
    """Writes checkpoints of a run into `folder`, one at a time, in the background; the same on every rank."""

    def __init__(self, folder: Path, retention: Retention = Retention()) -> None:
        self.folder, self.retention = folder, retention
        self._writing: tuple[Future[Any], Path, Path] | None = None
        # A group of its own: the thread's messages must not meet those of the training step.
        self._group = distributed.new_group(backend="gloo") if distributed.is_initialized() else None
        if is_first():
            for left in folder.glob(f"{WRITING}*"):  # of a run that was killed while it saved
                shutil.rmtree(left, ignore_errors=True)

    def save(self, step: int, snapshot: Snapshot) -> None:
        """Start writing `step-N`, after the one before is finished.

        Tensors may change as soon as this returns. Raises: CheckpointError when the disk refuses (the
        previous checkpoint then still stands).
        """
        self.finish()
        final, partial = self.folder / f"step-{step:08d}", self.folder / f"{WRITING}{step:08d}"
        failed = ""
        try:
            with _disk(final, partial):
                if is_first():
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir(parents=True)
                    state = json.dumps({"step": step, **snapshot.values}, indent=1)
                    (partial / STATE).write_text(state, encoding="utf-8")
        except CheckpointError as error:
            failed = str(error)
        _all_or_none(failed)
        flat = {
            f"{group}|{name}": tensor.detach().reshape(tensor.shape or (1,))
            for group, tensors in snapshot.tensors.items()
            for name, tensor in tensors.items()
        }
        with _disk(final, partial):
            writing = dcp.async_save(
                flat,
                storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True),
                process_group=self._group,
                no_dist=self._group is None,
            )
            assert isinstance(writing, Future)
        self._writing = (writing, final, partial)

    @property
    def is_written(self) -> bool:
        """Whether this rank's share of a save has been written (or has failed) and waits for `finish`."""
        return self._writing is not None and self._writing[0].done()

    def finish(self) -> None:
        """Wait for the save under way, give it its name, and let old ones go.   Raises: CheckpointError."""
        if self._writing is None:
            return
        (writing, final, partial), self._writing = self._writing, None
        failed = ""
        try:
            with _disk(final, partial):
                writing.result()
                if is_first():
                    shutil.rmtree(final, ignore_errors=True)
                    os.replace(partial, final)
                    logger.info("saved %s", final)
        except CheckpointError as error:
            failed = str(error)
        _all_or_none(failed)
        if is_first():
            self._retire()

    def settle(self) -> None:
        """At the end of a run that failed: let the write under way come to its end, whatever it is."""
        if self._writing is not None and self._group is None:
            with suppress(CheckpointError):
                self.finish()

    def _retire(self) -> None:
        for old in finished(self.folder)[: -self.retention.last]:
            if not self.retention.every or step_of(old) % self.retention.every:
                shutil.rmtree(old, ignore_errors=True)


def finished(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE).is_file())


def step_of(folder: Path) -> int:
    """The number of steps done that a checkpoint's name says."""
    return int(folder.name.removeprefix("step-"))


def read_values(folder: Path) -> dict[str, Any]:
    """The plain values of a checkpoint.   Raises: CheckpointError."""
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE} cannot be read: {error}; remove that checkpoint") from error


def read_group(folder: Path, group: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one group, by name.

    A tensor comes back in the shape and dtype it was saved with; and its rows sharded as those of the tensor
    in `like` whose name is its own or the part before "|", if that one is sharded and has as many.
    Raises: CheckpointError when the files cannot be read, or lack a name of `like`.
    """
    if (folder / f"{group}.safetensors").is_file():  # runs begun before checkpoints were sharded
        found = load_file(folder / f"{group}.safetensors")
    else:
        reader = HuggingFaceStorageReader(str(folder))
        prefix = f"{group}|"
        try:
            stored = reader.read_metadata().state_dict_metadata
            flat = {
                key: _space(like, key.removeprefix(prefix), stored[key])
                for key in stored
                if key.startswith(prefix)
            }
            dcp.load(flat, storage_reader=reader, no_dist=not distributed.is_initialized())
        except (OSError, ValueError, dcp.api.CheckpointException) as error:
            raise CheckpointError(
                f"{folder} cannot be read: {error}; remove it to go on from an older one"
            ) from error
        found = {key.removeprefix(prefix): tensor for key, tensor in flat.items()}
    covered = {name.partition("|")[0] for name in found}
    missing = [name for name in like if name not in covered]
    if missing and group == "average" and not covered:
        raise CheckpointError(
            f"{folder} holds no average: it was saved with optim.ema=0; restore that, or take another "
            "run.folder"
        )
    if missing:
        raise CheckpointError(f"{folder} holds no {group} of {missing[0]}; it is of another model")
    return found


def read_fitting(folder: Path, group: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`read_group`, which must hold exactly the names and shapes of `like`.   Raises: CheckpointError."""
    found = read_group(folder, group, like)
    advice = "restore what the recipe said before, or take another run.folder"
    for name, tensor in found.items():
        if name not in like:
            raise CheckpointError(
                f"{folder} holds {group} of {name}, which the recipe does not train; {advice}"
            )
        made = like[name].shape or (1,)
        if tensor.shape != made:
            raise CheckpointError(
                f"{folder} holds {name} of shape {list(tensor.shape)}, the recipe makes it {list(made)}; "
                f"{advice}"
            )
    return found


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
    """Put `optimizer_tensors` back; AdamW's mean gradient becomes the momentum of what is Muon's now.

    Raises: CheckpointError when the state of a parameter is missing.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for name, value in flat.items():
        parameter, key = name.split("|")
        by_name.setdefault(parameter, {})[key] = value.reshape(()) if key == "step" else value
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            if name not in by_name:
                raise CheckpointError(
                    f"the checkpoint holds no optimizer state for {name}; it is of another model"
                )
            if group.get("muon") and MEAN in by_name[name]:
                by_name[name] = {"momentum_buffer": by_name[name][MEAN]}
            # AdamW8bit reads its step counts on the CPU, AdamW keeps them beside the parameter.
            stay = ("step",) if isinstance(optimizer, AdamW8bit) else ()
            optimizer.state[parameter] = {
                key: value if isinstance(value, DTensor) or key in stay else value.to(parameter.device)
                for key, value in by_name[name].items()
            }


def _space(like: Mapping[str, Tensor], name: str, stored: Any) -> Tensor:
    model = like.get(name, like.get(name.partition("|")[0]))
    size, dtype = stored.size, stored.properties.dtype
    if isinstance(model, DTensor) and not name.endswith("|step") and size[:1] == model.shape[:1]:
        return zeros(size, dtype=dtype, device_mesh=model.device_mesh, placements=model.placements)
    return torch.empty(size, dtype=dtype)


def _all_or_none(failed: str) -> None:
    """Every rank fails when one has."""
    failures = [text for text in gathered(failed) if text]
    if failures:
        raise CheckpointError(failures[0])


@contextmanager
def _disk(final: Path, partial: Path) -> Any:
    """Turns what goes wrong on the disk into one sentence, and takes the unfinished folder away."""
    try:
        yield
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        shutil.rmtree(partial, ignore_errors=True)
        causes = getattr(error, "failures", None)
        said = next(iter(causes.values()))[0] if causes else error
        raise CheckpointError(
            f"cannot write the checkpoint {final}: {said}; the last complete one still stands"
        ) from error
