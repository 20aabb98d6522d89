"""The language model as something that learns: all of its language part, or an adapter on it.

Its picture encoder stays as it is. Not here: its rows (the data room) and its loss (network.py).
"""

from __future__ import annotations

import copy
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model

from og2.train.recipe import AnswerConfig

LAYERS = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj)"


def trained_mllm(mllm: Any, config: AnswerConfig) -> Any:
    """The model, in float32, with what `config` says able to learn and all else frozen."""
    mllm = mllm.float().requires_grad_(False)
    # Measured on a CPU: the fused kernel's backward costs more than the whole of plain attention.
    mllm.set_attn_implementation("eager" if mllm.device.type == "cpu" else "sdpa")
    if config.train == "full":
        mllm.model.language_model.requires_grad_(True)
        mllm.lm_head.requires_grad_(True)
        return mllm.train()
    alpha = config.rank if config.alpha is None else config.alpha
    return get_peft_model(mllm, LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=LAYERS)).train()  # pyright: ignore[reportArgumentType]


def plain_mllm(mllm: Any) -> Any:
    """A plain model with what was learned in its weights; `mllm` itself is not changed."""
    if not isinstance(mllm, PeftModel):
        return mllm
    return copy.deepcopy(mllm).merge_and_unload()
