"""A linear layer for inference on a CPU, its weight kept in the matrix library's own layout.

That layout is found once, instead of in every product, and serves any number of tokens. The plain weight
comes back bit by bit.

A CPU without bfloat16 instructions (before AVX-512) multiplies bfloat16 matrices many times slower than
float32 ones. There the weight stays as it is, so it takes no more memory, and is widened for each product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def has_products(dtype: torch.dtype) -> bool:
    """Whether this CPU's matrix library multiplies matrices of this dtype as fast as it should."""
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """Stands in for a linear layer; saves under the same names."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self._packed = weight.detach().contiguous()
        self._widens = not has_products(weight.dtype)
        if not self._widens:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._packed, None)
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor, then_silu: bool = False) -> Tensor:
        """x @ weight.T + bias, or silu of it, taken before the result is rounded; without gradients."""
        if self._widens:
            bias = None if self._bias is None else self._bias.float()
            y = functional.linear(x.float(), self._packed.float(), bias)
            return (functional.silu(y, inplace=True) if then_silu else y).to(x.dtype)
        then = "swish" if then_silu else "none"
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, then, [], "")

    @property
    def weight(self) -> Tensor:
        """The plain weight, repacked at every call."""
        return self._packed.to_dense()

    def plain(self) -> nn.Linear:
        """The linear layer this one was made from."""
        weight = self.weight
        with torch.device("meta"):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=self._bias is not None)
        linear.weight = nn.Parameter(weight)
        if self._bias is not None:
            linear.bias = nn.Parameter(self._bias)
        return linear

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:  # noqa: ARG002
        destination[prefix + "weight"] = self.weight
        if self._bias is not None:
            destination[prefix + "bias"] = self._bias


def batch_product(x_kMI: Tensor, weight_kOI: Tensor) -> Tensor:
    """x @ weight.T of each of k pairs, (k, M, O), by the same library; for weights that are used once."""
    if len(x_kMI) > 1:
        return torch.bmm(x_kMI, weight_kOI.mT)
    return torch.ops.mkldnn._linear_pointwise(x_kMI, weight_kOI[0], None, "none", [], "")
