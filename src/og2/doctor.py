"""`og2 doctor`: what this machine can run, and why not.

Each check says what was found and, where something is missing, what to do. The exit code is 0 where pictures
can be drawn, 3 where the model does not load, 4 where it loads but does not fit.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json as json_format
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from og2 import footprint
from og2.errors import Og2Error
from og2.model.hub import resolve_folder

EXTRAS = {
    "eval": ("cv2", "scipy"),
    "data": ("datasets",),
    "train": ("tensorboard",),
    "dev": ("pytest", "hypothesis", "ruff", "pyright"),
}
OPTIONAL_KERNELS = ("flash_attn", "triton", "bitsandbytes", "torchao")
WORKING_GB = 2.0  # beside the weights, at 1024 px with one reference, in two bytes

LIBRARIES_GB = 0.6  # Python with torch, transformers and diffusers imported


@dataclass(frozen=True)
class Check:
    """One line of the report: `state` is ok, missing (optional) or bad (nothing is drawn without it)."""

    name: str
    state: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Placement:
    """A way of running a model, what it needs and whether this machine has it."""

    how: str
    dtype: str
    device_gb: float
    ram_gb: float
    fits: bool


def main(model: str | None = None, json: bool = False) -> None:
    """Prints the report; ends with SystemExit(code) where the code is not 0."""
    checks = [*_python(), *_packages(), *_torch(), *_extras()]
    sizes, model_check = _model(model)
    checks.append(model_check)
    device_gb, ram_gb = _free_device_gb(), free_ram_gb()
    own = placements(sizes, device_gb, ram_gb) if sizes else []
    published = placements(footprint.PUBLISHED, device_gb, ram_gb)
    if json:
        report = {
            "checks": [asdict(check) for check in checks],
            "model": model or "mini",
            "placements": [asdict(item) for item in own],
            "published": [asdict(item) for item in published],
        }
        sys.stdout.write(json_format.dumps(report) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(checks, model, own, published)) + "\n")
    code = _exit_code(checks, model_check, own)
    if code:
        raise SystemExit(code)


def placements(parameters: dict[str, int], device_gb: float | None, ram_gb: float) -> list[Placement]:
    """Every way to run networks of these sizes, smallest need last; `device_gb` None means no accelerator."""
    whole, largest = sum(parameters.values()) / footprint.GB, max(parameters.values()) / footprint.GB
    rows = []
    for dtype, size in (("fp32", 4), ("bf16", 2)):
        working = WORKING_GB * size / 2 * min(1.0, whole)
        if device_gb is None:
            ram = whole * size + working + LIBRARIES_GB
            rows.append(Placement("on the CPU", dtype, 0.0, ram, ram <= ram_gb))
            continue
        ways = (
            ("all on the accelerator", whole, 0.0),
            ("--model-cpu-offload", largest, whole),
            ("--sequential-cpu-offload", 0.1 * largest, whole),
        )
        for how, on_device, in_ram in ways:
            need, ram = on_device * size + working, in_ram * size + LIBRARIES_GB
            rows.append(Placement(how, dtype, need, ram, need <= device_gb and ram <= ram_gb))
    return rows


def free_ram_gb() -> float:
    """Memory that a new process can take, in GB: the system's, or what its control group has left."""
    free = float("inf")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable"):
                free = int(line.split()[1]) * 1024
    elif importlib.util.find_spec("psutil"):
        import psutil

        free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists():
        text = limit.read_text(encoding="ascii").strip()
        if text.isdigit():
            free = min(free, int(text) - int(used.read_text(encoding="ascii")))
    return free / footprint.GB


def _python() -> Iterator[Check]:
    version = platform.python_version()
    state = "ok" if sys.version_info >= (3, 10) else "bad"
    yield Check(
        "Python", state, f"{version} on {platform.system()} {platform.machine()}", "og2 needs 3.10 or newer"
    )
    yield Check(
        "CPU",
        "ok",
        f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores",
    )
    yield Check("memory", "ok", f"{free_ram_gb():.1f} GB free")


def _packages() -> Iterator[Check]:
    """The packages that og2 stands on, with their versions."""
    for name in ("torch", "transformers", "diffusers", "tokenizers", "safetensors", "numpy", "pillow"):
        try:
            yield Check(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, "bad", "not installed", "pip install -c constraints.txt -e .")


