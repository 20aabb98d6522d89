"""Pictures, and everything on the way to them, equal the recordings of the official pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from recordings import CASES, case, pipeline

from og2.call import Inputs, requests_of
from og2.drawing import GuidedPack, Picture
from og2.errors import RequestError
from og2.pipeline import OmniGen2Pipeline

IMAGE_BAR = 2e-3
LATENT_BAR = 1e-4


@pytest.mark.parametrize("options", [{}, {"pack": "batch"}, {"numerics": "official"}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_pictures_equal_the_official_ones(name: str, options: dict[str, Any]) -> None:
    recorded = case(name)
    result = pipeline()(**recorded.options(), **options, output_type="pt")
    images = torch.stack(list(result.images))
    assert (images - recorded.tensors["out.image_pt"]).abs().max() <= IMAGE_BAR
    # float32 against float32: far inside the bar
    assert (images - recorded.tensors["out.image_pt"]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_plain_blocks_draw_the_official_pictures_too(name: str) -> None:
    recorded = case(name)
    images = pipeline(fuse=False)(**recorded.options(), output_type="pt").images
    assert (torch.stack(list(images)) - recorded.tensors["out.image_pt"]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_8_bit_pictures_differ_by_at_most_one_level(name: str) -> None:
    recorded = case(name)
    result = pipeline()(**recorded.options(), output_type="pil")
    for picture, wanted in zip(result.images, recorded.tensors["out.image_uint8"], strict=True):
        got = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(wanted.shape)
        assert (got.int() - wanted.int()).abs().max() <= 1


@dataclass
class Trace:
    """What passed through one call, kept by watching the rooms it goes through."""

    pictures: list[Picture] = field(default_factory=list)
    guided: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    branches: list[list[str]] = field(default_factory=list)
    predictions: list[dict[str, torch.Tensor]] = field(default_factory=list)


def traced(name: str) -> tuple[Trace, dict[int, list[torch.Tensor]], Any]:
    """One run, all pictures in one pack, with its inner states."""
    trace, latents = Trace(), {}
    recorded = case(name)
    pipe: OmniGen2Pipeline = pipeline()

    class Watched(GuidedPack):
        def __init__(self, transformer: Any, pictures: Any, together: Any = None) -> None:
            super().__init__(transformer, pictures, together)
            trace.pictures = list(pictures)

        def velocity(self, states: Any, times: Any, step: int) -> Any:
            wanted = [(i, b) for i, p in enumerate(self.pictures) for b in p.plan.branches[step]]
            t = times[0] if self.has_one_time else torch.stack(times)
            raw = self.transformer.velocity(states, t, self.prepared, [self.places[key] for key in wanted])
            rows: dict[str, list[torch.Tensor]] = {}
            for (_, branch), v in zip(wanted, raw, strict=True):
                rows.setdefault(branch, []).append(v)
            trace.predictions.append({b: torch.stack(v) for b, v in rows.items() if len(v) == len(states)})
            trace.branches.append(sorted({branch for _, branch in wanted}))
            trace.guided[step] = super().velocity(states, times, step)
            return trace.guided[step]

    def keep(progress: Any) -> None:
        latents[progress.step] = progress.latents

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("og2.drawing.GuidedPack", Watched)
        result = pipe(**recorded.options(), pack="batch", on_step=keep, output_type="latent")
    return trace, latents, result


@pytest.mark.parametrize("name", CASES)
def test_every_state_on_the_way_equals_the_official_one(name: str) -> None:
    recorded = case(name)
    tensors = recorded.tensors
    trace, latents, result = traced(name)
    for i, picture in enumerate(trace.pictures):
        row = i if i < len(tensors["mid.prompt_embeds"]) else 0
        keep = tensors["mid.prompt_mask"][row].bool()
        assert torch.allclose(picture.text, tensors["mid.prompt_embeds"][row][keep], atol=1e-5)
        if picture.negative is not None:
            keep = tensors["mid.negative_mask"][row].bool()
            assert torch.allclose(picture.negative, tensors["mid.negative_embeds"][row][keep], atol=1e-5)
        for j, reference in enumerate(picture.references):
            assert torch.allclose(reference, tensors[f"mid.ref_latent.{i}.{j}"], atol=1e-5)
        assert torch.allclose(torch.tensor(picture.plan.times[:-1]), tensors["mid.timesteps"], atol=1e-6)
    for step, states in latents.items():
        guided = torch.stack(trace.guided[step])
        scale = tensors[f"mid.guided_pred.{step}"].abs().max()
        assert (guided - tensors[f"mid.guided_pred.{step}"]).abs().max() <= LATENT_BAR * scale
        assert (torch.stack(states) - tensors[f"mid.latents.{step}"]).abs().max() <= LATENT_BAR
        for branch, prediction in trace.predictions[step].items():
            key = f"mid.pred_{branch}.{step}"
            if key in tensors:
                assert (prediction - tensors[key]).abs().max() <= LATENT_BAR * tensors[key].abs().max()
    assert (torch.stack(list(result.images)) - tensors["out.latents"]).abs().max() <= LATENT_BAR


@pytest.mark.parametrize("name", CASES)
def test_branches_run_at_the_steps_the_official_ones_run_at(name: str) -> None:
    recorded = case(name)
    trace, _, result = traced(name)
    assert trace.branches == [sorted(step) for step in recorded.calls_per_step]
    evaluations = sum(len(step) for plan in result.plans for step in plan.branches)
    calls = sum(len(step) for step in recorded.calls_per_step)
    # batch2: the prompt without references skips the branch that would repeat another
    assert evaluations <= calls * len(result.plans)


def test_a_prompt_over_the_limit_is_refused_with_its_length_and_never_cut() -> None:
    recorded = case("t2i_truncated")
    limit = recorded.args["max_seq"]
    with pytest.raises(RequestError, match=rf"tokens long.*limit is {limit}"):
        pipeline()(**recorded.options())


def test_features_of_a_cut_prompt_given_by_hand_draw_the_official_picture() -> None:
    recorded = case("t2i_truncated")
    embeds = recorded.tensors["mid.prompt_embeds"]
    options = recorded.options() | {"prompt": None, "prompt_embeds": embeds, "output_type": "pt"}
    result = pipeline()(**options)
    assert (result.images - recorded.tensors["out.image_pt"]).abs().max() <= 1e-5


def test_reference_pixels_and_posteriors_equal_the_official_ones() -> None:
    recorded = case("edit2")
    (request,), _ = requests_of(recorded.options())
    job = pipeline()._plan(request, Inputs(), "picture")
    for k, picture in enumerate(job.pictures):
        with torch.no_grad():
            mean, std = pipeline()._encode_picture(picture, job.plan.request)
        assert torch.allclose(mean[None], recorded.tensors[f"mid.posterior_mean.{k}"], atol=1e-5)
        assert torch.allclose(std[None], recorded.tensors[f"mid.posterior_std.{k}"], atol=1e-5)
