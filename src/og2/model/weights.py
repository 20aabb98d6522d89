"""Models on disk: the published OmniGen2 folder layout, read and written, and its networks built from it.

A folder holds transformer/, vae/, mllm/, processor/ (or mllm_processor/), scheduler/ and model_index.json.
The class names in model_index.json point at remote code in published folders; they are written for others and
never read. The processor is only located here; conditioning builds it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.errors import CheckpointError, ConfigError
from og2.files import replaced
from og2.model.checkpoint_files import (
    PROFILE,
    find_weights,
    fingerprint,
    missing,
    read_header,
    read_json,
    write_json,
)
from og2.model.hub import MINI, resolve_folder
from og2.model.mllm import load_mllm, save_mllm
from og2.model.tensors import load_tensors
from og2.model.transformer import OmniGen2Transformer2DModel

__all__ = [
    "MINI",
    "PUBLISHED_TRANSFORMER",
    "Components",
    "fingerprint",
    "load_components",
    "load_mllm",
    "load_transformer",
    "load_vae",
    "resolve_folder",
    "save_components",
    "save_mllm",
]

PUBLISHED_TRANSFORMER: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": None,
    "hidden_size": 2520,
    "num_layers": 32,
    "num_refiner_layers": 2,
    "num_attention_heads": 21,
    "num_kv_heads": 7,
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "norm_eps": 1e-5,
    "axes_dim_rope": [40, 40, 40],
    "axes_lens": [1024, 1664, 1664],
    "text_feat_dim": 2048,
    "timestep_scale": 1000.0,
}
"""Configuration of the published transformer, for single files, which carry none."""

_MODEL_INDEX = {
    "_class_name": "OmniGen2Pipeline",
    "mllm": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "processor": ["transformers", "Qwen2_5_VLProcessor"],
    "scheduler": ["scheduling_flow_match_euler_discrete", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["transformer_omnigen2", "OmniGen2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
_NETWORKS = ("transformer", "vae", "mllm")
_SINGLE_FILE_PREFIX = re.compile(r"^(model\.)?diffusion_model\.")
_Network = TypeVar("_Network", OmniGen2Transformer2DModel, AutoencoderKL)


class Saveable(Protocol):
    """Anything that writes itself into a folder in its library's layout."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> object: ...


@dataclass(frozen=True)
class Components:
    """The networks of a model, in evaluation mode, and where the rest of it is."""

    transformer: OmniGen2Transformer2DModel
    vae: AutoencoderKL
    mllm: Qwen2_5_VLForConditionalGeneration
    scheduler_config: dict[str, Any]
    processor_folder: Path
    folder: Path
    fingerprint: str
    transformer_fingerprint: str = ""


def load_components(
    source: str | os.PathLike[str] | None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    transformer_path: str | os.PathLike[str] | None = None,
) -> Components:
    """The networks of a model folder, hub id or the built-in model (None or "mini").

    `dtype` is what floating weights become, None keeps them as stored. `transformer_path` puts another
    transformer in place of the folder's: a fine-tune's folder, a folder with a transformer/ in it, or a
    single safetensors file.
    Raises: CheckpointError, see `resolve_folder`, `load_transformer`, `load_vae`, `load_mllm`.
    """
    folder = resolve_folder(source, revision, local_files_only)
    other = None if transformer_path is None else Path(transformer_path).expanduser()
    scheduler_config = _check_folder(folder, ("vae", "mllm") if other else _NETWORKS)
    config = folder / "transformer" / "config.json"
    return Components(
        transformer=load_transformer(other or folder, dtype, config if config.is_file() else None),
        vae=load_vae(folder / "vae", dtype),
        mllm=load_mllm(folder / "mllm", dtype),
        scheduler_config=scheduler_config,
        processor_folder=_processor_folder(folder),
        folder=folder,
        fingerprint=fingerprint(folder, *([other] if other else [])),
        transformer_fingerprint=fingerprint(_transformer_place(other or folder)),
    )


def load_transformer(
    path: str | os.PathLike[str], dtype: torch.dtype | None = None, single_file_config: Path | None = None
) -> OmniGen2Transformer2DModel:
    """The transformer in a folder, in the transformer/ below it, or in a single safetensors file.

    A single file holds no configuration: it is read from `single_file_config`, or taken to be the published
    one.
    Raises: CheckpointError if a file is missing or damaged, or tensors do not fit the configuration.
    """
    path = Path(path).expanduser()
    if path.suffix == ".safetensors" or path.is_file():
        return _load_single_file(path, dtype, single_file_config)
    if not path.is_dir():
        raise CheckpointError(f"there is no transformer at {path}; give a folder or a .safetensors file")
    return _load_network(OmniGen2Transformer2DModel, _transformer_place(path), dtype)


