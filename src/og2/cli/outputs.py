"""Where pictures go: names decided, and refused, before anything is drawn.

Not here: writing them (`og2.png` writes, with the settings inside).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from og2.errors import RequestError

DEFAULT_OUTPUT = "output.png"


def plan_outputs(output: str | None, seeds: Sequence[int]) -> list[Path]:
    """The files to write, one for each seed; none of them exists.

    A file name is taken as it is for one picture and becomes NAME_0.png, NAME_1.png ... for several. A
    folder gets 00000_SEED.png and so on from the first free number. Without a name: the first free of
    output.png, output_1.png.
    Raises: RequestError if a file exists already or the name is not that of a PNG.
    """
    if output is None:
        return _named(_first_free(Path(DEFAULT_OUTPUT), len(seeds)), len(seeds))
    path = Path(os.path.expanduser(output))
    if is_own_choice(output):
        return _numbered(path, seeds)
    if path.suffix.lower() != ".png":
        better = path.with_suffix(".png")
        raise RequestError(f"--output {output}: og2 writes PNG (no loss, the settings inside); use {better}")
    files = _named(path, len(seeds))
    taken = [file for file in files if file.exists()]
    if taken:
        free = _first_free(path, len(seeds))
        raise RequestError(f"{taken[0]} exists already and og2 never overwrites; use --output {free}")
    return files


def is_own_choice(output: str | None) -> bool:
    """Whether the names of the files are og2's own: nothing was named, or a folder."""
    return output is None or output.endswith(("/", "\\")) or Path(os.path.expanduser(output)).is_dir()


def folder_of(output: str) -> str:
    """The folder for pictures whose number is not known yet, ending in a slash; nothing is made.

    Raises: RequestError for the name of a picture, or where a file is in the way or nothing can be written.
    """
    from og2.conditioning.reading import SUFFIXES

    path = Path(os.path.expanduser(output))
    nearest = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not path.is_dir() and path.suffix.lower() in SUFFIXES:
        raise RequestError(
            f"--output {output}: a conversation may draw several pictures; give a folder, such as "
            f"{path.with_suffix('')}"
        )
    if not nearest.is_dir():
        raise RequestError(f"--output {output}: {nearest} is a file; give a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RequestError(f"--output {output}: nothing can be written in {nearest}; give another folder")
    return f"{path}/"


def make_ready(files: Sequence[Path], pixels: int) -> None:
    """Makes the parent folder and sees that the files can be written there and that `pixels` fit.

    Raises: RequestError, OSError.
    """
    folder = files[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RequestError(
            f"{folder} cannot be a folder: a file of that name is in the way; use another"
        ) from error
    except OSError as error:
        raise RequestError(f"cannot make the folder {folder}: {error.strerror}; use another") from error
    for file in files:  # what cannot be made now could not be written after drawing
        file.open("xb").close()
        file.unlink()
    free = shutil.disk_usage(folder).free
    if free < 4 * pixels:
        raise OSError(28, f"only {free} bytes are free", str(folder))


def _named(path: Path, count: int) -> list[Path]:
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}_{index}{path.suffix}") for index in range(count)]


def _first_free(path: Path, count: int) -> Path:
    candidate, number = path, 0
    while any(file.exists() for file in _named(candidate, count)):
        number += 1
        candidate = path.with_name(
            f"{path.stem}_{number}{path.suffix}" if count == 1 else f"{path.stem}-{number}.png"
        )
    return candidate


def _numbered(folder: Path, seeds: Sequence[int]) -> list[Path]:
    first = 0
    if folder.is_dir():
        used = [file.name.partition("_")[0] for file in folder.glob("[0-9]*_*.png")]
        first = max((int(name) + 1 for name in used if name.isdigit()), default=0)
    return [folder / f"{first + index:05d}_{seed}.png" for index, seed in enumerate(seeds)]
