"""Memory that a training process has once taken stays with it: the next step needs as much again.

By default the C library gives large blocks back to the system as soon as they are free and takes them anew,
page by page, each of them emptied first: more than half of the page faults of a training step.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_BLOCK = 32 << 20
"""Bytes; glibc refuses a larger threshold. What is larger still comes and goes."""


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; whether it took that in (only glibc knows how)."""
    if not sys.platform.startswith("linux"):
        return False
    allow = getattr(ctypes.CDLL(None), "mallopt", None)
    if allow is None:
        return False
    return bool(allow(M_MMAP_THRESHOLD, LARGEST_BLOCK)) and bool(allow(M_TRIM_THRESHOLD, -1))
