"""What computes, in which arithmetic (bfloat16 where the device has it), and with how much memory."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal, TypeAlias

import torch

from og2.errors import ConfigError

logger = logging.getLogger(__name__)
DeviceName: TypeAlias = Literal["auto", "cpu", "cuda"]
"""auto takes an accelerator where there is one."""


def chosen_device(asked: DeviceName) -> torch.device:
    """The device that a recipe's `device` stands for.   Raises: ConfigError when it is not here."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but there is none here; use auto or cpu")
    if asked != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def half_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where `computes_half` says so, else float32."""
    is_half = computes_half(device.type)
    return torch.autocast(device.type, torch.bfloat16) if is_half else nullcontext()


@cache
def computes_half(device_type: str) -> bool:
    """Whether bfloat16 is worth it on such a device; where not, the log says so, once.

    A CPU without its instructions takes many times as long with it.
    """
    if device_type != "cpu" or has_products(torch.bfloat16):
        return True
    logger.warning("this CPU has no bfloat16 instructions: computing in float32")
    return False


def has_products(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies matrices of this dtype, float32 or bfloat16, as such, for all torch knows.

    A build without oneDNN (macOS) knows nothing of it.
    """
    if dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def peak_gb(device: torch.device) -> float:
    """The most memory held so far, in GB: on an accelerator by tensors, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":
        return 0.0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
