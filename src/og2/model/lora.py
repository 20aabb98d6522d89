"""LoRA adapters of the transformer: files read and written, put onto a model, merged into its weights.

A file is safetensors with names as diffusers writes them (`transformer.<layer>.lora_A.weight`); those of peft
(`base_model.model.`) and of ComfyUI (`diffusion_model.`) are read too. Its header holds diffusers' adapter
configuration, and under `og2` rank, alpha and the hash of the weights it was trained on. The adapters
themselves are peft's.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from og2.errors import CheckpointError
from og2.files import written
from og2.model.checkpoint_files import fingerprint
from og2.model.transformer import OmniGen2Transformer2DModel

WEIGHTS = "pytorch_lora_weights.safetensors"
PREFIX = "transformer."
_PREFIXES = (PREFIX, "base_model.model.", "diffusion_model.")
_DIFFUSERS, _OURS = "lora_adapter_metadata", "og2"
_LAYER = re.compile(r"(.+)\.(lora_A|lora_B|lora_down|lora_up)\.(?:default\.)?weight")
_SIDES = {"lora_down": "lora_A", "lora_up": "lora_B"}


@dataclass(frozen=True)
class Adapter:
    """An adapter read from `path`: tensors by name within the transformer, rank and alpha by layer.

    `base_hash`: `transformer_hash` of the weights it was trained on, None where the file does not say.
    """

    path: Path
    tensors: dict[str, Tensor]
    ranks: dict[str, int]
    alphas: dict[str, float]
    base_hash: str | None
    file_hash: str

    def config(self) -> LoraConfig:
        """The adapter as peft describes it."""
        rank, alpha = _usual(self.ranks.values()), _usual(self.alphas.values())
        return LoraConfig(
            r=int(rank),
            lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  peft takes fractions, its type does not
            target_modules=sorted(self.ranks),
            rank_pattern={f"^{name}": r for name, r in self.ranks.items() if r != rank},
            alpha_pattern={f"^{name}": a for name, a in self.alphas.items() if a != alpha},
        )


def transformer_hash(place: Path) -> str:
    """The hash of a transformer's weights: a model folder, a transformer's own folder, or a single file."""
    return fingerprint(place / "transformer" if (place / "transformer").is_dir() else place)


def new_adapter(
    model: OmniGen2Transformer2DModel, rank: int, alpha: float, targets: Sequence[str], dropout: float = 0.0
) -> None:
    """Puts a fresh adapter without effect onto the layers whose names end so; all else is frozen.

    What learns is in float32, whatever the model is in.

    Raises: CheckpointError when no layer ends so.
    """
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(name == t or name.endswith(f".{t}") for t in targets)
    ]
    if not layers:
        raise CheckpointError(f"no linear layer of the transformer ends in {', '.join(targets)}")
    model.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  peft takes fractions, its type does not
        target_modules=layers,
        lora_dropout=dropout,
        init_lora_weights="gaussian",
    )
    model.add_adapter(config)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft gives it the dtype of what it sits on
            parameter.data = parameter.data.float()


def save_adapter(model: OmniGen2Transformer2DModel, path: Path, base_hash: str) -> Path:
    """Writes the model's adapter, and nothing else, to the file `path`; it appears whole.

    Raises: CheckpointError when it cannot be written.
    """
    config: LoraConfig = model.peft_config["default"]
    found = get_peft_model_state_dict(model, adapter_name="default")
    tensors = {f"{PREFIX}{name}": t.detach().cpu().contiguous() for name, t in found.items()}
    described = {key: _plain(value) for key, value in config.to_dict().items()}
    ours = {"rank": config.r, "alpha": config.lora_alpha, "base_hash": base_hash}
    metadata = {
        "format": "pt",
        _DIFFUSERS: json.dumps({f"{PREFIX}{k}": v for k, v in described.items()}, sort_keys=True),
        _OURS: json.dumps(ours, sort_keys=True),
    }
    try:
        with written(path) as place:
            save_file(tensors, place, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} could not be written: {error}") from error
    return path


def read_adapter(source: str | os.PathLike[str]) -> Adapter:
    """The adapter in a safetensors file, or in a folder that holds one.

    Raises: CheckpointError for a missing or pickled file, or one that holds no LoRA.
    """
    path = _file(Path(source).expanduser())
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error
    tensors, alphas = _sorted_out(stored, path)
    ranks = {
        name.removesuffix(".lora_A.weight"): len(tensor)
        for name, tensor in tensors.items()
        if name.endswith(".lora_A.weight")
    }
    said = _said(metadata)
    return Adapter(
        path=path,
        tensors=tensors,
        ranks=ranks,
        alphas={name: alphas.get(name, said.get("lora_alpha", rank)) for name, rank in ranks.items()},
        base_hash=said.get("base_hash"),
        file_hash=fingerprint(path),
    )


def attach(
    model: OmniGen2Transformer2DModel, adapter: Adapter, name: str = "default", scale: float = 1.0
) -> None:
    """Puts the adapter onto the model beside those it has; its effect is multiplied by `scale`.

    Adapters that are switched off stay so.
    Raises: CheckpointError when it is made for layers of other names or sizes.
    """
    modules = dict(model.named_modules())
    for layer, rank in adapter.ranks.items():
        module = modules.get(layer)
        linear = getattr(module, "base_layer", module)
        if not isinstance(linear, torch.nn.Linear):
            raise CheckpointError(f"{adapter.path} is for another model: there is no linear layer {layer}")
        found = (
            tuple(adapter.tensors[f"{layer}.lora_A.weight"].shape),
            tuple(adapter.tensors[f"{layer}.lora_B.weight"].shape),
        )
        wanted = ((rank, linear.in_features), (linear.out_features, rank))
        if found != wanted:
            raise CheckpointError(
                f"{adapter.path} is for another model: {layer} needs {wanted}, it has {found}"
            )
    others = {key: _scale_of(model, key) for key, found in scales(model).items() if any(found)}
    model.load_lora_adapter(
        dict(adapter.tensors), prefix=None, adapter_name=name, metadata=adapter.config().to_dict()
    )
    model.set_adapters([*others, name], [*others.values(), scale])


def merge(model: OmniGen2Transformer2DModel) -> None:
    """Adds the effect that the adapters have now to the weights; the model is a plain one afterwards."""
    acting = [name for name, found in scales(model).items() if any(found)]
    if acting:
        model.fuse_lora(adapter_names=acting)
    model.unload_lora()


def scales(model: OmniGen2Transformer2DModel) -> dict[str, list[float]]:
    """What the effect of each adapter is multiplied by now, in each of its layers; 0 where it is off.

    An adapter that peft holds in the weights counts as acting, and keeps those beside it from acting.
    """
    found: dict[str, list[float]] = {}
    for module in model.modules():
        if isinstance(module, LoraLayer):
            acting = module.merged_adapters or module.active_adapters
            for name in module.scaling:
                is_on = name in acting and not module.disable_adapters
                found.setdefault(name, []).append(_scale(module, name) if is_on else 0.0)
    return found


def _scale_of(model: OmniGen2Transformer2DModel, name: str) -> float:
    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.scaling:
            return _scale(module, name)
    return 1.0


def _scale(layer: LoraLayer, name: str) -> float:
    """The scale that was asked for, without the rounding of its way through rank and alpha."""
    alpha = layer.lora_alpha[name]
    return round(layer.scaling[name] * layer.r[name] / alpha, 9) if alpha else 0.0


def _file(path: Path) -> Path:
    if path.is_dir():
        for name in (WEIGHTS, "adapter_model.safetensors"):
            if (path / name).is_file():
                return path / name
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise CheckpointError(f"{path} holds {len(files)} safetensors files; name the one to take")
        return files[0]
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} is not a .safetensors file; other formats can run code when read")
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the adapter's .safetensors file or its folder")
    return path


def _sorted_out(stored: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors under peft's names within the transformer, and alphas that are stored as tensors, by layer."""
    tensors, alphas = {}, {}
    for full_name, tensor in stored.items():
        prefix = next((p for p in _PREFIXES if full_name.startswith(p)), "")
        name = full_name.removeprefix(prefix)
        layer = _LAYER.fullmatch(name)
        if layer:
            tensors[f"{layer[1]}.{_SIDES.get(layer[2], layer[2])}.weight"] = tensor
        elif name.endswith(".alpha"):
            alphas[name.removesuffix(".alpha")] = float(tensor)
        else:
            raise CheckpointError(f"{path} holds {full_name}, which is no part of a LoRA of the transformer")
    sides = Counter(name.rsplit(".lora_", 1)[0] for name in tensors)
    odd = [layer for layer, count in sides.items() if count != 2]
    if odd or not tensors:
        raise CheckpointError(f"{path} holds " + (f"one half of {odd[0]}" if odd else "no LoRA weights"))
    return tensors, alphas


def _said(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the header says: diffusers' configuration without its prefix, and ours over it."""
    said: dict[str, Any] = {}
    try:
        described = json.loads(metadata.get(_DIFFUSERS, "{}"))
        said.update({str(key).removeprefix(PREFIX): value for key, value in described.items()})
        ours = json.loads(metadata.get(_OURS, "{}"))
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"the header of the adapter is damaged: {error}") from error
    if "alpha" in ours:
        said["lora_alpha"] = ours["alpha"]
    return said | {key: ours[key] for key in ("base_hash",) if key in ours}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value


def _usual(values: Any) -> Any:
    return Counter(values).most_common(1)[0][0]
