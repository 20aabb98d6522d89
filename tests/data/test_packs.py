"""Packs: nothing lost, nothing over budget, the same again; a packed loss equal to a loop over samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from og2.data.packing import Answer, Item, Pack, Packer, PackingConfig, make_pack
from og2.errors import ConfigError, DataError
from og2.model.transformer import OmniGen2Transformer2DModel, Sequence

CHANNELS, WIDTH = 4, 12


def item(draw: int, text: int, references: list[tuple[int, int]], target: tuple[int, int]) -> Item:
    generator = torch.Generator().manual_seed(draw)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Item(
        draw, f"s:{draw}", "edit" if references else "t2i", values(text, WIDTH), f"t{draw}",
        tuple(values(CHANNELS, *size) for size in references), values(CHANNELS, *target),
    )  # fmt: skip


sides = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda hw: (2 * hw[0], 2 * hw[1]))
samples = st.tuples(st.integers(1, 9), st.lists(sides, max_size=3), sides)


@settings(max_examples=40, deadline=None)
@given(st.lists(samples, max_size=30), st.integers(60, 150), st.integers(0, 5))
def test_every_item_is_in_one_pack_and_no_pack_is_over_budget(
    made: list[tuple[int, list[tuple[int, int]], tuple[int, int]]], budget: int, waiting: int
) -> None:
    packer = Packer(PackingConfig(budget, waiting))
    items = [item(draw, *sizes) for draw, sizes in enumerate(made)]
    packs = [pack for one in items if (pack := packer.add(one)) is not None]
    drawn = [draw for pack in packs for draw in pack.draws]
    assert sorted([*drawn, *packer.waiting]) == list(range(len(items)))
    for pack in packs:
        assert pack.num_tokens == sum(items[draw].num_tokens(2) for draw in pack.draws) <= budget
        assert pack.num_target_tokens == sum(x.shape[1] * x.shape[2] // 4 for x in pack.targets)


@settings(max_examples=30, deadline=None)
@given(st.lists(samples, min_size=12, max_size=40), st.integers(60, 110), st.integers(0, 5))
def test_a_packer_that_is_given_what_waits_goes_on_as_if_it_had_not_stopped(
    made: list[tuple[int, list[tuple[int, int]], tuple[int, int]]], budget: int, waiting: int
) -> None:
    items = [item(draw, *sizes) for draw, sizes in enumerate(made)]
    whole, resumed = Packer(PackingConfig(budget, waiting)), None
    for one in items:
        pack = whole.add(one)
        again = resumed.add(one) if resumed else pack
        assert (pack.draws if pack else None) == (again.draws if again else None)
        if pack is not None and resumed is None:
            resumed = Packer(PackingConfig(budget, waiting))
            assert [resumed.add(items[draw]) for draw in whole.waiting] == [None] * len(whole.waiting)
            assert resumed.waiting == whole.waiting


def test_a_large_item_waits_instead_of_closing_a_pack() -> None:
    sizes = [(4, 4), (20, 20), (4, 4), (4, 4), (4, 4)]
    for waiting, lengths in ((0, [1, 1]), (1, [])):
        packer = Packer(PackingConfig(budget=110, waiting=waiting))
        packs = [packer.add(item(draw, 5, [], size)) for draw, size in enumerate(sizes)]
        assert [len(pack.draws) for pack in packs if pack] == lengths


def test_equal_texts_are_held_once() -> None:
    empty = torch.zeros(3, WIDTH)
    items = [Item(i, f"s:{i}", "t2i", empty, "none", (), torch.zeros(CHANNELS, 4, 4)) for i in range(3)]
    pack = make_pack([*items, item(3, 2, [], (4, 4))])
    assert len(pack.texts) == 2
    assert [sequence[0] for sequence in pack.sequences] == [0, 0, 0, 1]


def test_answers_ride_along_and_stay_apart_from_pictures() -> None:
    answer = Answer(torch.arange(7), torch.ones(7, dtype=torch.bool))
    pack = make_pack([item(0, 2, [(4, 4)], (4, 4)), Item(1, "s:1", "text", answer=answer)])
    assert (pack.ids, pack.answer_ids) == (("s:0",), ("s:1",))
    assert pack.num_tokens == 2 + 4 + 4 + 7
    assert pack.to("cpu", torch.bfloat16).targets[0].dtype == torch.bfloat16
    assert pack.to("cpu", torch.bfloat16).answers[0].input_ids.dtype == torch.long


def test_an_item_larger_than_the_budget_is_refused() -> None:
    with pytest.raises(DataError, match="s:0 has 30 tokens, the budget of a pack is 29"):
        Packer(PackingConfig(budget=29)).add(item(0, 5, [], (10, 10)))
    with pytest.raises(ConfigError, match="starts at 1"):
        Packer(PackingConfig(budget=0))


def model() -> OmniGen2Transformer2DModel:
    made = OmniGen2Transformer2DModel(
        in_channels=CHANNELS, hidden_size=24, num_layers=2, num_refiner_layers=1, num_attention_heads=2,
        num_kv_heads=1, multiple_of=8, axes_dim_rope=(4, 4, 4), text_feat_dim=WIDTH, timestep_scale=1000.0,
    ).double()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            centre = float(parameter.ndim == 1)
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(centre + 0.25 * drawn)
    return made


def summed_error(network: OmniGen2Transformer2DModel, pack: Pack) -> Tensor:
    """Squared error summed over a pack's targets; noise and time of a sample follow from its draw alone."""
    latents, velocities, times = [], [], []
    for target, draw in zip(pack.targets, pack.draws, strict=True):
        generator = torch.Generator().manual_seed(1000 + draw)
        noise = torch.randn(target.shape, generator=generator, dtype=torch.float64)
        times.append(torch.rand((), generator=generator, dtype=torch.float64))
        latents.append(times[-1] * target + (1 - times[-1]) * noise)
        velocities.append(target - noise)
    sizes = [(x.shape[1], x.shape[2]) for x in pack.targets]
    sequences = [Sequence(*parts) for parts in pack.sequences]
    prepared = network.prepare(list(pack.texts), list(pack.references), sizes, sequences)
    predicted = network.velocity(latents, torch.stack(times), prepared)
    return torch.stack([(v - u).square().sum() for v, u in zip(predicted, velocities, strict=True)]).sum()


