"""LoRA on a pipeline: the calls that diffusers' pipelines have for it, and merging.

Fused blocks cannot carry adapters: they become plain ones when the first is loaded. `merge_lora` adds the
effect to the weights, after which blocks are fused again where they can be.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LoraBaseMixin

from og2.model.fused import fuse, unfuse
from og2.model.lora import attach, merge, read_adapter
from og2.model.wide import widen
from og2.placement import PlacedPipeline, can_fuse, is_fused
from og2.presets import Profile


class AdaptedPipeline(LoraBaseMixin, PlacedPipeline):
    """A pipeline whose transformer may carry adapters.

    `adapter_notes` says which were loaded, how strong, and whether they were made for these weights; every
    result carries them.
    """

    _lora_loadable_modules = ["transformer"]  # noqa: RUF012  diffusers' name and form
    profile: Profile
    transformer_hash: str = ""
    adapter_notes: tuple[str, ...] = ()

    def load_lora_weights(  # pyright: ignore[reportIncompatibleMethodOverride]  diffusers' takes anything
        self,
        source: str | os.PathLike[str],
        adapter_name: str | None = None,
        weight_name: str | None = None,
        scale: float = 1.0,
    ) -> None:
        """Puts the adapter in a safetensors file, or a folder with one, onto the transformer.

        `weight_name`: the file in the folder; `scale` multiplies its effect. Raises: CheckpointError.
        """
        adapter = read_adapter(Path(source, weight_name) if weight_name else source)
        known = getattr(self.transformer, "peft_config", {})
        was_fused = is_fused(self.transformer)
        unfuse(self.transformer)
        try:
            attach(self.transformer, adapter, adapter_name or f"lora_{len(known)}", scale)
        except BaseException:
            if was_fused and not known and can_fuse(self.transformer):
                fuse(self.transformer)
            raise
        widen(self.transformer)
        said = f"LoRA {adapter.path.name} ({adapter.file_hash}) at {scale:g}"
        if adapter.base_hash and self.transformer_hash and adapter.base_hash != self.transformer_hash:
            said += "; it was trained on other weights than these"
        self.adapter_notes = (*self.adapter_notes, said)
        words = f"{self.profile.model_hash} {adapter.file_hash} {scale}"
        self.profile = replace(self.profile, model_hash=hashlib.sha256(words.encode()).hexdigest()[:10])

    def merge_lora(self) -> None:
        """Adds the effect of all adapters to the weights; on a CPU blocks are fused again where they can."""
        merge(self.transformer)
        if can_fuse(self.transformer):
            fuse(self.transformer)

    def unload_lora_weights(self) -> None:
        """Takes all adapters that are not merged off the transformer."""
        self.transformer.unload_lora()
        self.adapter_notes = ()

    def fuse_lora(self, components: Any = ("transformer",), **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As in diffusers, for the transformer."""
        super().fuse_lora(components=list(components), **options)

    def unfuse_lora(self, components: Any = ("transformer",), **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As in diffusers, for the transformer."""
        super().unfuse_lora(components=list(components), **options)
