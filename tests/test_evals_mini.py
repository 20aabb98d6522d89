"""The mini benchmark: an oracle scores 1, controls come out as they must, numbers carry their interval."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from og2.errors import RequestError
from og2.evals.certify import certify, format_certificate
from og2.evals.intervals import mean_of, share_of, wilson
from og2.evals.items import ask_items, draw_items, edit_items, route_items
from og2.evals.mini import Options, evaluate
from og2.evals.report import format_report, write_sheet
from og2.world.render import render
from og2.world.spec import split_of

N = 18


class PassThrough(torch.nn.Module):
    """A VAE that loses nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, pixels):
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: pixels))

    def decode(self, latents, return_dict):
        assert not return_dict
        return (latents,)


class Oracle:
    """Draws what each benchmark item wants, or copies the source, or answers in words as told."""

    profile = SimpleNamespace(native_size=64, name="oracle")
    vae = PassThrough()

    def __init__(self, n, seed, copies=False):
        self.drawings = {i.prompt: i.scene for i in draw_items(n, seed)}
        self.edits = [e.target for e in edit_items(n, seed)]
        asked = ask_items(n, seed)
        self.answers = [answer for item in asked for _, _, answer in item.questions]
        self.routes = [i.wants_image for i in route_items(n, seed)]
        self.copies, self.calls = copies, []

    def __call__(self, prompts, preset, output_type, seed, input_images=None):
        assert output_type == "pil"
        self.calls.append((preset, tuple(seed)))
        if input_images is None:
            scenes = [self.drawings[prompt] for prompt in prompts]
        elif self.copies:
            return SimpleNamespace(images=[pictures[0] for pictures in input_images])
        else:
            scenes = [self.edits[i] for i in seed]
        return SimpleNamespace(images=[Image.fromarray(render(s, 64).numpy()) for s in scenes])

    def describe(self, image, question):
        assert question
        assert image.size == (64, 64)
        return self.answers.pop(0).capitalize() + "."

    def chat(self, text, input_images, **_options):
        assert text
        assert len(input_images) <= 1
        return SimpleNamespace(images=[1] if self.routes.pop(0) else [])


@pytest.fixture(scope="module")
def report():
    return evaluate(Oracle(N, 0), Options(limit=N, chunk=7))


def test_an_oracle_scores_one_on_every_task(report):
    assert {task: share.score for task, share in report.scores.items()} == {
        "t2i": 1.0,
        "edit": 1.0,
        "understanding": 1.0,
    }
    assert report.breakdown["edit kept"].score == 1.0
    assert report.breakdown["understanding picture or words"].score == 1.0


def test_controls_come_out_as_they_must(report):
    controls = {name: share.score for name, share in report.controls.items()}
    assert controls["t2i ground truth"] >= 0.95
    assert controls["t2i ground truth through VAE"] >= 0.95
    assert controls["t2i swapped prompts, ground truth"] <= 0.05
    assert controls["t2i blank"] == 0
    assert controls["edit ground truth"] >= 0.95
    assert controls["edit copy of the source"] == 0
    assert controls["edit copy of the source, kept"] == 1


def test_a_model_that_copies_its_input_edits_nothing_and_keeps_everything():
    found = evaluate(Oracle(6, 1, copies=True), Options(limit=6, seed=1, tasks=("edit",)))
    assert found.scores["edit"].score == 0
    assert found.breakdown["edit kept"].score == 1


def test_every_score_has_its_interval_and_number_of_items_in_json(report):
    data = json.loads(json.dumps(report.to_dict()))
    for task in ("t2i", "edit", "understanding"):
        assert data[task]["low"] <= data[task]["score"] <= data[task]["high"]
        assert data[task]["n"] >= N
    assert data["settings"]["seed"] == 0
    assert len(data["items"]) == 2 * N


def test_the_table_names_every_score_and_control(report):
    text = format_report(report)
    assert all(name in text for name in report.controls)
    assert "seed=0" in text


def test_the_sheet_shows_failures_first_and_never_overwrites(report, tmp_path):
    path = tmp_path / "sheet.png"
    write_sheet(report, path)
    assert Image.open(path).size[0] > 1000
    with pytest.raises(FileExistsError, match="already"):
        write_sheet(report, path)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_leaves_nothing_is_refused(limit):
    with pytest.raises(RequestError, match="1 or more"):
        evaluate(Oracle(1, 0), Options(limit=limit))


def test_items_are_the_same_for_one_seed_and_differ_between_seeds():
    assert [i.prompt for i in draw_items(10, 3)] == [i.prompt for i in draw_items(10, 3)]
    assert [i.prompt for i in draw_items(10, 3)] != [i.prompt for i in draw_items(10, 4)]
    assert [e.instruction for e in edit_items(9, 3)] == [e.instruction for e in edit_items(20, 3)][:9]


def test_prompts_are_distinct_and_name_a_tuple_that_is_never_trained_on():
    items = draw_items(60, 0)
    assert len({i.prompt for i in items}) == 60
    for item in items:
        (said,) = item.every_word.objects
        assert split_of((said.shape, said.color, said.size, said.position)) == "test"


def test_wilson_agrees_with_published_values():
    share = wilson(15, 20)
    assert share.low == pytest.approx(0.531, abs=0.001)
    assert share.high == pytest.approx(0.888, abs=0.001)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    assert wilson(10, 10).high == pytest.approx(1.0)


def test_means_leave_out_what_could_not_be_measured():
    assert mean_of([1.0, float("nan"), 0.5]).score == 0.75
    assert mean_of([1.0, float("nan"), 0.5]).n == 2
    assert share_of([True, False]).n == 2


def test_the_certificate_has_a_row_for_every_near_miss_and_takes_more_corruptions():
    table = certify(3, 0, 64, {"dark": lambda picture, _rng: (picture * 0.9).astype(np.uint8)})
    text = format_certificate(table)
    assert "dark" in text
    assert "half removed" in text
    assert "side damage" in text
