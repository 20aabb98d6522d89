"""Several processes training one model: each has its own share of a step's samples, gradients are averaged.

Started by `torchrun --nproc-per-node N -m og2.train.run RECIPE`. Every rank holds the whole model and the
same optimizer state; the random numbers of a step depend on the rank, so a rank's samples are its own. One
process per core beats threads on a busy CPU: ranks wait for each other once a step, threads at every
operation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import distributed, nn


def start() -> None:
    """Join the process group when torchrun started this process; else nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the process group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, 0 when it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that evaluates and saves."""
    return rank() == 0


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over all ranks; a parameter without one counts as zero."""
    if not distributed.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
