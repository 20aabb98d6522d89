"""What a call of the pipeline promises: batches, seeds, neighbours, callbacks, output forms, refusals."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from recordings import MODEL, pipeline

from og2.conditioning.templates import Turn, render_chat
from og2.conditioning.vlm import Answer
from og2.errors import Cancelled, ImageError, RequestError
from og2.limits import SCHEDULERS
from og2.pipeline import OmniGen2Pipeline, Progress, Settings
from og2.placement import can_fuse, is_fused
from og2.request import Request, Result

FAST: dict[str, Any] = {"num_inference_steps": 3, "height": 48, "width": 64}


def picture(seed: int, width: int = 48, height: int = 48) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def mixed(count: int = 8) -> list[Request]:
    """Requests of mixed sizes, zero to three references, and guidance."""
    sizes = [(48, 64), (64, 64), (32, 96), (64, 48), (80, 64), (48, 48), (96, 32), (64, 80)]
    requests = []
    for i in range(count):
        requests.append(
            Request(
                ["a cat", "make it snow", "a red sofa near the window"][i % 3],
                negative_prompt=["", "blurry"][i % 2],
                input_images=tuple(picture(10 * i + k, 48 + 16 * k, 64) for k in range(i % 4)),
                height=sizes[i][0],
                width=sizes[i][1],
                num_inference_steps=4,
                text_guidance_scale=[4.0, 1.0, 3.0][i % 3],
                image_guidance_scale=[2.0, 1.0][i // 4],
                cfg_range=[(0.0, 1.0), (0.0, 0.5)][i // 4],
                align_res=False,
                seed=i,
            )
        )
    return requests


def tensors(results: list[Result]) -> list[torch.Tensor]:
    return [image for result in results for image in result.images]


def run_all(requests: list[Request], **settings: Any) -> list[torch.Tensor]:
    return tensors(pipeline().run_all(requests, settings=Settings("pt", **settings)))


def test_a_packed_batch_equals_its_requests_run_alone() -> None:
    packed = run_all(mixed(), pack="batch")
    for request, one in zip(mixed(), packed, strict=True):
        (alone,) = run_all([request])
        assert (alone - one).abs().max() <= 1e-4


def test_a_poisoned_neighbour_changes_nothing_in_a_pack() -> None:
    requests = mixed(4)
    others = [
        *requests[:1],
        Request("x y z " * 30, height=96, width=96, num_inference_steps=4, text_guidance_scale=50.0, seed=99),
        *requests[2:],
    ]
    for index in (0, 2, 3):
        assert (
            run_all(requests, pack="batch")[index] - run_all(others, pack="batch")[index]
        ).abs().max() <= 1e-4


def test_a_neighbour_that_is_no_number_at_all_changes_not_one_bit_in_a_pack() -> None:
    def run(poison: float) -> list[torch.Tensor]:
        shapes = [(4, 6, 8), (4, 8, 8), (4, 8, 6)]
        noise = [
            torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)
        ]
        noise[1] += poison
        result = pipeline()(
            ["a cat", "a dog", "make it snow"],
            input_images=[None, [picture(1)], [picture(2)]],
            height=[48, 64, 64],
            width=[64, 64, 48],
            align_res=False,
            num_inference_steps=2,
            seed=0,
            latents=noise,
            pack="batch",
            output_type="latent",
        )
        return list(result.images)

    clean, poisoned = run(0.0), run(torch.nan)
    assert poisoned[1].isnan().all()
    assert torch.equal(clean[0], poisoned[0])
    assert torch.equal(clean[2], poisoned[2])


def test_by_default_bytes_depend_on_no_neighbour() -> None:
    together = run_all(mixed())
    for request, one in zip(mixed(), together, strict=True):
        (alone,) = run_all([request])
        assert torch.equal(alone, one)


def test_the_same_request_twice_gives_the_same_bytes() -> None:
    request = mixed(2)[1]
    first, second = (pipeline().run(request).images[0].tobytes() for _ in range(2))
    assert first == second


def test_picture_i_of_n_equals_the_picture_of_seed_plus_i_alone() -> None:
    options = {**FAST, "input_images": [picture(1)], "align_res": False, "output_type": "pt"}
    three = pipeline()("make it snow", seed=5, num_images_per_prompt=3, **options)
    assert three.seeds == (5, 6, 7)
    for i, image in enumerate(three.images):
        assert torch.equal(image, pipeline()("make it snow", seed=5 + i, **options).images[0])


def test_a_batch_of_prompts_takes_seeds_in_a_row() -> None:
    batch = pipeline()(["a cat", "make it snow"], seed=3, num_images_per_prompt=2, **FAST, output_type="pt")
    assert batch.seeds == (3, 4, 5, 6)
    alone = pipeline()("make it snow", seed=5, **FAST, output_type="pt")
    assert torch.equal(batch.images[2], alone.images[0])


def test_a_seed_reproduces_an_edit_whatever_the_global_random_state() -> None:
    options = {"input_images": [picture(1)], "seed": 2, "num_inference_steps": 2, "output_type": "pt"}
    torch.manual_seed(0)
    first = pipeline()("make it snow", **options).images
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(first, pipeline()("make it snow", **options).images)
    assert torch.equal(before, torch.get_rng_state())


def test_a_fresh_generator_draws_the_noise_of_its_seed() -> None:
    by_seed = pipeline()("a cat", seed=11, **FAST, output_type="pt")
    generator = torch.Generator().manual_seed(11)
    by_generator = pipeline()("a cat", generator=generator, **FAST, output_type="pt")
    assert torch.equal(by_seed.images, by_generator.images)
    assert by_generator.seeds == (None,)
    assert any("seed does not reproduce" in note for note in by_generator.notes)


def test_every_option_may_differ_from_prompt_to_prompt() -> None:
    result = pipeline()(
        ["a cat", "make it snow", "a dog"],
        negative_prompt=["", "blurry", ""],
        input_images=[None, [picture(1)], picture(2)],
        height=[48, 64, 64],
        width=[64, 48, 80],
        num_inference_steps=[2, 3, 2],
        text_guidance_scale=[4.0, 1.0, 2.0],
        cfg_range=[(0.0, 1.0), (0.0, 0.5), (0.5, 1.0)],
        align_res=False,
        seed=[9, 8, 7],
    )
    assert [image.size for image in result.images] == [(64, 48), (48, 64), (80, 64)]
    assert result.seeds == (9, 8, 7)
    assert [plan.num_evaluations for plan in result.plans] == [4, 3, 3 + 1]


def test_a_batch_without_any_pictures_needs_no_list_of_nones() -> None:
    assert len(pipeline()(["a cat", "a dog"], seed=0, **FAST).images) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prompt": None}, "no prompt"),
        ({"prompt": []}, "empty list"),
        ({"prompt": ["a", ""]}, "empty"),
        ({"prompt": ["a", "b"], "input_images": [picture(1)]}, "2 prompts"),
        ({"prompt": ["a", "b"], "height": [48]}, "1 values for 2 prompts"),
        ({"latents": torch.zeros(1, 4, 4, 4)}, r"\(4, 4, 4\); \(4, 6, 8\) is needed"),
        ({"latents": torch.zeros(2, 4, 6, 8)}, "latents has 2 entries; 1 are needed"),
        ({"reference_noise": [torch.zeros(4, 4, 4)]}, "reference_noise has 1 entries; 0"),
        ({"input_images": [picture(1)] * 6}, "6 input pictures"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"pack": "all"}, "pack"),
        ({"together": 0}, "together=0; use True or False"),
        ({"guidance": 3.0}, "'guidance' is not an option; did you mean"),
        ({"attention_kwargs": {"scale": 2}}, "attention_kwargs"),
        ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "latents"),
    ],
)
def test_calls_that_make_no_sense_are_refused_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        pipeline()(**{"prompt": "a cat", **FAST, **options})


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    text=st.floats(0, 8),
    image=st.floats(0, 4),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    references=st.integers(0, 2),
    solver=st.sampled_from(SCHEDULERS),
)
def test_any_size_and_guidance_gives_a_picture_of_the_size_asked_for(
    height: int,
    width: int,
    text: float,
    image: float,
    ends: tuple[float, float],
    references: int,
    solver: str,
) -> None:
    result = pipeline()(
        "a cat",
        input_images=[picture(k) for k in range(references)],
        height=height,
        width=width,
        text_guidance_scale=text,
        image_guidance_scale=image,
        cfg_range=(min(ends), max(ends)),
        align_res=False,
        num_inference_steps=2,
        scheduler=solver,
        output_type="pt",
    )
    assert result.images.shape == (1, 3, height, width)
    assert 0 <= result.images.min() <= result.images.max() <= 1


def test_a_picture_of_stochastic_steps_is_the_same_alone_and_in_a_batch_and_hangs_on_its_seed() -> None:
    steps = {"scheduler": "stochastic", "pack": "batch", **FAST}
    alone = pipeline()("a cat", seed=3, output_type="pt", **steps).images[0]
    both = pipeline()(["a dog", "a cat"], seed=[9, 3], output_type="pt", **steps).images
    assert torch.equal(alone, both[1])
    latents = torch.randn(1, 4, 6, 8)
    first, again, other = (
        pipeline()("a cat", latents=latents, seed=seed, output_type="pt", **steps).images
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_generator_gives_stochastic_steps_their_noise_and_moves_on() -> None:
    def run(generator: torch.Generator) -> torch.Tensor:
        return pipeline()(
            "a cat", generator=generator, scheduler="euler-stochastic", output_type="pt", **FAST
        ).images

    one, same = (torch.Generator().manual_seed(5) for _ in range(2))
    first = run(one)
    assert torch.equal(first, run(same))
    assert not torch.equal(first, run(one))


def test_an_unreadable_reference_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(ImageError, match="missing"):
        pipeline()(["a cat", "a dog"], input_images=[None, ["missing.png"]], on_step=lambda _: 1 / 0)


def test_the_step_callback_hears_of_every_step_and_the_share_done() -> None:
    heard: list[Progress] = []
    pipeline()("a cat", num_images_per_prompt=2, seed=0, on_step=heard.append, **FAST)
    assert [(p.pictures, p.step) for p in heard] == [((i,), s) for i in range(2) for s in range(3)]
    shares = [p.share for p in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert heard[2].time == 1.0


def test_a_callback_that_returns_false_cancels_the_run() -> None:
    with pytest.raises(Cancelled, match="after step 2 of 3"):
        pipeline()("a cat", on_step=lambda progress: progress.step < 1, **FAST)


def test_a_diffusers_callback_may_change_the_latents() -> None:
    calls: list[int] = []

    def zero(pipe: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert pipe is pipeline()
        assert 0 < t <= 1
        calls.append(step)
        return {"latents": torch.zeros_like(kwargs["latents"])}

    result = pipeline()("a cat", callback_on_step_end=zero, output_type="latent", **FAST)
    assert calls == [0, 1, 2]
    assert not result.images.any()


def test_the_official_step_function_is_called_with_step_and_count() -> None:
    calls: list[tuple[int, int]] = []
    pipeline()("a cat", step_func=lambda i, n: calls.append((i, n)), **FAST)
    assert calls == [(0, 3), (1, 3), (2, 3)]


def test_every_output_form_holds_the_same_picture() -> None:
    forms = {
        kind: pipeline()("a cat", seed=1, **FAST, output_type=kind).images for kind in ("pil", "np", "pt")
    }
    assert forms["pt"].shape == (1, 3, 48, 64)
    assert forms["np"].shape == (1, 48, 64, 3)
    assert np.array_equal(forms["np"], forms["pt"].permute(0, 2, 3, 1).numpy())
    assert np.array_equal(np.asarray(forms["pil"][0]), (forms["np"][0] * 255).round().astype(np.uint8))
    latent = pipeline()("a cat", seed=1, **FAST, output_type="latent").images
    assert latent.shape == (1, 4, 6, 8)
    assert latent.dtype == torch.float32


def test_return_dict_false_gives_the_bare_pictures() -> None:
    (image,) = pipeline()("a cat", seed=1, return_dict=False, **FAST)
    assert isinstance(image, Image.Image)


def test_the_result_tells_seeds_plan_timings_and_notes() -> None:
    result = pipeline()("a cat", seed=1, height=50, width=64, num_inference_steps=2, guidance_scale=3.0)
    assert result.plan is not None
    assert result.plan.request.text_guidance_scale == 3.0
    assert result.plan.provenance.dtype == "float32"
    assert {"conditioning_s", "denoise_s", "decode_s", "total_s"} <= set(result.timings)
    assert any("guidance_scale is read as" in note for note in result.notes)
    assert any("48 or 64 for 50" in note for note in result.notes)
    assert result.images[0].size == (64, 50)


def test_a_call_leaves_the_pipeline_as_it_was() -> None:
    pipe = pipeline()
    before = {name: id(value) for name, value in vars(pipe).items() if name != "_progress_bar_config"}
    weights = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    pipe("make it snow", input_images=[picture(1)], scheduler="dpmsolver++", num_inference_steps=2, seed=0)
    assert before == {name: id(value) for name, value in vars(pipe).items() if name != "_progress_bar_config"}
    assert all(torch.equal(weights[name], value) for name, value in pipe.transformer.state_dict().items())


def test_two_calls_with_references_do_not_see_each_other() -> None:
    alone = pipeline()("a cat", seed=1, **FAST, output_type="pt").images
    pipeline()("make it snow", input_images=[picture(1)], num_inference_steps=2, seed=0)
    assert torch.equal(alone, pipeline()("a cat", seed=1, **FAST, output_type="pt").images)


def test_branches_in_one_forward_or_one_after_another_agree() -> None:
    for request in mixed():
        (one,), (other,) = run_all([request], together=True), run_all([request], together=False)
        assert (one - other).abs().max() <= 1e-4


def test_guidance_of_one_never_reads_the_negative_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    real = pipeline().processor

    def spy(mllm: Any, processor: Any, text: str, limit: int | None) -> torch.Tensor:
        texts.append(text)
        assert processor is real
        return encode(mllm, processor, text, limit)

    from og2.conditioning import vlm

    encode = vlm.encode_prompt
    monkeypatch.setattr(vlm, "encode_prompt", spy)
    pipeline()("a cat", negative_prompt="ugly", text_guidance_scale=1.0, **FAST)
    pipeline()(["a cat", "a cat"], negative_prompt="ugly", text_guidance_scale=2.0, **FAST)
    assert texts == ["a cat", "a cat", "ugly"]


def test_embeddings_without_a_prompt_draw_what_the_prompt_draws() -> None:
    from og2.conditioning.vlm import encode_prompt

    pipe = pipeline()
    own = encode_prompt(pipe.mllm, pipe.processor, "a cat")
    by_prompt = pipe("a cat", seed=1, **FAST, output_type="pt").images
    padded = torch.cat([own, torch.full((3, own.shape[1]), 7.0)])[None]
    mask = torch.tensor([[1] * len(own) + [0] * 3])
    by_embeds = pipe(prompt_embeds=padded, prompt_attention_mask=mask, seed=1, **FAST, output_type="pt")
    assert torch.equal(by_prompt, by_embeds.images)


def test_a_vae_that_returns_no_numbers_is_an_error_not_a_black_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = pipeline()
    monkeypatch.setattr(pipe.vae, "decode", lambda z, return_dict: (z.repeat(1, 1, 8, 8)[:, :3] * torch.nan,))  # noqa: ARG005
    with pytest.raises(Exception, match="no numbers"):
        pipe("a cat", **FAST)


def test_bfloat16_runs_with_a_float32_state() -> None:
    states: list[torch.dtype] = []
    pipe = pipeline(torch.bfloat16)
    pipe("a cat", seed=1, on_step=lambda p: states.append(p.latents[0].dtype), **FAST)
    assert set(states) == {torch.float32}


def test_official_numerics_keep_a_bfloat16_state() -> None:
    states: list[torch.dtype] = []
    pipe = pipeline(torch.bfloat16)
    pipe("a cat", seed=1, numerics="official", on_step=lambda p: states.append(p.latents[0].dtype), **FAST)
    assert set(states) == {torch.bfloat16}


@pytest.mark.skipif(not can_fuse(pipeline(fuse=False).transformer), reason="no fused blocks on this machine")
class TestFusedBlocks:
    def test_a_pipeline_on_the_cpu_has_them_and_says_so_in_the_plan(self) -> None:
        assert is_fused(pipeline().transformer)
        result = pipeline()("a cat", seed=1, **FAST)
        assert result.plan.provenance.blocks == "fused"

    def test_official_numerics_use_plain_blocks_and_leave_the_fused_ones_behind(self) -> None:
        options = {**FAST, "seed": 1, "numerics": "official", "output_type": "pt"}
        result = pipeline()("a cat", **options)
        assert result.plan.provenance.blocks == "plain"
        assert is_fused(pipeline().transformer)
        assert torch.equal(result.images, pipeline()("a cat", **options).images)
        # not to the bit: matrix products round by where in memory the weights begin
        assert (result.images - pipeline(fuse=False)("a cat", **options).images).abs().max() <= 1e-5

    def test_they_survive_a_change_of_dtype_and_back_as_far_as_the_dtype_allows(self) -> None:
        pipe = OmniGen2Pipeline.from_pretrained(MODEL, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        before = pipe("a cat", seed=1, **FAST, output_type="pt").images
        pipe.to(torch.float64)
        assert not is_fused(pipe.transformer)
        pipe.to(torch.float32)
        pipe.to("cpu")
        assert torch.allclose(before, pipe("a cat", seed=1, **FAST, output_type="pt").images, atol=1e-5)


@pytest.fixture
def _weights_away_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group offload without an accelerator: weights that are not brought to it are NaN."""
    kept: dict[int, torch.Tensor] = {}

    def tensors_of(group: ModuleGroup) -> Iterator[torch.Tensor]:
        inside = [t for module in group.modules for t in (*module.parameters(), *module.buffers())]
        return (t for t in (*inside, *group.parameters, *group.buffers) if t.is_floating_point())

    def take_away(group: ModuleGroup) -> None:
        for tensor in tensors_of(group):
            if id(tensor) not in kept:
                kept[id(tensor)] = tensor.data
                tensor.data = torch.full_like(tensor.data, torch.nan)

    def bring(group: ModuleGroup) -> None:
        for tensor in tensors_of(group):
            tensor.data = kept.pop(id(tensor), tensor.data)

    monkeypatch.setattr(ModuleGroup, "offload_", take_away)
    monkeypatch.setattr(ModuleGroup, "onload_", bring)


