"""Critiques, questions of the full world, and clips."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import RequestError
from og2.world import palette
from og2.world.critique import FAULTS, mending_edit, say_defect
from og2.world.edits_objects import with_object
from og2.world.edits_pictures import creature_scene
from og2.world.questions import MORE_KINDS
from og2.world.render import render_batch
from og2.world.requirements import Defect, ObjectRequirement, Requirements
from og2.world.scenes import WORLDS, box_of, empty_scene, fits
from og2.world.score import score_t2i
from og2.world.shapes import MAX_ROTATION
from og2.world.spec import (
    PROMPT_TASKS,
    Reflection,
    find_defects,
    format_reflection,
    parse_reflection,
    plain_caption,
    reflect,
    requirements,
    sample_clip,
    sample_prompt,
    sample_scene,
    seen_in,
    split_of,
    spoil,
    typed_questions,
)

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, fault=st.sampled_from(FAULTS))
def test_every_fault_that_was_put_in_is_found_and_named(seed, fault):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, 2, world="full")
    wrong = spoil(rng, scene, fault)
    if wrong is None:
        return
    rule = requirements(scene, sizes=True, places=True)
    found = find_defects(seen_in(wrong), rule)
    kinds = {d.kind for d in found}
    expected = {"moved": {"position", "size"}, "missing": {"missing", "count"}, "extra": {"extra", "count"}}
    assert wrong == scene or fault == "moved" or kinds & expected.get(fault, {fault})
    for defect in found:
        assert Defect.from_dict(defect.to_dict()) == defect
        assert "None" not in say_defect(defect)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, task=st.sampled_from(PROMPT_TASKS), fault=st.sampled_from(FAULTS))
def test_a_reflection_stops_on_right_pictures_and_mends_wrong_ones(seed, task, fault):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, task)
    assert reflect(rng, seen_in(prompt.scene), prompt.requirements).action == "stop"
    wrong = spoil(rng, prompt.scene, fault)
    if wrong is not None and find_defects(seen_in(wrong), prompt.requirements):
        said = reflect(rng, seen_in(wrong), prompt.requirements)
        assert said.action == "continue"
        assert said.edit
        assert parse_reflection(format_reflection(said)) == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Action: stop",
        "Reflection: good\nAction: maybe\nEdit: x",
        "Reflection: bad\nAction: continue\nEdit:",
        "Reflection: good\nAction: stop\nEdit: make it red",
        "Sure! Reflection: good\nAction: stop\nEdit:",
    ],
)
def test_anything_but_the_three_lines_is_no_reflection(text):
    with pytest.raises(RequestError, match="not a reflection"):
        parse_reflection(text)


def test_a_reflection_that_stops_needs_no_edit():
    stop = Reflection("nothing is wrong", "stop", "")
    assert parse_reflection(format_reflection(stop)) == stop


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_answers_of_the_full_world_follow_from_the_scene(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, world="full")
    asked = {
        kind: (question.lower(), answer) for kind, question, answer in typed_questions(scene, rng, "full")
    }
    if "fill" in asked:
        question, answer = asked["fill"]
        (obj,) = [o for o in scene.objects if f"the {o.color} {o.shape} plain" in question]
        words = {"flat": "plain", "stripes": "striped", "dots": "dotted", "checker": "checkered"}
        assert answer == words[obj.fill_name]
    if "relation" in asked:
        question, answer = asked["relation"]
        names = [o for o in scene.objects if f"the {o.color} {o.shape}" in question]
        one, other = sorted(names, key=lambda o: question.index(f"the {o.color} {o.shape}"))
        (a, b), (c, d) = ((box_of(o)[0] + box_of(o)[2], box_of(o)[1] + box_of(o)[3]) for o in (one, other))
        truth = {"left of": a < c, "right of": a > c, "above": b < d, "below": b > d, "under": b > d}
        said = next(name for name in truth if re.search(rf"\b{name}\b", question))
        assert answer == ("yes" if truth[said] else "no")
    shapes = {o.shape for o in scene.objects}
    question, answer = asked["none"]
    present = any(re.search(rf"\b{shape}(e?s)\b", question) for shape in shapes)
    assert answer == ("no" if present else "yes")


def test_every_new_kind_of_question_is_asked_and_captions_name_creatures_and_signs():
    rng = np.random.default_rng(4)
    kinds, captions = set(), []
    for i in range(60):
        scene = sample_scene(rng, world="full") if i % 2 else creature_scene(rng, "train", WORLDS["full"])
        if i % 5 == 0:
            scene = sample_prompt(rng, "text").scene
        if scene is not None:
            kinds |= {kind for kind, _, _ in typed_questions(scene, rng, "full")}
            captions.append(plain_caption(scene))
    assert kinds >= set(MORE_KINDS)
    assert any("a creature" in text for text in captions)
    assert any("a sign that says" in text for text in captions)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, shots=st.integers(1, 3), extra=st.integers(0, 12))
def test_a_clip_has_its_cuts_and_tracks_every_subject(seed, shots, extra):
    clip = sample_clip(np.random.default_rng(seed), 4 * shots + extra, shots)
    assert len(clip.frames) == 4 * shots + extra
    assert len(clip.shots) == shots
    for number, frame in enumerate(clip.frames):
        before = clip.frames[number - 1]
        changed = (frame.backdrop, frame.background_lab) != (before.backdrop, before.background_lab)
        assert number == 0 or changed == (number in clip.shots)
        visible = [t for t in clip.tracks if t.boxes[number] is not None]
        assert len(visible) == len(frame.creatures) + len(frame.gizmos)
    for track in clip.tracks:
        assert len(track.boxes) == len(clip.frames)
        for box in track.boxes:
            assert box is None or (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)
    for frame in clip.frames:
        whos = {t.who for t in clip.tracks}
        assert all(c.anatomy in whos for c in frame.creatures)


def test_a_clip_without_room_for_its_shots_is_refused():
    with pytest.raises(RequestError, match="4 or more per shot"):
        sample_clip(np.random.default_rng(0), 6, 2)


def test_critic_and_scorer_agree_on_relations_of_what_was_moved():
    rng = np.random.default_rng(11)
    shown = []
    while len(shown) < 45:
        prompt = sample_prompt(rng, ("position", "size", "chain")[len(shown) % 3])
        wrong = spoil(rng, prompt.scene, "moved")
        if wrong is not None:
            shown.append((wrong, prompt.requirements))
    said = [find_defects(seen_in(scene), rule) for scene, rule in shown]
    pictures = render_batch([scene for scene, _ in shown], 128).numpy()
    passed = [score_t2i(p, rule).passed for p, (_, rule) in zip(pictures, shown, strict=True)]
    assert {"relation"} == {defect.kind for found in said for defect in found}
    assert sum(map(bool, said)) > 8
    assert passed == [not found for found in said]


def test_a_star_a_little_higher_is_still_left_of_the_triangle():
    rng = np.random.default_rng(0)
    prompt = sample_prompt(rng, "position")
    one, other = prompt.scene.objects
    placed = (replace(one, x=0.30, y=0.36, shape="circle"), replace(other, x=0.74, y=0.64, shape="circle"))
    rule = Requirements((ObjectRequirement(),) * 2, ((0, "left of", 1),))
    assert find_defects(seen_in(replace(prompt.scene, objects=placed)), rule) == ()


@pytest.mark.parametrize("fault", ["color", "shape"])
def test_the_edit_for_a_banned_thing_leaves_a_picture_that_is_right(fault):
    rng, mended = np.random.default_rng(12), 0
    for _ in range(250):
        prompt = sample_prompt(rng, "negation")
        wrong = spoil(rng, prompt.scene, fault)
        found = find_defects(seen_in(wrong), prompt.requirements) if wrong else ()
        for defect in found:
            assert defect.kind == fault
            mended += "should not be " in say_defect(defect)
            word = mending_edit(rng, defect).split()[-1]
            index = [" ".join((o.color, o.shape)) for o in wrong.objects].index(defect.subject)
            wrong = with_object(wrong, index, replace(wrong.objects[index], **{fault: word}))
        assert wrong is None or find_defects(seen_in(wrong), prompt.requirements) == ()
    assert mended > 3


def test_a_banned_thing_too_many_has_to_go():
    rng = np.random.default_rng(2)
    scene = sample_scene(rng, 2)
    one, other = scene.objects
    rule = Requirements((ObjectRequirement(one.shape, one.color),), absent=(ObjectRequirement(other.shape),))
    (defect,) = find_defects(seen_in(scene), rule)
    assert (defect.kind, defect.subject) == ("extra", f"{other.color} {other.shape}")


@pytest.mark.parametrize("world", ["plain", "full"])
def test_spoiled_scenes_are_legal_and_hold_no_held_out_tuple(world):
    rng, level = np.random.default_rng(13), WORLDS[world]
    for i in range(150):
        scene = sample_scene(rng, world=world)
        wrong = spoil(rng, scene, FAULTS[i % len(FAULTS)], world)
        for obj in wrong.objects if wrong else ():
            box, others = box_of(obj), replace(wrong, objects=tuple(o for o in wrong.objects if o is not obj))
            assert split_of(obj.key) == "train"
            assert abs(obj.rotation) <= MAX_ROTATION[obj.shape] + 1e-9
            assert min(box) >= palette.EDGE_MARGIN - 1e-9
            assert max(box) <= 1 - palette.EDGE_MARGIN + 1e-9
            assert fits(box, others, level.min_gap - 1e-9)


def test_a_wrong_family_behind_is_a_fault_and_a_gradient_has_no_first_end():
    rng = np.random.default_rng(3)
    prompt = sample_prompt(rng, "attribution")

    def faults(shown, asked):
        scene = replace(empty_scene(rng, WORLDS["full"], *shown), objects=prompt.scene.objects)
        kind, name = asked
        return find_defects(seen_in(scene), replace(prompt.requirements, background=name, backdrop=kind))

    (defect,) = faults(("plain", "grey"), ("tiles", "grey"))
    assert say_defect(defect) == "the background should be a grey tiled floor, not a grey background"
    assert faults(("gradient", "grey to cream"), ("gradient", "cream to grey")) == ()
    assert len(faults(("gradient", "grey to cream"), ("gradient", "pale pink to grey"))) == 1


def test_a_clip_of_nobody_or_of_an_unknown_split_is_refused():
    with pytest.raises(RequestError, match="num_subjects=0"):
        sample_clip(np.random.default_rng(0), num_subjects=0)
    with pytest.raises(RequestError, match="split='dev'"):
        sample_clip(np.random.default_rng(0), split="dev")
