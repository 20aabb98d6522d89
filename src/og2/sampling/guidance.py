"""Guidance: which branches a step needs, and how their velocities are joined.

Branches of one picture: "cond" (the prompt with the references), "ref" (the negative prompt with
the references), "uncond" (the negative prompt alone). Source: official implementation; the two
scales are those of InstructPix2Pix (arXiv 2211.09800, section 3.2.1), in another order.

Importing this module does not load torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from og2.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

Branch = Literal["cond", "ref", "uncond"]
MAX_SCALE = 100.0


@dataclass(frozen=True)
class Guidance:
    """How strongly text and references steer, and in which part of the run.

    `text` and `image` are scales (1 or less: off). `start` and `end` bound the steps i of N that are
    guided, by start <= i / N <= end, both ends included.
    Raises: RequestError for a scale or a range that makes no sense.
    """

    text: float = 4.0
    image: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("text_guidance_scale", self.text)
        _check_scale("image_guidance_scale", self.image)
        ends = (self.start, self.end)
        if not all(_is_number(end) for end in ends) or not 0.0 <= self.start <= self.end <= 1.0:
            raise RequestError(
                f"cfg_range=({self.start}, {self.end}) is not a range within [0, 1]; "
                "give a start and an end with 0 <= start <= end <= 1"
            )

    @property
    def cfg_range(self) -> tuple[float, float]:
        """(start, end), under the official name."""
        return (self.start, self.end)

    def is_active(self, step: int, num_steps: int) -> bool:
        """Whether step `step` of `num_steps` (counted from 0) is guided: by the share of steps, not by t."""
        return self.start <= step / num_steps <= self.end


def branches(guidance: Guidance, step: int, num_steps: int, has_references: bool) -> tuple[Branch, ...]:
    """The branches that one picture needs at one step, in the order they are computed.

    Without references "ref" and "uncond" are the same branch, and it is computed once.
    """
    if guidance.text <= 1.0 or not guidance.is_active(step, num_steps):
        return ("cond",)
    if guidance.image <= 1.0 or not has_references:
        return ("cond", "uncond")
    return ("cond", "ref", "uncond")


def all_branches(guidance: Guidance, num_steps: int, has_references: bool) -> tuple[Branch, ...]:
    """Every branch that one picture needs at some step of its run."""
    needed = [branches(guidance, step, num_steps, has_references) for step in range(num_steps)]
    return max(needed, key=len)


def combine(velocities: Mapping[Branch, Tensor], guidance: Guidance) -> Tensor:
    """The guided velocity of one picture, from the velocities of its branches.

    Shapes: every velocity (C, h, w) -> the same, in the dtype of the inputs.
    cond alone: v_c; with uncond: v_u + s_t (v_c - v_u); with ref too:
    v_u + s_i (v_r - v_u) + s_t (v_c - v_r).
    """
    v_c = velocities["cond"]
    if "uncond" not in velocities:
        return v_c
    v_u = velocities["uncond"]
    if "ref" not in velocities:
        return v_u + guidance.text * (v_c - v_u)
    v_r = velocities["ref"]
    return v_u + guidance.image * (v_r - v_u) + guidance.text * (v_c - v_r)


def _check_scale(name: str, value: float) -> None:
    if not _is_number(value) or not 0.0 <= value <= MAX_SCALE:
        raise RequestError(
            f"{name}={value} is out of range; use 1 (off) to about 10, at most {MAX_SCALE:g}, never negative"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
