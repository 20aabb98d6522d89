"""What one row of training data is, wherever it comes from, and the one seam behind which all sources are.

A source has rows numbered from 0; `row(i)` reads what is written about row i, `example(i)` its pictures too,
still as they are stored. Everything that goes wrong with one row is a DataError that names the source and the
line. Not here: sizes and pixels (examples.py), how often a source is drawn from (mix.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from og2.config import nearest
from og2.errors import DataError

StoredPicture: TypeAlias = "bytes | np.ndarray"
"""The bytes of a picture file, or 8-bit RGB pixels (H, W, 3) of a picture that was never a file."""

FIELDS = ("task_type", "instruction", "input_images", "output_image", "output_text")
"""Keys of the official rows, and `output_text` for rows that are answered in words."""


@dataclass(frozen=True)
class Row:
    """What is written about one sample: the words, and the names of its pictures within the source.

    `id` is "source:line", lines counted from 1 as editors do. `task` is t2i, edit, ic, text or any other
    word. A row has an `output_image` (the picture to learn) or an `output_text` (the answer to learn), never
    both.
    """

    id: str
    source: str
    task: str
    instruction: str
    input_images: tuple[str, ...] = ()
    output_image: str | None = None
    output_text: str | None = None


@dataclass(frozen=True)
class Example:
    """A row with its pictures as they are stored, nothing decoded."""

    row: Row
    input_pictures: tuple[StoredPicture, ...] = ()
    output_picture: StoredPicture | None = None


@runtime_checkable
class Source(Protocol):
    """Rows that can be asked for in any order; may be sent to another process.

    `name` is unique within a mixture and part of every row's id.
    """

    name: str

    def __len__(self) -> int: ...

    def row_id(self, index: int) -> str:
        """The id of row `index`, 0 <= index < len, whether the row is good or bad."""
        ...

    def row(self, index: int) -> Row:
        """What is written about row `index`.   Raises: DataError."""
        ...

    def example(self, index: int) -> Example:
        """Row `index` with its pictures as they are stored.   Raises: DataError."""
        ...


def parse_row(tree: Any, row_id: str, source: str, task: str | None = None) -> Row:
    """The row written in one JSON object of the official form; `task` is that of rows that name none.

    `input_images` may be absent, null, one name or a list. Other keys than FIELDS are allowed and not read.
    Raises: DataError that names the row, for a missing or mistyped value.
    """
    if not isinstance(tree, Mapping):
        raise DataError(
            f"{row_id} holds {type(tree).__name__}, not an object with the keys {', '.join(FIELDS)}"
        )
    pictures = tree.get("input_images") or []
    pictures = [pictures] if isinstance(pictures, str) else pictures
    if not isinstance(pictures, list) or not all(isinstance(name, str) and name for name in pictures):
        raise DataError(f"{row_id}: input_images={pictures!r} is not a list of picture names")
    for name in pictures:
        _check_text(name, f"{row_id}: a name in input_images")
    found: dict[str, str | None] = {}
    for key in ("task_type", "instruction", "output_image", "output_text"):
        value = tree.get(key)
        if value is not None and not isinstance(value, str):
            raise DataError(f"{row_id}: {key}={value!r} is {type(value).__name__}; text is needed")
        _check_text(value or "", f"{row_id}: {key}")
        found[key] = value
    if found["instruction"] is None:
        raise DataError(f"{row_id} has no instruction; {nearest('instruction', map(_shown, tree))}")
    if (found["output_image"] is None) == (found["output_text"] is None):
        raise DataError(
            f"{row_id} must have either output_image or output_text; it has the keys "
            f"{', '.join(map(_shown, tree))}"
        )
    kind = found["task_type"] or task
    if not kind:
        raise DataError(f"{row_id} has no task_type, and its entry in the mix no type; give one of them")
    return Row(
        row_id,
        source,
        kind,
        found["instruction"],
        tuple(pictures),
        found["output_image"],
        found["output_text"],
    )


def parse_line(line: bytes, row_id: str, source: str, task: str | None = None) -> Row:
    """The row written in one line of JSON.   Raises: DataError that names the row."""
    return parse_row(parse_json(line, row_id), row_id, source, task)


def parse_json(text: bytes, what: str) -> Any:
    """The value written as JSON.   Raises: DataError that begins with `what`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not valid JSON ({error})") from error


def decoded(caption: bytes, row_id: str) -> str:
    """The text of a caption file, its byte-order mark left out.   Raises: DataError if it is not UTF-8."""
    try:
        return caption.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{row_id}: its caption is not UTF-8 (byte {error.start} is {caption[error.start]:#04x}); "
            "save it as UTF-8"
        ) from error


def read_inside(root: Path, name: str, row_id: str, folder: Path | None = None) -> bytes:
    """The bytes of the file `name`, absolute or relative to `folder` (the root where that is None).

    It must lie inside `root`.
    Raises: DataError that names the row: outside the root (also through a link), missing, unreadable.
    """
    base, shown = Path(root).resolve(), _shown(name)
    try:
        path = Path(folder or root, name).resolve()
        if path.is_relative_to(base):
            return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, a loop of links
        reason = getattr(error, "strerror", None) or _shown(str(error))
        raise DataError(f"{row_id}: cannot read {shown} ({reason}) under {base}") from error
    raise DataError(
        f"{row_id}: {shown} leads outside the data root {base}; move the file there, or set `root` in the mix"
    )


def _check_text(text: str, what: str) -> None:
    """Raises: DataError for what JSON can write and UTF-8 cannot: halves of surrogate pairs."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what} holds {text[error.start]!a} at place {error.start + 1}, half of a character; write "
            "the whole one"
        ) from error


def _shown(name: object) -> str:
    """A name as it can be printed."""
    return str(name) if str(name).isprintable() else ascii(name)
