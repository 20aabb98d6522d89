"""Requests, presets and the plan: what is refused, what is decided, and what will happen."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from og2.errors import CheckpointError, ImageError, Og2Error, RequestError
from og2.limits import SCHEDULERS
from og2.presets import PRESETS, Profile, read_profile
from og2.request import Request, plan, resolve
from og2.sampling.solvers import SOLVERS

MINI = Profile("small", 64, 64 * 64, 64)


def picture(width: int = 64, height: int = 48) -> Image.Image:
    return Image.new("RGB", (width, height), "teal")


BAD = {
    "empty prompt": {"prompt": ""},
    "blank prompt": {"prompt": " \n\t"},
    "prompt that is no text": {"prompt": 7},
    "negative prompt that is no text": {"negative_prompt": 3},
    "six references": {"input_images": [picture()] * 6},
    "a reference that is None": {"input_images": [None]},
    "side below 16": {"height": 15},
    "side of zero": {"width": 0},
    "negative side": {"width": -64},
    "absurd side": {"height": 50_000},
    "side that is no whole number": {"height": 64.0},
    "no steps": {"num_inference_steps": 0},
    "negative steps": {"num_inference_steps": -5},
    "absurd steps": {"num_inference_steps": 10**6},
    "steps that are NaN": {"num_inference_steps": math.nan},
    "negative guidance": {"text_guidance_scale": -1.0},
    "guidance that is NaN": {"text_guidance_scale": math.nan},
    "infinite guidance": {"image_guidance_scale": math.inf},
    "absurd guidance": {"image_guidance_scale": 1e9},
    "range the wrong way round": {"cfg_range": (0.8, 0.2)},
    "range outside": {"cfg_range": (0.0, 1.5)},
    "range with NaN": {"cfg_range": (math.nan, 1.0)},
    "range of one number": {"cfg_range": (0.5,)},
    "range that is a number": {"cfg_range": 0.5},
    "no pictures": {"num_images_per_prompt": 0},
    "absurdly many pictures": {"num_images_per_prompt": 10**6},
    "negative seed": {"seed": -2},
    "seed too large": {"seed": 2**64},
    "seed that is no number": {"seed": "7"},
    "unknown solver": {"scheduler": "ddim"},
    "unknown preset": {"preset": "nice"},
    "unknown numerics": {"numerics": "exact"},
    "no pixels": {"max_pixels": 0},
    "references of no side": {"max_input_image_side_length": 8},
    "no tokens": {"max_sequence_length": 0},
    "times that fall": {"timesteps": [0.5, 0.2]},
    "shift of zero": {"time_shift": 0.0},
    "shift that is NaN": {"time_shift": math.nan},
    "align_res that is a word": {"align_res": "yes"},
}


@pytest.mark.parametrize("options", BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_in_one_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        Request(**{"prompt": "a cat", **options})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    name = next(iter(options))
    assert name in str(caught.value) or name == "input_images"


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [name for name in Request("a cat").options() if name not in ("prompt", "input_images")]
        ),
        st.one_of(
            st.integers(-10, 10**7), st.floats(), st.text(max_size=3), st.booleans(), st.lists(st.floats())
        ),
    )
)
def test_any_wish_is_planned_or_refused_with_a_sentence_of_ours(options: dict[str, Any]) -> None:
    try:
        planned = plan(Request(prompt="a cat", **options), MINI)
    except Og2Error:
        return
    assert all(side % 16 == 0 and side >= 16 for side in planned.size)
    assert planned.size[0] * planned.size[1] <= (planned.request.max_pixels or 0)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("guidance_scale", "text_guidance_scale"),
        ("true_cfg_scale", "text_guidance_scale"),
        ("img_guidance_scale", "image_guidance_scale"),
        ("guidance_scale_2", "image_guidance_scale"),
        ("num_inference_step", "num_inference_steps"),
    ],
)
def test_a_name_users_bring_is_read_warned_of_and_noted(theirs: str, ours: str) -> None:
    with pytest.warns(UserWarning, match=ours):
        request = Request.from_options({"prompt": "a cat", theirs: 3})
    assert getattr(request, ours) == 3
    assert request.notes == (f"{theirs} is read as {ours}",)
    assert any(theirs in note for note in plan(request, MINI).notes)


def test_one_picture_under_the_name_image_is_the_one_reference() -> None:
    with pytest.warns(UserWarning, match="input_images"):
        request = Request.from_options({"prompt": "a cat", "image": (one := picture())})
    assert request.input_images == (one,)


def test_numbers_of_numpy_are_numbers() -> None:
    request = Request("a cat", height=np.int64(64), text_guidance_scale=np.float32(3.0), seed=np.int32(4))
    assert request == Request("a cat", height=64, text_guidance_scale=3.0, seed=4)
    json.dumps(request.options())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_names_of_one_thing_and_unknown_names_are_refused() -> None:
    with pytest.raises(RequestError, match="twice"):
        Request.from_options({"prompt": "a cat", "guidance_scale": 3, "text_guidance_scale": 3})
    with pytest.raises(RequestError, match="did you mean 'negative_prompt'"):
        Request.from_options({"prompt": "a cat", "negativ_prompt": "dog"})


def test_the_request_knows_the_solvers_there_are() -> None:
    assert set(SCHEDULERS) == set(SOLVERS)


@pytest.mark.parametrize(("count", "preset"), [(0, "t2i"), (1, "edit"), (2, "in-context"), (5, "in-context")])
def test_the_task_is_known_from_the_number_of_pictures(count: int, preset: str) -> None:
    assert resolve(Request("a cat", input_images=(picture(),) * count)).preset == preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_whole_request_that_is_its_own_preset(name: str) -> None:
    resolved = resolve(Request("a cat", preset=name))
    left_open = {key for key, value in resolved.options().items() if value is None}
    assert left_open <= {"timesteps", "time_shift", "max_sequence_length", "made_by", "made_in"}
    assert resolve(resolved) == resolved


def test_what_the_author_decided_wins_over_the_preset() -> None:
    resolved = resolve(Request("a cat", num_inference_steps=7, text_guidance_scale=2.0, preset="edit"))
    assert (resolved.num_inference_steps, resolved.text_guidance_scale) == (7, 2.0)
    assert resolved.image_guidance_scale == PRESETS["edit"].image_guidance_scale


def test_a_seed_of_minus_one_or_none_is_drawn_and_reported() -> None:
    seeds = {plan(Request("a cat", seed=seed), MINI).seeds[0] for seed in (-1, None, None)}
    assert len(seeds) == 3


def test_pictures_take_seed_plus_i() -> None:
    assert plan(Request("a cat", seed=7, num_images_per_prompt=3), MINI).seeds == (7, 8, 9)


def test_size_not_multiple_of_16_is_drawn_smaller_and_noted_with_two_suggestions() -> None:
    planned = plan(Request("a cat", height=1000, width=1024))
    assert planned.size == (992, 1024)
    assert planned.output_size == (1000, 1024)
    assert any("992 or 1008 for 1000" in note for note in planned.notes)


def test_a_picture_over_max_pixels_is_drawn_smaller_and_noted() -> None:
    planned = plan(Request("a cat", height=100, width=140, max_pixels=4096))
    assert (planned.size, planned.output_size) == ((48, 64), (100, 140))
    assert any("max_pixels=4096" in note for note in planned.notes)


def test_a_plain_wish_has_no_notes() -> None:
    assert plan(Request("a cat", height=512, width=768)).notes == ()


def test_one_reference_decides_the_size_unless_told_not_to() -> None:
    images = (picture(90, 70),)
    assert plan(Request("bluer", input_images=images)).output_size == (64, 80)
    free = plan(Request("bluer", input_images=images, align_res=False, height=96, width=96))
    assert free.output_size == (96, 96)
    assert plan(Request("bluer", input_images=images * 2, height=96, width=96)).output_size == (96, 96)


def test_a_size_that_align_res_overrules_is_noted() -> None:
    planned = plan(Request("bluer", input_images=(picture(90, 70),), height=512, width=512, preset="edit"))
    assert planned.output_size == (64, 80)
    assert any("align_res=False" in note for note in planned.notes)


def test_a_reference_under_16_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="16"):
        plan(Request("bluer", input_images=(picture(12, 40),)))


@pytest.mark.parametrize(
    ("text", "image", "references", "evaluations"),
    [(1.0, 1.0, 0, 10), (4.0, 2.0, 0, 20), (4.0, 1.0, 1, 20), (4.0, 2.0, 1, 30), (1.0, 2.0, 1, 10)],
)
def test_evaluations_follow_from_guidance(
    text: float, image: float, references: int, evaluations: int
) -> None:
    request = Request(
        "a cat",
        input_images=(picture(),) * references,
        num_inference_steps=10,
        text_guidance_scale=text,
        image_guidance_scale=image,
    )
    assert plan(request, MINI).num_evaluations == evaluations


def test_the_plan_counts_tokens_of_16_pixel_squares() -> None:
    planned = plan(Request("bluer", input_images=(picture(64, 48),), align_res=False, height=64, width=96))
    assert planned.target_tokens == 24
    assert planned.reference_tokens == (12,)
    assert planned.latent_size == (8, 12)


def test_times_given_by_hand_are_used_unshifted() -> None:
    planned = plan(Request("a cat", timesteps=[0.0, 0.25, 0.5]), MINI)
    assert planned.times == (0.0, 0.25, 0.5, 1.0)
    assert planned.num_steps == 3


def test_the_plan_is_made_again_the_same() -> None:
    request = Request("a cat", seed=3, height=64, width=64)
    assert plan(request, MINI) == plan(request, MINI)


def test_a_checkpoint_brings_its_native_size_and_its_own_preset_values(tmp_path: Path) -> None:
    own = {"native_size": 64, "presets": {"t2i": {"num_inference_steps": 12, "cfg_range": [0.0, 0.5]}}}
    (tmp_path / "og2.json").write_text(json.dumps(own))
    planned = plan(Request("a cat"), read_profile(tmp_path))
    assert planned.output_size == (64, 64)
    assert planned.num_steps == 12
    assert planned.request.cfg_range == (0.0, 0.5)
    assert planned.request.text_guidance_scale == PRESETS["t2i"].text_guidance_scale


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ("{", "JSON"),
        ("[]", "JSON"),
        ('{"sizes": 1}', "sizes"),
        ('{"presets": {"x": {}}}', "presets.x"),
        ('{"presets": {"t2i": {"x": 1}}}', "presets.t2i.x"),
        ('{"native_size": "256"}', "native_size='256' is str"),
        ('{"presets": []}', "presets"),
        ('{"presets": {"t2i": 5}}', "presets.t2i"),
        ('{"presets": {"t2i": {"cfg_range": 3}}}', "presets.t2i.cfg_range"),
        ('{"presets": {"t2i": {"num_inference_steps": "many"}}}', "presets.t2i.num_inference_steps"),
    ],
)
def test_a_damaged_profile_is_a_checkpoint_error(tmp_path: Path, own: str, why: str) -> None:
    (tmp_path / "og2.json").write_text(own)
    with pytest.raises(CheckpointError, match=rf"og2\.json.*{why}"):
        read_profile(tmp_path)


def test_a_request_is_made_and_checked_without_torch() -> None:
    code = (
        "import sys; from og2.request import Request, resolve; resolve(Request('a cat')); "
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
