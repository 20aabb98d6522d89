"""The mixture: which row is drawn next, as a pure function of (seed, number of the draw).

The mix is the official YAML form, a list of {path, type, ratio}, and ratios are what they say: shares of the
draws. Nothing is remembered between draws, so a resumed run, any rank and any worker sees the same row for
the same number.

How a draw is made. Draws come in blocks of 2**20; in a block every source owns a run of slots, as many as its
share. A slot is a coarse part (8 bits) and a fine part (12 bits): each window of 256 draws visits every
coarse part once, in a random order, and window after window a coarse part visits its fine parts in
bit-reversed order. So shares hold not only in the end but within a few draws at any time, and how often a
source was drawn before can be counted without going through the draws. That number gives the epoch and,
through a keyed permutation of the source's rows, the row: every row once per epoch.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from og2.config import build, read_yaml
from og2.data.rows import Source
from og2.data.sources import open_source
from og2.errors import ConfigError

COARSE_BITS, FINE_BITS = 8, 12
BLOCK = 1 << (COARSE_BITS + FINE_BITS)
FINE_MASK = (1 << FINE_BITS) - 1
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class MixEntry:
    """One line of a mix.

    `path`: a file, a directory (read with all below it), or another YAML mix, whose entries then divide this
    entry's ratio. `type`: task of rows that name none. `ratio`: share of the draws, relative to the other
    entries. `kind`: a name of og2.data.sources.SOURCES; `options`: that kind's own. `name`: by default the
    path's. An entry that is another mix has no kind, name and options; its `type` is that of entries there
    that have none.
    """

    path: Path | None = None
    type: str | None = None
    ratio: float = 1.0
    kind: str = "jsonl"
    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MixConfig:
    """A mix file. `root`: the folder that pictures must lie in, by default that of the file naming them.

    It holds for mixes inside this one too, where they have none of their own.
    """

    data: tuple[MixEntry, ...]
    root: Path | None = None


@dataclass(frozen=True)
class Draw:
    """Draw `number`: row `index` of source `source` (its place in the mixture), in its epoch `epoch`."""

    number: int
    source: int
    index: int
    epoch: int


class Mixture:
    """Sources with weights; may be sent to another process."""

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        seed: int,
        origins: Sequence[str] = (),
    ) -> None:
        """`origins`: what each source was opened from, which decides about its rows.

        Raises: ConfigError for no source, an empty one, equal names, or weights that are not positive.
        """
        if not sources or len(sources) != len(weights):
            raise ConfigError(
                f"a mixture of {len(sources)} sources and {len(weights)} weights; give one each"
            )
        names = [source.name for source in sources]
        for source, weight in zip(sources, weights, strict=True):
            if not 0 < weight < float("inf"):
                raise ConfigError(f"source {source.name}: ratio {weight} must be a positive number")
            if len(source) == 0:
                raise ConfigError(f"source {source.name} has no rows; take it out of the mix")
            if names.count(source.name) > 1:
                raise ConfigError(f"two sources are named {source.name}; give one of them a name of its own")
        self.sources, self.weights, self.seed = tuple(sources), tuple(weights), seed
        self.origins = tuple(origins)
        self._slots = _apportion(weights, BLOCK)
        self._starts = [sum(self._slots[:i]) for i in range(len(self._slots))]
        self._lengths = [len(source) for source in sources]
        self._order_keys = [_key(seed, "order", name) for name in names]
        self._slot_key = _key(seed, "slots")

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of all draws that each source gets."""
        return tuple(count / BLOCK for count in self._slots)

    @property
    def fingerprint(self) -> str:
        """Equal for mixtures that give the same draws; a data position is good for these only."""
        parts = [(s.name, n, k) for s, n, k in zip(self.sources, self._lengths, self._slots, strict=True)]
        return hashlib.sha256(repr((self.seed, parts, self.origins)).encode()).hexdigest()[:16]

    def draw(self, number: int) -> Draw:
        """Draw `number`, 0 and up; the same for the same number, always."""
        block, place = divmod(number, BLOCK)
        window, within = divmod(place, 1 << COARSE_BITS)
        order = _Order(_mixed(self._slot_key ^ block))
        coarse = permuted(within, 1 << COARSE_BITS, _mixed(order.key ^ _mixed(window)))
        slot = (coarse << FINE_BITS) | order.fine(coarse, window)
        source = bisect_right(self._starts, slot) - 1
        start, end = self._starts[source], self._starts[source] + self._slots[source]
        before = block * self._slots[source] + order.visited(end, window) - order.visited(start, window)
        before += order.visited_in(slot, window) - order.visited_in(start, window)
        epoch, position = divmod(before, self._lengths[source])
        key = _mixed(self._order_keys[source] ^ epoch)
        return Draw(number, source, permuted(position, self._lengths[source], key), epoch)


