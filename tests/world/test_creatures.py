"""Creatures and props: identity is continuous, poses change pixels, near misses change one part."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import RequestError
from og2.world.casting import Room, place_creature, place_gizmo, place_plate
from og2.world.creatures import (
    RANGES,
    SPOT_SLOTS,
    Anatomy,
    Creature,
    creature_box,
    near_miss,
    sample_anatomy,
    sample_pose,
)
from og2.world.glyphs import LETTERS, WORDS, glyph_table
from og2.world.props import check_text, gizmo_box, near_miss_gizmo, plate_box
from og2.world.render import render_batch
from og2.world.scenes import WORLDS, empty_scene
from og2.world.split import split_of
from og2.world.strokes import creature_strokes

SEEDS = st.integers(0, 2**32 - 1)


def scene_with_creature(rng):
    return place_creature(rng, empty_scene(rng, WORLDS["full"], "plain"), Room())


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, part=st.sampled_from([f.name for f in fields(Anatomy)]))
def test_a_near_miss_differs_in_one_part_and_stays_a_legal_creature(seed, part):
    rng = np.random.default_rng(seed)
    anatomy = sample_anatomy(rng)
    other = near_miss(rng, anatomy, part)
    assert [f.name for f in fields(Anatomy) if getattr(anatomy, f.name) != getattr(other, f.name)] == [part]
    for name, (low, high) in RANGES.items():
        assert low - 0.06 <= getattr(other, name) <= high + 0.06
    assert 0 <= other.spot_count <= 7
    assert 0 <= other.horn_count <= 3


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_a_creature_is_painted_inside_its_box_in_every_pose(seed):
    rng = np.random.default_rng(seed)
    scene = scene_with_creature(rng)
    creature = replace(scene.creatures[0], pose=sample_pose(rng))
    scene = replace(scene, creatures=(creature,))
    drawn, empty = render_batch([scene, replace(scene, creatures=())], 128).int()
    rows, columns = ((drawn - empty).abs().sum(-1) > 0).nonzero(as_tuple=True)
    left, top, right, bottom = (128 * v for v in creature_box(creature))
    assert columns.min() >= left - 1.5
    assert columns.max() <= right + 0.5
    assert rows.min() >= top - 1.5
    assert rows.max() <= bottom + 0.5


@pytest.mark.parametrize("word", ["left_arm", "right_arm", "mouth", "facing", "gaze"])
def test_every_word_of_a_pose_shows_in_the_picture(word):
    rng = np.random.default_rng(3)
    scene = scene_with_creature(rng)
    creature = scene.creatures[0]
    values = {"mouth": ("open", "closed"), "facing": ("left", "right"), "gaze": ("left", "right")}
    poses = [sample_pose(rng, fixed={word: v}) for v in values.get(word, ("up", "down"))]
    same = {f.name: getattr(poses[0], f.name) for f in fields(poses[0])}
    changed = {word: getattr(poses[1], word)}
    if word.endswith("arm"):
        changed[word.replace("arm", "angle")] = getattr(poses[1], word.replace("arm", "angle"))
    poses[1] = replace(poses[0], **changed)
    assert same != {**same, **changed}
    pictures = render_batch([replace(scene, creatures=(replace(creature, pose=p),)) for p in poses], 128)
    assert int((pictures[0] != pictures[1]).any(-1).sum()) >= 12


def test_the_body_keeps_its_area_when_its_aspect_changes():
    rng = np.random.default_rng(0)
    anatomy, pose = replace(sample_anatomy(rng), spot_count=0), sample_pose(rng)
    empty, areas = empty_scene(rng, WORLDS["plain"]), []
    for aspect in (0.8, 1.3):
        creature = Creature(replace(anatomy, body_aspect=aspect), pose, 0.5, 0.5, 0.16)
        body = next(s for s in creature_strokes(creature) if s.figure == "ellipse")
        areas.append(body.params[0] * body.params[1])
        drawn = render_batch([replace(empty, creatures=(creature,))], 128)[0]
        half = math.sqrt(aspect) * creature.radius * 128
        row = (drawn[64] != render_batch([empty], 128)[0, 64]).any(-1).nonzero()
        assert row.min() <= 64 - half + 1.5
        assert row.max() >= 64 + half - 2.5
    assert areas[0] == pytest.approx(areas[1])


@pytest.mark.parametrize("aspect", RANGES["body_aspect"])
def test_spots_neither_touch_one_another_nor_leave_the_body(aspect):
    a, b = math.sqrt(aspect), 1 / math.sqrt(aspect)
    largest = RANGES["spot_size"][1]
    for i, (x, y) in enumerate(SPOT_SLOTS):
        assert math.hypot(x, y) + largest / min(a, b) < 1.02
        for u, v in SPOT_SLOTS[:i]:
            assert math.hypot((x - u) * a, (y - v) * b) - 2 * largest >= 0.07


def test_about_one_anatomy_in_ten_is_held_out():
    rng = np.random.default_rng(1)
    keys = [sample_anatomy(rng, split).key for split in ("train", "test") for _ in range(40)]
    assert [split_of(k) for k in keys] == ["train"] * 40 + ["test"] * 40


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, part=st.sampled_from(("body", "cap", "emblem", "fill", "cap_lab", "emblem_lab")))
def test_a_gizmo_is_painted_inside_its_box_and_its_near_miss_looks_different(seed, part):
    rng = np.random.default_rng(seed)
    scene = place_gizmo(rng, empty_scene(rng, WORLDS["full"], "plain"), Room())
    gizmo = scene.gizmos[0]
    other = replace(scene, gizmos=(near_miss_gizmo(rng, gizmo, part),))
    drawn, changed, empty = render_batch([scene, other, replace(scene, gizmos=())], 128).int()
    assert int(((drawn - changed).abs().sum(-1) > 20).sum()) >= 15
    rows, columns = ((drawn - empty).abs().sum(-1) > 0).nonzero(as_tuple=True)
    left, top, right, bottom = (128 * v for v in gizmo_box(gizmo))
    assert left - 1.5 <= columns.min() <= columns.max() <= right + 0.5
    assert top - 1.5 <= rows.min() <= rows.max() <= bottom + 0.5


def test_a_plate_shows_its_letters_cell_by_cell():
    rng = np.random.default_rng(2)
    for _ in range(8):
        scene = place_plate(rng, empty_scene(rng, WORLDS["full"], "plain"))
        (plate,) = scene.plates
        side = 512
        picture = render_batch([scene], side)[0].float()
        ink = picture.mean(-1) > 128 if plate.ink_lab[0] > 50 else picture.mean(-1) < 70
        left, top, _, _ = plate_box(plate)
        cell = plate.cell * side
        for place, letter in enumerate(plate.text):
            for row in range(7):
                for column in range(5):
                    x = left * side + (2 + 6 * place + column + 0.5) * cell
                    y = top * side + (2 + row + 0.5) * cell
                    wanted = bool(glyph_table()[LETTERS.index(letter), row, column])
                    assert bool(ink[int(y), int(x)]) == wanted, (plate.text, letter, row, column)


def test_letters_are_all_different_and_words_fit_a_plate():
    table = glyph_table().reshape(26, -1)
    for i in range(26):
        for j in range(i):
            assert np.abs(table[i] - table[j]).sum() >= 2
    for word in WORDS:
        check_text(word)
    with pytest.raises(RequestError, match="capital letters"):
        check_text("moon")
