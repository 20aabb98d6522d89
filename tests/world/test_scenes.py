"""Scenes, captions, edits and dialogue: what training and the benchmark rely on."""

import hashlib
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import RequestError
from og2.world import palette
from og2.world.scenes import TEST_KEYS, box_of
from og2.world.spec import (
    COLORS,
    EDIT_KINDS,
    IMAGE_ANSWER,
    EditRequirements,
    Requirements,
    caption,
    chat_turn,
    describe,
    sample_edit,
    sample_scene,
    split_of,
    typed_questions,
)

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 3))
def test_objects_lie_inside_and_four_pixels_apart(seed, count):
    boxes = [box_of(o) for o in sample_scene(np.random.default_rng(seed), count).objects]
    assert len(boxes) == count
    for left, top, right, bottom in boxes:
        assert min(left, top) >= palette.EDGE_MARGIN - 1e-9
        assert max(right, bottom) <= 1 - palette.EDGE_MARGIN + 1e-9
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            gaps = (a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])
            assert max(gaps) >= palette.MIN_GAP - 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_the_words_of_an_object_agree_with_its_numbers(seed):
    for o in sample_scene(np.random.default_rng(seed)).objects:
        low, high = palette.SIZES[o.size]
        assert low <= o.radius <= high
        left, top, right, bottom = box_of(o)
        column, row = palette.POSITIONS[o.position]
        for bands, name, value in (
            (palette.COLUMNS, column, (left + right) / 2),
            (palette.ROWS, row, (top + bottom) / 2),
        ):
            assert bands[name][0] - 1e-9 <= value <= bands[name][1] + 1e-9
        nearest = min(COLORS, key=lambda name: np.linalg.norm(np.subtract(COLORS[name], o.lab)))
        assert nearest == o.color


def test_the_same_generator_state_gives_the_same_scene_caption_and_edit():
    def draw():
        rng = np.random.default_rng(11)
        scene = sample_scene(rng)
        return scene, caption(scene, rng), sample_edit(rng), typed_questions(scene, rng), chat_turn(rng)

    assert draw() == draw()


def test_training_scenes_and_edits_hold_no_held_out_tuple():
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(300)]
    edits = [sample_edit(rng) for _ in range(150)]
    scenes += [s for e in edits for s in (e.source, e.target)]
    assert {split_of(o.key) for s in scenes for o in s.objects} == {"train"}


def test_test_scenes_and_edits_are_about_a_held_out_tuple():
    rng = np.random.default_rng(0)
    assert all(split_of(sample_scene(rng, split="test").objects[0].key) == "test" for _ in range(100))
    for _ in range(100):
        edit = sample_edit(rng, split="test")
        a, b = edit.source.objects, edit.target.objects
        before, after = (b, a) if edit.kind == "remove" else (a, b)
        changed = [o for o in after if o not in before]
        assert [split_of(o.key) for o in changed] == ["test"]


def test_about_one_tuple_in_ten_is_held_out_and_every_word_occurs_on_both_sides():
    every = 6 * 10 * 3 * 9
    assert 0.08 <= len(TEST_KEYS) / every <= 0.13
    for i, words in enumerate((palette.SHAPES, palette.COLORS, palette.SIZES, palette.POSITIONS)):
        assert {key[i] for key in TEST_KEYS} == set(words)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(EDIT_KINDS))
def test_an_edit_changes_one_object_and_nothing_else(seed, kind):
    edit = sample_edit(np.random.default_rng(seed), (kind,))
    before, after = set(edit.source.objects), set(edit.target.objects)
    counts = {"recolour": (1, 1), "add": (0, 1), "remove": (1, 0)}
    assert (len(before - after), len(after - before)) == counts[kind]
    assert edit.source.background_lab == edit.target.background_lab
    if kind == "recolour":
        (old,), (new,) = before - after, after - before
        assert (old.shape, old.x, old.y, old.radius, old.rotation) == (
            new.shape,
            new.x,
            new.y,
            new.radius,
            new.rotation,
        )
        assert new.color == edit.requirements.color != old.color


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(("recolour", "remove")))
def test_the_object_an_instruction_names_is_the_only_one_that_fits(seed, kind):
    edit = sample_edit(np.random.default_rng(seed), (kind,))
    words = set(re.findall("[a-z]+", edit.instruction.lower()))
    if kind == "recolour":
        last = edit.instruction.lower().rfind(edit.requirements.color)
        words = set(re.findall("[a-z]+", edit.instruction.lower()[:last]))
    colors, shapes = words & set(COLORS), words & set(palette.SHAPES)
    fits = [
        o
        for o in edit.source.objects
        if (not colors or o.color in colors) and (not shapes or o.shape in shapes)
    ]
    assert len(fits) == 1
    assert fits[0].kind == (edit.requirements.subject.shape, edit.requirements.subject.color)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS)