def test_packed_loss_and_gradient_equal_a_loop_over_samples_in_float64() -> None:
    sizes = [
        (5, [], (4, 6)),
        (3, [(6, 4)], (8, 4)),
        (7, [(4, 4), (2, 6)], (4, 4)),
        (5, [], (4, 6)),
        (2, [], (2, 2)),
    ]
    items = [item(draw, *parts) for draw, parts in enumerate(sizes)]
    network, count = model(), sum(one.target.numel() for one in items if one.target is not None)
    found = []
    for packs in (
        [make_pack(items)],
        [make_pack([one]) for one in items],
        [make_pack(items[:2]), make_pack(items[2:])],
    ):
        network.zero_grad()
        losses = [summed_error(network, pack) / count for pack in packs]
        for loss in losses:
            loss.backward()
        grads = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        found.append((sum(loss.item() for loss in losses), grads))
    (loss, grads), *others = found
    assert len(grads) == len(list(network.parameters()))
    for other_loss, other_grads in others:
        assert abs(other_loss / loss - 1) < 1e-10
        for name, gradient in grads.items():
            assert (other_grads[name] - gradient).abs().max() <= 1e-10 * gradient.abs().max(), name


def test_latents_are_tokens_by_the_patch_size_of_the_model() -> None:
    coarse, fine = Packer(PackingConfig(30)), Packer(PackingConfig(30), patch_size=1)
    sample = item(0, 5, [], (10, 10))
    coarse.add(sample)
    assert coarse.waiting == (0,)
    with pytest.raises(DataError, match="105 tokens"):
        fine.add(sample)
