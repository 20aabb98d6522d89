"""The mini benchmark: an oracle scores 1, controls are ordered, a stopped run ends with the same numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle, PassThrough

from og2 import OmniGen2Pipeline
from og2.errors import ConfigError, RequestError
from og2.evals.asking import _ROUTING, plain
from og2.evals.certificate import Certificate
from og2.evals.certify import Plan, certify
from og2.evals.command import _against, _eval_parser, _options, eval_mini
from og2.evals.conditions import corrupted
from og2.evals.controls import through_vae
from og2.evals.intervals import corrected, mean_of, mean_of_families, paired_difference, share_of, wilson
from og2.evals.items import (
    PLAIN_DRAW,
    draw_items,
    edit_items,
    families_of,
    full_ask_items,
    picture_items,
)
from og2.evals.mini import Options, evaluate
from og2.evals.near_miss import meets
from og2.evals.page import write_page
from og2.evals.report import GENEVAL, controls_table, format_report
from og2.evals.seeds import SEALED_VARIABLE, seed_of
from og2.world.dialogue import QUESTION_KINDS
from og2.world.known import Known
from og2.world.prompts import GENEVAL_TASKS, sample_prompt
from og2.world.questions import MORE_KINDS
from og2.world.render import render
from og2.world.score import score_edit
from og2.world.score_context import score_context
from og2.world.spec import sample_incontext, split_of

N = 3
PLAIN = ("plain single", "plain recolour", "plain add", "plain remove")


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


@pytest.mark.parametrize("broken", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", "cut"])
def test_a_missing_or_broken_picture_is_listed_and_lowers_n(tmp_path, broken):
    how = options(tasks=("t2i",), families=(PLAIN_DRAW,), controls=False)
    evaluate(Oracle(N), how, tmp_path)
    pictures = sorted((tmp_path / "pictures").rglob("*.png"))
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes()[:200] if broken == "cut" else broken)
    found = evaluate(Oracle(N), options(**{**vars(how), "generate": False}), tmp_path)
    assert found.tasks["t2i"].score.n == N - 2
    assert found.to_dict()["t2i"]["missing"] == ["t2i/plain_single/0000", "t2i/plain_single/0001"]
    assert "MISSING 2 items" in format_report(found)


def test_a_folder_with_another_run_is_refused(tmp_path):
    how = options(tasks=("t2i",), families=(PLAIN_DRAW,), controls=False)
    evaluate(Oracle(N), how, tmp_path)
    with pytest.raises(RequestError, match="another run"):
        evaluate(Oracle(N), options(**{**vars(how), "seed": 1, "seeds": "seed 1"}), tmp_path)


def test_a_folder_that_does_not_say_what_it_holds_is_refused(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(RequestError, match="does not say"):
        evaluate(Oracle(1), options(tasks=("t2i",)), tmp_path)


def test_the_plain_world_asks_what_the_small_model_learned_and_nothing_else():
    asked = {task: families_of(task, "plain") for task in ("t2i", "edit", "incontext")}
    assert asked == {"t2i": PLAIN[:1], "edit": PLAIN[1:], "incontext": ()}
    assert len(picture_items("t2i", "plain", 0, None)) == 200
    assert len(picture_items("edit", "plain", 0, None)) == 100
    found = evaluate(Oracle(1), Options(limit=1, world="plain", tasks=("incontext",), controls=False))
    assert found.to_dict()["incontext"]["n"] == 0
    assert "no items" in format_report(found)


def test_pictures_are_as_large_as_their_family_needs_and_references_are_not_made_smaller():
    families = (PLAIN_DRAW, "two", "single_object")
    oracle = Oracle(1, world="full", families=families)
    how = Options(limit=1, tasks=("t2i", "incontext"), families=families, controls=False)
    data = evaluate(oracle, how).to_dict()
    assert data["t2i"]["breakdown"][PLAIN_DRAW]["px"] == 64
    assert data["t2i"]["breakdown"]["two"]["px"] == 128
    assert data["incontext"]["breakdown"]["single_object"]["px"] == 256
    small = evaluate(oracle, Options(**{**vars(how), "size": 64, "tasks": ("t2i",)})).to_dict()
    assert "certificate" in data["t2i"]["breakdown"]["two"]
    assert "certificate" not in small["t2i"]["breakdown"]["two"]


def test_controls_alone_ask_the_model_for_nothing():
    oracle = Oracle(N)
    found = evaluate(oracle, options(tasks=("t2i", "understanding"), families=(PLAIN_DRAW,), model=False))
    assert oracle.calls == 0
    assert found.tasks["t2i"].score.n == 0
    assert found.tasks["t2i"].missing == []
    assert found.tasks["t2i"].controls["ground truth"][0].n == N


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
    rows = controls_table(report).splitlines()
    assert len(rows) == 2 + len({f for task in report.tasks.values() for f in task.families} - {_ROUTING})
    assert all(name in rows[0] for task in report.tasks.values() for name in task.controls)
    with pytest.raises(FileExistsError, match="already"):
        write_page(report, path)


@pytest.mark.parametrize(
    "given",
    [
        {"limit": 0},
        {"limit": -3},
        {"tasks": ()},
        {"tasks": ("x",)},
        {"families": ("x",)},
        {"size": 100},
        {"size": 16},
        {"chunk": 0},
        {"chunk": -5},
        {"families": ("plain add",)},
        {"generate": False},
    ],
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


def test_questions_about_the_full_world_are_of_every_kind_and_the_same_for_one_seed():
    items = full_ask_items(24, 3)
    kinds = {kind for item in items for kind, _, _ in item.questions}
    assert kinds >= {f"full {k}" for k in (*QUESTION_KINDS, *MORE_KINDS)}
    assert items[:9] == full_ask_items(9, 3)


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


def test_a_path_may_begin_with_the_home_folder_after_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    given = _eval_parser().parse_args(["--out=~/scores", "--save=~/scores.json"])
    assert (str(given.out), str(given.save)) == ("/somewhere/scores", "/somewhere/scores.json")


def test_a_limit_of_nothing_is_refused_on_the_command_line_too():
    with pytest.raises(RequestError, match="limit=0"):
        evaluate(Oracle(1), _options(_eval_parser().parse_args(["--limit", "0"])))


def test_a_source_that_is_looked_at_once_gives_the_same_verdicts():
    edit = edit_items(1, 0)[0]
    source, target = render(edit.source, 64).numpy(), render(edit.target, 64).numpy()
    kept = Known(source)
    for picture in (target, source, np.zeros_like(source)):
        assert score_edit(kept, picture, edit.requirements) == score_edit(source, picture, edit.requirements)


def test_a_reference_handed_back_as_the_answer_is_not_looked_at_again(monkeypatch):
    task = sample_incontext(np.random.default_rng(3), "single_object")
    shown = [render(scene, 256).numpy() for scene in task.references]
    fresh = score_context(shown, shown[0].copy(), task.requirements)
    references = [Known(picture) for picture in shown]
    assert score_context(references, shown[0], task.requirements) == fresh
    monkeypatch.setattr("og2.world.known.look", None)
    assert score_context(references, shown[0], task.requirements) == fresh


def test_a_round_trip_in_batches_keeps_the_order_of_pictures_of_any_size():
    rng = np.random.default_rng(0)
    sizes = (64,) * 40 + (128, 64, 128)
    pictures = [rng.integers(0, 256, (s, s, 3), dtype=np.uint8) for s in sizes]
    for picture, back in zip(pictures, through_vae(PassThrough(), pictures), strict=True):
        assert np.array_equal(picture, back)


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


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text("abc", max_size=3), st.lists(st.integers(0, 10), max_size=6), max_size=4),
    st.sampled_from([10.0, 20.0]),
)
def test_an_interval_holds_its_score_lies_in_the_scale_and_has_a_width(families, scale):
    share = mean_of_families(families, scale)
    assert 0 <= share.low <= share.score + 1e-9
    assert share.score - 1e-9 <= share.high <= scale
    assert share.high - share.low > 1e-3
    scaled = mean_of_families({name: [v / scale for v in own] for name, own in families.items()})
    assert (share.low, share.high) == pytest.approx((scaled.low * scale, scaled.high * scale), abs=1e-6)


def test_families_are_resampled_each_by_itself():
    halves = [1.0, 0.0] * 25
    alike = mean_of_families({"a": halves, "b": halves})
    against = mean_of_families({"a": halves, "b": halves[::-1]})
    for share in (alike, against):
        assert share.high - share.low == pytest.approx(2 * 1.96 * 0.5 / 10, rel=0.1)


def test_paired_differences_use_the_common_items_only_and_families_weigh_alike():
    new, old = {"a/1": 1.0, "a/2": 1.0, "a/3": 0.0}, {"a/1": 0.0, "a/2": 1.0, "a/4": 1.0}
    assert paired_difference(new, old).score == 0.5
    assert paired_difference(new, old).n == 2
    assert paired_difference(new, {}).n == 0
    more = {f"b/{i}": 1.0 for i in range(8)}
    assert paired_difference(new | more, old | dict.fromkeys(more, 0.0)).score == 0.75


def test_another_report_is_read_before_anything_is_drawn(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no report"):
        eval_mini(["--model", str(tmp_path / "none"), "--against", str(tmp_path / "other.json")])


def test_a_report_is_compared_with_another_over_items_of_the_same_words(report):
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    other = {item["key"]: (item["text"], 0.0) for item in data["items"]}
    other[data["items"][0]["key"]] = ("other words", 0.0)
    found = _against(data, other)
    assert found["edit"]["score"] == 1.0
    assert found["t2i"]["n"] == data["t2i"]["n"] - 1


def test_a_run_goes_on_under_the_same_model_alone(tmp_path):
    how = options(tasks=("understanding",), controls=False, limit=1)
    evaluate(Oracle(1), how, tmp_path)
    other = Oracle(1)
    other.mllm = PassThrough()
    with pytest.raises(RequestError, match=r"another run .*weights"):
        evaluate(other, how, tmp_path)


def test_measures_are_summed_up_for_the_model_and_for_controls(report):
    edit = report.to_dict()["edit"]
    assert edit["means"]["overall"]["score"] > 9
    assert edit["means"]["overall"]["low"] <= edit["means"]["overall"]["score"] <= 10
    assert edit["controls"]["copy source"]["means"]["sc"]["score"] < 1
    assert edit["controls"]["copy source"]["means"]["preservation"]["score"] == 10
    assert "control: copy source" in format_report(report)
    six = [family for family in families_of("t2i", "full") if family in GENEVAL_TASKS]
    oracle = Oracle(1, world="full", families=six)
    how = Options(limit=1, tasks=("t2i",), families=(*six,), controls=False)
    assert evaluate(oracle, how).tasks["t2i"].means[GENEVAL].n == len(six) == 6


def test_scores_that_are_no_shares_are_not_corrected_as_shares():
    oracle = Oracle(1, world="full", families=("single_object",))
    how = Options(limit=1, tasks=("incontext",), families=("single_object",), controls=False)
    family = evaluate(oracle, how).to_dict()["incontext"]["breakdown"]["single_object"]
    assert "certificate" in family
    assert "corrected" not in family
    assert family["high"] > 1


def test_a_scorers_errors_are_taken_out_of_a_share():
    assert corrected(wilson(48, 100), 0.95, 0.01).score == pytest.approx(0.5)
    assert corrected(wilson(5, 5), 0.95, 0.0).score == 1.0
    assert corrected(wilson(1, 2), 0.5, 0.5).score == 0.5


PLAIN_TASK = ("t2i/plain single",)


def test_a_certificate_stopped_and_resumed_equals_one_that_was_not(tmp_path):
    plan = Plan(12, 2, tasks=PLAIN_TASK, conditions=("clean", "shifted"), kinds=2)
    whole, state = certify(plan), tmp_path / "state"
    certify(replace(plan, conditions=("clean",)), state)
    with state.open("a") as file:
        file.write('{"block": "t2i/plain single|shif')  # killed while writing
    assert certify(replace(plan, seconds=0.0), state).counts[PLAIN_TASK[0]]["shifted"] == {}
    assert certify(plan, state) == whole
    path = tmp_path / "certificate.json"
    path.write_text(json.dumps(whole.to_dict()))
    assert Certificate.load(path).summary() == whole.summary()
    for text in (whole.format(), whole.markdown()):
        assert "half removed" in text
    for other in (replace(plan, seed=9), replace(plan, kinds=3)):
        with pytest.raises(ConfigError, match="another plan"):
            certify(other, state)
    state.write_text("nothing")
    with pytest.raises(ConfigError, match="no state"):
        certify(plan, state)


def test_a_state_goes_on_with_the_scorer_and_the_vae_it_was_begun_with(tmp_path, monkeypatch):
    vae = OmniGen2Pipeline.from_pretrained("mini").vae
    plan = Plan(2, 2, tasks=PLAIN_TASK, conditions=("clean", "VAE"), kinds=1, vae=vae)
    state, told = tmp_path / "state", []
    certify(plan, state)
    certify(replace(plan, on_block=lambda *found: told.append(found)), state)
    assert not told
    with torch.no_grad():
        next(vae.parameters()).mul_(1.01)
    certify(replace(plan, on_block=lambda *found: told.append(found)), state)
    assert len(told) == 1
    entries = [json.loads(line) for line in state.read_text().splitlines()[1:]]
    assert [entry["block"].split("|")[1] for entry in entries] == ["clean", "VAE", "VAE"]
    monkeypatch.setattr("og2.evals.certify._world_hash", lambda: "another")
    with pytest.raises(ConfigError, match="another plan or scorer"):
        certify(plan, state)


def test_two_processes_measure_what_one_measures():
    plan = Plan(20, 2, tasks=PLAIN_TASK, conditions=("clean", "jpeg 75"), kinds=1)
    assert certify(replace(plan, workers=2)) == certify(plan)


def test_a_certificate_takes_as_many_near_misses_and_conditions_as_it_is_told():
    plan = Plan(6, 2, tasks=PLAIN_TASK, conditions=("clean", "blur 1.0"), kinds=2, n_conditions=4)
    cells = certify(plan).counts[PLAIN_TASK[0]]
    assert {c: cells[c]["correct"][1] for c in cells} == {"clean": 6, "blur 1.0": 4}
    wrong = {c: sum(n for kind, (_, n) in cells[c].items() if kind != "correct") for c in cells}
    assert wrong == {"clean": 12, "blur 1.0": 8}
    for nothing in ({"n": 0}, {"kinds": 0}, {"n_conditions": 0}, {"tasks": ("x",)}, {"conditions": ("VAE",)}):
        with pytest.raises(RequestError):
            certify(replace(plan, **nothing))


def test_a_condition_changes_pixels_but_neither_size_nor_number():
    pictures = [render(item.scene, 64).numpy() for item in draw_items(2, 0)]
    for condition in ("blur 1.0", "noise 8", "half size", "jpeg 75"):
        changed = corrupted(pictures, condition, None, np.random.default_rng(0))
        assert [p.shape for p in changed] == [p.shape for p in pictures]
        assert not np.array_equal(changed[0], pictures[0])


def test_the_certificate_in_the_package_can_be_read():
    for task, rates in Certificate.shipped().summary().items():
        assert task.split("/")[0] in ("t2i", "edit", "incontext", "identity")
        assert rates["n"] > 0


@pytest.mark.parametrize(("a", "b"), [("In the middle.", "in  the middle"), ("RED", "red")])
def test_answers_are_compared_without_case_stops_and_spaces(a, b):
    assert plain(a) == plain(b)
