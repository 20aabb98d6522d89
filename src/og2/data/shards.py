"""WebDataset shards: tar files whose members of one key form a row, read at random through an index.

A row is `key.txt` (the caption) with one picture, or `key.json` of the official form, whose picture names are
the rest of the member names after the key (`"output_image": "output.png"` is the member `key.output.png`).
Nothing is unpacked, and members that hold pickled objects are refused.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from og2.conditioning.reading import SUFFIXES
from og2.data.rows import Example, Row, decoded, parse_row
from og2.data.sources import Place
from og2.errors import ConfigError, DataError

PICKLED = (".pyd", ".pickle", ".pkl", ".pth", ".pt")


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
        """Raises: ConfigError when there is no shard; DataError for one that is damaged or holds pickles."""
        del options
        self.name, self.task = place.name, place.task
        path = place.existing()
        self.shards = [path] if path.is_file() else sorted(path.rglob("*.tar"))
        if not self.shards:
            raise ConfigError(f"source {self.name}: no .tar file in {path} or below it")
        self._records = [r for n, shard in enumerate(self.shards) for r in _records(n, shard, self.name)]

    def __len__(self) -> int:
        return len(self._records)

    def row_id(self, index: int) -> str:
        """The shard and the key."""
        record = self._records[index]
        return f"{self.name}/{self.shards[record.shard].name}:{record.key}"

    def row(self, index: int) -> Row:
        """What is written about row `index`."""
        record, row_id = self._records[index], self.row_id(index)
        tree = {}
        if "json" in record.members:
            try:
                tree = json.loads(self._read(record, "json", row_id))
            except ValueError as error:
                raise DataError(f"{row_id}: its json member is not valid JSON ({error})") from error
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
    """The rows of one shard in order.   Raises: DataError."""
    total = shard.stat().st_size
    key, members = "", {}
    try:
        # "r:" takes plain tar only: in a compressed one nothing can be read at random.
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, rest = base.partition(".")
                if f".{rest.lower()}".endswith(PICKLED):
                    raise DataError(
                        f"source {source}: {shard} holds {member.name}, a pickled object; remove it"
                    )
                if member.offset_data + member.size > total:
                    raise DataError(f"source {source}: {shard} ends within {member.name}; copy it again")
                full = f"{folder}/{stem}" if folder else stem
                if full != key and members:
                    yield _Record(number, key, members)
                    members = {}
                key = full
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
