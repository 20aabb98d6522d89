"""The scorer: right pictures pass, wrong ones do not, nothing crashes it, and it never sees the renderer."""

import ast
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from og2.errors import ImageError
from og2.evals.certify import Plan, certify
from og2.world.background import take_apart
from og2.world.casting import Room, place_creature
from og2.world.creatures import sample_anatomy
from og2.world.detect import UNIT_AREA, read
from og2.world.identity import assign, creature_distance
from og2.world.incontext import sample_incontext
from og2.world.measures import TABLES, rate
from og2.world.pixels import components, dilate, erode, fill_holes, read_pixels
from og2.world.prompts import sample_prompt
from og2.world.render import render
from og2.world.scenes import WORLDS, empty_scene
from og2.world.score import detect, score_edit, score_t2i
from og2.world.score_context import score_context
from og2.world.spec import (
    EditRequirements,
    ObjectRequirement,
    Requirements,
    describe,
    requirements,
    sample_edit,
    sample_scene,
)
from og2.world.subjects import look

SOURCE = Path(__file__).parents[2] / "src" / "og2" / "world"


def imports_of(name: str) -> set[str]:
    """Names of the world's modules that one of them imports, directly or through others."""
    found: set[str] = set()
    todo = [name]
    while todo:
        tree = ast.parse((SOURCE / f"{todo.pop()}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("og2.world."):
                module = str(node.module).split(".")[2]
                if module not in found:
                    found.add(module)
                    todo.append(module)
    return found


@pytest.mark.parametrize("name", ["score", "score_edit", "score_context", "subjects", "identity"])
def test_the_scorer_does_not_import_the_renderer_or_the_proportions_even_through_others(name):
    forbidden = {"render", "strokes", "distances", "backdrop_pixels", "looks", "shapes", "scenes", "fills"}
    forbidden |= {"creatures", "props", "backdrops", "casting"}
    assert imports_of(name) & forbidden == set()


@pytest.mark.parametrize("condition", ["clean", "blur 1.0", "noise 8", "half size"])
def test_right_single_pictures_are_accepted_and_near_misses_are_not(condition):
    found = certify(Plan(20, 3, tasks=("t2i/plain single",), conditions=(condition,)))
    rates = found.summary(condition)["t2i/plain single"]
    assert rates["accept_correct"] >= 0.95
    assert rates["accept_near_miss"] <= 0.02


@pytest.mark.parametrize("kind", ["recolour", "add", "remove"])
def test_right_edits_are_accepted_and_near_misses_are_not(kind):
    task = f"edit/plain {kind}"
    found = certify(Plan(10, 3, tasks=(task,), conditions=("blur 1.0",)))
    rates = found.summary("blur 1.0")[task]
    assert rates["accept_correct"] >= 0.9
    assert rates["accept_near_miss"] <= 0.03


@pytest.mark.parametrize("task", ["attribution", "chain", "text"])
def test_prompts_of_the_full_world_are_met_by_their_own_pictures_and_not_by_others(task):
    rng = np.random.default_rng(4)
    prompts = [sample_prompt(rng, task) for _ in range(8)]
    pictures = [render(p.scene, 128) for p in prompts]
    right = [score_t2i(p, q.requirements).passed for p, q in zip(pictures, prompts, strict=True)]
    wrong = [score_t2i(p, q.requirements).passed for p, q in zip(pictures, prompts[1:], strict=False)]
    assert sum(right) >= 7
    assert sum(wrong) == 0


def creature_pictures(rng, anatomy, number):
    scenes = []
    while len(scenes) < number:
        scene = place_creature(rng, empty_scene(rng, WORLDS["full"]), Room(1), anatomy)
        scenes += [scene] if scene else []
    return scenes


def test_a_creature_is_itself_in_another_pose_and_its_pose_is_read():
    rng = np.random.default_rng(6)
    one, other = (creature_pictures(rng, sample_anatomy(rng), 2) for _ in range(2))
    seen = [look(render(s, 256)).creatures for s in (*one, *other)]
    assert [len(creatures) for creatures in seen] == [1, 1, 1, 1]
    a, b, c, d = (creatures[0] for creatures in seen)
    assert max(creature_distance(a, b), creature_distance(c, d)) < 1
    assert min(creature_distance(a, c), creature_distance(b, d)) > 3
    for scene, (creature,) in zip((*one, *other), seen, strict=True):
        pose = scene.creatures[0].pose
        for word in ("left_arm", "right_arm", "mouth", "facing", "gaze"):
            assert creature.words[word].value == getattr(pose, word)


def test_a_right_answer_in_context_beats_a_copy_of_its_reference():
    rng = np.random.default_rng(2)
    for task in ("single_character", "scene_object"):
        asked = sample_incontext(rng, task)
        references = [render(s, 256) for s in asked.references]
        right = score_context(references, render(asked.target, 256), asked.requirements)
        copied = score_context(references, references[0], asked.requirements)
        assert right.overall > copied.overall
        assert not copied.passed


def test_roles_are_given_so_that_the_whole_sum_is_least():
    assert assign(np.array([[1.0, 2.0], [1.0, 9.0]])) == [1, 0]
    assert assign(np.array([[5.0], [1.0], [3.0]])) == [-1, 0, -1]
    assert assign(np.zeros((2, 0))) == [-1, -1]


@pytest.mark.parametrize("name", sorted(TABLES))
def test_tables_from_measure_to_score_never_turn_and_stay_within_their_ends(name):
    xs = [x for x, _ in TABLES[name]]
    ys = [rate(name, x) for x in np.linspace(xs[0] - 1, xs[-1] + 1, 50)]
    steps = np.diff(ys)
    assert (steps >= 0).all() or (steps <= 0).all()
    assert min(ys) == 0
    assert max(ys) == 10
    assert rate(name, float("nan")) == 0


def test_a_file_that_is_no_picture_is_refused_with_a_reason(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + zlib.compress(b"nothing"))
    with pytest.raises(ImageError, match="cannot be read"):
        read_pixels(path)
    verdict = score_t2i(path, Requirements((ObjectRequirement("circle"),)))
    assert verdict.unknown
    assert "cannot be read" in verdict.reason


@pytest.mark.parametrize("values", [np.full((64, 64, 3), 200.0), np.full((64, 64, 3), 200, np.int32)])
def test_numbers_out_of_range_are_refused_and_not_guessed(values):
    with pytest.raises(ImageError, match="0 to 255"):
        take_apart(values)


def test_captions_of_several_objects_are_met_by_their_own_pictures_and_not_by_others():
    rng = np.random.default_rng(8)
    scenes = [sample_scene(rng, 2 + i % 2) for i in range(40)]
    rules = [describe(s, rng).requirements for s in scenes]
    pictures = [render(s) for s in scenes]
    assert sum(score_t2i(p, r).passed for p, r in zip(pictures, rules, strict=True)) >= 38
    assert sum(score_t2i(p, r).passed for p, r in zip(pictures, rules[1:] + rules[:1], strict=True)) <= 1


def test_a_mirrored_picture_fails_the_relation():
    rng = np.random.default_rng(9)
    done = 0
    while done < 10:
        scene = sample_scene(rng, 2)
        rule = describe(scene, rng).requirements
        if not rule.relations or rule.relations[0][1] not in ("left of", "right of"):
            continue
        if scene.objects[0].kind == scene.objects[1].kind:
            continue
        done += 1
        picture = render(scene)
        assert score_t2i(picture, rule).passed
        assert not score_t2i(torch.flip(picture, [1]), rule).passed


def test_size_means_the_area_of_the_shape():
    rng = np.random.default_rng(10)
    for _ in range(40):
        obj = (scene := sample_scene(rng, 1)).objects[0]
        seen = detect(render(scene, 128))[0]
        assert seen.shape == obj.shape
        assert (seen.area / UNIT_AREA[obj.shape]) ** 0.5 / 128 == pytest.approx(obj.radius, rel=0.05)


def any_picture(kind, height, width, seed):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "noise":
        return noise
    if kind == "blank":
        return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    if kind == "photo":
        steps = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return np.asarray(Image.fromarray(steps).resize((width, height), Image.Resampling.BICUBIC))
    if kind == "grey":
        return noise[..., 0]
    if kind == "rgba":
        return np.concatenate([noise, noise[..., :1]], axis=-1)
    if kind == "half denoised":
        scene = render(sample_scene(rng), (height, width)).numpy()
        return (0.4 * scene + 0.6 * noise).astype(np.uint8)
    return render(sample_scene(rng), (height, width)).numpy().astype(np.float32) / 255.0


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(("noise", "blank", "photo", "grey", "rgba", "half denoised", "float")),
    height=st.integers(8, 150),
    width=st.integers(8, 150),
    seed=st.integers(0, 10**6),
)
def test_no_picture_crashes_the_scorer_and_none_from_elsewhere_passes(kind, height, width, seed):
    picture = any_picture(kind, height, width, seed)
    rule = Requirements((ObjectRequirement("circle", "red"), ObjectRequirement("star", "blue")))
    verdict = score_t2i(picture, rule)
    assert not verdict.passed
    assert verdict.reason
    edit = EditRequirements("recolour", ObjectRequirement("circle", "red"), "green")
    result = score_edit(picture, picture, edit)
    assert not result.success
    assert result.reason


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((5, 5, 3), np.uint8),
        np.zeros((64, 64, 2)),
        np.full((64, 64, 3), np.nan),
        np.zeros((40, 400, 3)),
        "x",
    ],
    ids=["tiny", "two channels", "nan", "elongated", "text"],
)
def test_what_is_no_picture_is_unknown_with_a_reason(picture):
    seen = read(picture)
    assert seen.objects == ()
    assert seen.reason


