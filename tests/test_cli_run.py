"""The command line with a model behind it: pictures on disk, reports, refusals that leave nothing behind."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from og2 import OmniGen2Pipeline
from og2.cli import run as og2
from og2.cli.loading import chosen_dtype
from og2.conditioning.vlm import Answer

MODEL = str(Path(__file__).parent / "golden" / "pipeline" / "model")
SMALL = ["--height", "32", "--width", "48", "--num-inference-steps", "2", "--model", MODEL]
LIGHT = ["--num-inference-steps", "2", "--model", MODEL]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def red(tmp_path: Path) -> str:
    path = tmp_path / "red.png"
    Image.new("RGB", (48, 32), "red").save(path)
    return str(path)


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_generate_writes_the_picture_and_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert og2(["generate", "a red circle", *SMALL, "--seed", "3", "--output", "new/p.png", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == ["new/p.png"]
    assert report["seeds"] == [3]
    assert report["sizes"] == [[48, 32]]
    assert report["timings"]["total_s"] > 0
    with Image.open("new/p.png") as picture:
        assert picture.size == (48, 32)
    assert pictures(tmp_path) == ["p.png"]


def test_the_seed_is_printed_and_makes_the_same_picture_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert og2(["generate", "a red circle", *SMALL, "--output", "a.png"]) == 0
    seed = capsys.readouterr().out.split("seed ")[1].split()[0]
    assert og2(["generate", "a red circle", *SMALL, "--output", "b.png", "--seed", seed]) == 0
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(Image.open("b.png")))


def test_several_pictures_take_the_following_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert og2(["generate", "x", *SMALL, "-n", "2", "--seed", "5", "--output", "p.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == [5, 6]
    assert og2(["generate", "x", *SMALL, "--seed", "6", "--output", "alone.png"]) == 0
    assert np.array_equal(np.asarray(Image.open("p_1.png")), np.asarray(Image.open("alone.png")))


def test_the_settings_in_a_png_make_it_again_byte_for_byte(red: str) -> None:
    line = ["edit", "make it blue", *LIGHT, "--input", red, "--text-guidance-scale", "3"]
    assert og2([*line, "--output", "first.png"]) == 0
    again = ["edit", "--params-from", "first.png", "--model", MODEL, "--input", red, "--output", "again.png"]
    assert og2(again) == 0
    assert Path("first.png").read_bytes() == Path("again.png").read_bytes()


def test_a_picture_is_made_again_in_its_own_dtype_unless_another_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert og2(["generate", "x", *SMALL, "--dtype", "bf16", "--output", "first.png"]) == 0
    again = ["generate", "--params-from", "first.png", "--model", MODEL, "--output"]
    assert og2([*again, "again.png"]) == 0
    assert Path("first.png").read_bytes() == Path("again.png").read_bytes()
    capsys.readouterr()
    assert og2([*again, "other.png", "--dtype", "fp32", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("drawn in bfloat16" in note and "this one is in float32" in note for note in notes)


def test_without_metadata_the_png_holds_none() -> None:
    assert og2(["generate", "x", *SMALL, "--no-metadata", "--output", "p.png"]) == 0
    with Image.open("p.png") as picture:
        assert picture.info == {}
    assert og2(["generate", "--params-from", "p.png", "--model", MODEL, "--output", "q.png"]) == 2


def test_the_prompt_comes_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a red circle\n"))
    assert og2(["generate", "-", *SMALL, "--seed", "1", "--output", "a.png"]) == 0
    assert og2(["generate", "--prompt", "a red circle", *SMALL, "--seed", "1", "--output", "b.png"]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    capsys.readouterr()


def test_an_official_command_line_works_as_it_is(red: str, capsys: pytest.CaptureFixture[str]) -> None:
    official = [
        *["edit", "--model_path", MODEL, "--num_inference_step", "2", "--seed", "0", "--height", "1024"],
        *["--width", "1024", "--text_guidance_scale", "5.0", "--image_guidance_scale", "2.0"],
        *["--instruction", "make it blue", "--input_image_path", red, "--output_image_path", "out/o.png"],
        *["--num_images_per_prompt", "1", "--max_input_image_pixels", "1048576"],
        *["--cfg_range_start", "0.0", "--cfg_range_end", "1.0", "--dtype", "fp32", "--scheduler", "euler"],
    ]
    assert og2(official) == 0
    said = capsys.readouterr()
    assert "48x32" in said.out
    assert "height and width are not used" in said.err


def test_a_dry_run_prints_the_plan_and_draws_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert og2(["generate", "a red circle", *SMALL, "--dry-run", "--json", "-n", "2"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["size"] == "48x32"
    assert plan["tokens"]["picture"] == 6
    assert plan["branches"] == {"cond": 2, "ref": 0, "uncond": 2}
    assert plan["evaluations"] == 8
    assert plan["transformer_tflop"] >= 0
    assert plan["memory_gb"]["all_about"] >= 0
    assert pictures(tmp_path) == []


def test_a_dry_run_of_a_model_that_is_not_here_assumes_the_published_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    absent = ["generate", "x", "--model", "OmniGen2/no-such-model-here", "--dry-run", "--json"]
    assert og2([*absent, "--dtype", "bf16"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["memory_gb"]["weights"] == pytest.approx(15.61, abs=0.01)
    assert any("not downloaded" in note for note in plan["notes"])


@pytest.mark.parametrize(
    ("device", "dtype", "size_gb"), [("cpu", "float32", 31.22), ("cuda", "bfloat16", 15.61)]
)
def test_a_dry_run_counts_in_the_dtype_that_the_run_itself_would_take(
    device: str, dtype: str, size_gb: float, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = ["generate", "x", "--model", "OmniGen2/no-such-model-here", "--dry-run", "--json"]
    assert og2([*absent, "--device", device]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["dtype"] == dtype == chosen_dtype({"model": "OmniGen2/no-such-model-here"}, device)
    assert plan["memory_gb"]["weights"] == pytest.approx(size_gb, abs=0.01)


def test_a_dry_run_counts_the_transformer_that_takes_the_place_of_the_models_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def planned(*words: str) -> dict[str, Any]:
        assert og2(["generate", "x", "--seed", "1", "--dry-run", "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)

    own, other = planned("--model", MODEL), Path(MODEL) / "transformer"
    absent = ["--model", "OmniGen2/no-such-model-here", "--device", "cpu"]
    (weights,) = other.glob("*.safetensors")
    for place in (MODEL, other, weights):
        plan = planned(*absent, "--transformer-path", str(place))
        assert plan["memory_gb"]["weights"] < planned(*absent)["memory_gb"]["weights"] / 1.9
        if place != weights:  # a lone file has no configuration: that of the model is taken
            assert plan["transformer_tflop"] < 0.1 * planned(*absent)["transformer_tflop"]
    assert planned("--model", MODEL, "--transformer-path", str(weights)) == own
    assert og2(["generate", "x", "--dry-run", "--model", MODEL, "--transformer-path", "none"]) == 3


def test_a_dry_run_counts_with_the_tokenizer_wherever_it_is_or_says_that_it_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(folder: str) -> dict[str, Any]:
        assert og2(["generate", "a red circle", "--seed", "1", "--dry-run", "--json", "--model", folder]) == 0
        return json.loads(capsys.readouterr().out)

    copy = tmp_path / "model"
    copy.mkdir()
    for part in Path(MODEL).iterdir():
        (copy / ("mllm_processor" if part.name == "processor" else part.name)).symlink_to(part)
    assert planned(str(copy))["tokens"] == planned(MODEL)["tokens"]
    assert not any("estimated" in note for note in planned(str(copy))["notes"])
    (copy / "mllm_processor").unlink()
    assert any("tokens are estimated" in note for note in planned(str(copy))["notes"])


def test_describe_answers_in_words(red: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert og2(["describe", red, "--model", MODEL, "--max-new-tokens", "4", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"text", "pictures", "question", "notes"}


def test_describe_draws_a_seed_where_it_is_asked_for_and_says_which(
    red: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["describe", red, "--model", MODEL, "--max-new-tokens", "4", "--json", "--seed"]
    assert og2([*line, "-1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert f"seed {said['seed']}" in said["notes"]
    assert said["seed"] >= 0
    assert og2([*line, str(said["seed"])]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == said["text"]


def test_chat_answers_line_by_line(
    red: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"hello\n/image {red}\nwhat is it?\n/quit\nnever\n"))
    assert og2(["chat", "--model", MODEL, "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.strip()


def test_every_picture_of_a_conversation_is_kept_in_the_folder_named(
    red: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("og2.conditioning.vlm.answer", lambda *_, **__: Answer("", True, True, 1))
    monkeypatch.setattr(sys, "stdin", io.StringIO("make it blue\nmake it green\n"))
    arguments = ["chat", "--model", MODEL, "--input", red, "--seed", "3"]
    assert og2([*arguments, "--output", "new"]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["00000_3.png", "00001_3.png"]


def test_info_lists_networks_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert og2(["info", MODEL, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["networks"]) == {"transformer", "mllm", "vae"}
    assert "t2i" in report["presets"]
    assert og2(["info", MODEL]) == 0


# Bad input: one sentence, an exit code, no file.

Image.init()
REFUSED = {
    "empty prompt": (["generate", "  "], 2, "empty"),
    "no prompt": (["generate"], 2, "no prompt"),
    "no picture": (["edit", "x"], 2, "--input"),
    "picture for generate": (["generate", "x", "--input", "red.png"], 2, "og2 edit"),
    "prompt too long": (["generate", "word " * 3000], 2, "tokens"),
    "prompt beyond the limit asked for": (["generate", "a b c d", "--max-sequence-length", "9"], 2, "tokens"),
    "missing picture": (["edit", "x", "--input", "none.png"], 2, "does not exist"),
    "unreadable picture": (["edit", "x", "--input", "text.png"], 2, "not a picture"),
    "truncated picture": (["edit", "x", "--input", "cut.png"], 2, "truncated"),
    "zero-sized file": (["edit", "x", "--input", "zero.png"], 2, "empty"),
    "huge picture": (["edit", "x", "--input", "huge.png"], 2, "50000"),
    "animated picture": (["edit", "x", "--input", "moving.gif"], 2, "frames"),
    "tiny picture": (["edit", "x", "--input", "tiny.png"], 2, "16 px"),
    "six references": (["edit", "x", "--input", *["red.png"] * 6], 2, "at most 5"),
    "side below 16": (["generate", "x", "--height", "8"], 2, "height=8"),
    "absurd size": (["generate", "x", "--height", "1000000"], 2, "height=1000000"),
    "negative guidance": (["generate", "x", "--text-guidance-scale", "-1"], 2, "text_guidance_scale=-1"),
    "guidance that is no number": (["generate", "x", "--text-guidance-scale", "nan"], 2, "nan"),
    "absurd guidance": (["edit", "x", "--input", "red.png", "--image-guidance-scale", "1e9"], 2, "range"),
    "no steps": (["generate", "x", "--num-inference-steps", "0"], 2, "num_inference_steps=0"),
    "absurd steps": (["generate", "x", "--num-inference-steps", "1000000"], 2, "num_inference_steps"),
    "range reversed": (["generate", "x", "--cfg-range-start", "0.9", "--cfg-range-end", "0.1"], 2, "range"),
    "negative seed": (["generate", "x", "--seed", "-7"], 2, "seed=-7"),
    "no pictures": (["generate", "x", "-n", "0"], 2, "num_images_per_prompt=0"),
    "text for a number": (["generate", "x", "--height", "tall"], 2, "height"),
    "unknown scheduler": (["generate", "x", "--scheduler", "heun"], 2, "euler"),
    "unknown dtype": (["generate", "x", "--dtype", "fp8"], 2, "--dtype fp8"),
    "unknown device": (["generate", "x", "--device", "gpu"], 2, "--device gpu"),
    "unknown device of a dry run": (["generate", "x", "--device", "gpu", "--dry-run"], 2, "--device gpu"),
    "unknown preset": (["generate", "x", "--preset", "t2"], 2, "t2i"),
    "existing file": (["generate", "x", "--output", "red.png"], 2, "never overwrites"),
    "another format": (["generate", "x", "--output", "p.jpg"], 2, "PNG"),
    "file for a folder": (["generate", "x", "--output", "red.png/p.png"], 2, "in the way"),
    "missing model": (["generate", "x", "--model", "./none"], 3, "no folder"),
    "incomplete model": (["generate", "x", "--model", "empty"], 3, "empty"),
    "offload without accelerator": (
        ["generate", "x", "--model-cpu-offload", "--device", "cpu"],
        2,
        "accelerator",
    ),
    "no question": (["describe", "red.png", "--question", " "], 2, "--question"),
    "a file for a conversation": (["chat", "--output", "red.png"], 2, "give a folder"),
    "no room for an answer": (["describe", "red.png", "--max-new-tokens", "0"], 2, "max_new_tokens=0"),
    "absurd seed of an answer": (["describe", "red.png", "--seed", str(2**70)], 2, f"seed={2**70}"),
    "negative seed of a chat": (["chat", "--seed", "-7"], 2, "seed=-7"),
    "nothing to describe": (["describe"], 2, "og2 describe"),
    "describe a missing picture": (["describe", "none.png"], 2, "does not exist"),
    "no metadata": (["generate", "--params-from", "red.png"], 2, "no og2 settings"),
    "missing config": (["generate", "x", "--config", "none.yaml"], 2, "none.yaml"),
}


@pytest.fixture
def bad_inputs(tmp_path: Path) -> None:
    Image.new("RGB", (48, 32), "red").save(tmp_path / "red.png")
    Image.new("RGB", (48, 8), "red").save(tmp_path / "tiny.png")
    Image.new("1", (50_000, 1)).save(tmp_path / "huge.png")
    (tmp_path / "text.png").write_text("no picture at all")
    (tmp_path / "zero.png").touch()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("bad_inputs")
def test_bad_input_gives_one_sentence_a_code_and_no_file(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, part = REFUSED[case]
    before = pictures(tmp_path)
    model = [] if "--model" in arguments else ["--model", MODEL]
    assert og2([*arguments, *model]) == code
    said = capsys.readouterr()
    assert part in said.err
    assert said.err.startswith("og2: ")
    assert said.err.count("\n") == 1
    assert len(said.err) < 400
    assert said.out == ""
    assert pictures(tmp_path) == before


def _rotated() -> Image.Image:
    picture = Image.new("RGB", (48, 32), "red")
    picture.getexif()[0x0112] = 6
    return picture


CONVERTED = {
    "rotated.jpg": (_rotated, "upright"),
    "deep.png": (lambda: Image.fromarray(np.full((32, 48), 40_000, dtype=np.uint16)), "16-bit"),
    "palette.png": (lambda: Image.new("P", (48, 32)), "palette"),
    "cmyk.jpg": (lambda: Image.new("CMYK", (48, 32)), "CMYK"),
    "clear.png": (lambda: Image.new("RGBA", (48, 32)), "transparency"),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_unusual_pictures_are_converted_and_noted(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, part = CONVERTED[name]
    picture = make()
    picture.save(name, exif=picture.getexif())
    assert og2(["edit", "x", *LIGHT, "--input", name, "--output", "out.png", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert any(part in note for note in report["notes"])
    assert report["sizes"] == [[32, 48] if name == "rotated.jpg" else [48, 32]]


@pytest.mark.usefixtures("red")
def test_files_of_a_folder_that_are_no_pictures_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "person.heic").touch()
    for command in (["edit", "x", "--input", ".", *LIGHT], ["describe", ".", "--model", MODEL]):
        assert og2([*command, "--json"]) == 0
        assert any("left out: person.heic" in note for note in json.loads(capsys.readouterr().out)["notes"])
        (tmp_path / "output.png").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("typed", "taken", "names"),
    [
        ("", "output.png", ["output.png", "output_1.png"]),
        ("--output new/", "new/00000_4.png", ["00000_4.png", "00001_4.png"]),
        ("-n 2", "output_1.png", ["output-1_0.png", "output-1_1.png", "output_1.png"]),
    ],
)
def test_a_name_of_our_own_that_is_taken_while_we_draw_costs_no_picture(
    typed: str,
    taken: str,
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = OmniGen2Pipeline.run
    monkeypatch.setattr(OmniGen2Pipeline, "run", lambda *given: (Path(taken).touch(), run(*given))[1])
    assert og2(["generate", "x", *SMALL, "--seed", "4", "--json", *typed.split()]) == 0
    report = json.loads(capsys.readouterr().out)
    assert pictures(tmp_path) == names
    assert all(Path(file).stat().st_size for file in report["files"])
    assert any("was taken" in note for note in report["notes"])


def test_a_name_of_the_users_that_is_taken_while_we_draw_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OmniGen2Pipeline.run
    monkeypatch.setattr(OmniGen2Pipeline, "run", lambda *given: (Path("p.png").touch(), run(*given))[1])
    assert og2(["generate", "x", *SMALL, "--output", "p.png"]) == 2
    assert pictures(tmp_path) == ["p.png"]
    assert Path("p.png").stat().st_size == 0


def test_a_stop_says_that_nothing_was_written_only_where_that_is_known(
    red: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(OmniGen2Pipeline, "run", stop)
    monkeypatch.setattr("og2.conditioning.vlm.answer", stop)
    assert og2(["generate", "x", *SMALL]) == 130
    assert capsys.readouterr().err == "og2: stopped; nothing was written\n"
    assert og2(["describe", red, "--model", MODEL]) == 130
    assert capsys.readouterr().err == "og2: stopped\n"


def test_the_memory_is_that_of_the_device_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("og2.device.peak_gb", lambda device: {"cpu": 0.5}[device.type])
    monkeypatch.setattr("og2.device.chosen_device", lambda _: torch.device("cuda", 0))
    assert og2(["generate", "x", *SMALL, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["peak_gb"] == 0.5


def test_a_full_disk_gives_one_sentence_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second of two pictures does not fit: the first is taken back."""
    save, calls = Image.Image.save, []

    def full(picture: Image.Image, file: io.BufferedWriter, **options: object) -> None:
        calls.append(file)
        if len(calls) == 2:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(picture, file, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    assert og2(["generate", "x", *SMALL, "-n", "2", "--output", "p.png"]) == 4
    assert len(calls) == 2
    assert capsys.readouterr().err == "og2: no room on the disk to write p_1.png; nothing was written there\n"
    assert pictures(tmp_path) == []


def test_a_disk_without_room_is_seen_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert og2(["generate", "x", *SMALL, "--output", "p.png"]) == 4
    assert "no room" in capsys.readouterr().err
    assert pictures(tmp_path) == []


RUN_AS_MODULE = "import runpy; runpy.run_module('og2', run_name='__main__', alter_sys=True)"


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own, with Ctrl-C as in a terminal, even where the tests have none."""
    listening = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {RUN_AS_MODULE}"
    line = [sys.executable, "-c", listening, *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_in_the_middle_leaves_no_file_and_no_traceback(tmp_path: Path) -> None:
    line = ["generate", "x", "--model", MODEL, "--num-inference-steps", "1000", "--output", "p.png"]
    process = start([*line, "--height", "512", "--width", "512"])
    time.sleep(0.5)
    while process.poll() is None and _seconds_of_work(process.pid) < 4.0:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("og2: stopped")
    assert out == ""
    assert pictures(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("module", ["numpy.dtypes", "torch.functional"])
def test_ctrl_c_while_a_library_is_imported_stops_at_once(module: str, tmp_path: Path) -> None:
    interrupts = f"""
import os, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
signal.signal(signal.SIGINT, signal.default_int_handler)
{RUN_AS_MODULE}
"""
    line = [sys.executable, "-c", interrupts, "generate", "x", *SMALL, "--output", "p.png", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "og2: stopped\n"
    assert json.loads(done.stdout) == {"error": "stopped", "exit_code": 130}
    assert pictures(tmp_path) == []


def _seconds_of_work(pid: int) -> float:
    """CPU seconds of a process; where the system does not say, as if it had worked long enough."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        time.sleep(4)
        return 4.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="limits of the process")
def test_a_file_that_cannot_grow_is_exit_code_4_in_a_real_process(tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "sys.argv[0] = 'og2'; from og2.cli import main; main()"
    )
    line = ["generate", "x", *SMALL, "--output", "p.png"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *line], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("og2: no room on the disk")
    assert "Traceback" not in done.stderr
    assert pictures(tmp_path) == []


@pytest.mark.slow
def test_a_refusal_in_a_real_process_is_one_line_on_stderr(tmp_path: Path) -> None:
    process = start(["edit", "x", "--input", "none.png", "--model", MODEL])
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (2, "", err)
    assert err.startswith("og2: none.png does not exist")
    assert err.count("\n") == 1
    assert pictures(tmp_path) == []