def _transformer_place(path: Path) -> Path:
    return path / "transformer" if (path / "transformer").is_dir() else path


def load_vae(folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> AutoencoderKL:
    """The picture autoencoder in a folder. Raises: CheckpointError as `load_transformer`."""
    return _load_network(AutoencoderKL, Path(folder), dtype)


def save_components(
    components: Components,
    folder: str | os.PathLike[str],
    processor: Saveable | None = None,
    max_shard_size: int | str = "5GB",
    overwrite: bool = False,
) -> Path:
    """Write the model in the published layout and return its folder, which appears only when it is complete.

    Weights are safetensors in files of at most `max_shard_size`, with an index where there are several. The
    processor is written where one is given, else its files are copied as they are.
    Raises: CheckpointError if the folder exists and `overwrite` is not set, or it cannot be written; or if an
    adapter is on the transformer, whose layers then have names that nothing reads.
    """
    if any(".base_layer." in name for name, _ in components.transformer.named_parameters()):
        raise CheckpointError(
            "the transformer has adapters on it, and og2 writes whole models without; "
            "call merge_lora() or unload_lora_weights() first"
        )
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not overwrite:
        raise CheckpointError(f"{folder} exists already; choose another name, or overwrite it explicitly")
    replaced(folder, lambda place: _write(components, place, processor, max_shard_size))
    return folder


def _write(components: Components, folder: Path, processor: Saveable | None, shard_size: int | str) -> None:
    components.transformer.save_pretrained(folder / "transformer", max_shard_size=shard_size)
    components.vae.save_pretrained(folder / "vae", max_shard_size=shard_size)
    save_mllm(components.mllm, folder / "mllm", shard_size)
    if processor is None:
        shutil.copytree(components.processor_folder, folder / "processor")
    else:
        processor.save_pretrained(folder / "processor")
    write_json(folder / "scheduler" / "scheduler_config.json", components.scheduler_config)
    write_json(folder / "model_index.json", _MODEL_INDEX)
    profile = components.folder / PROFILE
    if profile.is_file():
        shutil.copyfile(profile, folder / PROFILE)


def _load_network(kind: type[_Network], folder: Path, dtype: torch.dtype | None) -> _Network:
    network = _build(kind, read_json(folder / "config.json"), folder / "config.json")
    load_tensors(network, find_weights(folder), dtype)
    return network.eval()


def _load_single_file(
    path: Path, dtype: torch.dtype | None, config: Path | None
) -> OmniGen2Transformer2DModel:
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is not a .safetensors file; other formats can run code when read and are refused"
        )
    values = PUBLISHED_TRANSFORMER if config is None else read_json(config)
    network = _build(OmniGen2Transformer2DModel, values, config or path)
    load_tensors(network, [path], dtype, rename=lambda name: _SINGLE_FILE_PREFIX.sub("", name))
    return network.eval()


def _build(kind: type[_Network], config: dict[str, Any], origin: Path) -> _Network:
    try:
        with init_empty_weights(include_buffers=False):
            network = kind.from_config(config)
    except (ConfigError, TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise CheckpointError(f"{origin} does not describe a {kind.__name__}: {error}") from error
    assert isinstance(network, nn.Module)
    return network


def _check_folder(folder: Path, networks: Sequence[str]) -> dict[str, Any]:
    """The scheduler's configuration, after seeing that every other file is there and whole."""
    for part in networks:
        if not (folder / part).is_dir():
            lone = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
            hint = "; this looks like a lone transformer: give it as transformer_path" if lone else ""
            raise CheckpointError(f"{missing(folder / part)}{hint}")
        read_json(folder / part / "config.json")
        for path in find_weights(folder / part):
            read_header(path)
    _processor_folder(folder)
    return read_json(folder / "scheduler" / "scheduler_config.json")


def _processor_folder(folder: Path) -> Path:
    for name in ("processor", "mllm_processor"):
        if (folder / name).is_dir():
            return folder / name
    raise missing(folder / "processor")