@pytest.mark.usefixtures("_weights_away_are_no_numbers")
@pytest.mark.parametrize("level", [{"offload_type": "block_level", "num_blocks_per_group": 2}, {}])
def test_group_offload_brings_every_weight_before_it_is_used(level: dict[str, Any]) -> None:
    options = {**FAST, "input_images": [picture(1)], "seed": 1, "output_type": "pt"}
    expected = pipeline(fuse=False)("make it snow", **options).images
    pipe = OmniGen2Pipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_group_offload(torch.device("cpu"), **{"offload_type": "leaf_level", **level})
    assert all(parameter.isnan().all() for parameter in pipe.transformer.parameters())
    # not to the bit: matrix products round by where in memory the weights begin
    assert (pipe("make it snow", **options).images - expected).abs().max() <= 1e-5
    words = [drawer.describe(picture(1), max_new_tokens=4) for drawer in (pipe, pipeline(fuse=False))]
    assert words[0] == words[1]
    networks = (pipe.transformer, pipe.vae, pipe.mllm)
    assert all(parameter.isnan().all() for network in networks for parameter in network.parameters())


class TestChat:
    def says(self, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
        monkeypatch.setattr("og2.conditioning.vlm.answer", lambda *_, **__: answer)

    def test_an_answer_in_words_draws_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says(monkeypatch, Answer("A cat.", False, True, 3))
        result = pipeline().chat("what is this?", [picture(1)])
        assert (result.text, len(result.images)) == ("A cat.", 0)

    def test_an_answer_that_was_cut_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says(monkeypatch, Answer("A cat that", False, False, 3))
        assert any("max_new_tokens" in note for note in pipeline().chat("what is this?").notes)

    @pytest.mark.parametrize("text", ["", "Here it is:"])
    def test_an_answer_with_the_picture_token_draws_even_after_words(
        self, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        self.says(monkeypatch, Answer(text, True, True, 3))
        result = pipeline().chat("draw a cat", seed=3, num_inference_steps=2, height=48, width=48)
        assert result.text == text
        assert result.images[0].size == (48, 48)
        assert result.seeds == (3,)

    def test_a_drawn_answer_is_conditioned_on_the_chat_form_with_the_pictures_seen(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.says(monkeypatch, Answer("", True, True, 1))
        from og2.conditioning import vlm

        seen: list[tuple[str, int]] = []
        real = vlm.encode_chat

        def spy(mllm: Any, processor: Any, text: str, pictures: Any, *rest: Any) -> torch.Tensor:
            seen.append((render_chat(text, len(pictures)), len(pictures)))
            return real(mllm, processor, text, pictures, *rest)

        monkeypatch.setattr(vlm, "encode_chat", spy)
        options = {"seed": 3, "num_inference_steps": 2, "output_type": "pt"}
        result = pipeline().chat("make it snow", [picture(1, 64, 64)], **options)
        assert [count for _, count in seen] == [1, 0]
        assert all(text.endswith("<|im_start|>assistant\n") for text, _ in seen)
        plain = pipeline()("make it snow", input_images=[picture(1, 64, 64)], **options)
        assert not torch.equal(result.images[0], plain.images[0])
        again = pipeline().run(result.plan.request, output_type="pt")
        assert torch.equal(result.images[0], again.images[0])

    def test_an_earlier_turn_changes_what_is_drawn_and_the_record_says_that_it_was_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.says(monkeypatch, Answer("", True, True, 1))
        options = {"seed": 3, "num_inference_steps": 1, "output_type": "pt"}
        shown = picture(1, 64, 64)
        alone = pipeline().chat("draw it", [shown], **options)
        blue, red = (
            pipeline().chat("draw it", [shown], history=[Turn(f"I want it {colour}", "Yes.", 1)], **options)
            for colour in ("blue", "red")
        )
        assert not torch.equal(alone.images, blue.images)
        assert not torch.equal(blue.images, red.images)
        assert [result.plan.provenance.given for result in (alone, blue)] == [(), ("history",)]

    @pytest.mark.parametrize("form", ["one picture", "a path", "a list", "under its other name"])
    @pytest.mark.parametrize("wants_image", [False, True])
    def test_pictures_are_seen_however_they_are_given(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, wants_image: bool
    ) -> None:
        seen: list[list[Image.Image]] = []

        def answers(_mllm: Any, _processor: Any, _prompt: str, pictures: Any, *_: Any) -> Answer:
            seen.append(pictures)
            return Answer("", wants_image, True, 1)

        monkeypatch.setattr("og2.conditioning.vlm.answer", answers)
        shown = picture(1)
        shown.save(tmp_path / "a.png")
        options: dict[str, Any] = {
            "one picture": {"input_images": shown},
            "a path": {"input_images": str(tmp_path / "a.png")},
            "a list": {"input_images": [shown]},
            "under its other name": {"image": shown},
        }[form]
        if "image" in options:
            with pytest.warns(UserWarning, match="image is read as input_images"):
                result = pipeline().chat("make it snow", **options, seed=1, num_inference_steps=1)
            assert "image is read as input_images" in result.notes
        else:
            result = pipeline().chat("make it snow", **options, seed=1, num_inference_steps=1)
        assert [picture.tobytes() for picture in seen[0]] == [shown.tobytes()]
        if wants_image:
            assert len(result.plan.reference_sizes) == 1
        with pytest.raises(RequestError, match="given twice, once as 'image'"):
            pipeline().chat("make it snow", [shown], image=shown)

    def test_six_pictures_may_be_talked_about_but_not_drawn_from(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pictures = [picture(i) for i in range(6)]
        self.says(monkeypatch, Answer("Six.", False, True, 1))
        assert pipeline().chat("how many?", pictures).text == "Six."
        self.says(monkeypatch, Answer("", True, True, 1))
        with pytest.raises(RequestError, match="6 input pictures"):
            pipeline().chat("combine them", pictures)

    def test_bad_options_are_refused_before_the_model_speaks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("og2.conditioning.vlm.answer", lambda *_, **__: 1 / 0)
        with pytest.raises(RequestError, match="num_inference_steps"):
            pipeline().chat("draw a cat", num_inference_steps=0)

    def test_describe_gives_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says(monkeypatch, Answer("A teal square.", False, True, 3))
        assert pipeline().describe(picture(1)) == "A teal square."
        with pytest.raises(RequestError, match="is no picture"):
            pipeline().describe(None)


def test_the_public_call_keeps_the_official_names() -> None:
    names = list(inspect.signature(OmniGen2Pipeline.__call__).parameters)
    for name in (
        *("prompt", "negative_prompt", "input_images", "height", "width", "num_inference_steps"),
        *("text_guidance_scale", "image_guidance_scale", "cfg_range", "max_pixels"),
        *("max_input_image_side_length", "align_res", "num_images_per_prompt", "scheduler", "seed"),
        *("generator", "latents", "reference_noise", "output_type"),
    ):
        assert name in names
