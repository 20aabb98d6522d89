"""What a run shows of itself: figures, validation, samples, a trial; and rows that are answered in words."""

from __future__ import annotations

import json
import logging
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from small_runs import in_processes, last_snapshot, recipe, recipe_tree

from og2 import OmniGen2Pipeline
from og2.cli import run as og2
from og2.errors import ConfigError, Og2Error
from og2.train.run import read_recipe, resolved, run_recipe
from og2.train.transformer import make_task, run

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))
SAMPLES = [
    {"prompt": "a thing", "seed": 4, "height": 32, "width": 32, "num_inference_steps": 2},
    {"prompt": "another", "seed": 5, "height": 32, "width": 48, "num_inference_steps": 2},
]
VALIDATION = {
    "num_samples": 2,
    "times": [0.2, 0.8],
    "mix": {
        "data": [
            {"kind": "world", "name": task, "type": task, "options": {"seed": 9, "sizes_px": [[32, 32]]}}
            for task in ("t2i", "edit")
        ]
    },
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that shows everything it can."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("watched")
    tree = recipe_tree(folder / "run", samples=SAMPLES, validation=VALIDATION)
    tree["run"] |= {"evaluate_first": True, "tensorboard": True}
    tree["optim"] |= {"steps": 5, "lr": 2e-3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"kind": "transformer", **tree}))
    run_recipe(folder / "recipe.yaml")
    return folder / "run"


def _records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_figures_say_what_was_learned_and_what_it_cost(watched: Path) -> None:
    records = [r for r in _records(watched) if "loss" in r]
    wanted = {"loss", "loss_t2i", "loss_edit", "grad_norm", "lr", "s_per_step", "data_wait_share", "peak_gb"}
    assert wanted | {"samples_per_s", "tokens_per_s", "mfu", "train_s"} <= records[0].keys()
    bins = [name for r in records for name in r if name.startswith("loss_t") and name != "loss_t2i"]
    assert {name[6:] for name in bins} <= {str(k) for k in range(10)}
    assert len(set(bins)) >= 3
    assert 0 < records[0]["mfu"] < 1
    assert 0 <= records[0]["data_wait_share"] <= 1
    assert list(watched.glob("events.out.tfevents.*"))


def test_validation_measures_every_task_with_the_same_noise_again_and_again(watched: Path) -> None:
    first, last = (r for r in _records(watched) if "eval/loss" in r)
    assert (first["step"], last["step"]) == (0, 5)
    assert first["eval/loss"] == pytest.approx((first["eval/loss_t2i"] + first["eval/loss_edit"]) / 2)
    assert last["eval/loss"] != first["eval/loss"]


def test_the_command_beside_a_sample_makes_the_same_bytes(watched: Path, tmp_path: Path) -> None:
    folders = sorted((watched / "samples").iterdir())
    assert [folder.name for folder in folders] == ["step-00000000", "step-00000005"]
    assert Image.open(folders[0] / "grid.png").size == (4 + 2 * 52, 4 + 36)
    assert (folders[0] / "0.png").read_bytes() != (folders[1] / "0.png").read_bytes()
    said, *lines = (folders[1] / "commands.txt").read_text().splitlines()
    assert said.startswith("# ")
    assert "step-00000005" in said
    for index, line in enumerate(lines):
        words = shlex.split(line)
        assert words[:2] == ["og2", "generate"]
        out = tmp_path / f"{index}.png"
        assert og2([*words[1:-1], str(out), "--quiet"]) == 0
        assert out.read_bytes() == (folders[1] / f"{index}.png").read_bytes()


def test_the_export_of_a_run_draws_what_its_last_sample_shows(watched: Path, tmp_path: Path) -> None:
    assert og2(["export", str(watched), str(tmp_path / "model")]) == 0
    pipe = OmniGen2Pipeline.from_pretrained(tmp_path / "model")
    drawn = pipe("a thing", seed=4, height=32, width=32, num_inference_steps=2).images[0]
    assert (
        drawn.tobytes()
        == Image.open(watched / "samples" / "step-00000005" / "0.png").convert("RGB").tobytes()
    )


def test_the_resolved_recipe_is_a_recipe_and_what_changes_is_said(
    watched: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, read, _ = read_recipe(watched / "recipe.yaml")
    assert resolved(kind, read) == (watched / "recipe.yaml").read_text()
    with caplog.at_level(logging.WARNING):
        run_recipe(watched / "recipe.yaml", ["optim.lr=0.5"])
    assert "optim.lr was 0.002 in this run so far, now 0.5" in caplog.text


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_well_formed(path: Path) -> None:
    kind, read, _ = read_recipe(path)
    if kind == "transformer":
        assert read.num_steps == {"pretrain_paper": 360_000, "finetune_full": 4000}.get(
            path.stem, read.num_steps
        )
        assert read.rate(read.num_steps - 1) > 0


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = recipe_tree(tmp_path / "run")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"kind": "transformer", **tree}))
    assert og2(["train", str(tmp_path / "recipe.yaml"), "--dry-run", "optim.steps=4000"]) == 0
    said = capsys.readouterr().out
    assert "steps: 4000" in said
    assert "one step: " in said
    assert "all 4000 steps: about " in said
    assert not (tmp_path / "run").exists()
    state = {}
    for name in ("optim.ema=0.9", "optim.ema=0"):
        assert og2(["train", str(tmp_path / "recipe.yaml"), "--dry-run", name]) == 0
        gigabytes, millions = re.findall(
            r"a checkpoint: about ([\d.]+) GB; ([\d.]+) million", capsys.readouterr().out
        )[0]
        state[name] = float(gigabytes) / float(millions) * 1000
    assert state == {"optim.ema=0.9": pytest.approx(16, abs=1), "optim.ema=0": pytest.approx(12, abs=1)}
    assert og2(["train", str(tmp_path / "recipe.yaml"), "optim.stepz=1"]) == 2
    assert "unknown key recipe.optim.stepz; did you mean 'steps'?" in capsys.readouterr().err


