"""The time grid: t = 0 is noise, t = 1 is the picture, everywhere.

One shift, shared by sampling and training: t -> t / (m - m t + t). It moves time toward the noise
end for large pictures (m > 1) and toward the picture for small ones (m < 1). The factor 1000 of
the time embedding is not here; it lives inside the network.

Importing this module does not load torch: a plan can be printed without it.
"""

from __future__ import annotations

import itertools
import math
from array import array
from typing import TYPE_CHECKING, TypeVar

from og2.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

T = TypeVar("T", float, "Tensor")


def shift_factor(num_tokens: int, base_px: int = 320) -> float:
    """Strength m of the time shift for a latent of `num_tokens` = latent height x latent width.

    1 for a square picture of `base_px`; with 320, 3.2 at 1024 x 1024 px.
    Source: official implementation; it counts latent pixels, not patches, and no references.
    """
    return math.sqrt(num_tokens) / (base_px / 8)


def shift(t: T, m: float) -> T:
    """Time t in [0, 1] moved toward the noise end by the factor m: t / (m - m t + t).

    Works on floats and on tensors of any shape; 0 and 1 stay where they are.
    Source: resolution-dependent shift of SD3 (arXiv 2403.03206), written for t = 1 - sigma.
    """
    return t / (m - m * t + t)


def time_steps(
    num_steps: int, num_tokens: int | None, dynamic: bool = True, factor: float | None = None
) -> tuple[float, ...]:
    """Times of a run with `num_steps` steps: num_steps + 1 numbers from 0 to 1, exact in float32.

    `num_tokens` are latent pixels; None, or dynamic=False, leaves the grid even. `factor` sets the
    shift m by hand, whatever the size.
    """
    if num_steps < 1:
        raise RequestError(f"num_inference_steps={num_steps} is not positive; use 1 or more")
    even = array("f", (i / num_steps for i in range(num_steps)))
    m = factor if factor is not None else _dynamic_factor(num_tokens, dynamic)
    moved = even if m is None else array("f", (shift(t, m) for t in even))
    return (*moved, 1.0)


def time_grid(
    num_steps: int, num_tokens: int | None, dynamic: bool = True, factor: float | None = None
) -> Tensor:
    """The same times as `time_steps`, as a float32 tensor of shape (num_steps + 1,)."""
    import torch

    return torch.tensor(time_steps(num_steps, num_tokens, dynamic, factor), dtype=torch.float32)


def custom_steps(timesteps: Sequence[float]) -> tuple[float, ...]:
    """Times given by hand, exact in float32, with the end 1.0 appended; they are not shifted.

    Raises: RequestError unless they rise strictly, start at 0 or later, and stay below 1.
    """
    times = tuple(array("f", (float(t) for t in timesteps)))
    rising = all(a < b for a, b in itertools.pairwise(times))
    if not times or not rising or not 0.0 <= times[0] <= times[-1] < 1.0:
        raise RequestError(
            f"timesteps={list(timesteps)} do not rise strictly within [0, 1); "
            "0 is noise, and the end 1.0 is added by itself"
        )
    return (*times, 1.0)


def _dynamic_factor(num_tokens: int | None, dynamic: bool) -> float | None:
    return shift_factor(num_tokens) if dynamic and num_tokens is not None else None
