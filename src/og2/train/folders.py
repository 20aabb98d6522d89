"""Folders that are written anew: complete, or not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from og2.errors import CheckpointError


def replaced(folder: Path, write: Callable[[Path], object]) -> None:
    """`folder` as `write(place)` makes it, in place of what was there.

    Raises: CheckpointError when the disk refuses; what was there then still is.
    """
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        for place in (fresh, old):
            shutil.rmtree(place, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        write(fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise CheckpointError(f"{folder} could not be written: {error}; nothing has changed there") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
