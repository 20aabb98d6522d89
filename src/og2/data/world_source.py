"""The mini-world as a source of training pictures, drawn on the fly.

Item i of a source is a pure function of (seed, i): no state, so a resumed run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from og2.world.render import render_batch
from og2.world.scenes import Scene, sample_scene


def item_rng(seed: int, index: int) -> Generator:
    """The random numbers of item `index`."""
    return np.random.default_rng((seed, index))


def scenes(
    seed: int, first: int, count: int, num_objects: Sequence[float] = (0.5, 0.3, 0.2), empty: float = 0.0
) -> list[Scene]:
    """Training scenes `first` to `first + count - 1`.

    num_objects: shares of scenes with 1, 2, 3 objects. empty: share of scenes whose objects are taken away
    (what is left after an edit removed the only one).
    """
    result = []
    for index in range(first, first + count):
        rng = item_rng(seed, index)
        number = 1 + int(rng.choice(len(num_objects), p=num_objects))
        scene = sample_scene(rng, num_objects=number, split="train")
        is_empty = empty > 0 and rng.random() < empty
        result.append(replace(scene, objects=()) if is_empty else scene)
    return result


def pictures(batch: Sequence[Scene], size: int) -> Tensor:
    """Rendered scenes as model input: float (B, 3, size, size) in [-1, 1]."""
    return to_model(render_batch(list(batch), size))


def to_model(pixels: Tensor) -> Tensor:
    """uint8 pictures (B, H, W, 3) as float (B, 3, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div(127.5).sub(1.0).contiguous()
