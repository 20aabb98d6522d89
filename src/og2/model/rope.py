"""Omni-RoPE: position ids of text, reference and target tokens, and the rotation they stand for.

Every token has an id of three integers, one per rotary axis. Text token i has (i, i, i). All tokens of one
picture share their first number, which starts at the length of the text and grows from picture to picture by
the longer side of the one before; the other two are row and column, counted from 0 in every picture.

Angles are computed from the ids, so no table limits the length of a prompt or the size of a picture.

Legend: S tokens, H heads, E head dim, P = E/2 rotated pairs.
Source: OmniGen2 (arXiv 2506.18871), Omni-RoPE; text ids as in the official implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

THETA = 10000.0
PositionIds: TypeAlias = "Callable[[int, list[tuple[int, int]], tuple[int, int]], list[Tensor]]"
"""From a text's length and the grids of references and target to the ids of each part, as `sequence_ids`.

Those of a text are `text_ids`; a picture's differ from place to place by a constant only (refiners share it).
"""


@dataclass(frozen=True)
class Rotary:
    """Cosine and sine of every token's angles, each (S, P); their dtype is the precision of the rotation."""

    cos: Tensor
    sin: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which queries and keys are rotated."""
        return self.cos.dtype

    def take(self, tokens: Tensor) -> Rotary:
        """The tables of some tokens, given by their positions."""
        return Rotary(self.cos.index_select(0, tokens), self.sin.index_select(0, tokens))

    def rows(self, rows: slice) -> Rotary:
        """The tables of a run of tokens."""
        return Rotary(self.cos[rows], self.sin[rows])


def text_ids(length: int) -> Tensor:
    """Ids (length, 3) of text tokens: (i, i, i)."""
    return torch.arange(length)[:, None].expand(length, 3)


def image_ids(offset: int, grid_hw: tuple[int, int]) -> Tensor:
    """Ids (h * w, 3) of one picture's tokens, row by row: (offset, row, column).

    Units: grid_hw in tokens (latent size / patch size).
    """
    height, width = grid_hw
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    return torch.stack((torch.full_like(rows, offset), rows, columns), dim=1)


def image_offsets(text_length: int, reference_grids: list[tuple[int, int]]) -> list[int]:
    """First id of every reference and, last, of the target.

    Units: grids in tokens. Each picture moves the next one by its longer side.
    """
    offsets = [text_length]
    for height, width in reference_grids:
        offsets.append(offsets[-1] + max(height, width))
    return offsets


def sequence_ids(
    text_length: int, reference_grids: list[tuple[int, int]], target_grid: tuple[int, int]
) -> list[Tensor]:
    """Ids of one sequence, part by part: text, each reference, target; each (tokens, 3)."""
    offsets = image_offsets(text_length, reference_grids)
    grids = [*reference_grids, target_grid]
    return [text_ids(text_length), *(image_ids(o, grid) for o, grid in zip(offsets, grids, strict=True))]


def rotary_table(
    ids_S3: Tensor, axes_dim: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> Rotary:
    """Rotary tables of tokens with these ids.

    Shapes: ids (S, 3) -> cos, sin (S, sum(axes_dim) / 2), the three axes one after another.
    Angles are computed in float64 and the tables rounded once to `dtype`.
    """
    angles = []
    for axis, dim in enumerate(axes_dim):
        exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=ids_S3.device) / dim
        angles.append(ids_S3[:, axis, None].double() * (1.0 / THETA**exponents))
    angles_SP = torch.cat(angles, dim=1)
    return Rotary(angles_SP.cos().to(dtype), angles_SP.sin().to(dtype))


def rotate(x_SHE: Tensor, rotary: Rotary) -> Tensor:
    """Queries or keys turned by their tokens' angles; channels 2j and 2j + 1 form pair j.

    Shapes: (S, H, E) -> same. The arithmetic is done in the tables' dtype, the result has the dtype of x.
    """
    pairs = x_SHE.to(rotary.dtype).unflatten(-1, (-1, 2))
    even_SHP, odd_SHP = pairs.unbind(-1)
    cos_S1P, sin_S1P = rotary.cos[:, None], rotary.sin[:, None]
    turned = torch.stack(
        (even_SHP * cos_S1P - odd_SHP * sin_S1P, even_SHP * sin_S1P + odd_SHP * cos_S1P), dim=-1
    )
    return turned.flatten(-2).to(x_SHE.dtype)
