"""One optimizer step is the same whatever it is cut into: packs, accumulated parts, processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from small_runs import MODEL, in_processes, last_snapshot, recipe
from torch import Tensor

from og2.conditioning.processor import load_processor
from og2.conditioning.templates import render_prompt
from og2.conditioning.vlm import tokenize
from og2.data.packing import Item, make_pack
from og2.errors import ConfigError
from og2.model.weights import load_transformer
from og2.train.transformer import TransformerTask, make_task, run


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> TransformerTask:
    """The task with a transformer in float64 whose weights are all random."""
    torch.set_num_threads(1)
    task = make_task(recipe(tmp_path_factory.mktemp("run")))
    task.module.double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in task.module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).double())
    return task


def _item(draw: int, sides: list[tuple[int, int]], length: int, text_key: str) -> Item:
    generator = torch.Generator().manual_seed(draw)
    *references, target = [torch.randn(4, 2 * h, 2 * w, generator=generator).double() for h, w in sides]
    text = torch.randn(length, 64, generator=torch.Generator().manual_seed(length)).double()
    return Item(draw, f"rows:{draw}", "t2i", text, text_key, tuple(references), target)


def _loss_and_gradient(task: TransformerTask, packs: list[list[Item]]) -> tuple[float, list[Tensor]]:
    task.module.zero_grad()
    parts = [task.part(make_pack(items), 0) for items in packs]
    count = sum(part.counts["flow"] for part in parts)
    total = 0.0
    for part in parts:
        loss = part.compute().losses["flow"] / count
        loss.backward()
        total += loss.item()
    return total, [torch.zeros(1) if p.grad is None else p.grad.clone() for p in task.module.parameters()]


side = st.integers(1, 3)
pictures = st.lists(st.tuples(side, side), min_size=1, max_size=3)


@settings(max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # a failure need not shrink
@given(st.lists(st.tuples(pictures, st.integers(1, 5)), min_size=2, max_size=5))
def test_a_pack_gives_the_loss_and_gradient_of_its_samples_one_by_one(
    double: TransformerTask, samples: list[tuple[list[tuple[int, int]], int]]
) -> None:
    items = [_item(n, sides, length, f"{length}") for n, (sides, length) in enumerate(samples)]
    packed, packed_gradient = _loss_and_gradient(double, [items])
    single, single_gradient = _loss_and_gradient(double, [[item] for item in items])
    assert packed == pytest.approx(single, rel=1e-10)
    largest = max(float(g.abs().max()) for g in single_gradient)
    for a, b in zip(packed_gradient, single_gradient, strict=True):
        assert float((a - b).abs().max()) <= 1e-10 * largest


def _train(folder: Path, changes: tuple[str, ...]) -> None:
    run(recipe(folder, *changes))


def _result(folder: Path) -> tuple[list[dict], dict[str, dict[str, Tensor]]]:
    snapshot = last_snapshot(folder / "checkpoints")
    assert snapshot is not None
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return records, snapshot.tensors


def _assert_same(one: Path, other: Path, tolerance: float = 1e-6) -> None:
    """Losses and gradient norms of all steps, and the optimizer's mean gradient."""
    (records, tensors), (other_records, other_tensors) = _result(one), _result(other)
    losses = ("loss", "grad_norm", "loss_t2i", "loss_edit")
    last, other_last = records[-1], other_records[-1]
    assert last["step"] == other_last["step"] == 3
    for name in losses:
        if name in last:
            assert last[name] == pytest.approx(other_last[name], rel=1e-6, abs=1e-6), name
    names = [name for name in tensors["optimizer"] if name.endswith("|exp_avg")]
    mean, other_mean = (
        torch.cat([group["optimizer"][name].flatten().double() for name in names])
        for group in (tensors, other_tensors)
    )
    assert float((mean - other_mean).norm()) <= tolerance * float(mean.norm())
    for name, tensor in tensors["parameters"].items():
        # AdamW divides by the gradient's own size, so roundings of tiny gradients show: a share of one step.
        assert float((tensor - other_tensors["parameters"][name]).abs().max()) <= 5e4 * tolerance * 1e-4, name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    _train(folder, ())
    return folder


@pytest.mark.parametrize("changes", [("ddp", "false"), ("fsdp", "true")], ids=lambda c: c[0])
def test_two_processes_train_as_one(alone: Path, tmp_path: Path, changes: tuple[str, str]) -> None:
    strategy, checkpointing = changes
    options = (f"compute.strategy={strategy}", f"compute.checkpointing={checkpointing}")
    in_processes(2, _train, tmp_path, options)
    _assert_same(alone, tmp_path)
    expected, exported = (load_transformer(folder / "export") for folder in (alone, tmp_path))
    for a, b in zip(expected.parameters(), exported.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=5e-6)


