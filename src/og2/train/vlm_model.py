"""The mini vision-language model: a small Qwen2.5-VL, fresh or begun from one that speaks already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.generation.configuration_utils import GenerationConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from og2.conditioning.processor import Processor, load_processor
from og2.conditioning.templates import END_OF_TEXT, IM_END, IMAGE_PAD
from og2.conditioning.vlm import tokenize
from og2.errors import ConfigError

EMBEDDING = "model.language_model.embed_tokens.weight"


@dataclass(frozen=True)
class VlmModelConfig:
    """Sizes of the Qwen2_5_VLForConditionalGeneration; `vision_*` is its picture encoder."""

    hidden_size: int = 192
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    intermediate_size: int = 512
    mrope_section: tuple[int, int, int] = (8, 8, 8)
    max_positions: int = 1024
    vision_hidden_size: int = 128
    vision_depth: int = 3
    vision_heads: int = 4
    vision_intermediate_size: int = 384
    patch_size_px: int = 8
    merge_size: int = 2
    window_px: int = 64


def start_from(
    mllm: Qwen2_5_VLForConditionalGeneration, processor: Processor, model: Path
) -> Qwen2_5_VLForConditionalGeneration:
    """`mllm` with the weights of the model in the folder `model` (its `mllm/` and `processor/`).

    The tokenizers may differ: a token begins as the one of the same text, or as the mean of those that its
    text is cut into there.   Raises: ConfigError when any other size differs.
    """
    known = load_processor(model / "processor")
    found = Qwen2_5_VLForConditionalGeneration.from_pretrained(model / "mllm").state_dict()
    own = mllm.state_dict()
    rows = found[EMBEDDING]
    found[EMBEDDING] = found["lm_head.weight"] = torch.stack(
        [_row(text, rows, known) for text in _texts(processor)]
    )
    for name, value in own.items():
        if name not in found or found[name].shape != value.shape:
            has = list(found[name].shape) if name in found else "nothing"
            raise ConfigError(f"start: {model} has {has} for {name}, the recipe {list(value.shape)}")
    mllm.load_state_dict(found)
    return mllm


def _texts(processor: Processor) -> list[tuple[str, str]]:
    """Each token as it is named in the vocabulary, and in plain text."""
    count = len(processor.tokenizer)
    names = processor.tokenizer.convert_ids_to_tokens(list(range(count)))
    return [(name, processor.tokenizer.decode([i])) for i, name in enumerate(names)]


def _row(token: tuple[str, str], rows: Tensor, known: Processor) -> Tensor:
    name, text = token
    same = known.token_id(name)
    ids = [same] if same is not None else tokenize(known, text)
    return rows[ids].mean(dim=0)


def build_vlm(model: VlmModelConfig, processor: Processor) -> Qwen2_5_VLForConditionalGeneration:
    """A fresh Qwen2.5-VL of these sizes, its token ids taken from the processor."""
    ids = {name: processor.token_id(token) for name, token in _TOKEN_FIELDS.items()}
    end, pad = processor.token_id(IM_END), processor.token_id(END_OF_TEXT)
    text: dict[str, Any] = {
        "vocab_size": len(processor.tokenizer),
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "max_position_embeddings": model.max_positions,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": list(model.mrope_section),
        },
        "bos_token_id": pad,
        "eos_token_id": end,
        "pad_token_id": pad,
    }
    vision = {
        "depth": model.vision_depth,
        "hidden_size": model.vision_hidden_size,
        "intermediate_size": model.vision_intermediate_size,
        "num_heads": model.vision_heads,
        "out_hidden_size": model.hidden_size,
        "patch_size": model.patch_size_px,
        "spatial_patch_size": model.patch_size_px,
        "spatial_merge_size": model.merge_size,
        "temporal_patch_size": 2,
        "window_size": model.window_px,
        "fullatt_block_indexes": [model.vision_depth - 1],
        "in_channels": 3,
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    mllm = Qwen2_5_VLForConditionalGeneration(config)
    mllm.generation_config = GenerationConfig(
        bos_token_id=pad, eos_token_id=end, pad_token_id=pad, do_sample=False
    )
    return mllm


_TOKEN_FIELDS = {
    "image_token_id": IMAGE_PAD,
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "vision_token_id": "<|vision_pad|>",
}
