"""Optimizer, learning-rate schedule and weight average of a run.

The schedule is warm-up, constant, then a decay to zero over the last part of the steps: a run can be
lengthened or cut while it is still in the constant part without changing what was done before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from og2.errors import ConfigError
from og2.train.distributed import local, whole
from og2.train.eight_bit import AdamW8bit
from og2.train.muon import MuonAdamW, is_muons


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and schedule.   Units: steps; `decay` is the share of them over which lr falls to zero.

    steps: optimizer steps of the run; a recipe with stages leaves it out. optimizer: adamw8bit keeps the two
    moments in 8 bits (og2.train.eight_bit), muon moves the matrices of blocks (og2.train.muon). clip: largest
    norm of the gradient, .inf for none. ema: what stays of the average of weights at an update, 0 for none.
    """

    lr: float
    steps: int = 0
    warmup: int = 100
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"

    def __post_init__(self) -> None:
        rules = {
            "lr": (self.lr >= 0, "0 or more"),
            "steps": (self.steps >= 0, "0 or more"),
            "warmup": (self.warmup >= 0, "0 or more"),
            "decay": (0 <= self.decay <= 1, "from 0 to 1"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "two numbers from 0, below 1"),
            "eps": (self.eps > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "clip": (self.clip > 0, "above 0; .inf does not clip"),
            "ema": (0 <= self.ema < 1, "from 0, below 1"),
        }
        for name, (holds, allowed) in rules.items():
            if not holds:
                raise ConfigError(f"optim.{name}={getattr(self, name)}; use {allowed}")


def learning_rate(config: OptimConfig, step: int) -> float:
    """The rate of the update with 0-based index `step`."""
    rate = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "constant":
        return rate
    start = config.steps * (1.0 - config.decay)
    progress = min(1.0, max(0.0, (step - start) / max(1.0, config.steps - start)))
    if config.schedule == "linear":
        return rate * (1.0 - progress)
    return rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig
) -> torch.optim.Optimizer:
    """AdamW as `config` says; vectors (norms, biases) are not decayed."""
    trained = [(name, p) for name, p in named_parameters if p.requires_grad]
    groups = [
        {"params": [p for _, p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for _, p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "muon":
        matrices = {id(p) for name, p in trained if is_muons(name, p)}
        rest = [
            {**group, "params": [p for p in group["params"] if id(p) not in matrices]} for group in groups
        ]
        taken = [p for _, p in trained if id(p) in matrices]
        groups = [{"params": taken, "weight_decay": config.weight_decay, "muon": True}, *rest]
        groups = [group for group in groups if group["params"]]
        return MuonAdamW(groups, config.lr, config.betas, config.eps, config.weight_decay)
    if config.optimizer == "adamw8bit":
        return AdamW8bit(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class WeightAverage:
    """Exponential moving average of parameters in float32.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten.
    With decay 0 nothing is kept: the average is the parameters themselves.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self._parameters = dict(named_parameters)
        kept = self._parameters if decay else {}
        self.tensors: dict[str, Tensor] = {n: p.detach().float().clone() for n, p in kept.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average toward the current parameters."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        if not self.tensors:
            return
        average = [local(tensor) for tensor in self.tensors.values()]
        current = [local(p.detach()).float() for p in self._parameters.values()]
        torch._foreach_lerp_(average, current, 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the model's parameters; a second call exchanges them back."""
        for name, average in self.tensors.items():
            parameter = local(self._parameters[name])
            kept = parameter.clone()
            parameter.copy_(local(average))
            local(average).copy_(kept)

    def gathered(self) -> dict[str, Tensor]:
        """The whole average by name, on the CPU; every rank must ask for it."""
        return {name: whole(self.tensors.get(name, p)) for name, p in self._parameters.items()}
