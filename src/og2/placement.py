"""Where the networks are: diffusers' placement and offload, and the fused blocks that only a CPU has.

Fused blocks hold their weights in a layout that cannot be moved or cast, so they become plain ones first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from og2.model.fused import FusedBlock, fuse, unfuse
from og2.model.transformer import OmniGen2Transformer2DModel

if TYPE_CHECKING:
    from typing_extensions import Self


class PlacedPipeline(DiffusionPipeline):
    """A pipeline whose `transformer` may have fused blocks, and which can be moved all the same."""

    transformer: OmniGen2Transformer2DModel

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The pipeline on another device or in another dtype, as diffusers does it; fused blocks follow."""
        with plain_blocks(self.transformer):
            return super().to(*args, **kwargs)

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers; fused blocks become plain ones, which can be moved."""
        unfuse(self.transformer)
        super().enable_model_cpu_offload(*args, **kwargs)

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers; fused blocks become plain ones, which can be moved."""
        unfuse(self.transformer)
        super().enable_sequential_cpu_offload(*args, **kwargs)

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers; fused blocks become plain ones, which can be moved."""
        unfuse(self.transformer)
        super().enable_group_offload(*args, **kwargs)


def can_fuse(transformer: OmniGen2Transformer2DModel) -> bool:
    """Whether the fused blocks run here: a CPU with oneDNN; float32 or bfloat16; nobody moves the weights."""
    hooks = ("_hf_hook", "_diffusers_hook")
    if any(hasattr(module, hook) for module in transformer.modules() for hook in hooks):
        return False
    has_library = torch.backends.mkldnn.is_available() and transformer.device.type == "cpu"
    return has_library and transformer.dtype in (torch.float32, torch.bfloat16)


def is_fused(transformer: OmniGen2Transformer2DModel) -> bool:
    """Whether the transformer's blocks are fused ones."""
    return isinstance(transformer.layers[0], FusedBlock)


@contextmanager
def plain_blocks(transformer: OmniGen2Transformer2DModel) -> Iterator[None]:
    """Plain blocks for a while; then fused ones again if they were and still can be. No weight changes."""
    was_fused = is_fused(transformer)
    unfuse(transformer)
    try:
        yield
    finally:
        if was_fused and can_fuse(transformer):
            fuse(transformer)
