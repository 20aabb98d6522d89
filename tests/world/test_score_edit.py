"""Verdicts on edits: each kind's right result passes; what is half done, faint or wrong elsewhere fails."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.evals.edit_near_miss import EDIT_NEAR_MISSES
from og2.evals.items import SCORED_EDITS
from og2.evals.near_miss import EditDraft
from og2.world.detect import read
from og2.world.measures import evenness, outer_sides, shows_through
from og2.world.object_edits import match_others
from og2.world.render import render
from og2.world.score import score_edit
from og2.world.spec import ALL_EDIT_KINDS, sample_edit
from og2.world.words import Word

PX = 128


def drafts(kind, number, seed=21):
    rng = np.random.default_rng(seed)
    return [EditDraft(sample_edit(rng, (kind,), world="full"), PX) for _ in range(number)]


def blended(draft, weight):
    before, after = draft.draw(draft.edit.source), draft.draw(draft.edit.target)
    return (before * (1 - weight) + after * weight + 0.5).astype(np.uint8)


def test_every_kind_of_edit_is_judged():
    assert set(SCORED_EDITS) == set(ALL_EDIT_KINDS)


@pytest.mark.parametrize("kind", ALL_EDIT_KINDS)
def test_a_right_result_passes_and_the_source_handed_in_again_scores_near_nothing(kind):
    right, copies = 0, []
    for draft in drafts(kind, 3):
        source, rule = draft.draw(draft.edit.source), draft.edit.requirements
        right += score_edit(source, draft.draw(draft.edit.target), rule).success
        copied = score_edit(source, source, rule)
        assert not copied.success
        copies.append(copied.sc)
    assert right >= 2
    assert np.median(copies) <= 1.0


@pytest.mark.parametrize("kind", ["motion", "retouch", "style", "tone", "material", "resize", "text"])
@pytest.mark.parametrize("miss", ["half done", "ghost", "wrong value"])
def test_what_is_done_by_half_faintly_or_otherwise_fails(kind, miss):
    if (kind, miss) == ("tone", "half done"):
        pytest.skip("half of a higher contrast may pass: a known limit, see docs/world.md")
    rng = np.random.default_rng(3)
    accepted = 0
    for draft in drafts(kind, 2):
        picture = EDIT_NEAR_MISSES[miss](draft, rng)
        if picture is not None:
            rule = draft.edit.requirements
            accepted += score_edit(draft.draw(draft.edit.source), picture, rule).success
    assert accepted == 0


@pytest.mark.parametrize("kind", ["recolour", "remove", "resize", "tone", "style"])
def test_the_score_rises_with_how_much_of_the_edit_is_there(kind):
    draft = drafts(kind, 1, seed=5)[0]
    source, rule = draft.draw(draft.edit.source), draft.edit.requirements
    scores = [score_edit(source, blended(draft, w), rule).sc for w in (0.0, 0.5, 1.0)]
    assert scores[0] <= scores[1] < scores[2]
    assert scores[0] <= 1.0
    assert scores[2] >= 7.0


def test_too_much_edited_lowers_the_score_by_what_was_not_kept():
    draft = next(d for d in drafts("recolour", 20) if d.edit.source.backdrop is None)
    source, rule = draft.draw(draft.edit.source), draft.edit.requirements
    repainted = replace(draft.edit.target, background_lab=(60.0, 0.0, 0.0))
    everything = np.where(
        np.arange(PX)[:, None, None] < PX // 2, draft.draw(repainted), draft.draw(draft.edit.target)
    )
    verdict = score_edit(source, everything, rule)
    assert verdict.kept < 0.7
    assert verdict.sc == verdict.preservation < 4.0


def test_another_object_is_the_same_one_by_its_pixels_where_its_words_cannot_be_read():
    scene = sample_edit(np.random.default_rng(2), ("add",)).target
    seen = read(render(scene, 64))
    thing = seen.objects[0]
    unread = replace(thing, words={**thing.words, "shape": Word(None, 0.0, "between two shapes")})
    assert match_others([thing], [unread], (seen.view, seen.view)) == ([], [])
    other = replace(seen.view, lab=seen.view.lab + np.array([0.0, 30.0, 0.0]))
    assert match_others([thing], [unread], (seen.view, other))[1]
    renamed = replace(thing, words={**thing.words, "shape": Word("plate", 1.0)})
    assert match_others([thing], [renamed], (seen.view, seen.view))[1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.0))
def test_the_share_of_an_old_pattern_that_shows_through_is_measured(seed, share):
    rng = np.random.default_rng(seed)
    old = np.where(rng.random(400) < 0.4, 60.0, 35.0)
    flat = np.full(400, 50.0) + rng.normal(0.0, 0.5, 400)
    assert shows_through(old, share * old + (1 - share) * flat, False) == pytest.approx(share, abs=0.03)
    new = np.where(rng.random(400) < 0.5, 70.0, 40.0)
    mixed = 0.4 * old + 0.6 * new
    assert shows_through(old, new, True) == pytest.approx(0.0, abs=0.02)
    assert shows_through(old, mixed, True) > 0.3


def test_a_change_on_one_side_only_is_uneven():
    mask = np.zeros((40, 40), bool)
    mask[5:35, 5:35] = True
    everywhere = np.indices(mask.shape).sum(axis=0) % 3 == 0
    assert evenness(everywhere, mask) > 0.8
    assert evenness(everywhere & (np.arange(40) > 20), mask) < 0.1
    assert all(abs(side.sum() / mask.sum() - 0.35) < 0.06 for side in outer_sides(mask))
