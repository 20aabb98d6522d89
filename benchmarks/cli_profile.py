"""The share of `og2 generate` that is og2's own: all of the process but third-party imports and the networks.

    python benchmarks/cli_profile.py [--runs 3] [--json] [-- generate "a red circle" ...]

Method. The command runs in a process of its own; its whole life is timed from outside, from before it is
started until after it has ended. Inside, two clocks run. One is on the function through which every import
goes (`importlib._bootstrap._find_and_load`): it counts while the outermost module being imported belongs
neither to the standard library nor to og2. The other is on the networks: module calls, the transformer's
`prepare` and `velocity`, the VAE's `encode` and `decode`. Neither counts while the other does. Everything
else is own: starting and ending the interpreter, the standard library, parsing, reading weights and
tokenizer, planning, the solver, writing the PNG. That is the strict reading: work that libraries do on our
behalf, such as reading weights, is own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = [
    "generate",
    "a large red circle in the middle on a light grey background",
    "--seed",
    "1",
    "--quiet",
]


class Clock:
    """Seconds spent in each kind of outermost span; spans inside another one do not count."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.seconds = {"imports": 0.0, "networks": 0.0}
        self.by_name: dict[str, float] = {}
        self._is_running = False

    def around(self, kind: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as one span of `kind` where no span is running."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.run(kind, name, function, *args, **kwargs)

        return timed

    def run(self, kind: str, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The function's result; its time goes to `kind` and `name` if no span is running."""
        if self._is_running:
            return function(*args, **kwargs)
        self._is_running = True
        start = self.now()
        try:
            return function(*args, **kwargs)
        finally:
            took = self.now() - start
            self.seconds[kind] += took
            self.by_name[name] = self.by_name.get(name, 0.0) + took
            self._is_running = False


def watch_imports(clock: Clock) -> None:
    """Times the import of every third-party module, whoever asks for it."""
    bootstrap: Any = importlib._bootstrap  # type: ignore[attr-defined]
    original = bootstrap._find_and_load
    ours = {"og2", "__main__"} | set(sys.stdlib_module_names)

    def find_and_load(name: str, import_: Any) -> Any:
        top = name.partition(".")[0]
        if top in ours:
            if name == "og2.pipeline":
                module = original(name, import_)
                watch_networks(clock)
                return module
            return original(name, import_)
        return clock.run("imports", f"import {top}", original, name, import_)

    bootstrap._find_and_load = find_and_load


def watch_networks(clock: Clock) -> None:
    """Times the networks once their classes are here."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from og2.model.transformer import OmniGen2Transformer2DModel

    call = torch.nn.Module.__call__
    torch.nn.Module.__call__ = lambda self, *args, **kwargs: clock.run(  # type: ignore[method-assign]
        "networks", type(self).__name__, call, self, *args, **kwargs
    )
    for owner, names in (
        (OmniGen2Transformer2DModel, ("prepare", "velocity")),
        (AutoencoderKL, ("encode", "decode")),
    ):
        for name in names:
            function = getattr(owner, name)
            setattr(owner, name, clock.around("networks", f"{owner.__name__}.{name}", function))


def child(report: str, arguments: list[str], use_cpu_time: bool) -> None:
    """Runs one command line under the clocks and writes what they counted."""
    clock = Clock(time.process_time if use_cpu_time else time.perf_counter)
    watch_imports(clock)
    from og2.cli import finish, run, start

    start()
    code = run(arguments)
    Path(report).write_text(json.dumps({"code": code, **clock.seconds, "by_name": clock.by_name}))
    finish(code)


def measure(arguments: list[str], use_cpu_time: bool) -> dict[str, Any]:
    """One run of the command line in a fresh process: seconds of the whole, imports, networks and own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        cpu = ["--cpu"] if use_cpu_time else []
        line = [sys.executable, __file__, *cpu, "--child", str(report), "--", *arguments]
        if arguments[0] in ("generate", "edit") and "--output" not in arguments:
            line += ["--output", str(Path(folder) / "picture.png")]
        start, cpu_before = time.perf_counter(), _cpu_of_children()
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        whole = _cpu_of_children() - cpu_before if use_cpu_time else time.perf_counter() - start
        if done.returncode != 0:
            raise SystemExit(f"the command failed: {done.stderr.strip()}")
        counted = json.loads(report.read_text())
    own = whole - counted["imports"] - counted["networks"]
    return {
        "process_s": whole,
        "imports_s": counted["imports"],
        "networks_s": counted["networks"],
        "own_s": own,
        "own_share": own / whole,
        "by_name": counted["by_name"],
    }


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Measures, prints the table and, with --json, one object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds, for a busy machine")
    parser.add_argument("--child", metavar="REPORT")
    parser.add_argument("arguments", nargs="*", help="after --: the command line; default a picture by mini")
    options = parser.parse_args()
    arguments = options.arguments or COMMAND
    if options.child:
        child(options.child, arguments, options.cpu)
    measure(arguments, options.cpu)  # warms the file cache
    runs = [measure(arguments, options.cpu) for _ in range(options.runs)]
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "by_name"}
    if options.json:
        print(json.dumps({"command": arguments, "runs": runs, "median": middle}))
        return
    print(f"og2 {' '.join(arguments)}: median of {options.runs} runs")
    for key in ("process_s", "imports_s", "networks_s", "own_s"):
        print(f"  {key:<11} {middle[key]:7.3f}  {middle[key] / middle['process_s']:6.1%}")
    for name, seconds in sorted(runs[-1]["by_name"].items(), key=lambda item: -item[1])[:12]:
        print(f"    {name:<45} {seconds:7.3f}")


if __name__ == "__main__":
    main()
