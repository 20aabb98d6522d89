"""Compiled blocks give the numbers of plain ones, and what one pack compiled serves every other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import last_snapshot, recipe
from torch import Tensor

from og2.data.packing import Item, make_pack
from og2.errors import ConfigError
from og2.train.compiled import COMPILERS
from og2.train.transformer import TransformerTask, make_task, run


def _pack(sides: list[tuple[int, ...]], first: int = 0) -> list[Item]:
    """Samples with these sides in patches: references, then target."""
    items = []
    for draw, sample in enumerate(sides, start=first):
        generator = torch.Generator().manual_seed(draw)
        *references, target = (torch.randn(4, 2 * side, 4, generator=generator) for side in sample)
        text = torch.randn(2 + draw % 3, 64, generator=generator)
        items.append(Item(draw, f"rows:{draw}", "t2i", text, f"{draw}", tuple(references), target))
    return items


def _loss_and_gradient(task: TransformerTask, items: list[Item]) -> tuple[float, list[Tensor]]:
    task.module.zero_grad()
    loss = task.part(make_pack(items), 0).compute().losses["flow"]
    loss.backward()
    return loss.item(), [
        torch.zeros(1) if p.grad is None else p.grad.clone() for p in task.module.parameters()
    ]


def test_compiled_blocks_give_the_same_gradient_and_do_not_compile_for_every_pack(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plain, compiled = (make_task(recipe(tmp_path, f"compute.compile={is_on}")) for is_on in ("false", "true"))
    assert [n for n, _ in plain.module.named_parameters()] == [
        n for n, _ in compiled.module.named_parameters()
    ]
    packs = [_pack([(2, 3), (1,)]), _pack([(1, 2), (3,), (2, 2, 1)], 5), _pack([(2,), (3,), (1, 3), (2,)], 9)]
    graphs = []

    def as_it_is(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    found, counts = [], []
    with torch.compiler.set_stance("default", force_backend=as_it_is):
        for pack in packs:
            found.append(_loss_and_gradient(compiled, pack))
            counts.append(len(graphs))
    assert counts[1] <= 7  # halves of a block and of the last one; sizes that happen to be equal make more
    assert counts[2] == counts[1]
    for (loss, gradient), pack in zip(found, packs, strict=True):
        expected, exact = _loss_and_gradient(plain, pack)
        assert loss == pytest.approx(expected, rel=1e-6)
        largest = max(float(g.abs().max()) for g in exact)
        for a, b in zip(gradient, exact, strict=True):
            assert float((a - b).abs().max()) <= 1e-5 * largest


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="there is no C++ compiler")
def test_a_compiled_run_learns_what_a_plain_one_learns(tmp_path: Path) -> None:
    found = {}
    for name in ("false", "true"):
        run(recipe(tmp_path / name, f"compute.compile={name}", "optim.steps=2", tasks=("edit",)))
        snapshot = last_snapshot(tmp_path / name / "checkpoints")
        assert snapshot is not None
        found[name] = snapshot.tensors["average"]
    for name, tensor in found["false"].items():
        torch.testing.assert_close(found["true"][name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_without_a_compiler_the_run_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"compute\.compile=true needs a C\+\+ compiler"):
        make_task(recipe(tmp_path, "compute.compile=true", "compute.device=cpu"))
