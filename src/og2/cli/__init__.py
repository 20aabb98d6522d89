"""The command `og2`: draw, edit, describe, chat, train, measure, and say what this machine can do.

`og2 --help` imports no heavy library; each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main() -> None:
    """The console entry: runs the command line and ends the process with its exit code."""
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(code)


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
