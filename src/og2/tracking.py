"""One call for metrics: `log(step, metrics)` to a JSONL file and, on request, to TensorBoard and W&B.

Names carry their units (`s_per_step`, `peak_gb`). Each line is flushed when written, so a killed run keeps
its record; a resumed run appends to the same file.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from og2.errors import ConfigError
from og2.files import write_text

logger = logging.getLogger(__name__)


class Tracker:
    """Writes metrics of one run to `folder/metrics.jsonl`, and TensorBoard events beside it on request.

    `wandb`: name of the Weights & Biases project to log to as well; the run is named for the folder.
    """

    def __init__(self, folder: str | Path, tensorboard: bool = False, wandb: str | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = _open_tensorboard(self.folder) if tensorboard else None
        self._wandb = _open_wandb(self.folder, wandb) if wandb else None

    def log(
        self,
        step: int,
        metrics: Mapping[str, float | str],
        is_shown: Callable[[str], bool] | None = None,
    ) -> None:
        """Append one record {step, time_s, **metrics}; NaN and infinity are written as text.

        is_shown: by name, which figures the line for people holds; None for all.
        """
        record: dict[str, Any] = {"step": step, "time_s": round(time.time(), 2)}
        record.update({name: _plain(value) for name, value in metrics.items()})
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in metrics.items():
                if not isinstance(value, str):
                    self._board.add_scalar(name, float(value), step)
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=step)
        shown = (
            f"{name} {_short(value)}" for name, value in metrics.items() if is_shown is None or is_shown(name)
        )
        logger.info("step %d  %s", step, "  ".join(shown))

    def close(self) -> None:
        """Close the files; the tracker is not used afterwards."""
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard=true needs the package tensorboard: pip install 'og2[train]'"
        ) from error
    return SummaryWriter(str(folder))


def _open_wandb(folder: Path, project: str) -> Any:
    try:
        wandb = import_module("wandb")
    except ImportError as error:
        raise ConfigError("wandb=... needs the package wandb: pip install wandb") from error
    # The id is drawn once and kept: two folders of one name are two runs, and a resumed run is the same one.
    kept = folder / "wandb_id"
    if not kept.exists():
        write_text(kept, secrets.token_hex(8) + "\n")
    name = kept.read_text(encoding="utf-8").strip()
    return wandb.init(project=project, name=folder.name, dir=str(folder), resume="allow", id=name)


def _plain(value: float | str) -> float | str:
    if isinstance(value, str):
        return value
    number = float(value)
    return round(number, 6) if math.isfinite(number) else str(number)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{float(value):.5g}"