def test_pil_numpy_and_torch_pictures_are_read_alike():
    picture = render(sample_scene(np.random.default_rng(12)))
    array = picture.numpy()
    forms = [array, array / 255.0, picture, picture.permute(2, 0, 1).float() / 255, Image.fromarray(array)]
    found = [[(o.shape, o.color, o.size, o.position, o.box) for o in detect(form)] for form in forms]
    assert all(f == found[0] for f in found)


def test_kept_counts_the_damage_outside_the_edited_object():
    edits = (sample_edit(np.random.default_rng(i), ("recolour",)) for i in range(50))
    edit = next(e for e in edits if len(e.source.objects) == 1)
    source, target = render(edit.source).numpy(), render(edit.target).numpy()
    assert score_edit(source, target, edit.requirements).kept == 1.0
    shifted = np.clip(target.astype(int) - 40, 0, 255).astype(np.uint8)
    assert score_edit(source, shifted, edit.requirements).kept == 0.0
    assert not score_edit(source, shifted, edit.requirements).success
    moved = render(replace(edit.target, background_lab=(60.0, 0.0, 0.0))).numpy()
    assert score_edit(source, moved, edit.requirements).kept < 0.5


def test_a_small_drift_of_all_colours_is_undone_in_the_second_figure():
    rng = np.random.default_rng(14)
    edit = sample_edit(rng, ("add",))
    source, target = render(edit.source).numpy(), render(edit.target).numpy()
    drifted = np.clip(target * 0.86, 0, 255).astype(np.uint8)
    verdict = score_edit(source, drifted, edit.requirements)
    assert verdict.kept < 0.5
    assert verdict.kept_without_drift > 0.95


