"""A folder of pictures with a caption file beside each, `a.png` and `a.txt`; folders of inputs for edits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from og2.conditioning.reading import SUFFIXES
from og2.data.rows import Example, Row, decoded, read_inside
from og2.data.sources import Place
from og2.errors import ConfigError


@dataclass(frozen=True)
class FolderOptions:
    """`inputs`: folders that hold, under the same relative name, the pictures an edit starts from.

    Relative ones start where the source's folder lies.
    """

    inputs: tuple[Path, ...] = ()


class FolderSource:
    """One row per picture, sorted by name; the id of a row is "source:relative path"."""

    def __init__(self, place: Place, options: FolderOptions) -> None:
        """Raises: ConfigError when there is no picture, or no folder of inputs."""
        self.name, self.task, self.folder = place.name, place.task, place.existing()
        self.inputs = tuple(self.folder.parent / inputs for inputs in options.inputs)
        self.files = sorted(
            p.relative_to(self.folder).as_posix()
            for p in self.folder.rglob("*")
            if p.suffix.lower() in SUFFIXES and p.is_file()
        )
        if not self.files:
            raise ConfigError(f"source {self.name}: {self.folder} holds no picture ({', '.join(SUFFIXES)})")
        for inputs in self.inputs:
            if not inputs.is_dir():
                raise ConfigError(f"source {self.name}: options.inputs names {inputs}, which is no folder")

    def __len__(self) -> int:
        return len(self.files)

    def row_id(self, index: int) -> str:
        """The picture's name."""
        return f"{self.name}:{self.files[index]}"

    def row(self, index: int) -> Row:
        """Caption and names of picture `index`.   Raises: DataError when it has no caption."""
        name, row_id = self.files[index], self.row_id(index)
        caption = read_inside(self.folder, str(Path(name).with_suffix(".txt")), row_id)
        text = decoded(caption, row_id).strip()
        task = self.task or ("edit" if self.inputs else "t2i")
        names = tuple(str(folder / name) for folder in self.inputs)
        return Row(row_id, self.name, task, text, names, name)

    def example(self, index: int) -> Example:
        """Picture `index` with its caption, and its inputs."""
        row, name = self.row(index), self.files[index]
        inputs = tuple(read_inside(folder, name, row.id) for folder in self.inputs)
        return Example(row, inputs, read_inside(self.folder, name, row.id))