def test_data_are_looked_through_and_cached_by_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = recipe_tree(tmp_path / "run")
    for entry in tree["data"]["mix"]["data"]:
        entry["options"]["rows"] = 3
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"kind": "transformer", **tree}))
    assert og2(["data", "check", str(tmp_path / "recipe.yaml")]) == 0
    assert "all: 6 rows looked at, all can be used" in capsys.readouterr().out
    for limit, said in (
        ("loader.packing.budget=30", "of a pack is 30"),
        ("encode.max_text_tokens=9", "limit is 9"),
    ):
        assert og2(["data", "check", str(tmp_path / "recipe.yaml"), f"data.{limit}"]) == 2
        assert said in capsys.readouterr().out
    cache = f"data.cache={tmp_path / 'cache'}"
    assert og2(["cache", str(tmp_path / "recipe.yaml"), cache]) == 0
    assert "all: 6 rows" in capsys.readouterr().out
    assert og2(["cache", str(tmp_path / "recipe.yaml"), cache]) == 0
    assert " 0 entries made" in capsys.readouterr().out
    run(recipe(tmp_path / "plain", "optim.steps=2"))
    assert og2(["cache", str(tmp_path / "recipe.yaml")]) == 2


ANSWERS = {"rank": 2, "weight": 0.5}


def _train_answers(folder: Path, train: str) -> None:
    made = recipe(folder, "optim.steps=3", tasks=("t2i", "text"), answers={**ANSWERS, "train": train})
    run(made)


@pytest.mark.parametrize("train", ["lora", "full"])
def test_rows_answered_in_words_train_the_language_model_in_the_same_run(tmp_path: Path, train: str) -> None:
    _train_answers(tmp_path, train)
    last = _records(tmp_path)[-1]
    assert last["loss"] == pytest.approx(last["loss_t2i"] + 0.5 * last["loss_answers"], rel=1e-4)
    snapshot = last_snapshot(tmp_path / "checkpoints")
    assert snapshot is not None
    learned = {name.split(".")[0] for name in snapshot.tensors["parameters"]}
    assert learned == {"transformer", "mllm"}
    assert not any("visual" in name for name in snapshot.tensors["parameters"])
    assert (tmp_path / "export" / "mllm" / "config.json").is_file()


def test_an_answer_about_a_picture_is_learned_at_the_positions_chat_gives_it(tmp_path: Path) -> None:
    task = make_task(recipe(tmp_path, tasks=("text",), answers={**ANSWERS, "train": "full"}))
    task.parts(0, torch.Generator())
    assert task._loader is not None
    answers = [answer for pack in next(task._loader).packs for answer in pack.answers]
    answer = next(answer for answer in answers if answer.pixel_values is not None)
    mllm = task.module.mllm.eval()
    ids = answer.input_ids[None]
    with torch.no_grad():
        found = task.module._answer_loss(answer)
        logits = mllm(
            input_ids=ids,
            pixel_values=answer.pixel_values,
            image_grid_thw=answer.image_grid_thw,
            mm_token_type_ids=(ids == mllm.config.image_token_id).int(),
        ).logits[0]
    said = answer.said.nonzero().flatten()
    expected = torch.nn.functional.cross_entropy(logits[said - 1], ids[0, said], reduction="sum")
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_steps_made_ahead_train_the_very_same_weights(tmp_path: Path) -> None:
    for name, ahead in (("now", 0), ("ahead", 3)):
        run(recipe(tmp_path / name, "optim.steps=6", f"data.loader.prefetch={ahead}"))
    now, ahead = (last_snapshot(tmp_path / name / "checkpoints") for name in ("now", "ahead"))
    assert now is not None
    assert ahead is not None
    for name, tensor in now.tensors["parameters"].items():
        assert torch.equal(tensor, ahead.tensors["parameters"][name]), name


def test_two_processes_train_answers_as_one(tmp_path: Path) -> None:
    _train_answers(tmp_path / "one", "lora")
    in_processes(2, _train_answers, tmp_path / "two", "lora")
    one, two = (_records(tmp_path / name)[-1] for name in ("one", "two"))
    for name in ("loss", "loss_t2i", "loss_answers", "grad_norm"):
        assert one[name] == pytest.approx(two[name], rel=1e-5), name


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path: Path) -> None:
    sample = {"prompt": "a thing", "input_images": [str(tmp_path / "gone.png")]}
    with pytest.raises(Og2Error, match=r"gone\.png"):
        run(recipe(tmp_path, samples=[sample]))
    with pytest.raises(ConfigError, match="no steps"):
        recipe(tmp_path, "optim.steps=0")
    with pytest.raises(ConfigError, match="an adapter needs trained weights"):
        recipe(tmp_path, lora={"rank": 4}, fresh={"hidden_size": 48})
    with pytest.raises(ConfigError, match="did you mean 'checkpointing'"):
        recipe(tmp_path, "compute.checkpoint=true")
    for section in ({"lora": {"rank": 2}}, {"answers": {}}):
        with pytest.raises(
            ConfigError, match="fsdp trains all weights of the transformer, no adapter and no"
        ):
            run(recipe(tmp_path, "compute.strategy=fsdp", **section))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"device=cuda, but there is none"):
            run(recipe(tmp_path, "compute.device=cuda"))
    if find_spec("wandb") is None:
        with pytest.raises(ConfigError, match="needs the package wandb"):
            run(recipe(tmp_path, "run.wandb=project"))
    assert not (tmp_path / "checkpoints").exists()
