"""Rows that the mini-world draws on the fly: every type of both worlds, the plain one as it always was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from og2.data.rows import Example
from og2.data.sources import Place
from og2.data.world_source import CRITIQUE, WorldOptions, WorldSource, item_rng
from og2.errors import ConfigError
from og2.world.render import render_batch
from og2.world.spec import INCONTEXT_TASKS, caption, parse_reflection, sample_edit, sample_scene

TYPES = [
    *((task, "plain") for task in ("t2i", "edit", "text", "critique")),
    *((task, "full") for task in ("t2i", "edit", "ic", "text", "critique")),
]


def source(task: str, **options: Any) -> WorldSource:
    return WorldSource(Place("w", None, None, task), WorldOptions(**{"sizes_px": ((64, 64),), **options}))


def same(one: Example, other: Example) -> bool:
    pictures = zip(
        (*one.input_pictures, one.output_picture), (*other.input_pictures, other.output_picture), strict=True
    )
    return one.row == other.row and all(np.array_equal(a, b) for a, b in pictures)


@pytest.mark.parametrize(("task", "world"), TYPES)
def test_every_type_gives_rows_that_follow_from_their_number(task: str, world: str) -> None:
    made = source(task, world=world)
    rows = [made.example(index) for index in range(4)]
    assert same(rows[2], source(task, world=world).example(2))
    assert len({row.row.instruction for row in rows}) > 1
    for found in rows:
        row = found.row
        assert row.task == task
        assert (row.output_text is None) == (task in ("t2i", "edit", "ic"))
        assert (found.output_picture is None) == (row.output_image is None) == (row.output_text is not None)
        expected = {"t2i": (0, 0), "ic": (1, 5)}.get(task, (1, 1))
        assert expected[0] <= len(found.input_pictures) == len(row.input_images) <= expected[1]
        for picture in (*found.input_pictures, found.output_picture):
            assert picture is None or np.asarray(picture).shape == (64, 64, 3)


def test_the_plain_world_gives_the_rows_it_always_gave() -> None:
    rng = item_rng(3, 7)
    rng.integers(1)
    scene = sample_scene(rng, num_objects=1 + int(rng.choice(3, p=np.array([0.5, 0.3, 0.2]))), split="train")
    drawn = source("t2i", seed=3).example(7)
    assert drawn.row.instruction == caption(scene, rng)
    assert np.array_equal(drawn.output_picture, render_batch([scene], 64)[0].numpy())
    rng = item_rng(3, 7)
    rng.integers(1)
    assert source("edit", seed=3).row(7).instruction == sample_edit(rng, split="train").instruction


def test_references_of_in_context_rows_are_several_and_never_the_answer() -> None:
    made = source("ic", world="full", kinds=("multi_object",))
    for index in range(3):
        found = made.example(index)
        assert len(found.input_pictures) >= 2
        assert not any(np.array_equal(found.output_picture, picture) for picture in found.input_pictures)
    assert set(INCONTEXT_TASKS) >= {"multi_object", "scene_character"}


@pytest.mark.parametrize("world", ["plain", "full"])
def test_critiques_say_when_to_stop_and_else_how_to_mend(world: str) -> None:
    made = source("critique", world=world)
    rows = [made.row(index) for index in range(40)]
    opening = CRITIQUE.partition("{0}")[0]
    assert all(row.instruction.startswith(opening) for row in rows)
    said = [parse_reflection(row.output_text or "") for row in rows]
    assert {"continue", "stop"} == {reflection.action for reflection in said}
    assert all(bool(reflection.edit) == (reflection.action == "continue") for reflection in said)


def test_what_a_world_cannot_make_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="the plain world has no rows of type ic; use world: full"):
        source("ic")
    with pytest.raises(ConfigError, match=r"kind .motion. of type edit in the plain world; use one of"):
        source("edit", kinds=("motion",))
    with pytest.raises(ConfigError, match="kind 'x' of type text in the full world; use no kinds"):
        source("text", world="full", kinds=("x",))
    with pytest.raises(ConfigError, match="num_objects is of the plain world"):
        source("t2i", world="full", num_objects=(1.0,))
    with pytest.raises(ConfigError, match="type 'video' is none of t2i, edit, ic, text, critique"):
        source("video")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, r"rows=\d+ starts at 1, seed=-1 at 0"),
        ({"num_objects": ()}, r"num_objects=\(\); give the shares of 1 to 3 objects"),
        ({"num_objects": (0.0, 0.0, 0.0, 1.0)}, "give the shares of 1 to 3 objects"),
        ({"sizes_px": ((64, 64), (0, 64))}, "sizes_px=.*; give sides of 16 px and more"),
        ({"sizes_px": ()}, "give sides of 16 px and more"),
    ],
)
def test_numbers_out_of_range_are_refused_before_the_first_row(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source("t2i", **options)
