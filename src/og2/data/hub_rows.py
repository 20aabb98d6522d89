"""Rows of a Hugging Face dataset: a folder that `save_to_disk` wrote, or a name on the hub.

Needs the package `datasets` (extra `data`), imported when such a source is opened. No code of a dataset is
run.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from og2.data.rows import Example, Row, StoredPicture, parse_row, read_inside
from og2.data.sources import Place
from og2.errors import ConfigError, DataError


@dataclass(frozen=True)
class HubOptions:
    """`dataset`: a name on the hub, where the entry has no path. The others are names of columns."""

    dataset: str | None = None
    config_name: str | None = None
    split: str = "train"
    instruction: str = "instruction"
    input_images: str | None = None
    output_image: str | None = None
    output_text: str | None = None
    task_type: str | None = None


class HubSource:
    """Rows of one split; lines are counted from 1."""

    def __init__(self, place: Place, options: HubOptions) -> None:
        """Raises: ConfigError when the package, the dataset, the split or a column is missing."""
        self.name, self.task, self.root, self.options = (
            place.name,
            place.task,
            place.root or place.path,
            options,
        )
        try:
            library = import_module("datasets")
        except ImportError as error:
            raise ConfigError(
                f"source {place.name} needs the package datasets; install it with: pip install 'og2[data]'"
            ) from error
        table = self._open(library, place, options)
        wanted = [
            c for c in vars(options).keys() - {"dataset", "config_name", "split"} if getattr(options, c)
        ]
        missing = [c for c in (getattr(options, c) for c in wanted) if c not in table.column_names]
        if missing:
            raise ConfigError(
                f"source {place.name} has no column {', '.join(missing)}; it has "
                f"{', '.join(table.column_names)}"
            )
        for column in (options.input_images, options.output_image):
            if column is not None:
                table = _undecoded(library, table, column)
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def row_id(self, index: int) -> str:
        """The row's number, from 1."""
        return f"{self.name}:{index + 1}"

    def row(self, index: int) -> Row:
        """What is written about row `index`; its pictures are named by their columns."""
        return self._row(self._held(index), index)

    def example(self, index: int) -> Example:
        """Row `index` with the bytes of its pictures."""
        held, options = self._held(index), self.options
        row = self._row(held, index)
        inputs = _listed(held[options.input_images]) if options.input_images else []
        output = held[options.output_image] if row.output_image is not None and options.output_image else None
        return Example(
            row,
            tuple(self._picture(value, row.id) for value in inputs),
            None if output is None else self._picture(output, row.id),
        )

    def _held(self, index: int) -> dict[str, Any]:
        try:
            return self.table[index]
        except (OSError, ValueError) as error:
            raise DataError(f"{self.row_id(index)} cannot be read: {' '.join(str(error).split())}") from error

    def _row(self, held: dict[str, Any], index: int) -> Row:
        options = self.options
        tree = {
            name: held[getattr(options, name)]
            for name in ("instruction", "output_text", "task_type")
            if getattr(options, name)
        }
        if options.input_images:
            count = len(_listed(held[options.input_images]))
            tree["input_images"] = [f"{options.input_images}[{k}]" for k in range(count)]
        if options.output_image and held[options.output_image] is not None:
            tree["output_image"] = options.output_image
        return parse_row(tree, self.row_id(index), self.name, self.task)

    def _picture(self, value: Any, row_id: str) -> StoredPicture:
        if isinstance(value, dict) and value.get("bytes"):
            return value["bytes"]
        if isinstance(value, bytes):
            return value
        name = value.get("path") if isinstance(value, dict) else value
        if isinstance(name, str) and self.root is not None:
            return read_inside(self.root, name, row_id)
        raise DataError(
            f"{row_id}: a picture is {type(value).__name__} without bytes; set `root` to where it lies"
        )

    @staticmethod
    def _open(library: Any, place: Place, options: HubOptions) -> Any:
        try:
            if place.path is not None:
                found = library.load_from_disk(str(place.existing()))
                return found[options.split] if isinstance(found, dict) else found
            if options.dataset is None:
                raise ConfigError(
                    f"source {place.name} needs a path, or options.dataset with a name on the hub"
                )
            return library.load_dataset(options.dataset, options.config_name, split=options.split)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"source {place.name} cannot be opened: {' '.join(str(error).split())}"
            ) from error


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _undecoded(library: Any, table: Any, column: str) -> Any:
    """The table with the column's pictures left as they are stored."""
    feature = table.features[column]
    inner = getattr(feature, "feature", None) or (feature[0] if isinstance(feature, list) else None)
    if isinstance(feature, library.Image):
        return table.cast_column(column, library.Image(decode=False))
    if isinstance(inner, library.Image):
        return table.cast_column(column, type(feature)(library.Image(decode=False)))
    return table
