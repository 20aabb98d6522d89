"""Conditioning against the official implementation's recordings: prompts, features, picture preprocessing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from og2.conditioning import images
from og2.conditioning.templates import render_prompt
from og2.conditioning.vlm import encode_prompt, tokenize

GOLDEN = Path(__file__).parents[1] / "golden"
PIPELINE = GOLDEN / "pipeline"
CASES = json.loads((PIPELINE / "meta.json").read_text())["cases"]
RECORDED = [name for name in CASES if (PIPELINE / f"{name}.safetensors").is_file()]
WHOLE = [name for name in RECORDED if "max_seq" not in CASES[name]["args"]]
PREPROCESS = json.loads((GOLDEN / "preprocess" / "meta.json").read_text())


def prompts_of(case: str, kind: str) -> list[str]:
    """Prompts of a case by the recording's own key, one per recorded row, unique prompts only."""
    args = CASES[case]["args"]
    given = args["prompt"] if kind == "prompt" else args.get("negative_prompt", "")
    return given if isinstance(given, list) else [given]


def rows_of(recorded: dict[str, torch.Tensor], kind: str, name: str) -> torch.Tensor:
    return recorded["mid.prompt_" + name if kind == "prompt" else "mid.negative_" + name]


@pytest.mark.parametrize("kind", ["prompt", "negative"])
@pytest.mark.parametrize("case", WHOLE)
def test_each_prompt_encoded_alone_equals_the_recorded_padded_features(case, kind, processor, mllm):
    recorded = load_file(PIPELINE / f"{case}.safetensors")
    if kind == "negative" and "mid.negative_ids" not in recorded:
        pytest.skip("guidance is off in this case, no negative prompt was encoded")
    ids, embeds = rows_of(recorded, kind, "ids"), rows_of(recorded, kind, "embeds")
    mask = rows_of(recorded, kind, "mask").bool()
    for row, prompt in enumerate(prompts_of(case, kind)):
        assert tokenize(processor, render_prompt(prompt)) == ids[row][mask[row]].tolist()
        features = encode_prompt(mllm, processor, prompt)
        expected = embeds[row][mask[row]]
        assert features.shape == expected.shape
        assert (features - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_features_of_a_text_cut_as_the_official_code_cuts_it_agree_too(processor, mllm):
    recorded = load_file(PIPELINE / "t2i_truncated.safetensors")
    args = CASES["t2i_truncated"]["args"]
    ids = tokenize(processor, render_prompt(args["prompt"]))[: args["max_seq"]]
    assert ids == recorded["mid.prompt_ids"][0].tolist()
    with torch.no_grad():
        features = mllm(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    expected = recorded["mid.prompt_embeds"][0]
    assert (features - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", PREPROCESS["sizes"], ids=lambda s: "x".join(map(str, s["in_hw"])))
def test_reference_size_is_the_recorded_one(size):
    fitted = images.fit_size(*size["in_hw"], size["max_pixels"], size["max_side_length"])
    assert list(fitted) == size["out_hw"]


@pytest.mark.parametrize("case", PREPROCESS["pixels"], ids=lambda c: str(c["index"]))
def test_preprocessed_pixels_are_the_recorded_ones(case):
    recorded = load_file(GOLDEN / "preprocess" / "preprocess.safetensors")
    picture = Image.fromarray(recorded[f"in.{case['index']}"].numpy())
    pixels = images.preprocess(picture, case["max_pixels"], case["max_side_length"])
    torch.testing.assert_close(pixels, recorded[f"out.{case['index']}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", [name for name in RECORDED if CASES[name]["args"].get("images")])
def test_reference_pixels_of_the_pipeline_cases_are_the_recorded_ones(case):
    recorded, args = load_file(PIPELINE / f"{case}.safetensors"), CASES[case]["args"]
    sources = sorted(key for key in recorded if key.startswith("in.image."))
    for k, key in enumerate(sources):
        picture, notes = images.load_image(recorded[key].numpy())
        pixels = images.preprocess(picture, args.get("max_pixels", 1024**2), args.get("max_side", 1024))
        torch.testing.assert_close(pixels, recorded[f"mid.ref_pixels.{k}"], rtol=0, atol=1e-6)
        assert notes == []


def test_postprocessing_and_the_final_resize_are_the_recorded_ones():
    recorded = load_file(GOLDEN / "preprocess" / "preprocess.safetensors")
    unit = images.postprocess(recorded["post.in"])
    torch.testing.assert_close(unit, recorded["post.pt"], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(images.to_uint8(unit), recorded["post.uint8"].numpy())
    resized = images.resize_output(recorded["post.in"], (17, 25))
    torch.testing.assert_close(resized, recorded["resize_out.17x25"], rtol=0, atol=1e-6)
