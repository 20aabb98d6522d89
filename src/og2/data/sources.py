"""The kinds of data sources by name. A new one is one file with a class, and one line here."""

from __future__ import annotations

from collections.abc import Mapping
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
