"""In-context tasks: the eight sub-tasks, references that never show the answer, requirements by reference."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import RequestError
from og2.world.casting import column_of
from og2.world.creatures import creature_box
from og2.world.incontext import MAX_REFERENCES
from og2.world.props import gizmo_box
from og2.world.scenes import relation_of_boxes
from og2.world.spec import INCONTEXT_TASKS, Requirements, sample_incontext

SEEDS = st.integers(0, 2**32 - 1)
ASKED = st.sampled_from(INCONTEXT_TASKS)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, task=ASKED)
def test_no_reference_shows_the_pose_place_or_background_that_is_asked_for(seed, task):
    item = sample_incontext(np.random.default_rng(seed), task)
    rule = item.requirements
    for i, creature in enumerate(rule.creatures):
        shown = item.references[creature.reference.picture].creatures[0]
        words = {w: getattr(creature, w) for w in ("left_arm", "right_arm", "mouth", "facing", "gaze")}
        asked = {w: v for w, v in words.items() if v is not None}
        assert asked
        assert all(getattr(shown.pose, w) != v for w, v in asked.items())
        assert all(getattr(item.target.creatures[i].pose, w) == v for w, v in asked.items())
        if creature.position is not None:
            assert column_of(creature_box(shown)) != creature.position
    for gizmo in rule.gizmos:
        shown = item.references[gizmo.reference.picture].gizmos[0]
        assert gizmo.position is None or column_of(gizmo_box(shown)) != gizmo.position
    subjects = [r for i, r in enumerate(item.references) if i != rule.scene_of]
    target = (item.target.backdrop_kind, item.target.background)
    assert all((r.backdrop_kind, r.background) != target for r in subjects)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, task=ASKED)
def test_the_answer_shows_the_subjects_of_the_references_and_meets_what_is_said(seed, task):
    item = sample_incontext(np.random.default_rng(seed), task)
    rule, target = item.requirements, item.target
    assert len(item.references) <= MAX_REFERENCES
    assert (len(target.creatures), len(target.gizmos)) == (len(rule.creatures), len(rule.gizmos))
    for creature, wanted in zip(target.creatures, rule.creatures, strict=True):
        assert item.references[wanted.reference.picture].creatures[0].anatomy == creature.anatomy
    boxes = [*map(creature_box, target.creatures), *map(gizmo_box, target.gizmos)]
    for a, name, b in rule.relations:
        assert relation_of_boxes(boxes[a], boxes[b]) == name
    if rule.scene_of is not None:
        assert item.references[rule.scene_of].backdrop == target.backdrop
        assert not item.references[rule.scene_of].creatures
    assert Requirements.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    for picture in range(len(item.references)):
        ordinal = ("first", "second", "third", "fourth", "fifth")[picture]
        assert f"image {picture + 1}" in item.instruction or f"{ordinal} image" in item.instruction


def test_the_eight_tasks_are_omnicontexts_and_hold_what_their_names_say():
    rng = np.random.default_rng(0)
    assert len(INCONTEXT_TASKS) == 8
    for task in INCONTEXT_TASKS:
        for _ in range(6):
            item = sample_incontext(rng, task, "test")
            rule = item.requirements
            assert bool(rule.creatures) == ("character" in task)
            assert bool(rule.gizmos) == ("object" in task)
            assert (rule.scene_of is not None) == task.startswith("scene")
            if task.startswith("single"):
                assert len(rule.creatures) + len(rule.gizmos) == 1


def test_an_unknown_task_or_split_is_refused():
    with pytest.raises(RequestError, match="single_character"):
        sample_incontext(np.random.default_rng(0), "portrait")
    with pytest.raises(RequestError, match="train, test"):
        sample_incontext(np.random.default_rng(0), "single_object", "dev")
