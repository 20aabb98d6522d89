"""The experiment on position encodings at the smallest size: what differs, is kept, is reported."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from og2.config import build, read_yaml
from og2.errors import ConfigError
from og2.model.rope import sequence_ids
from og2.train.encoding_report import Outcome, format_report
from og2.train.encoding_sweep import EncodingsRecipe, run
from og2.train.encodings import ENCODINGS, CopyConfig, CopyTask, diagonal_ids, shifted_ids
from og2.train.flow import FlowModelConfig
from og2.train.objective import TimeConfig

RECIPE = Path(__file__).parents[2] / "recipes" / "omni_rope.yaml"
MODEL = {
    "in_channels": 2, "hidden_size": 24, "num_layers": 1, "num_refiner_layers": 1, "num_attention_heads": 2,
    "num_kv_heads": 1, "multiple_of": 8, "axes_dim_rope": [4, 4, 4], "text_feat_dim": 8,
}  # fmt: skip


def small(folder: Path, **changes: object) -> EncodingsRecipe:
    tree: dict[str, object] = {
        "run": {"folder": str(folder), "threads": 1, "log_every": 1, "eval_every": 1000, "peak_tflops": 0.1},
        "optim": {"lr": 1e-3, "steps": 3, "warmup": 1, "ema": 0.0},
        "model": MODEL,
        "task": {"num_pictures": 2, "size": [4, 4], "batch": 2, "eval_samples": 3},
        "rate_factors": [1.0, 2.0],
        "seeds": [1, 2],
    }
    return build(EncodingsRecipe, {**tree, **changes})


def task_of(encoding: str) -> CopyTask:
    torch.manual_seed(0)
    config = CopyConfig(num_pictures=3, size=(4, 6), batch=2, eval_samples=2)
    task = CopyTask(build(FlowModelConfig, MODEL), config, TimeConfig(shift="none"), encoding)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in task.module.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return task


def test_the_three_encodings_place_pictures_as_the_paper_writes_them() -> None:
    texts, first, second, target = zip(
        *(ids(5, [(2, 3), (4, 2)], (2, 2)) for ids in (sequence_ids, shifted_ids, diagonal_ids)), strict=True
    )
    assert all(torch.equal(text, texts[0]) for text in texts)
    # D = 5, then 5 + max(2, 3), then 8 + max(4, 2)
    assert [ids[-1].tolist() for ids in first] == [[5, 1, 2], [5, 6, 7], [0, 6, 7]]
    assert [ids[0].tolist() for ids in second] == [[8, 0, 0], [8, 8, 8], [0, 7, 8]]
    assert [ids[0].tolist() for ids in target] == [[12, 0, 0], [12, 12, 12], [0, 11, 10]]


def test_encodings_change_the_velocity_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    tasks = {name: task_of(name) for name in ENCODINGS}
    samples = tasks["omni"].draw(2, generator)
    latents = list(torch.randn(samples.pictures[:, 0].shape, generator=generator))
    with torch.no_grad():
        found = {
            name: torch.stack(task.velocity(samples, latents, torch.tensor([0.2, 0.7])))
            for name, task in tasks.items()
        }
    names = list(found)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert float((found[name] - found[other]).abs().max()) > 1e-4, (name, other)
    assert not tasks["omni"].module.image_index_embedding.any()
    assert not tasks["omni"].module.image_index_embedding.requires_grad
    assert tasks["omni_index"].module.image_index_embedding.requires_grad


def test_a_model_that_heads_for_the_wanted_picture_has_accuracy_one() -> None:
    task = task_of("omni")
    task.velocity = lambda samples, latents, _: [  # type: ignore[method-assign]
        target - noise for target, noise in zip(samples.targets, latents, strict=True)
    ]
    found = task.evaluate(0, task.module)
    assert found["accuracy"] == 1.0
    assert found["error_t0"] < 1e-10


def test_a_sweep_runs_each_run_once_and_reports_them_beside_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(tmp_path / "sweep", encodings=["lumina", "omni"])
    run(recipe)
    results = sorted((tmp_path / "sweep").glob("*/result.json"))
    assert len(results) == 2 * 2 + 2 * 2
    kept = json.loads(results[0].read_text())
    assert [step for step, _ in kept["curve"]] == [1, 2, 3]
    report = (tmp_path / "sweep" / "report.md").read_text()
    assert "| 2500 | 0.017 |" in report
    assert "Order by final loss:" in report
    with Image.open(tmp_path / "sweep" / "curves.png") as figure:
        assert len(figure.convert("RGB").getcolors(10**6) or []) > 5
    monkeypatch.setattr("og2.train.encoding_sweep.train", lambda *_: pytest.fail("trained again"))
    run(recipe)
    assert (tmp_path / "sweep" / "report.md").read_text() == report
    with pytest.raises(ConfigError, match="other settings"):
        run(small(tmp_path / "sweep", encodings=["lumina", "omni"], time={"shift": "sampler"}))


def test_the_table_orders_by_median_and_says_never() -> None:
    def outcome(name: str, seed: int, losses: tuple[float, ...]) -> Outcome:
        curve = tuple((10 * (i + 1), loss) for i, loss in enumerate(losses))
        return Outcome(name, 1.0, 1e-3, seed, curve, 0.5, all(map(math.isfinite, losses)))

    outcomes = [outcome(name, 0, (1.0, 0.5)) for name in ("omni", "qwen", "lumina")]
    for seed in (1, 2, 3):
        outcomes += [outcome("omni", seed, (0.05, 0.01)), outcome("qwen", seed, (0.3, 0.04))]
        outcomes += [outcome("lumina", seed, (0.9, 0.8))]
    text = format_report(outcomes, {"omni": 1.0, "qwen": 1.0, "lumina": 1.0}, 0.1)
    assert "Order by steps to threshold: omni < qwen < lumina." in text
    assert "by steps in 3 of 3, by final loss in 3 of 3" in text
    assert "never [never, never]" in text
    assert "broke off" in format_report([outcome("omni", 0, (1.0, math.inf))], {}, 0.1)


def test_the_recipe_is_well_formed_and_its_search_seed_does_not_count(tmp_path: Path) -> None:
    tree = read_yaml(RECIPE)
    assert tree.pop("kind") == "encodings"
    recipe = build(EncodingsRecipe, tree)
    assert len(recipe.seeds) >= 3
    assert recipe.encodings == tuple(ENCODINGS)
    with pytest.raises(ConfigError, match="cannot be one of seeds"):
        small(tmp_path, seeds=[0, 1])
    with pytest.raises(ConfigError, match="did you mean 'lumina'"):
        small(tmp_path, encodings=["lumena"])
