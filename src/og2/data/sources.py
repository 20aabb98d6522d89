"""The kinds of data sources by name. A new one is one file with a class, and one line here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from og2.config import Registry, build
from og2.data.rows import Source
from og2.errors import ConfigError


@dataclass(frozen=True)
class SourceKind:
    """Where a source is; its class is called with a `Place` and its options, an instance of `options`."""

    module: str
    source: str
    options: str


@dataclass(frozen=True)
class Place:
    """What every source is told: name, where its rows are, data root, task of rows that name none."""

    name: str
    path: Path | None
    root: Path | None
    task: str | None

    def existing(self) -> Path:
        """The path.   Raises: ConfigError when there is none, or nothing there."""
        if self.path is None:
            raise ConfigError(f"source {self.name} needs a path")
        if not self.path.exists():
            raise ConfigError(f"source {self.name}: {self.path} does not exist")
        return self.path

    def files(self, suffixes: Collection[str], compressed: Collection[str] = ()) -> list[Path]:
        """The path where it is a file, else all files below it with one of these endings, sorted.

        Files and folders whose names begin with a dot are left out: copies and notes of other programs.
        Raises: ConfigError when there is none, or one with an ending of `compressed`.
        """
        path = self.existing()
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _is_seen(file, path))
        packed = [file for file in found if file.name.lower().endswith(tuple(compressed))]
        if packed:
            raise ConfigError(
                f"source {self.name}: {packed[0]} is compressed and cannot be read at random; unpack it, or "
                "take it out"
            )
        if path.is_file():
            return found
        found = [file for file in found if file.suffix.lower() in suffixes]
        if not found:
            raise ConfigError(f"source {self.name}: no file {', '.join(suffixes)} in {path} or below it")
        return found


def _is_seen(file: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(folder).parts) and file.is_file()


SOURCES: Registry[SourceKind] = Registry(
    "kind of source",
    {
        "jsonl": SourceKind("og2.data.jsonl", "JsonlSource", "JsonlOptions"),
        "folder": SourceKind("og2.data.folder", "FolderSource", "FolderOptions"),
        "webdataset": SourceKind("og2.data.shards", "ShardSource", "ShardOptions"),
        "huggingface": SourceKind("og2.data.hub_rows", "HubSource", "HubOptions"),
        "world": SourceKind("og2.data.world_source", "WorldSource", "WorldOptions"),
    },
)


def open_source(
    kind: str, name: str, path: Path | None, root: Path | None, task: str | None, options: Mapping[str, Any]
) -> Source:
    """The source of that kind.   Raises: ConfigError for an unknown kind or option, or a missing path."""
    entry = SOURCES[kind]
    module = import_module(entry.module)
    chosen = build(getattr(module, entry.options), options, f"{name}.options")
    return getattr(module, entry.source)(Place(name, path, root, task), chosen)
