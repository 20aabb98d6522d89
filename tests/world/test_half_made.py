"""Edits that look finished at first sight, halves of mouths, arms and backdrops; right ones once refused."""

from dataclasses import replace

import numpy as np
import pytest

from og2.evals import certify
from og2.evals.edit_near_miss import EDIT_NEAR_MISSES, MIXTURES, half_done, mixed_again, side_damage
from og2.evals.near_miss import EditDraft
from og2.world.casting import with_text
from og2.world.creatures import with_pose
from og2.world.props import plate_box
from og2.world.render import render
from og2.world.scenes import box_of, dressed, has_gap, make_object, world_named
from og2.world.score import score_edit
from og2.world.spec import sample_edit
from og2.world.subjects import look

PX = 128


def drawn(kind, number, wanted, seed=31):
    """The first drafts of that kind that are wanted."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < number:
        edit = sample_edit(rng, (kind,), world="full")
        if wanted(edit):
            found.append(EditDraft(edit, PX))
    return found


def kinds_of(edit):
    return edit.source.backdrop_kind, edit.target.backdrop_kind


def accepted(draft, picture):
    return score_edit(draft.draw(draft.edit.source), picture, draft.edit.requirements).success


def test_a_thing_beside_a_sign_is_clear_of_the_old_and_the_new_word():
    rng = np.random.default_rng(4)
    beside = 0
    for _ in range(60):
        edit = sample_edit(rng, ("text",), world="full")
        assert len(edit.source.plates) == len(edit.target.plates) == 1
        for thing in edit.source.objects:
            beside += 1
            assert all(
                has_gap(box_of(thing), plate_box(s.plates[0]), 0.0) for s in (edit.source, edit.target)
            )
    assert beside > 20


def test_letters_that_two_words_share_are_not_letters_left_over():
    draft = drawn("text", 1, lambda e: len(e.target.plates[0].text) == 4)[0]
    plates = [with_text(draft.edit.target.plates[0], word) for word in ("LOVE", "HOME")]
    source, target = (replace(draft.edit.target, objects=(), plates=(plate,)) for plate in plates)
    rule = replace(draft.edit.requirements, old_text="LOVE", text="HOME")
    before, after = draft.draw(source), draft.draw(target)
    assert score_edit(before, after, rule).success
    faint = (0.7 * after + 0.3 * before + 0.5).astype(np.uint8)
    assert not score_edit(before, faint, rule).success


def test_checks_and_letters_are_no_faces():
    rng = np.random.default_rng(9)
    scene = drawn("text", 1, lambda e: e.source.backdrop is None)[0].edit.source
    for _ in range(8):
        thing = make_object(rng, "circle", "white", "medium", "bottom")
        checks = dressed(rng, thing, world_named("full"), fill="checker")
        assert look(render(replace(scene, objects=(checks,)), PX)).creatures == ()


@pytest.mark.parametrize("word", ["mouth", "right_arm"])
def test_half_a_mouth_or_arm_is_not_a_whole_one(word):
    rng = np.random.default_rng(5)
    for draft in drawn("motion", 4, lambda e: getattr(e.requirements.creature, word) in ("open", "up")):
        assert not accepted(draft, half_done(draft, rng))


def test_a_creature_that_turns_keeps_its_mouth():
    rng = np.random.default_rng(6)
    right = 0
    for draft in drawn("motion", 2, lambda e: e.requirements.creature.facing is not None):
        target = draft.edit.target
        right += accepted(draft, draft.draw(target))
        creature = target.creatures[0]
        other = "open" if creature.pose.mouth == "closed" else "closed"
        turned = replace(target, creatures=(with_pose(rng, creature, {"mouth": other}),))
        assert not accepted(draft, draft.draw(turned))
    assert right == 2


@pytest.mark.parametrize("family", ["tiles", "gradient"])
def test_half_a_new_backdrop_is_not_made_and_a_whole_one_is(family):
    rng = np.random.default_rng(7)
    right = 0
    for draft in drawn("background", 4, lambda e: e.requirements.backdrop == family):
        right += accepted(draft, draft.draw(draft.edit.target))
        assert not accepted(draft, half_done(draft, rng))
    assert right >= 3


def test_half_of_an_old_gradient_does_not_make_a_plain_backdrop():
    for draft in drawn("background", 2, lambda e: kinds_of(e) == ("gradient", "plain")):
        before, after = draft.draw(draft.edit.source), draft.draw(draft.edit.target)
        assert accepted(draft, after)
        assert not accepted(draft, (0.5 * before + 0.5 * after + 0.5).astype(np.uint8))


def test_something_new_in_a_sepia_picture_is_seen_also_where_it_is_about_as_light():
    rng = np.random.default_rng(10)
    for draft in drawn("style", 4, lambda e: e.requirements.style == "sepia"):
        assert accepted(draft, draft.draw(draft.edit.target))
        assert not accepted(draft, side_damage(draft, rng))


def test_a_mixture_is_made_again_of_two_other_pictures():
    rng = np.random.default_rng(11)
    draft = drawn("recolour", 1, lambda e: bool(e.source.objects))[0]
    ends = draft.draw(draft.edit.source), draft.draw(draft.edit.target)
    for kind in MIXTURES:
        mixture = EDIT_NEAR_MISSES[kind](draft, rng)
        again = mixed_again(mixture, ends, ends)
        assert np.abs(again.astype(int) - mixture).max() <= 1
        darker = [(0.5 * end).astype(np.uint8) for end in ends]
        assert np.abs(mixed_again(mixture, ends, darker) - 0.5 * mixture).max() <= 2
        assert (mixed_again(mixture, ends, (ends[1], ends[1])) == ends[1]).all()


def test_the_certificate_mixes_after_the_vae_and_not_before(monkeypatch):
    asked = []

    def black(pictures, *_):
        asked.append(len(pictures))
        return [np.zeros_like(p) for p in pictures]

    monkeypatch.setattr(certify, "corrupted", black)
    job = certify.Job("edit/plain remove", 0, ("VAE",))
    found = certify.Blocks(certify.Plan(n=1, tasks=(job.task,)), (job,))(0)
    mixtures = [kind for kind in MIXTURES if kind in found["edit/plain remove|VAE|0"]]
    assert mixtures
    assert asked[1:] == [2] * len(mixtures)


def test_a_new_gradient_is_not_the_old_one_from_its_other_end():
    rng = np.random.default_rng(12)
    for _ in range(150):
        edit = sample_edit(rng, ("background",), world="full")
        assert edit.source.backdrop_kind != edit.target.backdrop_kind or sorted(
            edit.source.background.split(" to ")
        ) != sorted(edit.target.background.split(" to "))


def test_a_ring_half_filled_is_no_circle_in_its_place():
    def is_filled(edit):
        return edit.requirements.shape == "circle" and any(o.shape == "ring" for o in edit.source.objects)

    draft = drawn("replace", 1, lambda e: is_filled(e) and e.requirements.subject.shape == "ring")[0]
    before, after = draft.draw(draft.edit.source), draft.draw(draft.edit.target)
    assert accepted(draft, after)
    assert not accepted(draft, (0.5 * before + 0.5 * after + 0.5).astype(np.uint8))


def test_a_cooler_landscape_is_cool_though_sky_and_ground_have_no_one_middle():
    def wanted(edit):
        return edit.requirements.tone == "cool" and edit.source.background == "meadow"

    for draft in drawn("tone", 3, wanted):
        assert accepted(draft, draft.draw(draft.edit.target))


def test_a_picture_painted_over_with_one_colour_is_no_change_of_tone():
    for draft in drawn("tone", 8, lambda _: True):
        right = draft.draw(draft.edit.target)
        painted = np.broadcast_to(np.median(right.reshape(-1, 3), axis=0).astype(np.uint8), right.shape)
        assert accepted(draft, right)
        assert not accepted(draft, painted)
