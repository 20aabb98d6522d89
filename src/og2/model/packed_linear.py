"""A linear layer for inference on a CPU, its weight laid out for products with any number of tokens.

With AVX-512 that is oneDNN's own layout, found once instead of in every product: over twice as fast as
`torch.mm`. With AVX2 alone `torch.mm` is the faster one, and likes its second matrix as (inputs, outputs).
A CPU without bfloat16 instructions multiplies bfloat16 matrices many times slower than float32 ones; there
bfloat16 weights are widened for each product, so that they take no more memory.
The plain weight comes back bit by bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from og2.device import has_products


def prepacks(dtype: torch.dtype) -> bool:
    """Whether oneDNN is this CPU's faster library for this dtype."""
    if dtype == torch.bfloat16:
        return has_products(dtype)
    return torch.backends.cpu.get_cpu_capability() != "AVX2"


class PackedLinear(nn.Module):
    """Stands in for a linear layer; saves under the same names."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self._is_packed = prepacks(weight.dtype)
        if self._is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        else:
            self._weight = weight.detach().T.contiguous()
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor, then_silu: bool = False) -> Tensor:
        """x @ weight.T + bias, or silu of it, taken before the result is rounded; without gradients."""
        if self._is_packed:
            then = "swish" if then_silu else "none"
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, then, [], "")
        y = x.float() @ self._weight.float()
        if self._bias is not None:
            y += self._bias
        return (functional.silu(y, inplace=True) if then_silu else y).to(x.dtype)

    @property
    def weight(self) -> Tensor:
        """The plain weight, laid out anew at every call."""
        return self._weight.to_dense() if self._is_packed else self._weight.T.contiguous()

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
    if len(x_kMI) > 1 or not prepacks(x_kMI.dtype):
        return torch.bmm(x_kMI, weight_kOI.mT)
    return torch.ops.mkldnn._linear_pointwise(x_kMI, weight_kOI[0], None, "none", [], "")
