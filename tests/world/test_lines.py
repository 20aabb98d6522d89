"""Pictures in the second hand, whose things have dark lines: read as the clean ones are, at 64 and 128 px."""

import numpy as np
import pytest

from og2.evals.near_miss import EditDraft, ghost
from og2.world.background import take_apart, window
from og2.world.creature_body import Frame, find_frame
from og2.world.creature_lines import is_lined
from og2.world.detect import parts_of, read
from og2.world.pixels import fill_holes
from og2.world.render import render
from og2.world.score import score_edit
from og2.world.spec import sample_edit
from og2.world.subjects import FINE_SIDE_PX, look


def an_edit(seed, kind, world="full"):
    return sample_edit(np.random.default_rng(seed), (kind,), world=world)


def verdict(edit, size=128, hand="inked"):
    source, target = (render(scene, size, hand=hand).numpy() for scene in (edit.source, edit.target))
    return score_edit(source, target, edit.requirements)


def creature_part(scene, hand):
    """The window of the scene's creature at 128 px and its part there."""
    view = take_apart(render(scene, 128, hand=hand).numpy(), FINE_SIDE_PX)
    (creature,) = scene.creatures
    (part,) = [p for p in parts_of(view) if p[int(128 * creature.y), int(128 * creature.x)]]
    around, where = window(view, part)
    return around, fill_holes(part[where])


def frame_of(scene) -> Frame:
    frame = find_frame(*creature_part(scene, "inked"))
    assert frame is not None
    return frame


def test_the_line_of_a_small_creature_is_seen_and_none_where_there_is_none():
    scenes = [an_edit(seed, "motion").source for seed in range(40)]
    assert sum(is_lined(*creature_part(scene, "inked")) for scene in scenes) >= 39
    assert not any(is_lined(*creature_part(scene, "clean")) for scene in scenes)


def test_a_line_is_as_dark_and_as_wide_as_it_was_drawn():
    lines = [frame_of(an_edit(seed, "motion").source).line for seed in range(12)]
    assert all(line is not None and 0.44 < line.tone < 0.58 and 0.9 < line.width < 1.7 for line in lines)


def test_horns_that_are_hardly_more_than_line_are_counted():
    for seed in range(24):
        scene = an_edit(seed, "motion").source
        (seen,) = look(render(scene, 128, hand="inked").numpy()).creatures
        assert seen.horns == scene.creatures[0].anatomy.horn_count


@pytest.mark.parametrize("seed", [12, 13, 14, 36, 38, 55])
def test_a_creature_with_lines_that_moves_as_asked_is_accepted(seed):
    assert verdict(an_edit(seed, "motion")).reason == ""


@pytest.mark.parametrize("seed", [13, 23, 62])
def test_a_creature_with_lines_that_was_retouched_as_asked_is_accepted(seed):
    assert verdict(an_edit(seed, "retouch")).reason == ""


def test_a_faint_gaze_or_arm_among_lines_is_refused():
    seen = 0
    for seed in range(56):
        edit = an_edit(seed, "motion")
        wanted = edit.requirements.creature
        if (wanted.gaze, wanted.left_arm, wanted.right_arm) == (None, None, None):
            continue
        draft = EditDraft(edit, 128, "inked")
        faint = ghost(draft, np.random.default_rng(seed))
        assert not score_edit(draft.draw(edit.source), faint, edit.requirements).success
        seen += 1
    assert seen >= 20


@pytest.mark.parametrize("seed", [29, 51, 55, 59, 61])
def test_a_plate_with_a_line_is_read_where_the_backdrop_is_as_light_as_the_line(seed):
    assert verdict(an_edit(seed, "text")).reason == ""


@pytest.mark.parametrize("seed", [8, 37, 39, 41, 58])
def test_a_thin_thing_has_one_colour_though_most_of_it_is_line(seed):
    edit = an_edit(seed, "add", "plain")
    assert verdict(edit, 64).reason == ""
    wanted = sorted((o.color, o.shape) for o in edit.target.objects)
    seen = read(render(edit.target, 64, hand="inked").numpy()).objects
    assert sorted((o.color, o.shape) for o in seen) == wanted


def test_a_thing_that_grew_has_its_own_colour_beside_its_line():
    assert verdict(an_edit(43, "replace")).reason == ""