def _torch() -> Iterator[Check]:
    if not importlib.util.find_spec("torch"):
        return
    import torch

    yield Check("threads", "ok", f"{torch.get_num_threads()} (OMP_NUM_THREADS sets them)")
    device, name = _accelerator()
    if device == "cpu":
        yield Check(
            "accelerator",
            "missing",
            "none that torch can use",
            "mini is made for the CPU; the published model wants a GPU of 10 GB or more",
        )
    else:
        free = _free_device_gb()
        yield Check("accelerator", "ok", f"{device}: {name}" + (f", {free:.1f} GB free" if free else ""))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        yield _dtype(device, dtype)


def _dtype(device: str, dtype: Any) -> Check:
    """Whether a matrix product works in `dtype`, and its rate."""
    import torch

    from og2.device import has_products

    label = str(dtype).removeprefix("torch.")
    if device == "cpu" and not has_products(dtype):
        return Check(label, "ok", "stored so, computed in float32: this CPU has no bfloat16 instructions")
    try:
        a = torch.randn(768, 768, device=device).to(dtype)
        torch.matmul(a, a)
        start = time.perf_counter()
        repeats = 4
        for _ in range(repeats):
            torch.matmul(a, a)
        took = (time.perf_counter() - start) / repeats
    except (RuntimeError, TypeError, NotImplementedError) as error:
        return Check(
            label, "missing", f"not on {device}: {' '.join(str(error).split())[:80]}", "use another --dtype"
        )
    if device != "cpu":
        return Check(label, "ok", f"works on {device}")
    rate = 2 * 768**3 / took / 1e9
    slow = "; too slow to use" if label == "float16" and rate < 10 else ""
    return Check(label, "ok", f"works on the CPU, {rate:.0f} GFLOP/s{slow}")


def _extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        absent = [name for name in modules if not importlib.util.find_spec(name)]
        if absent:
            yield Check(
                f"extra {extra}",
                "missing",
                f"without {', '.join(absent)}",
                f"pip install -c constraints.txt -e '.[{extra}]'",
            )
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(modules))
    present = [name for name in OPTIONAL_KERNELS if importlib.util.find_spec(name)]
    yield Check("optional kernels", "ok", (", ".join(present) or "none") + "; og2 needs none of them")


def _model(model: str | None) -> tuple[dict[str, int], Check]:
    """The sizes of the networks and whether they can be used: mini is loaded, others are read by header."""
    label = model or "mini"
    start = time.perf_counter()
    try:
        folder = resolve_folder(model, local_files_only=True)
        sizes = {
            part: footprint.num_parameters(footprint.tensors(folder / part)) for part in footprint.NETWORKS
        }
        if model is None:
            from og2.pipeline import OmniGen2Pipeline

            OmniGen2Pipeline.from_pretrained(None)
    except (Og2Error, OSError, ImportError) as error:
        return {}, Check(
            label,
            "bad",
            " ".join(str(error).split()),
            "reinstall og2" if model is None else "see docs/checkpoints.md",
        )
    total = sum(sizes.values())
    parts = ", ".join(f"{part} {count / 1e6:.1f} M" for part, count in sizes.items())
    verb = "loads in" if model is None else "headers read in"
    return sizes, Check(
        label, "ok", f"{total / 1e6:.1f} M parameters ({parts}); {verb} {time.perf_counter() - start:.1f} s"
    )


def _accelerator() -> tuple[str, str]:
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name(0)
    if torch.backends.mps.is_available():
        return "mps", "Apple"
    return "cpu", platform.processor() or platform.machine()


def _free_device_gb() -> float | None:
    """Free memory of the accelerator in GB; None where there is none."""
    if not importlib.util.find_spec("torch"):
        return None
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / footprint.GB
    return free_ram_gb() if torch.backends.mps.is_available() else None


def _exit_code(checks: list[Check], model_check: Check, own: list[Placement]) -> int:
    if model_check.state == "bad" or any(check.state == "bad" for check in checks):
        return 3
    return 0 if any(item.fits for item in own) else 4


def _lines(
    checks: list[Check], model: str | None, own: list[Placement], published: list[Placement]
) -> Iterator[str]:
    marks = {"ok": "ok     ", "missing": "-      ", "bad": "MISSING"}
    for check in checks:
        advice = f"  -> {check.advice}" if check.advice and check.state != "ok" else ""
        yield f"{marks[check.state]} {check.name:<17} {check.found}{advice}"
    for title, rows in (((model or "mini"), own), ("the published OmniGen2 (--model), 1024 px", published)):
        if rows:
            yield f"\nMemory that {title} needs, in GB:"
            for row in rows:
                where = f"{row.device_gb:6.2f} accelerator + " if row.device_gb else ""
                verdict = "fits    " if row.fits else "too much"
                yield f"  {verdict}  {row.dtype}  {where}{row.ram_gb:6.2f} memory  {row.how}"
