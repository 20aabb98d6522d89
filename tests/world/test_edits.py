"""All fifteen kinds of edits: what changes, what stays, what is said, what is checked."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import RequestError
from og2.world.glyphs import WORDS
from og2.world.palette import EDGE_MARGIN, STYLES, TONES
from og2.world.render import render_batch
from og2.world.scenes import boxes_of
from og2.world.spec import ALL_EDIT_KINDS, EditRequirements, sample_edit, split_of

SEEDS = st.integers(0, 2**32 - 1)
OF_PICTURES = ("background", "style", "tone", "extract")


@settings(max_examples=90, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(ALL_EDIT_KINDS), split=st.sampled_from(("train", "test")))
def test_an_edit_is_pure_survives_json_and_stays_inside_the_picture(seed, kind, split):
    edit = sample_edit(np.random.default_rng(seed), (kind,), split, "full")
    assert edit == sample_edit(np.random.default_rng(seed), (kind,), split, "full")
    rule = edit.requirements
    assert rule.kind == kind == edit.kind
    assert EditRequirements.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    assert edit.target != edit.source
    for box in boxes_of(edit.target):
        assert min(box) >= EDGE_MARGIN / 2
        assert max(box) <= 1 - EDGE_MARGIN / 2


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(tuple(k for k in ALL_EDIT_KINDS if k not in OF_PICTURES)))
def test_an_edit_of_a_subject_leaves_the_backdrop_and_most_subjects_alone(seed, kind):
    edit = sample_edit(np.random.default_rng(seed), (kind,), world="full")
    assert edit.source.backdrop == edit.target.backdrop
    assert edit.source.background_lab == edit.target.background_lab
    lost = set(edit.source.objects) - set(edit.target.objects)
    parts = edit.requirements.parts or (edit.requirements,)
    assert len(lost) <= len(parts)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(("background", "style", "tone")))
def test_an_edit_of_the_picture_leaves_every_subject_where_it_is(seed, kind):
    edit = sample_edit(np.random.default_rng(seed), (kind,), world="full")
    assert edit.source.objects == edit.target.objects
    assert edit.source.creatures == edit.target.creatures
    if kind == "background":
        wanted = (edit.requirements.backdrop, edit.requirements.background)
        assert wanted == (edit.target.backdrop_kind, edit.target.background)
        assert wanted != (edit.source.backdrop_kind, edit.source.background)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_a_new_material_keeps_the_colour_and_a_new_size_keeps_the_middle(seed):
    rng = np.random.default_rng(seed)
    edit = sample_edit(rng, ("material",), world="full")
    (old,), (new,) = (set(a.objects) - set(b.objects) for a, b in _both_ways(edit))
    assert (old.lab, old.shape, old.x) == (new.lab, new.shape, new.x)
    assert new.fill_name == edit.requirements.fill != old.fill_name
    edit = sample_edit(rng, ("resize",), world="full")
    (old,), (new,) = (set(a.objects) - set(b.objects) for a, b in _both_ways(edit))
    assert new.radius / old.radius == pytest.approx(edit.requirements.factor)
    index = edit.source.objects.index(old)
    one, other = (np.array(boxes_of(s)[index]) for s in (edit.source, edit.target))
    np.testing.assert_allclose(one[:2] + one[2:], other[:2] + other[2:], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_a_motion_changes_one_word_of_the_pose_and_nothing_of_the_anatomy(seed):
    edit = sample_edit(np.random.default_rng(seed), ("motion",), world="full")
    (before,), (after,) = edit.source.creatures, edit.target.creatures
    assert before.anatomy == after.anatomy
    words = ("left_arm", "right_arm", "mouth", "facing", "gaze")
    changed = {w: getattr(after.pose, w) for w in words if getattr(before.pose, w) != getattr(after.pose, w)}
    assert len(changed) == 1
    for word, value in changed.items():
        assert getattr(edit.requirements.creature, word) == value


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_a_conversation_ends_where_its_turns_lead_and_undo_takes_one_back(seed):
    edit = sample_edit(np.random.default_rng(seed), ("multi_turn",), world="full")
    assert len(edit.turns) == 3
    assert edit.turns[-1].target == edit.target
    last = edit.turns[2].instruction.lower()
    if "undo" in last or "take that back" in last:
        assert edit.target == edit.turns[0].target
    for part in edit.requirements.parts:
        (index,) = [
            i for i, o in enumerate(edit.source.objects) if o.kind == (part.subject.shape, part.subject.color)
        ]
        assert edit.target.objects[index].color == part.color
    changed = sum(a != b for a, b in zip(edit.source.objects, edit.target.objects, strict=True))
    assert changed == len(edit.requirements.parts)


def test_every_style_and_tone_changes_the_picture_and_an_extract_is_white_around():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        edit = sample_edit(rng, ("style", "tone", "extract"), world="full")
        before, after = render_batch([edit.source, edit.target], 96).int()
        assert (before - after).abs().float().mean() > 1.5
        seen.add(edit.requirements.style or edit.requirements.tone)
        if edit.kind == "extract":
            assert (after[0] == 255).all()
    assert seen >= {*STYLES, *TONES}


def test_words_on_signs_and_creatures_of_test_edits_are_held_out():
    rng = np.random.default_rng(1)
    assert {split_of(("word", w)) for w in WORDS} == {"train", "test"}
    for split in ("train", "test"):
        for _ in range(25):
            text = sample_edit(rng, ("text",), split, "full").requirements.text
            assert split_of(("word", text)) == split
            (creature,) = sample_edit(rng, ("retouch",), split, "full").source.creatures
            assert split_of(creature.anatomy.key) == split


@pytest.mark.parametrize("kind", ["multi_turn", "hybrid"])
def test_no_turn_of_a_training_edit_holds_a_held_out_tuple(kind):
    rng = np.random.default_rng(2)
    for _ in range(80):
        edit = sample_edit(rng, (kind,), world="full")
        scenes = (edit.source, edit.target, *(turn.target for turn in edit.turns))
        assert {split_of(o.key) for scene in scenes for o in scene.objects} <= {"train"}


def test_the_object_of_a_test_extract_is_held_out():
    rng = np.random.default_rng(3)
    for _ in range(50):
        (*objects,) = sample_edit(rng, ("extract",), "test", "full").target.objects
        assert {split_of(o.key) for o in objects} <= {"test"}


@pytest.mark.parametrize("world", ["plain", "full"])
def test_an_unknown_split_is_refused(world):
    with pytest.raises(RequestError, match="split='dev'"):
        sample_edit(np.random.default_rng(0), split="dev", world=world)


def test_the_plain_world_refuses_edits_it_does_not_have():
    with pytest.raises(RequestError, match="recolour, add, remove"):
        sample_edit(np.random.default_rng(0), ("tone",))


def _both_ways(edit):
    return (edit.source, edit.target), (edit.target, edit.source)
