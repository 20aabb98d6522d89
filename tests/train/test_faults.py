"""What goes wrong in a run: one sentence, an exit code, and what was learned so far still stands."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from small_runs import last_snapshot, recipe_tree

from og2.cli import run as og2
from og2.train import checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _recipe(folder: Path, **sections: Any) -> str:
    """A recipe's file; the run's folder is `run` beside it."""
    tree = recipe_tree(folder / "run", **sections)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"kind": "transformer", **tree}))
    return str(folder / "recipe.yaml")


def _in_little_room(words: list[str], most_bytes: int) -> int:
    """The exit code of a command that can write no file larger than that."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        os._exit(og2(words))

    process = get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def test_a_full_disk_ends_the_run_and_the_same_command_goes_on_when_there_is_room(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", _recipe(tmp_path), "run.save_every=1", "optim.steps=4"]
    assert og2([*words[:-1], "optim.steps=2"]) == 0
    capfd.readouterr()
    assert _in_little_room(words, 20_000) == 3
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("og2: ")]
    assert len(said) == 1
    assert "cannot write the checkpoint" in said[0]
    assert "the last complete one still stands" in said[0]
    saved = checkpoint.finished(tmp_path / "run" / "checkpoints")
    assert checkpoint.step_of(saved[-1]) == 2
    assert last_snapshot(tmp_path / "run" / "checkpoints") is not None
    assert not list((tmp_path / "run" / "checkpoints").glob(".writing-*"))
    assert og2(words) == 0
    assert checkpoint.step_of(checkpoint.finished(tmp_path / "run" / "checkpoints")[-1]) == 4


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", _recipe(tmp_path), "optim.lr=1e30", "optim.warmup=0", "optim.steps=9"]
    assert og2(words) == 2
    said = capsys.readouterr().err
    assert "of step" in said
    assert "its rows are in" in said
    (report,) = (tmp_path / "run").glob("bad-step-*.json")
    rows = json.loads(report.read_text())["rows"]
    assert len(rows) == 1  # of one process
    assert len(rows[0]) == 4  # packs
    assert all(name.partition(":")[0] in ("t2i", "edit") for pack in rows[0] for name in pack)


def test_a_worker_that_dies_ends_the_run_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill_workers() -> None:
        while not (tmp_path / "run" / "metrics.jsonl").is_file():
            time.sleep(0.05)
        while (tmp_path / "run" / "metrics.jsonl").stat().st_size == 0:
            time.sleep(0.05)
        for process in active_children():
            if process.name == "og2-data" and process.pid:
                os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_workers, daemon=True)
    killer.start()
    words = ["train", _recipe(tmp_path), "optim.steps=5000", "data.loader.workers=2", "run.log_every=1"]
    assert og2(words) == 2
    killer.join()
    assert "a data worker died" in capsys.readouterr().err


def _outside(folder: Path) -> dict[str, Any]:
    row = {"task_type": "t2i", "instruction": "a thing", "output_image": "../elsewhere.png"}
    Image.new("RGB", (32, 32)).save(folder / "elsewhere.png")
    (folder / "rows").mkdir()
    (folder / "rows" / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return {"path": str(folder / "rows" / "rows.jsonl")}


def _corrupt_shard(folder: Path) -> dict[str, Any]:
    (folder / "0.tar").write_bytes(os.urandom(3000))
    return {"path": str(folder / "0.tar"), "kind": "webdataset", "type": "t2i"}


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [(_outside, "leads outside the data root"), (_corrupt_shard, "0.tar")],
    ids=["a path outside the data root", "a corrupt shard"],
)
def test_bad_data_end_the_run_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: Any, sentence: str
) -> None:
    path = _recipe(tmp_path, data={"mix": {"data": [entry(tmp_path)]}, "loader": {"prefetch": 0}})
    assert og2(["train", path]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("og2: ")]
    assert len(said) == 1
    assert sentence in said[0]
    assert not (tmp_path / "run" / "checkpoints").exists() or not list((tmp_path / "run").rglob("step-*"))


def test_rows_that_are_left_out_are_named_in_the_record_of_their_steps(tmp_path: Path) -> None:
    rows = []
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 90, 20)).save(tmp_path / f"{number}.png")
        rows.append({"task_type": "t2i", "instruction": f"thing {number}", "output_image": f"{number}.png"})
    (tmp_path / "2.png").write_bytes(b"no picture")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "mix": {"data": [{"path": str(tmp_path / "rows.jsonl")}]},
        "loader": {"packs_per_step": 2, "max_bad_rows": 1, "packing": {"budget": 160, "waiting": 0}},
    }
    assert og2(["train", _recipe(tmp_path, data=data), "optim.steps=4", "run.log_every=2"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if "loss" in record]
    assert [record["step"] for record in records] == [2, 4]
    named = [record["skipped"] for record in records if "skipped" in record]
    assert named
    assert set(named) == {"rows:3"}
    total = sum(record.get("rows_skipped", 0) for record in records)
    snapshot = last_snapshot(tmp_path / "run" / "checkpoints")
    assert snapshot is not None
    assert snapshot.values["num_skipped"] == total
