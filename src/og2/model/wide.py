"""bfloat16 networks on a CPU without its instructions: layers compute in float32, weights stay as they are.

Such a CPU multiplies bfloat16 matrices about seven times slower than float32 ones and convolves hundreds of
times slower. Widening a weight for one product costs little where the product has many rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from og2.device import has_products

MIN_ROWS = 8
"""With fewer rows (an answer is written token by token) widening the weight costs more than it saves."""


def widen(network: nn.Module) -> nn.Module:
    """Lets bfloat16 linear layers and convolutions compute in float32 where this CPU is slow; in place.

    Results are rounded to bfloat16 as before; names, weights and memory stay the same. On another device, and
    in another dtype, the layers do what they did.
    """
    if has_products(torch.bfloat16):
        return network
    for module in network.modules():
        if type(module) in _WIDE:
            module.__class__ = _WIDE[type(module)]
    return network


def _is_slow(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x.device.type == "cpu"


class WideLinear(nn.Linear):
    """A linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        """As of the plain layer."""
        if not _is_slow(input) or input.numel() < MIN_ROWS * self.in_features:
            return super().forward(input)
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(input.float(), self.weight.float(), bias).to(input.dtype)


class _WideConvolution(nn.modules.conv._ConvNd):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _is_slow(input):
            return super()._conv_forward(input, weight, bias)
        bias = None if bias is None else bias.float()
        return super()._conv_forward(input.float(), weight.float(), bias).to(input.dtype)


class WideConv2d(_WideConvolution, nn.Conv2d):
    """A convolution of pictures."""


class WideConv3d(_WideConvolution, nn.Conv3d):
    """A convolution of pictures in time."""


_WIDE = {nn.Linear: WideLinear, nn.Conv2d: WideConv2d, nn.Conv3d: WideConv3d}
