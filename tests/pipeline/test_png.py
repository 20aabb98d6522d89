"""PNG files that hold the settings that made them: whole or not at all, and read back."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from recordings import pipeline

from og2.errors import ImageError, RequestError
from og2.png import CHUNK, read_parameters, write_png
from og2.request import Request, Result

FAST: dict[str, Any] = {"num_inference_steps": 2, "height": 48, "width": 64}


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return Path("in.png")


def drawn(**options: Any) -> Result:
    return pipeline().run(Request(**{"prompt": "a cat", **FAST, **options}))


def test_a_picture_made_again_from_its_settings_has_identical_bytes(tmp_path: Path) -> None:
    result = drawn(negative_prompt="blurry", text_guidance_scale=3.0, cfg_range=(0.0, 0.6), preset="fast")
    path = write_png(tmp_path / "a.png", result.images[0], result)
    again = pipeline().run(read_parameters(path))
    assert again.images[0].tobytes() == Image.open(path).tobytes() == result.images[0].tobytes()
    copy = write_png(tmp_path / "b.png", again.images[0], again)
    assert copy.read_bytes() == path.read_bytes()


def test_an_edit_made_again_from_its_settings_has_identical_bytes(reference: Path, tmp_path: Path) -> None:
    result = drawn(input_images=[str(reference)], seed=4)
    path = write_png(tmp_path / "a.png", result.images[0], result)
    again = pipeline().run(read_parameters(path))
    assert again.images[0].tobytes() == result.images[0].tobytes()
    assert again.notes == tuple(note for note in result.notes if "height and width" not in note)


def test_picture_two_of_three_is_made_again_alone(tmp_path: Path) -> None:
    result = drawn(num_images_per_prompt=3, seed=7)
    path = write_png(tmp_path / "a.png", result.images[1], result, 1)
    request = read_parameters(path)
    assert (request.seed, request.num_images_per_prompt) == (8, 1)
    assert pipeline().run(request).images[0].tobytes() == result.images[1].tobytes()


def test_a_chat_picture_is_made_again_with_the_pictures_seen(reference: Path, tmp_path: Path) -> None:
    request = Request(
        "make it snow", input_images=(str(reference),), conditioning="chat", num_inference_steps=2
    )
    result = pipeline().run(request)
    path = write_png(tmp_path / "a.png", result.images[0], result)
    assert pipeline().run(read_parameters(path)).images[0].tobytes() == result.images[0].tobytes()


def test_the_parameters_chunk_reads_like_that_of_other_programs(tmp_path: Path) -> None:
    result = drawn(negative_prompt="blurry", seed=5, text_guidance_scale=3.5)
    with Image.open(write_png(tmp_path / "a.png", result.images[0], result)) as picture:
        lines = picture.text["parameters"].split("\n")
    assert lines[:2] == ["a cat", "Negative prompt: blurry"]
    for part in ("Steps: 2", "Sampler: Euler", "CFG scale: 3.5", "Seed: 5", "Size: 64x48", "Model hash: "):
        assert part in lines[2]


def test_the_parameters_chunk_counts_the_steps_that_were_taken(tmp_path: Path) -> None:
    result = drawn(timesteps=np.array([0.0, 0.5, 0.75]), num_inference_steps=None)
    with Image.open(write_png(tmp_path / "a.png", result.images[0], result)) as picture:
        assert "\nSteps: 3, " in picture.text["parameters"]


def test_the_json_chunk_holds_versions_model_and_reference_hashes(reference: Path, tmp_path: Path) -> None:
    result = drawn(input_images=[str(reference.resolve())])
    with Image.open(write_png(tmp_path / "a.png", result.images[0], result)) as picture:
        stored = json.loads(picture.text[CHUNK])
    assert stored["schema"] == 1
    assert stored["libraries"]["torch"] == torch.__version__.split("+")[0] or "torch" in stored["libraries"]
    assert stored["model"]["hash"] == pipeline().profile.model_hash != ""
    assert len(stored["references"][0]["sha256"]) == 64
    assert stored["references"][0]["name"] == "in.png", "no folders of an absolute path"
    assert stored["request"]["preset"] == "edit"


def test_a_prompt_in_any_script_survives(tmp_path: Path) -> None:
    prompt = "\u732b und \u00e4 \U0001f431, line\nbreak"
    result = drawn(prompt=prompt)
    path = write_png(tmp_path / "a.png", result.images[0], result)
    assert read_parameters(path).prompt == prompt
    with Image.open(path) as picture:
        assert prompt in picture.text["parameters"]


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(RequestError, match="never overwrites"):
        write_png(path, Image.new("RGB", (8, 8)))
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_that_a_disk_takes_is_written(tmp_path: Path) -> None:
    path = write_png(tmp_path / ("p" * 251 + ".png"), Image.new("RGB", (8, 8)))
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_overwritten_where_files_cannot_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    path = write_png(tmp_path / "a.png", Image.new("RGB", (8, 8)))
    with pytest.raises(RequestError, match="never overwrites"):
        write_png(path, Image.new("RGB", (8, 8)))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)) as caught:
        write_png(tmp_path / "a.png", Image.new("RGB", (8, 8)))
    assert list(tmp_path.iterdir()) == []
    if isinstance(caught.value, OSError):
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.png"))


def test_a_really_full_device_is_an_error_without_a_file() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises((OSError, RequestError)):
        write_png(full, Image.new("RGB", (8, 8)))


def text_png(path: Path, **chunks: str) -> Path:
    info = PngInfo()
    for key, value in chunks.items():
        info.add_text(key, value)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ({}, "no og2 settings"),
        ({"parameters": "a cat"}, "no og2 settings"),
        ({CHUNK: "{"}, "damaged"),
        ({CHUNK: "{}"}, "damaged"),
        ({CHUNK: "[]"}, "damaged"),
        (
            {
                CHUNK: '{"schema": 9, "given": [], "request": {"prompt": ""}, "model": {"hash": ""}, '
                '"pack": "picture", "dtype": "", "device": "", "references": []}'
            },
            "schema 9",
        ),
    ],
)
def test_a_picture_without_settings_of_ours_is_refused(
    tmp_path: Path, chunks: dict[str, str], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        read_parameters(text_png(tmp_path / "a.png", **chunks))


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_parameters(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="cannot be read"):
        read_parameters(tmp_path / "a.png")


def test_a_picture_made_from_noise_given_by_hand_is_refused(tmp_path: Path) -> None:
    result = pipeline()("a cat", latents=torch.zeros(1, 4, 6, 8), **FAST)
    path = write_png(tmp_path / "a.png", result.images[0], result)
    with pytest.raises(RequestError, match="latents given by hand"):
        read_parameters(path)


def test_another_model_is_noted(tmp_path: Path) -> None:
    result = drawn()
    path = write_png(tmp_path / "a.png", result.images[0], result)
    with Image.open(path) as picture:
        stored = json.loads(picture.text[CHUNK])
    stored["model"]["hash"] = "0123456789"
    other = text_png(tmp_path / "b.png", **{CHUNK: json.dumps(stored)})
    notes = pipeline().run(read_parameters(other)).notes
    assert any("by model 0123456789" in note for note in notes)


def test_another_arithmetic_is_noted(tmp_path: Path) -> None:
    result = drawn()
    request = read_parameters(write_png(tmp_path / "a.png", result.images[0], result))
    assert not any("drawn in" in note for note in pipeline().run(request).notes)
    (note,) = [note for note in pipeline(torch.bfloat16).run(request).notes if "drawn in" in note]
    assert note.startswith("the settings come from a picture drawn in float32 with")
    assert "this one is in bfloat16 with" in note


def test_a_missing_or_other_reference_is_refused_and_another_one_given_is_noted(
    reference: Path, tmp_path: Path
) -> None:
    result = drawn(input_images=[str(reference)])
    path = write_png(tmp_path / "a.png", result.images[0], result)
    other = Image.new("RGB", (64, 64))
    assert any("not the one" in note for note in read_parameters(path, [other]).notes)
    assert read_parameters(path, [Image.open(reference).copy()]).notes == ()
    other.save(reference)
    with pytest.raises(RequestError, match="is not the picture"):
        read_parameters(path)
    reference.unlink()
    with pytest.raises(RequestError, match="not here"):
        read_parameters(path)
