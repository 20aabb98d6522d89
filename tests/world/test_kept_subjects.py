"""What an edit is not about stays: a plate's place and colours, a creature's pose and looks, a fill."""

from dataclasses import replace

import numpy as np
import pytest

from og2.evals.edit_near_miss import another_pose, another_subject, plate_moved, plate_recolored, wrong_fill
from og2.evals.near_miss import EditDraft
from og2.world.creatures import EYE_GAP, near_miss
from og2.world.score import score_edit
from og2.world.spec import sample_edit

PX = 128


def drawn(kind, number, wanted=lambda _: True, seed=41, hand="clean"):
    """The first drafts of that kind that are wanted."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < number:
        edit = sample_edit(rng, (kind,), world="full")
        if wanted(edit):
            found.append(EditDraft(edit, PX, hand))
    return found


def accepted(draft, picture):
    return score_edit(draft.draw(draft.edit.source), picture, draft.edit.requirements).success


def has_creature(edit):
    return bool(edit.target.creatures)


@pytest.mark.parametrize("hand", ["clean", "inked"])
@pytest.mark.parametrize("spoil", [plate_moved, plate_recolored])
def test_a_sign_that_says_another_word_stays_where_it_is_and_as_it_looks(spoil, hand):
    rng = np.random.default_rng(1)
    right = 0
    for draft in drawn("text", 4, hand=hand):
        right += accepted(draft, draft.draw(draft.edit.target))
        wrong = spoil(draft, rng)
        assert wrong is None or not accepted(draft, wrong)
    assert right >= 3


def test_letters_of_another_colour_on_the_same_board_are_another_sign():
    for draft in drawn("text", 3):
        plate = draft.edit.target.plates[0]
        ink = (85.0, 0.0, 75.0) if plate.lab[0] < 62.0 else (35.0, 45.0, -80.0)
        other = replace(draft.edit.target, plates=(replace(plate, ink_lab=ink),))
        assert not accepted(draft, draft.draw(other))


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [("background", another_pose), ("background", another_subject), ("extract", another_pose)],
)
def test_a_creature_before_a_new_backdrop_or_cut_out_keeps_its_pose_and_its_looks(kind, spoil):
    rng = np.random.default_rng(2)
    right = 0
    for draft in drawn(kind, 3, has_creature):
        right += accepted(draft, draft.draw(draft.edit.target))
        assert not accepted(draft, spoil(draft, rng))
    assert right >= 2


@pytest.mark.parametrize("part", ["body_lab", "second_lab", "eye_size", "spot_count"])
def test_a_creature_that_is_cut_out_keeps_its_colours_eyes_and_spots(part):
    rng = np.random.default_rng(5)
    for draft in drawn("extract", 2, has_creature):
        creature = draft.edit.target.creatures[0]
        other = replace(creature, anatomy=near_miss(rng, creature.anatomy, part))
        assert not accepted(draft, draft.draw(replace(draft.edit.target, creatures=(other,))))


def test_a_creature_in_another_tone_keeps_its_pose():
    rng = np.random.default_rng(3)
    for draft in drawn("tone", 3, has_creature):
        assert accepted(draft, draft.draw(draft.edit.target))
        assert not accepted(draft, another_pose(draft, rng))


def test_an_object_that_grows_keeps_its_fill():
    rng = np.random.default_rng(4)
    right = 0
    for draft in drawn("resize", 6):
        right += accepted(draft, draft.draw(draft.edit.target))
        assert not accepted(draft, wrong_fill(draft, rng))
    assert right >= 5


@pytest.mark.parametrize("ratio", [1.2, 1.6])
def test_eyes_may_become_larger_or_smaller_by_any_clear_amount(ratio):
    def room(edit):
        factor = edit.requirements.factor
        return factor is not None and 0.14 < resized(edit, ratio) < 0.30

    def resized(edit, by):
        size = edit.source.creatures[0].anatomy.eye_size
        return size * by if edit.requirements.factor > 1.0 else size / by

    for draft in drawn("retouch", 4, room):
        before, after = draft.edit.source.creatures[0].anatomy, draft.edit.target.creatures[0]
        for by, is_right in ((ratio, True), (1.05, False), (1.0 / ratio, False)):
            size = resized(draft.edit, by)
            apart = max(before.eye_separation, 2.0 * size + EYE_GAP)
            eyes = replace(before, eye_size=size, eye_separation=apart)
            scene = replace(draft.edit.target, creatures=(replace(after, anatomy=eyes),))
            assert accepted(draft, draft.draw(scene)) == is_right
