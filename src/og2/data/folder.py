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
        self.name, self.task, self.folder, self.root = place.name, place.task, place.existing(), place.root
        if not self.folder.is_dir():
            raise ConfigError(f"source {self.name}: {self.folder} is no folder")
        self.inputs = tuple(self.folder.parent / inputs for inputs in options.inputs)
        self.files = sorted(file.relative_to(self.folder).as_posix() for file in place.files(SUFFIXES))
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
        caption = self._read(self.folder, str(Path(name).with_suffix(".txt")), row_id)
        text = decoded(caption, row_id).strip()
        task = self.task or ("edit" if self.inputs else "t2i")
        names = tuple(str(folder / name) for folder in self.inputs)
        return Row(row_id, self.name, task, text, names, name)

    def example(self, index: int) -> Example:
        """Picture `index` with its caption, and its inputs."""
        row, name = self.row(index), self.files[index]
        inputs = tuple(self._read(folder, name, row.id) for folder in self.inputs)
        return Example(row, inputs, self._read(self.folder, name, row.id))

    def _read(self, folder: Path, name: str, row_id: str) -> bytes:
        """The file `name` of that folder, inside the mix's root, or the folder where there is none."""
        return read_inside(self.root or folder, name, row_id, folder)
