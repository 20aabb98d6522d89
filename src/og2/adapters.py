"""LoRA on a pipeline: the calls that diffusers' pipelines have for it, and merging.

Fused blocks cannot carry adapters: they become plain ones when the first is loaded. `merge_lora` adds the
effect to the weights, after which blocks are fused again where they can be.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers.loaders.lora_base import LoraBaseMixin

from og2.errors import RequestError
from og2.model.fused import fuse, unfuse
from og2.model.lora import attach, merge, read_adapter, scales
from og2.model.wide import widen
from og2.placement import PlacedPipeline, can_fuse, is_fused
from og2.presets import Profile


@dataclass(frozen=True)
class Loaded:
    """An adapter read from a file: its name on the transformer, what is said of it, and its file's hash.

    `scales`: of the effect, in each of its layers, as it went into the weights for good.
    """

    name: str
    words: str
    file_hash: str
    caution: str = ""
    scales: tuple[float, ...] = ()

    def note(self) -> str:
        """What a result says of it."""
        return f"{self.words} at {' and '.join(f'{scale:g}' for scale in self._different())}{self.caution}"

    def hashed(self, model_hash: str) -> str:
        """The hash of a model with it, from that of the model without it."""
        found = self._different()
        if not any(found):
            return model_hash
        words = f"{model_hash} {self.file_hash} {found[0] if len(found) == 1 else self.scales}"
        return hashlib.sha256(words.encode()).hexdigest()[:10]

    def _different(self) -> list[float]:
        return sorted(set(self.scales))


class AdaptedPipeline(LoraBaseMixin, PlacedPipeline):
    """A pipeline whose transformer may carry adapters.

    What results say of them is read off the transformer when a picture is drawn, so it holds whatever was
    called in between. `profile` is always that of the model without them.
    """

    _lora_loadable_modules = ["transformer"]  # noqa: RUF012  diffusers' name and form
    profile: Profile
    transformer_hash: str = ""
    _loaded: tuple[Loaded, ...] = ()
    _kept: tuple[Loaded, ...] = ()
    _had_fused_blocks: bool = False

    @property
    def adapter_notes(self) -> tuple[str, ...]:
        """Which adapters act on the weights or lie in them, how strongly, and whether made for these."""
        return tuple(adapter.note() for adapter in self._adapters())

    @property
    def adapted_profile(self) -> Profile:
        """The profile of the model as it draws now: adapters that act give it another hash."""
        model_hash = self.profile.model_hash
        for adapter in self._adapters():
            model_hash = adapter.hashed(model_hash)
        return replace(self.profile, model_hash=model_hash)

    def load_lora_weights(  # pyright: ignore[reportIncompatibleMethodOverride]  diffusers' takes anything
        self,
        source: str | os.PathLike[str],
        adapter_name: str | None = None,
        weight_name: str | None = None,
        scale: float = 1.0,
    ) -> None:
        """Puts the adapter in a safetensors file, or a folder with one, onto the transformer.

        `weight_name`: the file in the folder; `scale` multiplies its effect. Raises: CheckpointError;
        RequestError for an adapter_name that is taken.
        """
        adapter = read_adapter(Path(source, weight_name) if weight_name else source)
        known = getattr(self.transformer, "peft_config", {})
        if adapter_name in known:
            raise RequestError(f"there is an adapter {adapter_name!r} already; give another adapter_name")
        name = adapter_name or next(free for k in itertools.count() if (free := f"lora_{k}") not in known)
        was_fused = is_fused(self.transformer)
        unfuse(self.transformer)
        try:
            attach(self.transformer, adapter, name, scale)
        except BaseException:
            if was_fused and not known and can_fuse(self.transformer):
                fuse(self.transformer)
            raise
        widen(self.transformer)
        self._had_fused_blocks |= was_fused
        is_foreign = adapter.base_hash and self.transformer_hash not in ("", adapter.base_hash)
        caution = "; it was trained on other weights than these" if is_foreign else ""
        words = f"LoRA {adapter.path.name} ({adapter.file_hash})"
        self._loaded = (*self._loaded, Loaded(name, words, adapter.file_hash, caution))

    def merge_lora(self) -> None:
        """Adds the effect that adapters have now to the weights; on a CPU blocks are fused where they can be.

        Raises: RequestError if there is none.
        """
        if not scales(self.transformer):
            raise RequestError("there is no LoRA to merge; load one first, with load_lora_weights(FILE)")
        merged = [adapter for adapter in self._attached() if any(adapter.scales)]
        merge(self.transformer)
        self._keep(merged)
        if can_fuse(self.transformer):
            fuse(self.transformer)

    def unload_lora_weights(self) -> None:
        """Takes all adapters off the transformer; what was merged, or fused as diffusers does it, stays."""
        fused = [adapter for adapter in self._attached() if adapter.name in self.fused_loras]
        self.transformer.unload_lora()
        self._keep(fused)
        if self._had_fused_blocks and not is_fused(self.transformer) and can_fuse(self.transformer):
            fuse(self.transformer)

    def fuse_lora(self, components: Any = ("transformer",), **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As in diffusers, for the transformer."""
        super().fuse_lora(components=list(components), **options)

    def unfuse_lora(self, components: Any = ("transformer",), **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As in diffusers, for the transformer."""
        super().unfuse_lora(components=list(components), **options)

    def set_adapters(self, adapter_names: list[str] | str, adapter_weights: Any = None) -> None:
        """As in diffusers, except that adapters fused into the weights are left alone.

        Raises: RequestError if there are such; their scale would change in name only.
        """
        if self.fused_loras:
            raise RequestError(
                f"{', '.join(sorted(self.fused_loras))} is fused into the weights; call unfuse_lora() first"
            )
        super().set_adapters(adapter_names, adapter_weights)

    def _adapters(self) -> list[Loaded]:
        return [*self._kept, *self._attached()]

    def _attached(self) -> list[Loaded]:
        """The adapters beside the weights as they act now, in the order they came."""
        known = {adapter.name: adapter for adapter in self._loaded}
        found = scales(self.transformer)
        order = [*(name for name in known if name in found), *(name for name in found if name not in known)]
        return [
            replace(known.get(name, Loaded(name, f"LoRA {name}", name)), scales=tuple(found[name]))
            for name in order
        ]

    def _keep(self, adapters: list[Loaded]) -> None:
        """Remembers these as part of the weights for good; none is beside them any more."""
        self._kept, self._loaded = (*self._kept, *adapters), ()
        self._merged_adapters = set()