def test_pictures_of_two_sizes_cannot_be_compared():
    edit = sample_edit(np.random.default_rng(15))
    verdict = score_edit(render(edit.source, 64), render(edit.target, 96), edit.requirements)
    assert verdict.unknown
    assert "differ in size" in verdict.reason


def test_a_result_that_is_noise_has_failed_and_kept_nothing():
    edit = sample_edit(np.random.default_rng(18))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    verdict = score_edit(render(edit.source), noise, edit.requirements)
    assert not verdict.success
    assert verdict.unknown
    assert verdict.kept < 0.2


def test_an_unclear_source_is_unknown_and_not_a_failure_of_the_model():
    edit = sample_edit(np.random.default_rng(16), ("remove",))
    blank = np.full((64, 64, 3), 190, np.uint8)
    assert score_edit(blank, blank, edit.requirements).unknown


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.6))
def test_components_agree_with_a_flood_fill(seed, share):
    mask = np.random.default_rng(seed).random((14, 17)) < share
    parts = components(mask)
    assert (sum((p.astype(int) for p in parts), np.zeros(mask.shape, int)) == mask).all()
    for part in parts:
        grown = np.zeros_like(mask)
        start = tuple(np.argwhere(part)[0])
        grown[start] = True
        while True:
            wider = dilate(grown, 1.5) & mask
            if (wider == grown).all():
                break
            grown = wider
        assert (grown == part).all()


def test_growing_shrinking_and_filling_do_what_they_say():
    mask = np.zeros((11, 11), bool)
    mask[3:8, 3:8] = True
    assert dilate(mask, 1.0).sum() == 25 + 20
    assert erode(mask, 1.0).sum() == 9
    ring = mask.copy()
    ring[5, 5] = False
    assert (fill_holes(ring) == mask).all()


def test_an_object_requirement_left_open_is_not_checked():
    scene = sample_scene(np.random.default_rng(17), 1)
    obj = scene.objects[0]
    assert score_t2i(render(scene), Requirements((ObjectRequirement(color=obj.color),))).passed
    assert score_t2i(render(scene), requirements(scene, True, True, True)).passed
