"""A transformer with other patches from one that is trained: what it knows need not be learned again.

Coarse patches make training cheap where pictures are small, at a quarter of the tokens; what they blur inside
a patch, the finer model learns from there on. Where latents are of another VAE, all but their way in and out
may still be taken over: words, layouts and outlines are in the body.
"""

from __future__ import annotations

import torch

from og2.errors import ConfigError
from og2.model.transformer import OmniGen2Transformer2DModel

READING, WRITING = ("x_embedder", "ref_image_patch_embedder"), "norm_out.linear_2"
"""The layers that read latents, and the one that writes them."""


@torch.no_grad()
def repatched(coarse: OmniGen2Transformer2DModel, patch_size: int) -> OmniGen2Transformer2DModel:
    """A copy of `coarse` that cuts latents into patches of `patch_size`, which divides the old size.

    A patch is embedded as the coarse patch that repeats it, its velocity is the mean over a coarse one's.
    Raises: ConfigError for a size that does not divide the old one.
    """
    old, channels = coarse.patch_size, coarse.in_channels
    if patch_size < 1 or old % patch_size:
        raise ConfigError(f"patch_size={patch_size} does not divide that of the weights to start from, {old}")
    fine = OmniGen2Transformer2DModel.from_config({**coarse.config, "patch_size": patch_size})
    assert isinstance(fine, OmniGen2Transformer2DModel)
    parts = (old // patch_size, patch_size, old // patch_size, patch_size)
    tensors = coarse.state_dict()
    for name in (f"{layer}.weight" for layer in READING):
        tensors[name] = tensors[name].unflatten(1, (*parts, channels)).sum(dim=(1, 3)).flatten(1)
    for name in (f"{WRITING}.weight", f"{WRITING}.bias"):
        tensors[name] = tensors[name].unflatten(0, (*parts, -1)).mean(dim=(0, 2)).flatten(0, 2)
    fine.load_state_dict(tensors)
    return fine


def give_body(trained: OmniGen2Transformer2DModel, other: OmniGen2Transformer2DModel) -> None:
    """Copies into `other`, in place, all weights of `trained` but those that read and write latents."""
    layers = (*READING, WRITING)
    own = {name: x for name, x in other.state_dict().items() if name.rpartition(".")[0] in layers}
    other.load_state_dict({**trained.state_dict(), **own})
