"""Which arithmetic a training computes in: bfloat16 where the device has it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

from og2.model.packed_linear import has_products

logger = logging.getLogger(__name__)


def half_precision(device: str = "cpu") -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where `computes_half` says so, else float32."""
    return torch.autocast(device, torch.bfloat16) if computes_half(device) else nullcontext()


@cache
def computes_half(device: str) -> bool:
    """Whether bfloat16 is worth it on this type of device; where not, the log says so, once.

    A CPU without its instructions takes ten times as long for products and a hundred times for convolutions.
    """
    if device != "cpu" or has_products(torch.bfloat16):
        return True
    logger.warning("this CPU has no bfloat16 instructions: computing in float32")
    return False
