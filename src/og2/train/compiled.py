"""Blocks whose token-wise halves are compiled; attention stays as it is, and so does the context refiner.

A block is what it does before attention, attention, and what it does after. The halves know nothing of which
tokens belong together, so that what was compiled for one pack serves every other, whatever its number of
samples and their lengths; and all blocks share it but the last. The first steps compile.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any, cast

import torch
from torch import nn

from og2.errors import ConfigError
from og2.model.blocks import OmniGen2TransformerBlock

MOST_VARIANTS = 32
"""Of one half: the last block or another, one time or many, training and validation."""
COMPILERS = ("g++", "clang++", "c++")


def compile_blocks(transformer: nn.Module, device: torch.device) -> None:
    """Compile both halves of every block that knows the time, in place; parameters and their names stay.

    Raises: ConfigError when there is no compiler for this device.
    """
    _check_compiler(device)
    limits = cast(Any, torch)._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MOST_VARIANTS)
    for block in transformer.modules():
        if isinstance(block, OmniGen2TransformerBlock) and block.modulated:
            for half in ("before", "after"):
                setattr(block, half, torch.compile(getattr(block, half), dynamic=True))


def _check_compiler(device: torch.device) -> None:
    named = os.environ.get("CXX", "").split()
    if device.type == "cpu" and not any(map(shutil.which, (*named[:1], *COMPILERS))):
        raise ConfigError(
            "compute.compile=true needs a C++ compiler on a CPU, and none was found; install g++ or clang, "
            "set CXX, or leave compile out"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError(
            "compute.compile=true needs the package triton on a GPU; pip install triton, or leave compile out"
        )
