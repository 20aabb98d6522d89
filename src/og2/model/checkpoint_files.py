"""Safetensors files of one network: which they are, what they hold, whether they are whole; without torch.

Everything is checked from the headers before any tensor is read: names, shapes, and that no file is cut
short. Pickled weights are refused, because reading them can run code. Not here: which networks a model
consists of (weights.py) and where its folder comes from (hub.py).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from og2.errors import CheckpointError

PROFILE = "og2.json"
"""A model's own native size and preset values, where it has any: og2's addition to the layout."""
INDEX_SUFFIX = ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAX_HEADER_BYTES = 100_000_000
_SAMPLE_BYTES = 64
_WHOLE_BYTES = 16_000_000


@dataclass(frozen=True)
class Stored:
    """One tensor as a file's header describes it; `span` is its place in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    span: tuple[int, int]


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors a safetensors file holds, without reading them.

    Raises: CheckpointError if the file is missing, not in this format, or shorter than its header says.
    """
    if not path.is_file():
        raise missing(path)
    with path.open("rb") as file:
        return _read_header(path, file)[1]


def find_weights(folder: Path) -> list[Path]:
    """The safetensors files of a network's folder: the shards its index names, or its one file.

    Raises: CheckpointError if there are none, several without an index, pickles only, a shard is missing, or
    the index names a file outside the folder.
    """
    indices = sorted(folder.glob("*" + INDEX_SUFFIX))
    files = sorted(folder.glob("*.safetensors"))
    if len(indices) == 1:
        return _shards(indices[0])
    usual = [f for f in files if f.name in ("diffusion_pytorch_model.safetensors", "model.safetensors")]
    if len(usual) == 1 or len(files) == 1:
        return usual or files
    if files:
        raise CheckpointError(
            f"{folder} holds several sets of weights: {_names([*indices, *files])}; keep one"
        )
    refuse_pickles(folder)
    raise missing(folder / "*.safetensors")


def check_tensors(
    expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]], folder: Path
) -> None:
    """Raise a CheckpointError naming the first few tensors unless all names and shapes agree."""
    wrong = [
        f"{name}: expected {shape}, found {stored[name]}"
        for name, shape in expected.items()
        if name in stored and stored[name] != shape
    ]
    lacking = [name for name in expected if name not in stored]
    extra = [name for name in stored if name not in expected]
    problems = [
        f"{len(found)} {what} ({'; '.join(found[:3])}{'; ...' if len(found) > 3 else ''})"
        for what, found in (("of wrong shape", wrong), ("missing", lacking), ("unexpected", extra))
        if found
    ]
    if problems:
        raise CheckpointError(
            f"the tensors in {folder} do not fit its config.json: {', '.join(problems)}; "
            "weights and config.json must come from the same model"
        )


def missing(path: Path) -> CheckpointError:
    """The error for a file that is not there: its name, and what its folder holds instead."""
    folder = path.parent
    held = _names(sorted(folder.iterdir())) if folder.is_dir() else "nothing: no such folder"
    return CheckpointError(
        f"{path.name} is missing in {folder}, which holds {held or 'nothing'}; "
        "if this was downloaded, the download may be incomplete: fetch it again"
    )


def refuse_pickles(folder: Path) -> None:
    """Raise a CheckpointError if the folder's weights are pickled."""
    pickles = [path for path in sorted(folder.glob("*")) if path.suffix in PICKLES]
    if pickles:
        raise CheckpointError(
            f"{folder} holds pickled weights only ({_names(pickles)}), refused as reading them can run code; "
            "get the safetensors version, or convert them where you trust them: "
            "safetensors.torch.save_file(torch.load(old, weights_only=True), new)"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: CheckpointError if it is missing or not an object."""
    if not path.is_file():
        raise missing(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} should hold an object, it holds a {type(value).__name__}")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write the object as JSON with sorted names, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def fingerprint(*roots: Path) -> str:
    """Ten hexadecimal digits that name these weights: the same for a copy, another for other weights.

    From names, sizes and headers of all files below the roots but the presets, the first bytes of every
    tensor, and small files whole; of an 8 GB model some hundred kilobytes are read. Remembered until a file
    changes.
    """
    files = [
        (str(path.relative_to(root)) if path != root else path.name, path)
        for root in roots
        for path in ([root] if root.is_file() else sorted(root.rglob("*")))
        if path.is_file() and path.suffix in (".json", ".txt", ".safetensors") and path.name != PROFILE
    ]
    states = tuple((name, str(path), path.stat().st_size, path.stat().st_mtime_ns) for name, path in files)
    return _fingerprint(states)


@lru_cache(maxsize=32)
def _fingerprint(states: tuple[tuple[str, str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, path, size, _ in states:
        digest.update(f"{name} {size}\n".encode())
        with Path(path).open("rb") as file:
            if path.endswith(".safetensors"):
                start, header = _read_header(Path(path), file)
                for tensor, stored in sorted(header.items()):
                    file.seek(start + stored.span[0])
                    sample = file.read(min(_SAMPLE_BYTES, stored.span[1] - stored.span[0]))
                    digest.update(f"{tensor} {stored.dtype} {stored.shape}\n".encode() + sample)
            else:
                digest.update(file.read(_WHOLE_BYTES))
    return digest.hexdigest()[:10]


def _read_header(path: Path, file: BinaryIO) -> tuple[int, dict[str, Stored]]:
    size = path.stat().st_size
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(_MAX_HEADER_BYTES, size):
            raise ValueError("its header is longer than the file")
        entries = json.loads(file.read(length))
        header = {
            name: Stored(
                entry["dtype"], tuple(entry["shape"]), (entry["data_offsets"][0], entry["data_offsets"][1])
            )
            for name, entry in entries.items()
            if name != "__metadata__"
        }
        needed = 8 + length + max((stored.span[1] for stored in header.values()), default=0)
    except (struct.error, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); fetch it again"
        ) from error
    if needed != size:
        state = "cut short" if needed > size else "longer than it should be"
        raise CheckpointError(
            f"{path} is {state}: {size} bytes where its header asks for {needed}; fetch it again"
        )
    return 8 + length, header


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; fetch it again")
    names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names {name!r}; only safetensors files beside the index are allowed"
            )
        if not (index.parent / name).is_file():
            raise missing(index.parent / name)
    found = {tensor for name in names for tensor in read_header(index.parent / name)}
    if found != set(weight_map):
        astray = sorted(found ^ set(weight_map))
        raise CheckpointError(
            f"{index} and its shards disagree about {len(astray)} tensors, first {astray[0]}"
        )
    return [index.parent / name for name in names]


def _names(paths: list[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