class _Order:
    """In which order one block visits its slots."""

    def __init__(self, key: int) -> None:
        self.key = key

    def fine(self, coarse: int, window: int) -> int:
        """The fine part that coarse part `coarse` visits in window `window`."""
        return _reversed(window) ^ self._shift(coarse)

    def visited(self, limit: int, window: int) -> int:
        """How many slots below `limit` the windows before `window` visited."""
        coarse, rest = limit >> FINE_BITS, limit & FINE_MASK
        count, shift = coarse * window, self._shift(coarse)
        for bit in range(FINE_BITS):
            step = FINE_BITS - bit  # [0, rest) as runs of fine parts that share their first `step` bits
            if rest >> bit & 1:
                shared = ((rest >> bit) - 1 << bit ^ shift) >> bit << bit
                first = _reversed(shared)
                count += max(0, (window - first + (1 << step) - 1) >> step)
        return count

    def visited_in(self, limit: int, window: int) -> int:
        """How many slots below `limit` window `window` visits."""
        coarse, rest = limit >> FINE_BITS, limit & FINE_MASK
        return coarse + (self.fine(coarse, window) < rest)

    def _shift(self, coarse: int) -> int:
        return _mixed(self.key + _mixed(coarse)) & FINE_MASK


def open_mix(config: MixConfig, seed: int, base: Path | None = None) -> Mixture:
    """The mixture that a mix describes; `base`: the folder that relative paths start from.

    Raises: ConfigError for unknown keys and kinds, missing files, mixes that contain themselves.
    """
    found = _open_entries(config, 1.0, base or Path(), ())
    sources, weights, origins = zip(*found, strict=True)
    return Mixture(sources, weights, seed, origins)


def read_mix(path: str | Path) -> MixConfig:
    """The mix written in a YAML file: a mapping with `data`, and perhaps `root`.   Raises: ConfigError."""
    return build(MixConfig, read_yaml(path), Path(path).stem)


def permuted(position: int, length: int, key: int) -> int:
    """Where a keyed permutation of range(length) sends `position`.

    A four-round Feistel network on the next larger even number of bits; results outside the range go through
    it again until they fall inside.
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for turn in range(4):
            left, right = right, left ^ (_mixed(key + (turn << 56) + right) & mask)
        position = (left << half) | right
        if position < length:
            return position


def _open_entries(
    config: MixConfig, share: float, base: Path, chain: tuple[Path, ...]
) -> list[tuple[Source, float, str]]:
    """Sources, weights and origins, those of mixes inside in the place of their entries."""
    if not config.data:
        raise ConfigError(f"the mix {chain[-1] if chain else ''} has no entries under data")
    for entry in config.data:
        if not 0 < entry.ratio < float("inf"):
            raise ConfigError(
                f"entry {entry.name or entry.path}: ratio={entry.ratio} must be a positive number"
            )
    total = sum(entry.ratio for entry in config.data)
    root = None if config.root is None else base / config.root
    found: list[tuple[Source, float, str]] = []
    for entry in config.data:
        weight = share * entry.ratio / total
        path = None if entry.path is None else base / entry.path
        if path is None or path.suffix not in (".yaml", ".yml"):
            name = entry.name or (path.stem if path else entry.kind)
            source = open_source(entry.kind, name, path, root, entry.type, entry.options)
            found.append((source, weight, _origin(entry)))
            continue
        path = path.resolve()
        if path in chain:
            raise ConfigError(f"the mix {path} contains itself, through {' -> '.join(map(str, chain))}")
        found += _open_entries(_inner_mix(path, entry, root), weight, path.parent, (*chain, path))
    return found


def _inner_mix(path: Path, entry: MixEntry, root: Path | None) -> MixConfig:
    """The mix that an entry names, with the entry's type and the outer root where it has none."""
    plain = MixEntry(entry.path, entry.type, entry.ratio)
    if extra := [key for key, value in vars(entry).items() if value != getattr(plain, key)]:
        raise ConfigError(
            f"entry {entry.path} is another mix, for which {', '.join(extra)} would do nothing; give it to "
            "the entries there"
        )
    inner = read_mix(path)
    data = tuple(replace(line, type=line.type or entry.type) for line in inner.data)
    return MixConfig(data, inner.root or (root and root.absolute()))


def _origin(entry: MixEntry) -> str:
    """What an entry says about its rows, whatever the folder it stands in."""
    path = entry.path and entry.path.as_posix()
    return json.dumps([entry.kind, path, entry.type, entry.options], sort_keys=True, default=str)


def _apportion(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to the weights, each at least one."""
    exact = [weight / sum(weights) * total for weight in weights]
    counts = [max(1, int(value)) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    step = 1 if sum(counts) < total else -1
    for turn in range(abs(total - sum(counts))):
        counts[order[turn % len(order)] if step > 0 else counts.index(max(counts))] += step
    return counts


def _reversed(fine: int) -> int:
    return int(f"{fine:0{FINE_BITS}b}"[::-1], 2)


def _mixed(value: int) -> int:
    """64 well-mixed bits of an integer (the finaliser of splitmix64)."""
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)


def _key(seed: int, *words: str) -> int:
    text = "\0".join((str(seed), *words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
