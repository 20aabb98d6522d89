"""The vision-language model on disk: read and written by its own library, in the published form.

The library writes its configuration in a newer form that its older versions, the official program's among
them, cannot read; it is brought back to the published form, which all of them read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging as transformers_logging

from og2.errors import CheckpointError
from og2.model.checkpoint_files import check_tensors, find_weights, read_header, read_json, write_json


def load_mllm(
    folder: str | os.PathLike[str], dtype: torch.dtype | None = None
) -> Qwen2_5_VLForConditionalGeneration:
    """The vision-language model in a folder, by its own library, which knows the names it was stored under.

    Raises: CheckpointError as `load_transformer`.
    """
    folder = Path(folder)
    read_json(folder / "config.json")
    stored = {name: t.shape for path in find_weights(folder) for name, t in read_header(path).items()}
    kind = Qwen2_5_VLForConditionalGeneration
    with _quiet_transformers():
        try:
            built: Any = kind.from_pretrained(
                folder,
                dtype=dtype or "auto",
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (StrictDataclassError, OSError, ValueError, TypeError, LookupError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the language model in {folder} cannot be built: {reason}") from error
    mllm, report = built
    wrong = dict(_shapes(entry, mllm, stored) for entry in report["mismatched_keys"])
    check_tensors(
        {name: expected for name, (_, expected) in wrong.items()} | dict.fromkeys(report["missing_keys"], ()),
        {name: found for name, (found, _) in wrong.items()} | dict.fromkeys(report["unexpected_keys"], ()),
        folder,
    )
    return mllm.eval()


def save_mllm(
    mllm: Qwen2_5_VLForConditionalGeneration,
    folder: str | os.PathLike[str],
    max_shard_size: int | str = "5GB",
) -> None:
    """Write the model into a folder, its tensor names and its configuration in the published form."""
    folder = Path(folder)
    with _quiet_transformers():
        mllm.save_pretrained(folder, max_shard_size=max_shard_size)
    write_json(folder / "config.json", _published_form(read_json(folder / "config.json")))


def _shapes(
    entry: str | tuple[str, Any, Any],
    mllm: Qwen2_5_VLForConditionalGeneration,
    stored: dict[str, tuple[int, ...]],
) -> tuple[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """A mismatched tensor's name, and its shape in file and model; older versions report names alone."""
    if not isinstance(entry, str):
        return entry[0], (tuple(entry[1]), tuple(entry[2]))
    published = entry.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
    return entry, (stored.get(entry) or stored[published], tuple(mllm.state_dict()[entry].shape))


def _published_form(config: dict[str, Any]) -> dict[str, Any]:
    """The text model's values beside the others, rotary settings under their older names."""
    text = {name: value for name, value in config.pop("text_config", {}).items() if name != "model_type"}
    rotary = text.pop("rope_parameters", None)
    if rotary is not None:
        text["rope_theta"] = rotary["rope_theta"]
        text["rope_scaling"] = {name: value for name, value in rotary.items() if name != "rope_theta"}
    if set(text.get("layer_types", ())) <= {"full_attention"}:
        text.pop("layer_types", None)
    vision = dict(config.get("vision_config", {}))
    vision.pop("rope_parameters", None)
    dtype = config.get("dtype")
    older = {"torch_dtype": dtype} if dtype is not None else {}
    return {**text, **config, **older, "vision_config": vision}


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar and no load report from the library: what is wrong is raised, with a name."""
    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()
