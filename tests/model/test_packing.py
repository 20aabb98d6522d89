"""Packed sequences: equal to sequences computed alone, and deaf to their neighbours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import relative_error
from small import CHANNELS, TEXT_WIDTH, Sample, pack, random_sample, small_model, velocities

from og2 import errors
from og2.model.packing import Sequence, patchify, unpatchify
from og2.model.transformer import TIMES_AT_ONCE

MODEL = small_model()
TOLERANCE = 1e-4

sizes = st.tuples(st.integers(1, 5), st.integers(1, 5)).map(lambda hw: (2 * hw[0], 2 * hw[1]))
sample_shapes = st.tuples(st.integers(1, 9), st.lists(sizes, max_size=5), sizes)


def make_samples(shapes: list[tuple], seed: int = 0) -> list[Sample]:
    generator = torch.Generator().manual_seed(seed)
    return [random_sample(generator, *shape) for shape in shapes]


@settings(max_examples=25, deadline=None)
@given(st.lists(sample_shapes, min_size=1, max_size=4), st.booleans())
def test_packed_samples_equal_samples_run_alone(shapes: list[tuple], together: bool):
    samples = make_samples(shapes)
    with torch.inference_mode():
        packed = velocities(MODEL, samples, together=together)
        alone = [velocities(MODEL, [sample])[0] for sample in samples]
    for one, other in zip(packed, alone, strict=True):
        assert relative_error(one, other) <= TOLERANCE


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(1, 6))
def test_unpatchify_undoes_patchify(size: tuple[int, int], channels: int):
    latents = torch.randn(channels, *size)
    tokens = patchify(latents, 2)
    assert tokens.shape == (size[0] * size[1] // 4, 4 * channels)
    assert torch.equal(tokens[0], latents[:, :2, :2].permute(1, 2, 0).flatten())
    assert torch.equal(unpatchify(tokens, size, 2), latents)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("same_shape", [True, False])
@pytest.mark.parametrize("where", ["text", "references", "latents", "t"])
def test_poisoned_neighbour_changes_not_a_bit(poison: float, same_shape: bool, where: str):
    shape = (5, [(4, 6), (2, 2)], (6, 4))
    first, second = make_samples([shape, shape if same_shape else (7, [(2, 8)], (4, 4))])
    with torch.inference_mode():
        benign = velocities(MODEL, [first, second, first])
        if where == "t":
            second.t = poison
        elif where == "references":
            second.references[-1].fill_(poison)
        else:
            getattr(second, where).fill_(poison)
        poisoned = velocities(MODEL, [first, second, first])
    assert torch.equal(benign[0], poisoned[0])
    assert torch.equal(benign[2], poisoned[2])
    assert not torch.equal(benign[1], poisoned[1])


def guided_request(num_references: int):
    """Three branches of one picture: with the prompt, without it, and without the references too."""
    (sample,) = make_samples([(5, [(4, 4), (6, 2), (2, 8)][:num_references], (6, 6))])
    negative = torch.randn(3, TEXT_WIDTH, generator=torch.Generator().manual_seed(1))
    places = tuple(range(num_references))
    sequences = [Sequence(0, places, 0), Sequence(1, places, 0), Sequence(1, (), 0)]
    return sample, [sample.text, negative], sequences


@pytest.mark.parametrize("num_references", [0, 1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"together": False}, {"times": [0.1, 0.7]}, {"numerics": "official"}]
)
def test_guidance_branches_that_share_refiners_equal_separate_ones(num_references: int, options: dict):
    sample, texts, sequences = guided_request(num_references)
    t = torch.tensor(sample.t)
    with torch.inference_mode():
        prepared = MODEL.prepare(texts, sample.references, [(6, 6)], sequences, **options)
        branches = MODEL.velocity([sample.latents], t, prepared)
        for sequence, branch in zip(sequences, branches, strict=True):
            references = sample.references if sequence.references else []
            alone = Sample(texts[sequence.text], references, sample.latents, sample.t)
            assert relative_error(branch, velocities(MODEL, [alone])[0]) <= TOLERANCE


def test_refiners_run_once_for_all_branches():
    sample, texts, sequences = guided_request(3)
    prepared = MODEL.prepare(texts, sample.references, [(6, 6)], sequences)
    layout = prepared.layout()
    assert [len(layout.references), len(layout.targets)] == [3, 1]
    assert layout.joints[0].segments.lengths == (5 + 4 + 3 + 4 + 9, 3 + 4 + 3 + 4 + 9, 3 + 9)


def test_active_branches_come_back_in_the_order_asked_for():
    sample, texts, sequences = guided_request(1)
    with torch.inference_mode():
        prepared = MODEL.prepare(texts, sample.references, [(6, 6)], sequences)
        every = MODEL.velocity([sample.latents], torch.tensor(0.5), prepared)
        some = MODEL.velocity([sample.latents], torch.tensor(0.5), prepared, active=(2, 0))
    assert relative_error(some[0], every[2]) <= TOLERANCE
    assert relative_error(some[1], every[0]) <= TOLERANCE


@pytest.mark.parametrize("num_times", [1, 3, 100])
def test_a_run_whose_times_are_known_embeds_them_together_and_gives_the_same_velocities(num_times: int):
    sample, texts, sequences = guided_request(1)
    model, asked = small_model().eval(), []
    times = torch.linspace(0.05, 0.95, num_times)
    with torch.inference_mode():
        anew = model.prepare(texts, sample.references, [(6, 6)], sequences)
        known = model.prepare(texts, sample.references, [(6, 6)], sequences, times=times.tolist())
        model.time_caption_embed.timestep_embedder.register_forward_hook(
            lambda *call: asked.append(len(call[2]))
        )
        for t in (*times, torch.tensor(0.01)):
            for one, other in zip(
                model.velocity([sample.latents], t, known),
                model.velocity([sample.latents], t, anew),
                strict=True,
            ):
                assert relative_error(one, other) <= TOLERANCE
    assert sum(asked) == 2 * (num_times + 1)
    assert len(asked) == num_times + 2 + -(-num_times // TIMES_AT_ONCE)


def test_a_reference_at_another_place_is_another_reference():
    (sample,) = make_samples([(4, [(4, 4), (4, 4)], (4, 4))])
    sequences = [Sequence(0, (0, 1), 0), Sequence(0, (1, 0), 0)]
    with torch.inference_mode():
        prepared = MODEL.prepare([sample.text], sample.references, [(4, 4)], sequences)
        forth, back = MODEL.velocity([sample.latents], torch.tensor(0.3), prepared)
    assert len(prepared.layout().references) == 4
    assert relative_error(forth, back) > 1e-2


def test_one_time_lets_two_targets_share_their_reference():
    generator = torch.Generator().manual_seed(0)
    one, two = (random_sample(generator, 4, [(4, 4)], (4, 4)) for _ in range(2))
    sequences = [Sequence(0, (0,), 0), Sequence(0, (0,), 1)]
    with torch.inference_mode():
        shared, separate = (
            MODEL.prepare([one.text], one.references, [(4, 4)] * 2, sequences, times=times)
            for times in ([0.4], None)
        )
        assert [len(p.layout().references) for p in (shared, separate)] == [1, 2]
        latents, t = [one.latents, two.latents], torch.tensor(0.4)
        for a, b in zip(
            MODEL.velocity(latents, t, shared), MODEL.velocity(latents, t, separate), strict=True
        ):
            assert relative_error(a, b) <= TOLERANCE
        with pytest.raises(errors.RequestError, match="one time"):
            MODEL.velocity(latents, torch.tensor([0.1, 0.2]), shared)


def test_gradients_of_a_pack_equal_the_sum_of_those_alone():
    model = small_model()
    samples = make_samples([(5, [], (4, 4)), (3, [(4, 2), (2, 2)], (2, 6)), (8, [(2, 2)], (6, 4))])

    def gradients(groups: list[list[Sample]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        for group in groups:
            sum(v.square().sum() for v in velocities(model, group)).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    packed, alone = gradients([samples]), gradients([[sample] for sample in samples])
    for name, gradient in packed.items():
        if name != "image_index_embedding":
            assert relative_error(gradient, alone[name]) <= TOLERANCE, name
    index = "image_index_embedding"
    assert relative_error(packed[index][:2], alone[index][:2]) <= TOLERANCE
    assert packed[index][2:].abs().max() == 0


def test_gradients_do_not_cross_between_samples():
    samples = make_samples([(5, [(4, 4)], (4, 4)), (3, [(4, 2)], (2, 6))])
    for sample in samples:
        for tensor in (sample.text, sample.latents, *sample.references):
            tensor.requires_grad_()
    velocities(MODEL, samples)[0].sum().backward()
    assert samples[0].references[0].grad.abs().max() > 0
    for tensor in (samples[1].text, samples[1].latents, *samples[1].references):
        assert tensor.grad is None or tensor.grad.abs().max() == 0


REFUSED = [
    ({"references": [[torch.zeros(CHANNELS, 4, 4)] * 6]}, "6 reference pictures; at most 5"),
    ({"hidden": torch.zeros(1, CHANNELS, 5, 4)}, "height 5, not a multiple of the patch size 2; use 4 or 6"),
    ({"hidden": torch.zeros(1, CHANNELS, 4, 0)}, "width 0, not a multiple of the patch size 2; use 2"),
    ({"hidden": torch.zeros(1, 3, 4, 4)}, r"\(4, height, width\) is needed"),
    ({"hidden": torch.zeros(CHANNELS, 4, 4)}, r"\(batch, channels, h, w\) is needed"),
    ({"hidden": []}, "no sample"),
    ({"mask": torch.zeros(1, 3)}, "text 0 has no token"),
    ({"mask": torch.tensor([[0, 1, 1]])}, "pad on the right"),
    ({"mask": torch.ones(1, 2)}, r"shape \(1, 2\)"),
    ({"text": torch.zeros(1, 3, 7)}, "(tokens, 20) is needed"),
    ({"text": torch.zeros(3, TEXT_WIDTH)}, "is needed"),
    ({"references": [None, None]}, "2 entries for 1 samples"),
    ({"references": [[torch.zeros(CHANNELS, 4, 3)]]}, "reference picture 0 has latent width 3"),
    ({"t": torch.zeros(3)}, r"t has shape \(3,\)"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_input_that_cannot_be_is_refused_with_the_reason(wrong: dict, message: str):
    arguments = {
        "hidden": torch.zeros(1, CHANNELS, 4, 4),
        "t": torch.zeros(1),
        "text": torch.zeros(1, 3, TEXT_WIDTH),
        "mask": torch.ones(1, 3),
        "references": None,
        **wrong,
    }
    with pytest.raises(
        errors.RequestError, match=message.replace("(tokens", r"\(tokens").replace("20)", r"20\)")
    ):
        MODEL(*arguments.values())


def test_sequences_that_name_missing_parts_are_refused():
    (sample,) = make_samples([(4, [], (4, 4))])
    for sequence in (Sequence(1, (), 0), Sequence(0, (0,), 0), Sequence(0, (), 1)):
        with pytest.raises(errors.RequestError, match="but there are"):
            MODEL.prepare([sample.text], [], [(4, 4)], [sequence])
    with pytest.raises(errors.RequestError, match="announced"):
        MODEL.velocity([torch.zeros(CHANNELS, 2, 2)], torch.tensor(0.0), pack(MODEL, [sample]))
    with pytest.raises(errors.RequestError, match="'native' or 'official'"):
        pack(MODEL, [sample], numerics="exact")
