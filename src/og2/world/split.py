"""The held-out split: which combinations of words, or regions of anatomies, training never sees."""

from __future__ import annotations

import zlib

from og2.errors import RequestError

SPLITS = ("train", "test")
TEST_SHARE = 0.10


def split_of(key: tuple[str, ...]) -> str:
    """ "test" for one in ten keys, by hash, else "train"; a key is a tuple of words."""
    return "test" if zlib.crc32("|".join(key).encode()) % 1000 < 1000 * TEST_SHARE else "train"


def check_split(split: str) -> None:
    """Raises: RequestError for an unknown split."""
    if split not in SPLITS:
        raise RequestError(f"split={split!r} is unknown; use one of {', '.join(SPLITS)}")
