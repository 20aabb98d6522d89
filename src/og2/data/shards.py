"""WebDataset shards: tar files whose members of one key form a row, read at random through an index.

A row is `key.txt` (the caption) with one picture, or `key.json` of the official form, whose picture names are
the rest of the member names after the key (`"output_image": "output.png"` is the member `key.output.png`).
Nothing is unpacked, and members that hold pickled objects are refused.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from og2.conditioning.reading import SUFFIXES
from og2.data.rows import Example, Row, decoded, parse_json, parse_row
from og2.data.sources import Place
from og2.errors import DataError

PICKLED = (".pyd", ".pickle", ".pkl", ".pth", ".pt")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class ShardOptions:
    """There are none."""


@dataclass(frozen=True)
class _Record:
    """One key of one shard: where its members lie, by the rest of their names."""

    shard: int
    key: str
    members: dict[str, tuple[int, int]]


class ShardSource:
    """Rows of one tar file, or of all below a directory; the id of a row is "source/shard:key"."""

    def __init__(self, place: Place, options: ShardOptions) -> None:
        """Raises: ConfigError as `Place.files`; DataError for a shard as `_records`."""
        del options
        self.name, self.task = place.name, place.task
        self.shards = place.files((".tar",), COMPRESSED)
        folder = place.existing() if place.existing().is_dir() else self.shards[0].parent
        self._labels = [f"{self.name}/{shard.relative_to(folder).as_posix()}" for shard in self.shards]
        self._records = [r for n, shard in enumerate(self.shards) for r in _records(n, shard, self.name)]

    def __len__(self) -> int:
        return len(self._records)

    def row_id(self, index: int) -> str:
        """The shard and the key."""
        record = self._records[index]
        return f"{self._labels[record.shard]}:{record.key}"

    def row(self, index: int) -> Row:
        """What is written about row `index`."""
        record, row_id = self._records[index], self.row_id(index)
        tree = {}
        if "json" in record.members:
            tree = parse_json(self._read(record, "json", row_id), f"{row_id}: its json member")
        if isinstance(tree, dict) and "instruction" in tree:
            return parse_row(tree, row_id, self.name, self.task)
        if "txt" not in record.members:
            raise DataError(f"{row_id} has neither a caption (txt) nor a json member with an instruction")
        pictures = [name for name in record.members if f".{name.lower()}".endswith(SUFFIXES)]
        if len(pictures) != 1:
            raise DataError(
                f"{row_id} has {len(pictures)} pictures ({', '.join(pictures)}); say which in its json"
            )
        caption = decoded(self._read(record, "txt", row_id), row_id).strip()
        return Row(row_id, self.name, self.task or "t2i", caption, (), pictures[0])

    def example(self, index: int) -> Example:
        """Row `index` with the bytes of its pictures."""
        row, record = self.row(index), self._records[index]
        return Example(
            row,
            tuple(self._read(record, name, row.id) for name in row.input_images),
            None if row.output_image is None else self._read(record, row.output_image, row.id),
        )

    def _read(self, record: _Record, name: str, row_id: str) -> bytes:
        if name not in record.members:
            raise DataError(f"{row_id} has no member {name}; it has {', '.join(record.members)}")
        start, size = record.members[name]
        shard = self.shards[record.shard]
        try:
            with shard.open("rb") as stream:
                stream.seek(start)
                held = stream.read(size)
        except OSError as error:
            raise DataError(f"{row_id}: cannot read {shard} ({error.strerror})") from error
        if len(held) != size:
            raise DataError(f"{row_id}: {shard} became shorter since it was opened")
        return held


def _records(number: int, shard: Path, source: str) -> Iterator[_Record]:
    """The rows of one shard in order.

    Raises: DataError for a shard that is damaged, holds pickles, or holds a member or a key twice.
    """
    total, seen = shard.stat().st_size, set[str]()
    key, members = "", {}
    try:
        # "r:" takes plain tar only: in a compressed one nothing can be read at random.
        with tarfile.open(shard, "r:") as tar:
            for member in _members(tar, f"source {source}: {shard}", total):
                folder, _, base = member.name.rpartition("/")
                stem, _, rest = base.partition(".")
                full = f"{folder}/{stem}" if folder else stem
                if full != key and members:
                    yield _Record(number, key, members)
                    seen.add(key)
                    members = {}
                key = full
                if key in seen or rest in members:
                    raise DataError(
                        f"source {source}: {shard} holds {member.name} where the row {key} is complete; give "
                        "each row a key of its own, and write its members one after another"
                    )
                members[rest] = (member.offset_data, member.size)
        with shard.open("rb") as stream:
            stream.seek(max(0, total - 512))
            if any(stream.read()):
                raise DataError(f"source {source}: {shard} ends without a tar file's end mark; copy it again")
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"source {source}: the shard {shard} is damaged or no plain tar file ({error}); copy it again, "
            "or take it out"
        ) from error
    if members:
        yield _Record(number, key, members)


def _members(tar: tarfile.TarFile, what: str, total: int) -> Iterator[tarfile.TarInfo]:
    """The files of a shard of `total` bytes; those whose names begin with a dot are left out."""
    for member in tar:
        if not member.isfile():
            continue
        if member.name.lower().endswith(PICKLED):
            raise DataError(f"{what} holds {member.name}, a pickled object; remove it")
        if member.offset_data + member.size > total:
            raise DataError(f"{what} ends within {member.name}; copy it again")
        if not any(part.startswith(".") for part in PurePosixPath(member.name).parts):
            yield member
