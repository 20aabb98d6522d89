"""Muon for the matrices of repeated blocks and AdamW for everything else, as one optimizer.

Muon takes the momentum of a matrix's gradient to the nearest orthogonal matrix, so that every direction of
the matrix moves by the same amount; embeddings, the first and last projection, convolutions and vectors stay
with AdamW. The update of a matrix is scaled to the size AdamW's has, so one rate and one decay serve both.
Both are PyTorch's own.

Source: Muon (kellerjordan.github.io/posts/muon), its scale as in "Muon is Scalable for LLM Training"
(arXiv 2502.16982, section 2.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer of two: parameter groups with `muon: True` are Muon's, the others AdamW's.

    State per parameter: `momentum_buffer` (Muon); `step`, `exp_avg` and `exp_avg_sq` (AdamW).
    """

    def __init__(
        self, groups: list[Group], lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "muon": False})
        matrices = [group for group in self.param_groups if group["muon"]]
        others = [group for group in self.param_groups if not group["muon"]]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=True))
        self.param_groups = [group for part in self._parts for group in part.param_groups]
        for part in self._parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update of all parameters that have a gradient; what `closure` gives, if there is one."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss


def is_muons(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix inside a numbered block (`layers.3.attn.to_q.weight`)."""
    return parameter.ndim == 2 and re.search(r"(^|\.)\d+\..*weight$", name) is not None