def test_sharded_training_in_bfloat16_stays_near(alone: Path, tmp_path: Path) -> None:
    in_processes(2, _train, tmp_path, ("compute.strategy=fsdp", "compute.precision=bf16"))
    last, exact = _result(tmp_path)[0][-1], _result(alone)[0][-1]
    assert last["loss"] == pytest.approx(exact["loss"], rel=0.03)
    assert last["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.1)
    assert all(tensor.dtype == torch.float32 for tensor in _result(tmp_path)[1]["parameters"].values())


def test_one_large_pack_trains_as_four_accumulated_ones(tmp_path: Path) -> None:
    even = ("data.mix.data=[{kind: world, name: t2i, options: {sizes_px: [[32, 32]]}}]",)
    sample = len(tokenize(load_processor(MODEL / "processor"), render_prompt(""))) + 4
    for packs, budget in {4: 3 * sample, 1: 12 * sample}.items():
        changes = (f"data.loader.packs_per_step={packs}", f"data.loader.packing.budget={budget}")
        _train(tmp_path / str(packs), (*even, *changes, "data.read.drop_text=1.0"))
    # Losses and norms to 1e-6. Of the gradient float32 itself knows no more than this, see below.
    _assert_same(tmp_path / "1", tmp_path / "4", tolerance=1e-5)


def test_in_float32_any_cut_of_a_step_is_as_near_to_the_exact_gradient(
    double: TransformerTask, tmp_path: Path
) -> None:
    single = make_task(recipe(tmp_path))
    with torch.no_grad():
        for parameter, exact in zip(single.module.parameters(), double.module.parameters(), strict=True):
            parameter.copy_(exact)
            exact.copy_(parameter)
    items = [_item(n, [(1 + n % 3, 2)] * (1 + n % 2), 3 + n % 4, f"{n % 4}") for n in range(12)]
    loss, gradient = _loss_and_gradient(double, [items])
    truth = torch.cat([g.flatten() for g in gradient])
    rounded = [replace(i, text=_f32(i.text), target=_f32(i.target)) for i in items]
    rounded = [replace(i, references=tuple(map(_f32, i.references))) for i in rounded]
    for cut in ([rounded], [rounded[k::4] for k in range(4)], [[item] for item in rounded]):
        found, parts = _loss_and_gradient(single, cut)
        assert found == pytest.approx(loss, rel=1e-6)
        error = torch.cat([g.flatten().double() for g in parts]) - truth
        assert float(error.norm() / truth.norm()) < 6e-6  # 2.3e-6 to 3.3e-6 were seen, without order


def _f32(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor.float()


def test_accumulated_packs_give_the_gradient_of_one_pack(double: TransformerTask) -> None:
    items = [_item(n, [(1 + n % 3, 2)] * (1 + n % 2), 3, "3") for n in range(12)]
    one, gradient = _loss_and_gradient(double, [items])
    four, accumulated = _loss_and_gradient(double, [items[k::4] for k in range(4)])
    assert one == pytest.approx(four, rel=1e-10)
    largest = max(float(g.abs().max()) for g in gradient)
    assert all(
        float((a - b).abs().max()) <= 1e-10 * largest for a, b in zip(gradient, accumulated, strict=True)
    )


def test_a_sharded_run_goes_on_with_another_number_of_processes(alone: Path, tmp_path: Path) -> None:
    in_processes(2, _train, tmp_path, ("optim.steps=2", "run.log_every=1"))
    _train(tmp_path, ())
    _assert_same(alone, tmp_path)


def test_packs_that_do_not_divide_among_the_processes_are_refused(tmp_path: Path) -> None:
    def work() -> None:
        with pytest.raises(ConfigError, match="packs_per_step=3 is no multiple of the 2 processes"):
            _train(tmp_path, ("data.loader.packs_per_step=3",))

    in_processes(2, work)


def test_answered_rows_need_a_language_model_that_learns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answered in words, but the language model is frozen"):
        run(recipe(tmp_path, tasks=("text",)))


def test_stages_must_add_up() -> None:
    base = recipe(Path("x"))
    with pytest.raises(ConfigError, match="the stages have"):
        replace(base, stages=(replace(base.curriculum()[0], steps=5),))
