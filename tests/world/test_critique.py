"""Critiques, questions of the full world, and clips."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import RequestError
from og2.world.critique import FAULTS, say_defect
from og2.world.edits_pictures import creature_scene
from og2.world.questions import MORE_KINDS
from og2.world.requirements import Defect
from og2.world.scenes import WORLDS, box_of
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
