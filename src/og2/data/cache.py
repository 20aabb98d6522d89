"""What the frozen networks give, kept on disk under the hash of all that it depends on.

Two kinds of entries: `pictures`, mean and deviation of the VAE's posterior (so drawing from it stays), and
`texts`, features of a rendered prompt. One safetensors file per entry, in the dtype that was computed, with a
checksum that is verified at every read. Entries are written aside and renamed, so any number of processes may
share a folder, and deleting it, or any file in it, at any time costs only the work of making it again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.torch import load, save
from torch import Tensor

from og2.errors import CheckpointError
from og2.files import written

logger = logging.getLogger(__name__)
Kind = Literal["pictures", "texts"]


class Cache:
    """Entries under `folder`; may be sent to another process.

    A damaged entry is reported, removed and treated as missing. A disk that refuses to take more is reported
    once; the run goes on without writing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_full = False

    def get(self, kind: Kind, key: str) -> bytes | None:
        """The verified bytes of an entry, for `tensors_of`, or None when there is none."""
        path = self._path(kind, key)
        try:
            entry = path.read_bytes()
        except OSError:
            return None
        checksum = _checksum_of(entry)
        if checksum is not None and checksum == _written_checksum(entry):
            return entry
        logger.warning("the cache entry %s is damaged; it is removed and made again", path)
        path.unlink(missing_ok=True)
        return None

    def has(self, kind: Kind, key: str) -> bool:
        """Whether there is such an entry; it may still turn out damaged."""
        return self._path(kind, key).is_file()

    def put(self, kind: Kind, key: str, tensors: Mapping[str, Tensor]) -> bool:
        """Write an entry; False when the disk refuses."""
        path = self._path(kind, key)
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        entry = save(held, metadata={"checksum": str(_checksum_of(save(held)))})
        try:
            with written(path) as place:
                place.write_bytes(entry)
        except OSError as error:
            if not self.is_full:
                logger.warning(
                    "cannot write to the cache %s (%s); going on without", self.folder, error.strerror
                )
            self.is_full = True
            return False
        return True

    def _path(self, kind: Kind, key: str) -> Path:
        return self.folder / kind / key[:2] / f"{key}.safetensors"


def tensors_of(entry: bytes) -> dict[str, Tensor]:
    """The tensors of an entry that `Cache.get` gave."""
    return load(entry)


def picture_key(content: str, limits: tuple[int, int], vae_hash: str) -> str:
    """The key of a picture's posterior.

    `content`: its `content_hash`; `limits`: (max_pixels, max_side) of the resize rule.
    """
    return _hash("picture", content, *map(str, limits), vae_hash)


def text_key(rendered: str, mllm_hash: str) -> str:
    """The key of a prompt's features; rendered: with the template around it."""
    return _hash("text", rendered, mllm_hash)


def content_hash(picture: bytes | np.ndarray) -> str:
    """The hash of a picture file's bytes, or of pixels (H, W, 3)."""
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()
    return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()


def folder_hash(*folders: Path, note: str = "") -> str:
    """The hash of networks on disk: names and bytes of weights, configurations and tokenizers.

    `note`: what else decides about the numbers, such as the dtype.   Raises: CheckpointError when nothing is
    there.
    """
    digest = hashlib.sha256(note.encode())
    files = [p for f in folders for p in sorted(Path(f).iterdir() if Path(f).is_dir() else ())]
    files = [p for p in files if p.suffix in (".safetensors", ".json", ".txt")]
    if not files:
        raise CheckpointError(
            f"no weights in {', '.join(map(str, folders))}; give the folders of the networks"
        )
    for path in files:
        digest.update(f"\0{path.name}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _header(entry: bytes) -> tuple[dict[str, object], bytes] | None:
    if len(entry) < 8:
        return None
    length = struct.unpack("<Q", entry[:8])[0]
    try:
        header = json.loads(entry[8 : 8 + length])
    except ValueError:
        return None
    return (header, entry[8 + length :]) if isinstance(header, dict) else None


def _checksum_of(entry: bytes) -> str | None:
    """The checksum of names, shapes and values in a safetensors file; its metadata do not count."""
    found = _header(entry)
    if found is None:
        return None
    names = {name: value for name, value in found[0].items() if name != "__metadata__"}
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode() + found[1]).hexdigest()


def _written_checksum(entry: bytes) -> str | None:
    found = _header(entry)
    metadata = found[0].get("__metadata__") if found else None
    return metadata.get("checksum") if isinstance(metadata, dict) else None
