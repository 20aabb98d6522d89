"""Halves of blocks with gradients written out, and attention by products: the numbers of the plain ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import recipe
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from og2 import device
from og2.data.packing import Item, make_pack
from og2.model.attention import packed_attention
from og2.model.blocks import OmniGen2TransformerBlock
from og2.model.rope import Rotary
from og2.train import halves
from og2.train.halves import normed, turned
from og2.train.transformer import TransformerTask, make_task


def _random(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("is_onto", [False, True])
def test_the_written_out_gradient_of_a_norm_is_the_numerical_one(
    num_rows: int, is_onto: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "RUN_VALUES", 12)  # two tokens at a time
    rows = torch.tensor([0, 0, 1, 1, 2]) % num_rows
    x, weight, onto = _random(1, 5, 6), _random(2, num_rows, 6), _random(3, 5, 6)
    expected = functional.rms_norm(x, (6,), eps=0.1) * weight[rows] + (onto if is_onto else 0)
    assert torch.allclose(normed(x, weight, rows, 0.1, onto if is_onto else None), expected, rtol=1e-13)
    if is_onto:
        assert gradcheck(lambda x, weight, onto: normed(x, weight, rows, 0.1, onto), (x, weight, onto))
    else:
        assert gradcheck(lambda x, weight: normed(x, weight, rows, 0.1), (x, weight))


def test_the_written_out_gradient_of_turned_heads_is_the_numerical_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(halves, "RUN_VALUES", 24)
    angles = _random(3, 5, 3).detach()
    rotary = Rotary(angles.cos(), angles.sin())
    assert gradcheck(lambda x, weight: turned(x, weight, rotary), (_random(1, 5, 2, 6), _random(2, 6)))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=3),
    st.sampled_from([(2, 1), (2, 2), (6, 2)]),
)
def test_attention_that_learns_gives_the_kernels_numbers_and_gradients(
    lengths: list[tuple[int, int]], heads: tuple[int, int]
) -> None:
    queries, keys = zip(*lengths, strict=True)
    q, k, v = _random(1, sum(queries), heads[0], 4), *(_random(n, sum(keys), heads[1], 4) for n in (2, 3))
    expected = []
    for some_q, some_k, some_v in zip(q.split(queries), k.split(keys), v.split(keys), strict=True):
        turned_heads = (x.transpose(0, 1)[None] for x in (some_q, some_k, some_v))
        out = functional.scaled_dot_product_attention(*turned_heads, enable_gqa=True)
        expected.append(out[0].transpose(0, 1))
    exact, found = torch.cat(expected), packed_attention(q, k, v, queries, keys)
    with torch.no_grad():
        assert torch.allclose(packed_attention(q, k, v, queries, keys), exact, atol=1e-12)
    assert torch.allclose(found, exact, atol=1e-12)
    grad = _random(4, *exact.shape)
    pairs = zip(*(torch.autograd.grad(out, (q, k, v), grad) for out in (exact, found)), strict=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in pairs)


def _task(folder: Path, is_plain: bool, *changes: str, seed: int = 2) -> TransformerTask:
    """A task with random weights everywhere; plain: its blocks compute as they do outside of training."""
    task = make_task(recipe(folder, *changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in task.module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    for block in task.module.modules():
        if is_plain and isinstance(block, OmniGen2TransformerBlock):
            del vars(block)["before"], vars(block)["after"]
    return task


def _loss_and_gradient(task: TransformerTask) -> tuple[float, Tensor, int]:
    """Of a drawing and an edit; and how many bytes beside the weights the forward kept for the backward."""
    items = []
    for draw, sides in enumerate([(4,), (3, 4)]):
        *references, target = (_random(draw + side, 4, 2 * side, 8).detach().float() for side in sides)
        text = _random(draw, 3 + draw, 64).detach().float()
        items.append(Item(draw, f"rows:{draw}", "t2i", text, f"{draw}", tuple(references), target))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = task.part(make_pack(items), 0).compute().losses["flow"]
    loss.backward()
    gradients = [p.grad.flatten() for p in task.module.parameters() if p.grad is not None]
    weights = {p.untyped_storage().data_ptr() for p in task.module.parameters()}
    return loss.item(), torch.cat(gradients), sum(size for at, size in kept.items() if at not in weights)


def test_blocks_that_learn_give_the_plain_gradient_and_keep_less(tmp_path: Path) -> None:
    (exact, gradient, kept), (loss, found, kept_less) = (
        _loss_and_gradient(_task(tmp_path, is_plain)) for is_plain in (True, False)
    )
    assert loss == pytest.approx(exact, rel=1e-6)
    assert float((found - gradient).norm() / gradient.norm()) <= 1e-5
    assert kept_less < 0.8 * kept


def test_in_half_precision_their_gradient_is_as_near_to_the_exact_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "computes_half", lambda _: True)  # also where that is slow
    errors = torch.zeros(2)
    for seed in range(6):
        _, exact, _ = _loss_and_gradient(_task(tmp_path, True, seed=seed))
        for place, is_plain in enumerate((True, False)):
            task = _task(tmp_path, is_plain, "compute.precision=bf16", seed=seed)
            errors[place] += ((_loss_and_gradient(task)[1] - exact).norm() / exact.norm()) ** 2
    assert 0 < float(errors[1]) <= 1.1 * float(errors[0])
