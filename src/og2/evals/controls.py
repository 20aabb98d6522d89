"""Pictures whose scores are known beforehand, run through the same scoring as the model's.

Ground truth must score near the top and, through the model's own VAE, is what no model with that VAE can
beat; copies of what went in, blank pictures, noise and the right picture of another item must score low.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from og2.evals.outcomes import Item

Picture = NDArray[np.uint8]
_BATCH_PIXELS = 2**17  # of a round trip: 32 pictures of 64 px, 8 of 128 px
CONTROLS: dict[str, tuple[str, ...]] = {
    "t2i": ("ground truth", "VAE round trip", "shuffled", "blank", "noise"),
    "edit": ("ground truth", "VAE round trip", "copy source", "shuffled", "blank", "noise"),
    "incontext": ("ground truth", "VAE round trip", "copy reference", "shuffled", "blank", "noise"),
}


def control_pictures(
    name: str, items: Sequence[Item], inputs: Sequence[Sequence[Picture]], truths: Sequence[Picture], vae: Any
) -> list[Picture]:
    """What the control of that name hands in, one picture an item."""
    if name == "ground truth":
        return list(truths)
    if name == "VAE round trip":
        return through_vae(vae, truths)
    if name == "shuffled":
        return shuffled(items, truths)
    if name in ("copy source", "copy reference"):
        return [pictures[0] for pictures in inputs]
    if name == "blank":
        return [np.full_like(picture, 200) for picture in truths]
    return [
        np.random.default_rng([item.seed, 99]).integers(0, 256, picture.shape, dtype=np.uint8)
        for item, picture in zip(items, truths, strict=True)
    ]


def shuffled(items: Sequence[Item], truths: Sequence[Picture]) -> list[Picture]:
    """For each item the right picture of the next item, of its family if possible, that asks for something
    else; its own if none does."""
    done = []
    for i, item in enumerate(items):
        order = [(i + step) % len(items) for step in range(1, len(items))]
        order.sort(key=lambda j, family=item.family: items[j].family != family)
        other = next((j for j in order if items[j].rule != item.rule), i)
        done.append(truths[other])
    return done


@torch.no_grad()
def through_vae(vae: Any, pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures encoded to the posterior's mean and decoded again: what no model with this VAE can beat."""
    weights = next(vae.parameters())
    done: list[Picture] = []
    for batch in _batches(pictures):
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).to(weights.device, weights.dtype)
        decoded = vae.decode(vae.encode(pixels / 127.5 - 1).latent_dist.mode(), return_dict=False)[0]
        shown = ((decoded.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        done += list(shown.permute(0, 2, 3, 1).cpu().numpy())
    return done


def _batches(pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
    """The pictures in order, neighbours of one size together as far as a batch's pixels allow."""
    batch: list[Picture] = []
    for picture in pictures:
        full = batch and (len(batch) + 1) * picture.shape[0] * picture.shape[1] > _BATCH_PIXELS
        if full or (batch and batch[0].shape != picture.shape):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch
