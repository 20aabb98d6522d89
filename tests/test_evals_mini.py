"""The mini benchmark: an oracle scores 1, controls are ordered, a stopped run ends with the same numbers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from og2.errors import ConfigError, RequestError
from og2.evals.asking import plain
from og2.evals.certificate import Certificate
from og2.evals.certify import Plan, certify
from og2.evals.command import _eval_parser, _options
from og2.evals.intervals import corrected, mean_of, mean_of_families, paired_difference, share_of, wilson
from og2.evals.items import (
    PLAIN_DRAW,
    ask_items,
    draw_items,
    edit_items,
    families_of,
    picture_items,
    route_items,
)
from og2.evals.mini import Options, evaluate
from og2.evals.near_miss import meets
from og2.evals.page import write_page
from og2.evals.report import format_report
from og2.evals.seeds import SEALED_VARIABLE, seed_of
from og2.world.prompts import sample_prompt
from og2.world.render import render
from og2.world.spec import split_of

N = 3
PLAIN = ("plain single", "plain recolour", "plain add", "plain remove")


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
    """Answers every request rightly, or copies the source, or stops after so many calls."""

    profile = SimpleNamespace(native_size=64, name="oracle")
    vae = PassThrough()

    def __init__(self, limit, seed=0, copies=False, patience=10**9):
        self.truths = {}
        for task in ("t2i", "edit"):
            for item in picture_items(task, "plain", seed, limit):
                self.truths[(item.prompt, item.seed)] = item.truth
        self.answers = {q: a for item in ask_items(limit, seed) for _, q, a in item.questions}
        self.routes = {r.text: r.wants_image for r in route_items(limit, seed)}
        self.by_picture = {}
        for item in ask_items(limit, seed):
            for _, question, answer in item.questions:
                self.by_picture[(render(item.scene, 64).numpy().tobytes(), question)] = answer
        self.copies, self.patience, self.calls = copies, patience, 0

    def __call__(self, prompts, preset, output_type, seed, input_images=None):
        assert output_type == "pil"
        assert preset in ("t2i", "edit")
        self.calls += 1
        if self.calls > self.patience:
            raise KeyboardInterrupt
        if input_images is not None and self.copies:
            return SimpleNamespace(images=[pictures[0] for pictures in input_images])
        scenes = [self.truths[key] for key in zip(prompts, seed, strict=True)]
        return SimpleNamespace(images=[Image.fromarray(render(s, 64).numpy()) for s in scenes])

    def describe(self, image, question):
        self.calls += 1
        if self.calls > self.patience:
            raise KeyboardInterrupt
        return self.by_picture[(np.asarray(image).tobytes(), question)].capitalize() + "."

    def chat(self, text, input_images, **_options):
        assert len(input_images) <= 1
        return SimpleNamespace(images=[1] if self.routes[text] else [])


def options(**given):
    return Options(**{"limit": N, "world": "plain", "chunk": 2, "families": PLAIN, **given})


@pytest.fixture(scope="module")
def report():
    return evaluate(Oracle(N), options(tasks=("t2i", "edit", "understanding")))


def test_an_oracle_scores_near_one_on_every_task(report):
    assert report.tasks["t2i"].score.score >= 0.95
    assert report.tasks["edit"].score.score == 1.0
    assert report.tasks["understanding"].score.score == 1.0
    assert report.tasks["understanding"].families["picture or words"].score == 1.0
    assert report.tasks["edit"].numbers["plain recolour"]["kept"].score == 1.0
    assert report.tasks["edit"].numbers["plain add"]["overall"].score > 9


def test_controls_are_ordered_as_they_must_be(report):
    for task in ("t2i", "edit"):
        found = {name: share.score for name, (share, _) in report.tasks[task].controls.items()}
        assert found["ground truth"] >= 0.95
        assert found["VAE round trip"] == found["ground truth"]
        assert found["blank"] == found["noise"] == 0
        assert found["shuffled"] <= 0.1
    assert report.tasks["edit"].controls["copy source"][0].score == 0
    asked = report.tasks["understanding"].controls
    assert asked["shuffled answers"][0].score < 0.7


def test_a_model_that_copies_its_input_edits_nothing_and_keeps_everything():
    found = evaluate(Oracle(N, copies=True), options(tasks=("edit",), controls=False))
    edit = found.tasks["edit"]
    assert edit.score.score == 0
    assert all(edit.numbers[family]["kept"].score == 1 for family in edit.families)
    assert all(edit.numbers[family]["preservation"].score == 10 for family in edit.families)


def test_a_run_stopped_anywhere_and_resumed_ends_with_the_same_numbers(tmp_path):
    how = options(
        tasks=("t2i", "edit", "understanding"),
        families=(PLAIN_DRAW, "plain recolour"),
        controls=False,
        limit=2,
        chunk=1,
    )
    whole = evaluate(Oracle(2), how, tmp_path / "whole").to_dict()
    folder, rng = tmp_path / "stopped", np.random.default_rng(0)
    for _ in range(10):
        try:
            evaluate(Oracle(2, patience=int(rng.integers(0, 6))), how, folder)
        except KeyboardInterrupt:
            continue
    half = next((folder / "pictures").rglob("*.png"), None)
    assert half is not None
    assert evaluate(Oracle(2), how, folder).to_dict() == whole


def test_a_missing_or_broken_picture_is_listed_and_lowers_n(tmp_path):
    how = options(tasks=("t2i",), families=(PLAIN_DRAW,), controls=False)
    evaluate(Oracle(N), how, tmp_path)
    pictures = sorted((tmp_path / "pictures").rglob("*.png"))
    pictures[0].unlink()
    pictures[1].write_bytes(b"no picture")
    found = evaluate(Oracle(N), options(**{**vars(how), "generate": False}), tmp_path)
    assert found.tasks["t2i"].score.n == N - 2
    assert found.to_dict()["t2i"]["missing"] == ["t2i/plain_single/0000", "t2i/plain_single/0001"]
    assert "MISSING 2 items" in format_report(found)


def test_a_folder_with_another_run_is_refused(tmp_path):
    how = options(tasks=("t2i",), families=(PLAIN_DRAW,), controls=False)
    evaluate(Oracle(N), how, tmp_path)
    with pytest.raises(RequestError, match="another run"):
        evaluate(Oracle(N), options(**{**vars(how), "seed": 1, "seeds": "seed 1"}), tmp_path)


def test_every_score_has_its_interval_and_number_of_items_in_json(report):
    data = json.loads(json.dumps(report.to_dict()))
    for task in ("t2i", "edit", "understanding"):
        assert data[task]["low"] <= data[task]["score"] <= data[task]["high"]
        assert data[task]["n"] >= N
        assert data[task]["scale"] == 1.0
        assert set(data[task]["breakdown"]) >= set(report.tasks[task].families)
    assert data["settings"]["seeds"] == "public"
    assert "table" in data["certificate"]


def test_the_table_and_the_page_name_every_family_and_control_and_show_the_worst_first(report, tmp_path):
    text, path = format_report(report), tmp_path / "report.html"
    write_page(report, path)
    page = path.read_text()
    for task in report.tasks.values():
        assert all(name in text and name in page for name in (*task.families, *task.controls))
    assert "http" not in page
    assert (
        page.index("class='item bad'") < page.index("class='item good'")
        if "class='item bad'" in page
        else True
    )
    with pytest.raises(FileExistsError, match="already"):
        write_page(report, path)


@pytest.mark.parametrize(
    "given", [{"limit": 0}, {"limit": -3}, {"tasks": ()}, {"tasks": ("x",)}, {"families": ("x",)}]
)
def test_what_leaves_nothing_to_score_is_refused(given):
    with pytest.raises(RequestError):
        evaluate(Oracle(1), options(**{"tasks": ("t2i",), **given}))


def test_items_are_the_same_for_one_seed_and_differ_between_seeds():
    assert [i.prompt for i in draw_items(10, 3)] == [i.prompt for i in draw_items(10, 3)]
    assert [i.prompt for i in draw_items(10, 3)] != [i.prompt for i in draw_items(10, 4)]
    assert [e.instruction for e in edit_items(9, 3)] == [e.instruction for e in edit_items(20, 3)][:9]
    for task in ("t2i", "edit", "incontext"):
        family = families_of(task, "full")[-1]
        few, more = (picture_items(task, "full", 5, n, (family,)) for n in (2, 4))
        assert [i.prompt for i in few] == [i.prompt for i in more][:2]


def test_prompts_are_distinct_and_name_a_tuple_that_is_never_trained_on():
    items = draw_items(60, 0)
    assert len({i.prompt for i in items}) == 60
    for item in items:
        (said,) = item.every_word.objects
        assert split_of((said.shape, said.color, said.size, said.position)) == "test"


def test_every_prompt_is_met_by_its_own_scene_in_words():
    rng = np.random.default_rng(1)
    for task in ("single", "counting", "position", "attribution", "size", "chain", "negation"):
        for _ in range(5):
            prompt = sample_prompt(rng, task)
            assert meets(prompt.scene, prompt.requirements)


def test_seeds_are_public_sealed_fresh_or_a_number(monkeypatch):
    assert seed_of("public") == (0, "public")
    assert seed_of("fresh:7")[0] != seed_of("7")[0] == 7
    monkeypatch.setenv(SEALED_VARIABLE, "123")
    seed, name = seed_of("sealed")
    assert seed == 123
    assert "123" not in name
    monkeypatch.delenv(SEALED_VARIABLE)
    for wrong in ("sealed", "fresh:x", "nothing", "-1"):
        with pytest.raises(RequestError):
            seed_of(wrong)


def test_scoring_alone_needs_the_folder_with_the_pictures():
    with pytest.raises(ConfigError, match="--out"):
        _options(_eval_parser().parse_args(["--score-only"]))


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


def test_families_weigh_alike_and_an_interval_never_has_no_width():
    share = mean_of_families({"a": [1.0] * 90, "b": [0.0, 1.0] * 5})
    assert share.score == 0.75
    assert share.low < 0.75 < share.high
    assert mean_of_families({"a": [1.0] * 20}).low < 1.0
    assert mean_of_families({}).n == 0


def test_paired_differences_use_the_common_items_only():
    new, old = {"a": 1.0, "b": 1.0, "c": 0.0}, {"a": 0.0, "b": 1.0, "d": 1.0}
    assert paired_difference(new, old).score == 0.5
    assert paired_difference(new, old).n == 2
    assert paired_difference(new, {}).n == 0


def test_a_scorers_errors_are_taken_out_of_a_share():
    assert corrected(wilson(48, 100), 0.95, 0.01).score == pytest.approx(0.5)
    assert corrected(wilson(5, 5), 0.95, 0.0).score == 1.0
    assert corrected(wilson(1, 2), 0.5, 0.5).score == 0.5


def test_a_certificate_stopped_and_resumed_equals_one_that_was_not(tmp_path):
    plan = Plan(12, 2, tasks=("t2i/plain single",), conditions=("clean", "shifted"))
    whole, state = certify(plan), tmp_path / "state"
    stopped = Plan(12, 2, tasks=plan.tasks, conditions=("clean",))
    certify(stopped, state)
    with state.open("a") as file:
        file.write('{"block": "t2i/plain single|shif')  # killed while writing
    assert certify(plan, state) == whole
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(whole.to_dict()))
    assert Certificate.load(path).summary() == whole.summary()
    assert "half removed" in whole.format()
    with pytest.raises(ConfigError, match="another plan"):
        certify(Plan(12, 9, tasks=plan.tasks), state)


def test_the_certificate_in_the_package_can_be_read():
    for task, rates in Certificate.shipped().summary().items():
        assert task.split("/")[0] in ("t2i", "edit", "incontext", "identity")
        assert rates["n"] > 0


@pytest.mark.parametrize(("a", "b"), [("In the middle.", "in  the middle"), ("RED", "red")])
def test_answers_are_compared_without_case_stops_and_spaces(a, b):
    assert plain(a) == plain(b)
