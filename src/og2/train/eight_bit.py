"""AdamW whose two moments are kept in 8 bits: 2 bytes of state per weight instead of 8.

Every row of a weight matrix (everything behind its first axis) is cut into blocks of up to 256 values; a
block keeps its largest size in float32, and each value the nearest of 256 levels up to that, closer together
near zero. Blocks never cross rows and FSDP2 shards whole rows, so the numbers do not depend
on the number of processes, and the state is saved as it is. Small tensors (norms, biases) stay in float32.
The arithmetic is float32. No package and no compiler is needed.

Source: block-wise dynamic quantization (arXiv 2110.02861).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import functional

from og2.train.distributed import local

BLOCK = 256
SMALLEST = 4096
"""Tensors with fewer values keep their moments in float32."""
DECADES = 7


def dynamic_levels(signed: bool) -> Tensor:
    """256 rising levels in (-1, 1], or in (0, 1]; each decade below 1 has half as many as the one above it.

    Without a sign there is no zero: a second moment that rounds to nothing would make a step without bounds.
    """
    bits = DECADES - 1 if signed else DECADES
    inner: list[float] = []
    for decade in range(bits + 1):
        edges = torch.linspace(0.1, 1.0, 2**decade + 1, dtype=torch.float64)
        inner += ((edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - bits)).tolist()
    levels = [*inner, 1.0, *((0.0, *(-level for level in inner)) if signed else ())]
    return torch.tensor(sorted(levels), dtype=torch.float32)


class AdamW8bit(torch.optim.Optimizer):
    """AdamW with moments in 8 bits; parameters may be sharded by rows (FSDP2).

    State per parameter: `step`, and for each moment its codes (uint8, the parameter's shape) and scales
    (float32, rows x blocks), or the moment itself where the parameter is small.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._levels: dict[tuple[torch.device, bool], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update of all parameters that have a gradient; what `closure` gives, if there is one."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(self._fresh(parameter))
        state["step"] += 1
        number = float(state["step"])
        beta1, beta2 = group["betas"]
        weights, gradient = local(parameter), local(parameter.grad).float()
        mean = self._read(state, "exp_avg", signed=True).lerp_(gradient, 1 - beta1)
        square = self._read(state, "exp_avg_sq", signed=False)
        square = square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = (square / (1 - beta2**number)).sqrt_().add_(group["eps"])
        weights.mul_(1 - group["lr"] * group["weight_decay"])
        weights.addcdiv_(mean, spread, value=-group["lr"] / (1 - beta1**number))
        self._write(state, "exp_avg", mean, signed=True)
        self._write(state, "exp_avg_sq", square, signed=False)

    def _fresh(self, parameter: Tensor) -> dict[str, Tensor]:
        state = {"step": torch.zeros(())}  # on the CPU: read without waiting for the device
        rows, shape = len(local(parameter)), parameter.shape
        for name, signed in (("exp_avg", True), ("exp_avg_sq", False)):
            if parameter.numel() < SMALLEST or parameter.ndim < 2:
                state[name] = torch.zeros_like(parameter, dtype=torch.float32)
                continue
            zero = self._table(parameter.device, signed)[0].abs().argmin()
            codes = zero.to(torch.uint8).expand(rows, *shape[1:]).clone()
            scales = torch.zeros(rows, -(-shape[1:].numel() // BLOCK), device=parameter.device)
            state[f"{name}_codes"] = _placed(codes, parameter)
            state[f"{name}_scales"] = _placed(scales, parameter)
        return state

    def _read(self, state: dict[str, Tensor], name: str, signed: bool) -> Tensor:
        if name in state:
            return local(state[name])
        codes, scales = local(state[f"{name}_codes"]), local(state[f"{name}_scales"])
        width = codes.shape[1:].numel()
        values = self._table(codes.device, signed)[0][codes.int()].view(len(codes), width)
        return values.mul_(_per_value(scales, width)).view(codes.shape)

    def _write(self, state: dict[str, Tensor], name: str, values: Tensor, signed: bool) -> None:
        if name in state:
            return  # updated in place
        codes, scales = local(state[f"{name}_codes"]), local(state[f"{name}_scales"])
        width = codes.shape[1:].numel()
        rows = values.view(len(codes), width)
        missing = scales.shape[1] * BLOCK - width
        blocks = functional.pad(rows, (0, missing)).view(*scales.shape, BLOCK)
        scales.copy_(blocks.abs().amax(-1))
        shares = rows / _per_value(scales, width).clamp_min(torch.finfo(torch.float32).tiny)
        middles = self._table(codes.device, signed)[1]
        codes.copy_(torch.bucketize(shares, middles, out_int32=True).view(codes.shape))

    def _table(self, device: torch.device, signed: bool) -> tuple[Tensor, Tensor]:
        """The levels, and the bounds halfway between neighbours."""
        key = (device, signed)
        if key not in self._levels:
            levels = dynamic_levels(signed).to(device)
            self._levels[key] = (levels, (levels[1:] + levels[:-1]) / 2)
        return self._levels[key]


def _per_value(scales: Tensor, width: int) -> Tensor:
    """Each block's scale once per value of its row: (rows, blocks) -> (rows, width)."""
    return scales.repeat_interleave(BLOCK, dim=1)[:, :width]


def _placed(rows: Tensor, like: Tensor) -> Tensor:
    """This rank's rows of a tensor that is sharded as `like` is; the rows themselves where it is not."""
    if not isinstance(like, DTensor):
        return rows
    shape = torch.Size((like.shape[0], *rows.shape[1:]))
    return DTensor.from_local(
        rows,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=shape,
        stride=torch.empty(shape, device="meta").stride(),
    )
