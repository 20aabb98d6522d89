"""Puts trained parts together as one model folder in the published layout, with profile and model card."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.conditioning.processor import load_processor
from og2.errors import ConfigError
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.model.weights import Components, save_components

logger = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ShipRecipe:
    """The recipe `kind: ship`: folders of the parts, the folder to write, the stored dtype, the profile.

    profile: the content of og2.json (native size and this model's own preset values).
    """

    folder: Path
    transformer: Path
    vae: Path
    mllm: Path
    processor: Path
    card: Path
    dtype: str = "float32"
    profile: dict[str, Any] = field(default_factory=dict)


def run(recipe: ShipRecipe) -> None:
    """Write `recipe.folder`, replacing what was there; it appears only when it is complete."""
    if recipe.dtype not in DTYPES:
        raise ConfigError(f"dtype={recipe.dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    dtype = DTYPES[recipe.dtype]
    if not recipe.card.is_file():
        raise ConfigError(f"card: {recipe.card} is missing; write the model card first")
    components = Components(
        transformer=OmniGen2Transformer2DModel.from_pretrained(recipe.transformer, torch_dtype=dtype),
        vae=AutoencoderKL.from_pretrained(recipe.vae, torch_dtype=dtype),
        mllm=Qwen2_5_VLForConditionalGeneration.from_pretrained(recipe.mllm, dtype=dtype),
        scheduler_config={
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "dynamic_time_shift": True,
            "num_train_timesteps": 1000,
        },
        processor_folder=recipe.processor,
        folder=recipe.folder,
        fingerprint="",
    )
    load_processor(recipe.processor)  # refuse to ship one that cannot be read
    save_components(components, recipe.folder, overwrite=True)
    (recipe.folder / "og2.json").write_text(json.dumps(recipe.profile, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(recipe.card, recipe.folder / "MODEL_CARD.md")
    size = sum(path.stat().st_size for path in recipe.folder.rglob("*") if path.is_file())
    logger.info("%s written: %.1f MB", recipe.folder, size / 1e6)