def test_a_caption_states_exactly_its_requirements(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    said = describe(scene, rng)
    text = said.text.lower()
    for wanted in said.requirements.objects:
        assert wanted.color in text
        assert wanted.shape in text
        assert wanted.size is None or wanted.size in text
    if all(o.size is None for o in said.requirements.objects):
        assert not any(size in text.split() for size in palette.SIZES)
    assert (said.requirements.background is None) == ("background" not in text)


def test_requirements_survive_json():
    rng = np.random.default_rng(3)
    for _ in range(30):
        scene = sample_scene(rng)
        rule = describe(scene, rng).requirements
        assert Requirements.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
        edit = sample_edit(rng).requirements
        assert EditRequirements.from_dict(json.loads(json.dumps(edit.to_dict()))) == edit


def test_the_vocabulary_stays_small():
    rng = np.random.default_rng(5)
    words: set[str] = set()
    for _ in range(400):
        said, _, answer = chat_turn(rng)
        for text in (said, answer, caption(sample_scene(rng), rng), sample_edit(rng).instruction):
            words |= set(re.findall("[a-z]+", text.lower()))
    assert len(words) < 300


def test_answers_follow_from_the_scene():
    rng = np.random.default_rng(6)
    numbers = ("zero", "one", "two", "three")
    for _ in range(100):
        scene = sample_scene(rng)
        for kind, question, answer in typed_questions(scene, rng):
            question = question.lower()
            if kind == "count" and "how many objects" in question:
                assert answer == numbers[len(scene.objects)]
            if kind == "color":
                assert [o.color for o in scene.objects if o.shape in question] == [answer]
            if kind == "yes_no":
                held = any(f"{o.color} {o.shape}?" in question for o in scene.objects)
                assert answer == ("yes" if held else "no")
            if kind == "bigger":
                sizes = {f"the {o.color} {o.shape}": o.radius for o in scene.objects}
                asked = {name: r for name, r in sizes.items() if name in question}
                assert asked[answer] == max(asked.values())


def test_a_wish_for_a_picture_is_answered_with_the_picture_mark():
    rng = np.random.default_rng(7)
    for _ in range(200):
        said, scene, answer = chat_turn(rng)
        if scene is None and re.search(r"\b(draw|paint|create|generate)\b", said.lower()):
            assert answer == IMAGE_ANSWER


@pytest.mark.parametrize(("count", "split"), [(0, "train"), (4, "train"), (1, "dev")])
def test_an_impossible_scene_is_refused_in_one_sentence(count, split):
    with pytest.raises(RequestError, match=r"outside 1 to 3|unknown"):
        sample_scene(np.random.default_rng(0), count, split)


def test_an_unknown_edit_kind_is_refused():
    with pytest.raises(RequestError, match="recolour"):
        sample_edit(np.random.default_rng(0), ("repaint",))


def test_the_plain_world_never_changes():
    """What the shipped model learned and what its benchmark asks: words exactly, numbers to six digits."""
    rng = np.random.default_rng(2026)
    told = []
    for i in range(60):
        scene = sample_scene(rng, split="test" if i % 4 == 0 else "train")
        edit = sample_edit(rng, split="test" if i % 5 == 0 else "train")
        told += [caption(scene, rng), edit.instruction, typed_questions(scene, rng), chat_turn(rng)[::2]]
        for drawn in (scene, edit.source, edit.target):
            told.append((drawn.background, [round(v, 6) for v in drawn.background_lab]))
            for o in drawn.objects:
                numbers = (*o.lab, o.x, o.y, o.radius, o.rotation)
                told.append((o.key, [round(v, 6) for v in numbers]))
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    assert digest == "fb47255b898965afd03c4fd8c43925f300bfd1cd12f268335b6f66ce9b193af5"
