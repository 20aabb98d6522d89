"""The drawing tasks of the full world: prompts, scenes that fulfil them, requirements that survive JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import RequestError
from og2.world.critique import find_defects, seen_in
from og2.world.palette import ALL_SHAPES, SHAPES
from og2.world.prompts import is_larger
from og2.world.scenes import boxes_of, relation
from og2.world.spec import (
    PROMPT_TASKS,
    SPLITS,
    WORLDS,
    Requirements,
    plainly,
    sample_prompt,
    sample_scene,
    split_of,
)

SEEDS = st.integers(0, 2**32 - 1)
PLAIN_TASKS = tuple(t for t in PROMPT_TASKS if t != "text")


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, task=st.sampled_from(PROMPT_TASKS), split=st.sampled_from(SPLITS))
def test_the_scene_of_a_prompt_meets_its_requirements(seed, task, split):
    prompt = sample_prompt(np.random.default_rng(seed), task, split)
    assert find_defects(seen_in(prompt.scene), prompt.requirements) == ()
    assert len(prompt.scene.objects) == len(prompt.requirements.objects)
    assert len(prompt.scene.plates) == len(prompt.requirements.plates)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, task=st.sampled_from(PROMPT_TASKS))
def test_a_prompt_is_met_by_a_plain_scene_with_nothing_but_what_it_asks_for(seed, task):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, task)
    scene, stated = plainly(rng, prompt), prompt.requirements
    assert find_defects(seen_in(scene), stated) == ()
    assert scene.backdrop is None or stated.backdrop == scene.backdrop_kind
    is_fill_said = any(wanted.fill for wanted in stated.objects)
    assert is_fill_said or all(o.fill is None and o.shading == 0 for o in scene.objects)
    assert [o.key for o in scene.objects] == [o.key for o in prompt.scene.objects]


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, task=st.sampled_from(PROMPT_TASKS))
def test_requirements_of_a_prompt_survive_json_and_a_generator_gives_one_prompt(seed, task):
    prompt = sample_prompt(np.random.default_rng(seed), task)
    rule = prompt.requirements
    assert Requirements.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    assert sample_prompt(np.random.default_rng(seed), task) == prompt


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, task=st.sampled_from(PROMPT_TASKS))
def test_every_word_that_is_required_is_in_the_prompt(seed, task):
    prompt = sample_prompt(np.random.default_rng(seed), task)
    text = prompt.text.lower()
    for rule in (*prompt.requirements.objects, *prompt.requirements.absent):
        for word in (rule.shape, rule.color, rule.size):
            assert word is None or word.removesuffix("es") in text
    for plate in prompt.requirements.plates:
        assert plate.text in prompt.text
    background = prompt.requirements.background
    assert background is None or background in text


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, task=st.sampled_from(("position", "chain", "size")))
def test_relations_are_said_only_where_they_are_clear(seed, task):
    prompt = sample_prompt(np.random.default_rng(seed), task)
    assert prompt.requirements.relations
    for a, name, b in prompt.requirements.relations:
        one, other = (prompt.scene.objects[i] for i in (a, b))
        if task == "size":
            assert is_larger(*((one, other) if name == "larger than" else (other, one)))
        else:
            assert relation(one, other) == name


def test_counts_run_from_two_to_six_and_objects_keep_their_gap():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        scene = sample_prompt(rng, "counting").scene
        seen.add(len(scene.objects))
        boxes = boxes_of(scene)
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                gap = max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])
                assert gap >= WORLDS["full"].min_gap - 1e-9
    assert seen == {2, 3, 4, 5, 6}


def test_a_combination_of_objects_is_never_in_both_splits():
    rng = np.random.default_rng(1)
    for split in SPLITS:
        for _ in range(20):
            objects = sample_prompt(rng, "attribution", split).requirements.objects
            words = tuple(w for o in objects for w in (o.shape, o.color))
            assert split_of(("together", *words)) == split


def test_the_plain_world_asks_for_plain_things_only():
    rng = np.random.default_rng(2)
    for task in PLAIN_TASKS:
        for _ in range(8):
            scene = sample_prompt(rng, task, world="plain").scene
            assert scene.backdrop is None
            assert len(scene.objects) <= 3
            assert all(o.fill is None and o.shape in SHAPES for o in scene.objects)


def test_the_full_world_uses_every_shape_fill_and_backdrop():
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng, world="full") for _ in range(300)]
    assert {o.shape for s in scenes for o in s.objects} == set(ALL_SHAPES)
    assert {o.fill_name for s in scenes for o in s.objects} == set(WORLDS["full"].fills)
    assert {s.backdrop_kind for s in scenes} == set(WORLDS["full"].backdrops)
    assert {split_of(o.key) for s in scenes for o in s.objects} == {"train"}


def test_no_prompt_bans_a_colour_and_asks_for_a_backdrop_of_it():
    rng, behind = np.random.default_rng(4), 0
    for _ in range(400):
        rule = sample_prompt(rng, "negation").requirements
        behind += rule.background is not None
        assert not any(ban.color in (rule.background or "").split() for ban in rule.absent if ban.color)
    assert behind > 40


def test_held_out_objects_are_of_sizes_that_are_common_among_so_many():
    rng = np.random.default_rng(5)
    sizes = {
        n: {sample_scene(rng, n, "test", "full").objects[0].size for _ in range(25)} for n in (1, 2, 3, 5)
    }
    assert sizes == {
        1: {"small", "medium", "large"},
        2: {"small", "medium"},
        3: {"small", "medium"},
        5: {"small"},
    }


@pytest.mark.parametrize(
    ("task", "split", "world", "says"),
    [
        ("painting", "train", "full", "counting"),
        ("two", "dev", "full", "train"),
        ("two", "train", "real", "plain, full"),
        ("text", "train", "plain", "world='full'"),
    ],
)
def test_an_unknown_task_split_or_world_is_refused_with_what_is_allowed(task, split, world, says):
    with pytest.raises(RequestError, match=says):
        sample_prompt(np.random.default_rng(0), task, split, world)
