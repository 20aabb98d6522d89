"""The command line before anything runs: names, refusals, settings, output files, exit codes."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from og2.cli import exits, flags, outputs, settings, talk
from og2.cli import run as og2
from og2.conditioning.reading import SUFFIXES
from og2.errors import Cancelled, CheckpointError, ConfigError, ImageError, RequestError

WORDS = st.text(alphabet="abcdefgh-_ ", min_size=1, max_size=12)


def test_help_is_fast_and_imports_no_heavy_library() -> None:
    code = (
        "import sys; from og2.cli import run; code = run(['--help']);"
        "heavy = {'torch', 'transformers', 'diffusers', 'numpy', 'PIL', 'tqdm'} & set(sys.modules);"
        "sys.exit(code or bool(heavy))"
    )
    took = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = os.times()
        took.append(sum(after[2:4]) - sum(before[2:4]))  # of the child; a busy machine does not count
        assert done.returncode == 0, done.stderr
        assert "generate" in done.stdout
    assert min(took) < 0.5


@pytest.mark.parametrize(
    "command", ["generate", "edit", "describe", "chat", "info", "doctor", "train", "eval"]
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert og2([command, "--help"]) == 0
    assert "Usage: og2 " + command in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert og2(["--version"]) == 0
    assert capsys.readouterr().out.startswith("og2 ")


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["generate", "x", "--num-inference-stepz", "3"], "--num-inference-steps"),
        (["generate", "x", "--text_guidanse_scale", "3"], "--text-guidance-scale"),
        (["edit", "x", "--inptu", "a.png"], "--input"),
        (["describe", "a.png", "--questoin", "x"], "--question"),
        (["genrate", "x"], "generate"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    arguments: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert og2(arguments) == 2
    said = capsys.readouterr()
    assert nearest in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("flag", flags.NOT_YET, ids=lambda flag: flag.name)
def test_official_flags_that_are_missing_are_refused_with_one_sentence(
    flag: flags.Flag, capsys: pytest.CaptureFixture[str]
) -> None:
    value = [] if flag.kind is bool else ["1"]
    for typed in (flag.option, "--" + flag.name):
        assert og2(["generate", "x", typed, *value]) == 2
        said = capsys.readouterr().err
        assert flag.refused in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("alias", sorted(flags.ALIASES))
def test_every_alias_names_a_flag_that_exists(alias: str) -> None:
    names = {flag.option[2:] for table in (flags.GENERATE, flags.EDIT) for flag in table}
    assert flags.ALIASES[alias] in names
    assert alias not in names


@given(st.lists(WORDS, max_size=5))
def test_values_are_never_rewritten(values: list[str]) -> None:
    given_arguments = ["generate", *(value for value in values if not value.startswith("-"))]
    assert flags.expand_inputs(given_arguments) == given_arguments


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_picture_that_is_read_may_follow_an_input_flag(suffix: str) -> None:
    arguments = ["--input", "a.png", f"b{suffix}", "make it blue"]
    assert flags.expand_inputs(arguments) == [*arguments[:2], "--input", *arguments[2:]]


def test_several_pictures_may_follow_one_input_flag() -> None:
    typed = [
        "edit",
        "--input_image_path",
        "a.png",
        "b.JPG",
        "--seed",
        "1",
        "--input",
        "c.png",
        "make it blue",
    ]
    assert flags.expand_inputs(typed) == [
        *["edit", "--input_image_path", "a.png", "--input", "b.JPG", "--seed", "1"],
        *["--input", "c.png", "make it blue"],
    ]


@pytest.mark.parametrize(
    ("decisions", "part"),
    [
        ({"align_res": True, "no_align_res": True}, "--no-align-res"),
        ({"model_cpu_offload": True, "group_offload": True}, "--group-offload"),
        ({"preset": "t2i", "params_from": "a.png"}, "--params-from"),
    ],
)
def test_contradictions_are_refused(decisions: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        settings.gather(decisions)


@pytest.mark.parametrize("name", ["text", "prompt", "negative_prompt", "question"])
def test_an_argument_that_is_not_utf8_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="is not UTF-8 text"):
        settings.gather({name: os.fsdecode(b"caf\xe9")})


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_prompt_from_stdin_that_is_not_utf8_is_refused(
    errors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), "utf-8", errors))
    with pytest.raises(RequestError, match="the prompt is not UTF-8 text"):
        settings.prompt_of({"text": "-"})


def test_a_line_of_a_conversation_that_is_not_utf8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\ncaf\xe9\n"), "utf-8"))
    with pytest.raises(RequestError, match="the line is not UTF-8 text"):
        list(talk._lines(is_terminal=False))


@pytest.mark.parametrize("scale", ["nan", "inf", "-inf", "big"])
def test_the_scale_of_an_adapter_is_a_finite_number(scale: str) -> None:
    assert settings.adapters_of({"lora": ["a:2"]}) == [("a", 2.0)]
    with pytest.raises(ConfigError, match=f"'{scale}' is no number"):
        settings.adapters_of({"lora": [f"a:{scale}"]})


def test_a_prompt_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        settings.prompt_of({"text": "a", "prompt": "b"})


def test_flags_override_the_config_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("seed: 3\nnum_inference_step: 5\ntext-guidance-scale: 2\n")
    merged = settings.gather({"config": str(path), "seed": 9})
    assert merged == {"seed": 9, "num_inference_steps": 5, "text_guidance_scale": 2.0}


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("prompt: a", {"text": "b"}),
        ("align_res: true", {"no_align_res": True}),
        ("preset: t2i", {"params_from": "a.png"}),
        ("group_offload: true", {"model_cpu_offload": True}),
    ],
)
def test_a_flag_overrides_its_opposite_in_the_config_file(
    text: str, flag: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert settings.gather({"config": str(path), **flag}) == flag


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sede: 3", "did you mean 'seed'"),
        ("seed: high", "expected int"),
        ("seed: true", "expected int"),
        ("steps: 3\nnum_inference_steps: 4", "second time"),
        ("- a", "not a mapping"),
    ],
)
def test_a_wrong_config_file_is_refused(text: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=part):
        settings.gather({"config": str(path)})


def test_folders_and_patterns_are_taken_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.png", "person.heic"):
        (tmp_path / name).write_bytes(b"x")
    expected = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    left_out = [f"{tmp_path}: not pictures, left out: person.heic"]
    assert settings.pictures_of([str(tmp_path)]) == (expected, left_out)
    assert settings.pictures_of([str(tmp_path / "*.png")]) == (expected, [])
    assert settings.pictures_of([expected[2], expected[0]]) == ([expected[2], expected[0]], [])
    with pytest.raises(ImageError, match="no file matches"):
        settings.pictures_of([str(tmp_path / "*.webp")])


def test_an_existing_file_is_refused_with_a_free_name(tmp_path: Path) -> None:
    (tmp_path / "p.png").touch()
    (tmp_path / "p_1.png").touch()
    with pytest.raises(RequestError, match=r"never overwrites; use --output .*p_2\.png"):
        outputs.plan_outputs(str(tmp_path / "p.png"), [0])
    with pytest.raises(RequestError, match=r"p_1\.png exists"):
        outputs.plan_outputs(str(tmp_path / "p.png"), [0, 1])


def test_several_pictures_get_numbered_names(tmp_path: Path) -> None:
    files = outputs.plan_outputs(str(tmp_path / "p.png"), [4, 5])
    assert [file.name for file in files] == ["p_0.png", "p_1.png"]


def test_a_folder_is_continued_from_its_last_number(tmp_path: Path) -> None:
    (tmp_path / "00006_1.png").touch()
    assert [file.name for file in outputs.plan_outputs(str(tmp_path), [7, 8])] == [
        "00007_7.png",
        "00008_8.png",
    ]


def test_without_a_name_the_first_free_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert outputs.plan_outputs(None, [0]) == [Path("output.png")]
    Path("output.png").touch()
    assert outputs.plan_outputs(None, [0]) == [Path("output_1.png")]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert outputs.plan_outputs("~/q.png", [0]) == [tmp_path / "q.png"]
    assert outputs.plan_outputs("~/new/", [0]) == [tmp_path / "new" / "00000_0.png"]
    assert outputs.plan_outputs("~", [0]) == [tmp_path / "00000_0.png"]
    assert outputs.folder_of("~/chat") == f"{tmp_path}/chat/"


def test_other_formats_are_refused() -> None:
    with pytest.raises(RequestError, match=r"use p\.png"):
        outputs.plan_outputs("p.jpg", [0])


def test_a_missing_parent_folder_is_made_and_a_file_in_its_place_refused(tmp_path: Path) -> None:
    outputs.make_ready([tmp_path / "new" / "deep" / "p.png"], 100)
    assert (tmp_path / "new" / "deep").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="in the way"):
        outputs.make_ready([tmp_path / "file" / "p.png"], 100)


def test_a_file_that_could_not_be_written_later_is_refused_now(tmp_path: Path) -> None:
    outputs.make_ready([tmp_path / ("p" * 251 + ".png")], 100)
    with pytest.raises(OSError, match="too long"):
        outputs.make_ready([tmp_path / ("p" * 252 + ".png")], 100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_cannot_be_written_in_is_refused_before_drawing(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        outputs.make_ready([tmp_path / "p.png"], 100)
    with pytest.raises(RequestError, match="nothing can be written in"):
        outputs.folder_of(str(tmp_path / "new"))


def test_the_pictures_of_a_conversation_need_a_folder(tmp_path: Path) -> None:
    assert outputs.folder_of(str(tmp_path)) == f"{tmp_path}/"
    assert outputs.folder_of(str(tmp_path / "new" / "deep")) == f"{tmp_path}/new/deep/"
    (tmp_path / "file").touch()
    for output, part in (("a.png", r"such as .*a$"), ("file", "is a file"), ("file/below", "is a file")):
        with pytest.raises(RequestError, match=part):
            outputs.folder_of(str(tmp_path / output))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError("x"), 2),
        (ImageError("x"), 2),
        (ConfigError("x"), 2),
        (CheckpointError("x"), 3),
        (Cancelled("x"), 130),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 4),
        (OSError(errno.ENOSPC, "full", "p.png"), 4),
        (PermissionError(errno.EACCES, "denied", "p.png"), 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 4),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_every_kind_of_failure_has_its_exit_code_and_one_sentence(error: BaseException, code: int) -> None:
    found, sentence = exits.explain(error)
    assert found == code
    assert sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("generate x --nonsense", "--nonsense"),
        ("eval mini --limit x", "--limit"),
        ("eval subject", "--lora"),
        ("world certify --markdown", "--markdown"),
        ("data check none.yaml --max-rows 0", "--max-rows"),
        ("data check none.yaml --workers -3", "--workers"),
    ],
)
def test_an_error_is_one_object_with_json(line: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert og2([*line.split(), "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["exit_code"] == 2
    assert said.err.startswith("og2: ")
    assert part in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("train none.yaml --dry_run", "cannot read the recipe none.yaml"),
        ("data check none.yaml --max_rows 3", "cannot read the recipe none.yaml"),
        ("export none out --no_average", "none"),
        ("eval mini --score_only", "--score-only needs --out"),
        ("world certify --n_conditions=3 --workers=-1", "--workers -1"),
    ],
)
def test_dashes_and_underscores_are_the_same_in_every_flag(
    line: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert og2(line.split()) in (2, 3)
    said = capsys.readouterr().err
    assert why in said
    assert "such option" not in said
