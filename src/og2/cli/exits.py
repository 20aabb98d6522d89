"""How a command ends: exit codes, and one sentence for everything that can go wrong.

The codes: 0 done; 1 a fault of og2 itself; 2 usage or bad input; 3 the checkpoint; 4 out of memory or disk;
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno

from og2.errors import Cancelled, CheckpointError, Og2Error

DONE, FAULT, BAD_INPUT, BAD_CHECKPOINT, EXHAUSTED, STOPPED = 0, 1, 2, 3, 4, 130
DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code and the sentence for an error that reached the edge of the program."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt | Cancelled):
        return STOPPED, text if isinstance(error, Cancelled) and text else "stopped"
    if isinstance(error, CheckpointError):
        return BAD_CHECKPOINT, text
    if isinstance(error, Og2Error):
        return BAD_INPUT, text
    if _is_out_of_memory(error, text):
        return EXHAUSTED, f"out of memory; draw smaller or fewer pictures, or see og2 doctor ({text[:120]})"
    if isinstance(error, OSError):
        return _explain_os_error(error, text)
    return FAULT, f"a fault of og2 itself: {type(error).__name__}: {text[:300]} (OG2_TRACEBACK=1 shows where)"


def _explain_os_error(error: OSError, text: str) -> tuple[int, str]:
    where = f" {error.filename}" if error.filename else ""
    if error.errno in DISK_IS_FULL:
        return EXHAUSTED, f"no room on the disk to write{where}; nothing was written there"
    if error.errno is None:
        return BAD_INPUT, text
    return BAD_INPUT, f"cannot use{where}: {error.strerror}" if where else text


def _is_out_of_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "alloc" in text.lower() and "memory" in text.lower()
