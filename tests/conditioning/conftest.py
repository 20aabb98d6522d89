"""Small vision-language models with random weights: the recorded one, and one shaped like the mini model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from og2.conditioning.vlm import Processor, load_processor

CHECKPOINT = Path(__file__).parents[1] / "golden" / "pipeline" / "model"


@pytest.fixture(scope="session")
def processor() -> Processor:
    return load_processor(CHECKPOINT / "processor")


@pytest.fixture(scope="session")
def mllm() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(CHECKPOINT / "mllm").eval()


@pytest.fixture(scope="session")
def mini_processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    """A processor folder as the mini model has it: Qwen's special tokens, `<|img|>`, patches of 8 px."""
    folder = tmp_path_factory.mktemp("mini") / "processor"
    shutil.copytree(CHECKPOINT / "processor", folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("<|img|>", special=True)])
    tokenizer.save_pretrained(folder)
    options = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 8, "merge_size": 2}
    options |= {"temporal_patch_size": 2, "min_pixels": 256, "max_pixels": 65536}
    (folder / "preprocessor_config.json").write_text(json.dumps(options))
    return load_processor(folder)


@pytest.fixture
def mini_mllm(mini_processor: Processor) -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 64, "vocab_size": 512, "max_position_embeddings": 512,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}, "rope_theta": 1e4,
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=True,
        image_token_id=mini_processor.token_id("<|image_pad|>"),
        video_token_id=mini_processor.token_id("<|video_pad|>"),
        vision_start_token_id=mini_processor.token_id("<|vision_start|>"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model
