"""From --model, --dtype, --device and the offload flags to a pipeline that is ready to run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from og2.cli.settings import OFFLOAD_FLAGS, adapters_of
from og2.config import nearest
from og2.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from og2.pipeline import OmniGen2Pipeline

MINI_LINE = (
    "model: mini, the small model inside the package; it draws coloured shapes only (--model takes another)"
)
DTYPES = {
    "fp32": "float32",
    "float32": "float32",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
}


@dataclass(frozen=True)
class Target:
    """Where and in which dtype a model runs."""

    model: str | None
    device: str
    dtype: str


def dtype_name(text: str | None) -> str | None:
    """torch's name of a dtype given under any of its names; ConfigError for another."""
    if text is None:
        return None
    if text not in DTYPES:
        raise ConfigError(f"--dtype {text} is unknown; {nearest(text, DTYPES)}")
    return DTYPES[text]


def model_folder(model: str | None) -> Path | None:
    """The local folder of a model; None for a hub id that is not downloaded yet. Nothing is fetched.

    Raises: CheckpointError if the name is neither a folder nor a hub id.
    """
    from og2.model.hub import resolve_folder

    try:
        return resolve_folder(model, local_files_only=True)
    except CheckpointError as error:
        if error.__cause__ is None:  # refused before the hub's cache was asked
            raise
        return None


def quiet_libraries() -> None:
    """Keeps the libraries' own advice off stderr, so that our sentences stand alone; set variables win."""
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("DIFFUSERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(name, value)


def target(settings: Mapping[str, Any]) -> Target:
    """Device and dtype by the flags and what the machine has.

    Raises: ConfigError for a device that is not here, or for offload without an accelerator.
    """
    device, best = settings.get("device", "auto"), best_device()
    if device == "auto":
        device = best
    kind = device_kind(device)
    if kind != "cpu" and kind != best:
        raise ConfigError(f"--device {device} is not on this machine; it has {best} (og2 doctor)")
    asked = [name for name in OFFLOAD_FLAGS if settings.get(name)]
    if asked and kind == "cpu":
        flag = "--" + asked[0].replace("_", "-")
        raise ConfigError(f"{flag} moves weights to an accelerator and this run has none; leave the flag out")
    return Target(settings.get("model"), device, chosen_dtype(settings, kind))


def device_kind(device: str) -> str:
    """What torch calls the kind of a device, here or not: cuda for cuda:1.   Raises: ConfigError."""
    import torch

    try:
        return torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"--device {device} is unknown; use auto, cpu, cuda or mps") from error


def best_device() -> str:
    """The kind of device that auto stands for here."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def chosen_dtype(settings: Mapping[str, Any], kind: str) -> str:
    """torch's name of the dtype that a model runs in on this kind of device.   Raises: ConfigError."""
    default = "float32" if kind == "cpu" or settings.get("model") in (None, "mini") else "bfloat16"
    return dtype_name(settings.get("dtype")) or default


def load(settings: Mapping[str, Any], where: Target) -> OmniGen2Pipeline:
    """The pipeline, placed. Raises: CheckpointError, ConfigError."""
    import torch

    from og2.pipeline import OmniGen2Pipeline

    adapters = adapters_of(settings)
    pipe = OmniGen2Pipeline.from_pretrained(
        where.model,
        dtype=getattr(torch, where.dtype),
        transformer_path=settings.get("transformer_path"),
        fuse=False if adapters else None,
    )
    for file, scale in adapters:
        pipe.load_lora_weights(file, scale=scale)
    if adapters and where.dtype == "float32":  # in half precision the sum would be rounded to it
        pipe.merge_lora()
    hidden = True if settings.get("quiet") else None  # None: where stderr is no terminal
    pipe.set_progress_bar_config(desc="drawing", unit="step", leave=False, disable=hidden)
    if settings.get("model_cpu_offload"):
        pipe.enable_model_cpu_offload(device=where.device)
    elif settings.get("sequential_cpu_offload"):
        pipe.enable_sequential_cpu_offload(device=where.device)
    elif settings.get("group_offload"):
        pipe.enable_group_offload(
            torch.device(where.device), offload_type="block_level", num_blocks_per_group=2
        )
    elif where.device != "cpu":
        pipe.to(where.device)
    collect_garbage()
    return pipe


def check_adapters(settings: Mapping[str, Any]) -> None:
    """Reads every --lora, so that a wrong one is refused before the networks are loaded."""
    adapters = adapters_of(settings)
    if adapters:
        from og2.model.lora import read_adapter

        for file, _ in adapters:
            read_adapter(file)


def collect_garbage() -> None:
    """Garbage collection again, where the start of the command line turned it off; what is here now stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def say(text: str, settings: Mapping[str, Any]) -> None:
    """A remark on stderr, unless --quiet."""
    if not settings.get("quiet"):
        sys.stderr.write(f"{text}\n")


def say_model(settings: Mapping[str, Any]) -> None:
    """The remark that this is mini, where no model was named."""
    if settings.get("model") in (None, "mini"):
        say(MINI_LINE, settings)
