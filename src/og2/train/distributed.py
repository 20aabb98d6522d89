"""Several processes training one model: how they start, what they tell each other, how gradients meet.

Started by `torchrun --nproc-per-node N -m og2 train RECIPE`. Three ways for gradients to meet: `gradients`
(averaged once a step; for modules that are not called through `forward`), `ddp` (PyTorch's
DistributedDataParallel) and `fsdp` (FSDP2: parameters, gradients and optimizer state are sharded).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from og2.errors import ConfigError

Strategy = Literal["gradients", "ddp", "fsdp"]
PATIENCE = timedelta(hours=4)
"""How long ranks wait for one that evaluates."""


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the process group when torchrun started this process, and leaves it at the end; else nothing."""
    if world_size_asked() > 1 and not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def world_size_asked() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, 0 when it is alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that evaluates and reports."""
    return rank() == 0


def summed(values: Sequence[float]) -> list[float]:
    """Each number summed over all ranks, on the CPU in float64."""
    if not distributed.is_initialized():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(tensor)
    return tensor.tolist()


def largest(value: int) -> int:
    """The largest of all ranks' numbers."""
    if not distributed.is_initialized():
        return value
    tensor = torch.tensor(value)
    distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return int(tensor)


def gathered(value: Any) -> list[Any]:
    """Every rank's value, in order of ranks; values are what JSON can hold."""
    if not distributed.is_initialized():
        return [value]
    mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(world_size())]
    distributed.all_gather(sizes, torch.tensor([len(mine)]))
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: len(mine)] = mine
    all_of_them = [torch.zeros_like(padded) for _ in sizes]
    distributed.all_gather(all_of_them, padded)
    return [
        json.loads(bytes(data[: int(size)].tolist())) for data, size in zip(all_of_them, sizes, strict=True)
    ]


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing memory; the tensor itself where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on the CPU; every rank must ask for it where it is sharded."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


class Parallel:
    """A module and how its gradients meet; `call` is what a step must call so that they do.

    With `fsdp`, `blocks` are sharded one by one and the rest together; the module is changed in place.
    `half` gathers sharded weights in bfloat16. With one process `fsdp` and `ddp` are plain calls.
    """

    def __init__(
        self,
        module: nn.Module,
        strategy: Strategy = "gradients",
        blocks: Sequence[nn.Module] = (),
        half: bool = False,
    ) -> None:
        self.module, self.strategy = module, strategy
        self.call: nn.Module = module
        self._flat: Tensor | None = None
        if world_size() == 1:
            return
        device = next(module.parameters()).device
        if strategy == "ddp":
            self.call = DistributedDataParallel(module, broadcast_buffers=False)
        if strategy == "fsdp":
            if any(not parameter.requires_grad for parameter in module.parameters()):
                raise ConfigError("strategy fsdp trains all weights; train adapters with strategy ddp")
            policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16 if half else None,
                reduce_dtype=torch.float32 if half else None,
                cast_forward_inputs=False,
            )
            mesh = init_device_mesh(device.type, (world_size(),))
            for part in (*blocks, module):
                fully_shard(part, mesh=mesh, mp_policy=policy)

    @property
    def is_sharded(self) -> bool:
        """Whether each rank holds a part of the weights only."""
        return self.strategy == "fsdp" and world_size() > 1

    def leave(self) -> None:
        """Lets go of what holds the process group, which may be left afterwards.

        DDP's reducer would otherwise be the last to hold it, and wait for the group's threads with the
        interpreter's lock that these may need to end.
        """
        self.call = self.module

    @contextmanager
    def part(self, is_last: bool) -> Iterator[None]:
        """Around the forward and backward of one part: gradients meet in the last one."""
        with contextlib.ExitStack() as stack:
            if isinstance(self.call, FSDPModule):
                self.call.set_requires_gradient_sync(is_last)
            if isinstance(self.call, DistributedDataParallel) and not is_last:
                stack.enter_context(self.call.no_sync())
            yield

    def finish(self, parameters: Sequence[nn.Parameter]) -> None:
        """After the last backward: every gradient is the mean over all ranks.

        A parameter that no sample of the step reached has a gradient of zero, whatever the number of ranks:
        its averages move and it decays as with the others.
        """
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.strategy == "gradients" and distributed.is_initialized():
            self._average([parameter.grad for parameter in parameters if parameter.grad is not None])

    def _average(self, gradients: Sequence[Tensor]) -> None:
        """Replace every gradient by its mean over all ranks."""
        if self._flat is None:  # kept: memory of this size would be emptied page by page at every step
            self._flat = gradients[0].new_empty(sum(map(Tensor.numel, gradients)))
        torch.cat([gradient.flatten() for gradient in gradients], out=self._flat)
        distributed.all_reduce(self._flat)
        parts = self._flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            torch.div(part.view_as(gradient), world_size(), out=gradient)
