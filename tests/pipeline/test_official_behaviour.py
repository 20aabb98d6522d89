"""What the official pipeline does that we keep, and what it gets wrong that we do not repeat.

The recordings cover the numbers; here each behaviour has a test under its own name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from recordings import MODEL, pipeline

from og2.conditioning.templates import SYSTEM, render_chat, render_prompt
from og2.pipeline import OmniGen2Pipeline
from og2.presets import Profile, read_profile
from og2.request import Request, plan
from og2.sampling.time import time_steps

FAST: dict[str, Any] = {"num_inference_steps": 3, "height": 48, "width": 64, "output_type": "pt"}


def picture(value: int, width: int = 64, height: int = 48) -> Image.Image:
    gradient = torch.arange(width * height * 3).reshape(height, width, 3) * value % 256
    return Image.fromarray(gradient.to(torch.uint8).numpy())


def test_two_prompts_of_unequal_length_and_two_pictures_each_keep_their_own_text() -> None:
    prompts = ["a cat", "let the girl in image 1 hold the cup in image 2 near the window"]
    batch = pipeline()(prompts, num_images_per_prompt=2, seed=0, pack="batch", **FAST).images
    for i, prompt in enumerate(prompts):
        for j in range(2):
            alone = pipeline()(prompt, seed=2 * i + j, **FAST).images[0]
            assert (batch[2 * i + j] - alone).abs().max() <= 1e-4


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
def test_times_given_by_hand_work_as_list_array_or_tensor(form: Callable[[list[float]], Any]) -> None:
    result = pipeline()("a cat", seed=0, timesteps=form([0.0, 0.3, 0.7]), height=48, width=64)
    assert result.plan.times == pytest.approx((0.0, 0.3, 0.7, 1.0))


def test_the_limit_on_pixels_of_input_pictures_is_heard_under_its_official_name() -> None:
    with pytest.warns(UserWarning, match="max_pixels"):
        result = pipeline()(
            "a cat", input_images=[picture(3)], max_input_image_pixels=1024, num_inference_steps=1
        )
    assert result.plan.reference_sizes == ((16, 32),)


def test_more_than_one_reference_is_told_apart_by_its_place() -> None:
    one, two = picture(3), picture(7)
    options = {"seed": 0, **FAST}
    forth = pipeline()("a cat", input_images=[one, two], **options).images
    back = pipeline()("a cat", input_images=[two, one], **options).images
    assert not torch.allclose(forth, back, atol=1e-4)


def test_the_reference_is_a_sample_of_the_posterior_and_the_draw_follows_the_seed() -> None:
    options = {"input_images": [picture(3)], "latents": torch.zeros(1, 4, 6, 8), "num_inference_steps": 2}
    pictures = [pipeline()("a cat", seed=seed, output_type="pt", **options).images for seed in (0, 0, 1)]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_the_negative_prompt_has_the_whole_system_sentence_and_no_assistant_turn() -> None:
    assert render_prompt("") == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|im_end|>\n"
    assert render_chat("", 0).endswith("<|im_start|>assistant\n")


def test_the_shift_counts_latent_pixels_of_the_working_size_and_no_references() -> None:
    images = (picture(3), picture(7))
    planned = plan(Request("a cat", input_images=images, height=100, width=70, num_inference_steps=4))
    assert planned.size == (96, 64)
    assert planned.times == time_steps(4, 12 * 8)


def test_image_guidance_of_one_drops_the_references_from_the_unconditional_branch() -> None:
    planned = plan(
        Request("a cat", input_images=(picture(3),), text_guidance_scale=4.0, image_guidance_scale=1.0)
    )
    assert set(planned.branches) == {("cond", "uncond")}


def test_image_guidance_does_nothing_without_text_guidance() -> None:
    options = {"input_images": [picture(3)], "seed": 0, "text_guidance_scale": 1.0, **FAST}
    weak, strong = (pipeline()("a cat", image_guidance_scale=s, **options).images for s in (1.0, 3.0))
    assert torch.equal(weak, strong)


def test_the_default_longest_side_is_that_of_the_command_not_of_the_web_page() -> None:
    assert Profile().max_input_image_side_length == 1024
    planned = plan(Request("a cat", input_images=(picture(3, 1280, 720),)))
    assert planned.reference_sizes == ((576, 1024),)


def test_a_scheduler_without_dynamic_shift_leaves_the_times_even(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"dynamic_time_shift": False}))
    assert plan(Request("a cat", num_inference_steps=4), read_profile(tmp_path)).times == time_steps(4, None)
    config.write_text(json.dumps({"dynamic_time_shift": True, "time_shift_base_res": 640}))
    shifted = plan(Request("a cat", num_inference_steps=4), read_profile(tmp_path))
    assert shifted.times == time_steps(4, 64 * 64)


def test_a_saved_pipeline_is_read_back_and_draws_the_same(tmp_path: Path) -> None:
    pipeline().save_pretrained(tmp_path / "copy")
    copy = OmniGen2Pipeline.from_pretrained(tmp_path / "copy")
    copy.set_progress_bar_config(disable=True)
    options = {"input_images": [picture(3)], "seed": 1, **FAST}
    assert torch.allclose(pipeline()("a cat", **options).images, copy("a cat", **options).images, atol=1e-5)
    assert copy.profile.max_pixels == pipeline().profile.max_pixels
    assert (MODEL / "model_index.json").exists()
