"""Files and folders that appear whole or not at all: written beside their place, then moved there."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from og2.errors import CheckpointError


def user_path(text: str) -> Path:
    """A path as a user gives it on a command line; shells leave the ~ of `--out=~/scores` as it is."""
    return Path(text).expanduser()


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Where to write: the file there takes the name `path` at the end, also from one that has it.

    Folders above are made. Raises: OSError; then, as after any error inside, `path` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Text in UTF-8, whole or not at all.   Raises: OSError."""
    with written(path) as place:
        place.write_text(text, encoding="utf-8")


def replaced(folder: Path, write: Callable[[Path], object]) -> None:
    """`folder` as `write(place)` makes it, in place of what was there.

    Raises: CheckpointError when the disk refuses; what was there then still is.
    """
    fresh, old = (folder.with_name(f".{folder.name}.og2-{end}") for end in ("new", "old"))
    try:
        _put_back(old, folder)  # of a process that was killed between the two moves
        for place in (fresh, old):
            shutil.rmtree(place, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        write(fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} could not be written: {error}; nothing has changed there") from error
    finally:
        _put_back(old, folder)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path, folder: Path) -> None:
    if old.exists() and not folder.exists():
        old.rename(folder)
