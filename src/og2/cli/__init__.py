"""The command `og2`: draw, edit, describe, chat, train, measure, and say what this machine can do.

`og2 --help` imports no heavy library; each command imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn


def main() -> None:
    """The console entry: runs the command line and ends the process with its exit code."""
    start()
    finish(run(sys.argv[1:]))


def start() -> None:
    """Before a command: no garbage collection while libraries are imported; it is a sixth of that time.

    Ctrl-C ends the process at once while something is imported: libraries that are stopped there answer with
    errors of their own (numpy with a RecursionError), or lose it and go on.
    """
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            _end(_report(KeyboardInterrupt(), as_json="--json" in sys.argv))
        frame = frame.f_back
    raise KeyboardInterrupt


def finish(code: int) -> NoReturn:
    """After a command: ends the process at once.

    Taking down torch and the libraries object by object takes as long as drawing a small picture, and frees
    what the end of the process frees anyway. Training ends the usual way, but not where several processes
    train together: their network threads can abort an interpreter that ends so.
    """
    if "og2.train" in sys.modules and os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    _end(code)


def _end(code: int) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """The exit code of one command line; errors are one sentence on stderr (and in the object of --json)."""
    try:
        from og2.cli.app import dispatch

        return dispatch(list(arguments))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        if os.environ.get("OG2_TRACEBACK") == "1":
            raise
        return _report(error, as_json="--json" in arguments)


def _report(error: BaseException, as_json: bool) -> int:
    from og2.cli.exits import explain

    code, sentence = explain(error)
    sys.stderr.write(f"og2: {sentence}\n")
    if as_json:
        import json

        sys.stdout.write(json.dumps({"error": sentence, "exit_code": code}) + "\n")
    return code
