"""Rows in JSONL files of the official form: one file, or a directory with everything below it.

Only where each line begins is kept in memory. A `.json` file may also hold one list of rows, which is read
whole.
"""

from __future__ import annotations

from array import array
from codecs import BOM_UTF8
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from og2.data.rows import Example, Row, parse_json, parse_line, parse_row, read_inside
from og2.data.sources import Place
from og2.errors import DataError


@dataclass(frozen=True)
class JsonlOptions:
    """There are none."""


class JsonlSource:
    """Rows of one or several JSONL files; pictures lie in the root, by default the row's own folder."""

    def __init__(self, place: Place, options: JsonlOptions) -> None:
        """Raises: ConfigError as `Place.files`; DataError for a broken list of rows."""
        del options
        self.name, self.task, self.root = place.name, place.task, place.root
        path = place.existing()
        self.files = place.files((".jsonl", ".json"), (".jsonl.gz", ".json.gz"))
        self._labels = [
            place.name if path.is_file() else f"{place.name}/{p.relative_to(path).as_posix()}"
            for p in self.files
        ]
        indices = [_index(file, label) for file, label in zip(self.files, self._labels, strict=True)]
        self._ends = np.cumsum([len(index) for index in indices])
        self._indices = indices

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row_id(self, index: int) -> str:
        """The file, where there are several, and the line."""
        which, within = self._place(index)
        lines = self._indices[which]
        return f"{self._labels[which]}:{within + 1 if isinstance(lines, list) else lines.number(within)}"

    def row(self, index: int) -> Row:
        """What is written about row `index`."""
        return self._read(index)[0]

    def example(self, index: int) -> Example:
        """Row `index` with the bytes of its picture files."""
        row, file = self._read(index)
        root = self.root or file.parent
        return Example(
            row,
            tuple(read_inside(root, name, row.id) for name in row.input_images),
            None if row.output_image is None else read_inside(root, row.output_image, row.id),
        )

    def _place(self, index: int) -> tuple[int, int]:
        """The place of the file, and of the row in it."""
        which = int(np.searchsorted(self._ends, index, side="right"))
        return which, index - (int(self._ends[which - 1]) if which else 0)

    def _read(self, index: int) -> tuple[Row, Path]:
        which, within = self._place(index)
        file, lines, row_id = self.files[which], self._indices[which], self.row_id(index)
        if isinstance(lines, list):
            return parse_row(lines[within], row_id, self.name, self.task), file
        try:
            with file.open("rb") as stream:
                stream.seek(int(lines.starts[within]))
                line = stream.readline()
        except OSError as error:
            raise DataError(f"{row_id}: cannot read {file} ({error.strerror})") from error
        return parse_line(line, row_id, self.name, self.task), file


@dataclass(frozen=True)
class _Lines:
    """Where the rows of one file begin, and after how many rows each blank line lies."""

    starts: np.ndarray
    blanks: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def number(self, row: int) -> int:
        """The line that row `row` is in, from 1."""
        return row + 1 + int(np.searchsorted(self.blanks, row, side="right"))


def _index(file: Path, label: str) -> _Lines | list[Any]:
    starts, blanks, start = array("q"), array("q"), 0
    try:
        with file.open("rb") as stream:
            if file.suffix == ".json" and stream.read(64).removeprefix(BOM_UTF8).lstrip().startswith(b"["):
                return _list_of_rows(file, label)
            stream.seek(0)
            for line in stream:
                if line.strip():
                    starts.append(start)
                else:
                    blanks.append(len(starts))
                start += len(line)
    except OSError as error:
        raise DataError(f"source {label}: cannot read {file} ({error.strerror})") from error
    return _Lines(np.array(starts, dtype=np.int64), np.array(blanks, dtype=np.int64))


def _list_of_rows(file: Path, label: str) -> list[Any]:
    return parse_json(file.read_bytes(), f"source {label}: {file}")
