"""From rows to samples: official pixel limits, caption openings, chances that depend on the draw alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from og2.conditioning.sizes import fit_size
from og2.data.examples import OFFICIAL_INPUT_PIXELS, ReadConfig, Reader, Sample, without_opening
from og2.data.mix import Draw, Mixture
from og2.data.rows import Example, Row
from og2.data.sources import Place
from og2.data.world_source import WorldOptions, WorldSource
from og2.errors import ConfigError, DataError, ImageError

DRAW = Draw(0, 0, 0, 0)


def reader(**chances: float) -> Reader:
    config = ReadConfig(**{"drop_text": 0.0, **chances})
    world = WorldSource(Place("w", None, None, "t2i"), WorldOptions(rows=50))
    return Reader(Mixture([world], [1.0], 0), config)


def picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 7, dtype=np.uint8)


def example(num_inputs: int, size: tuple[int, int] = (1200, 1500)) -> Example:
    names = tuple(f"{k}.png" for k in range(num_inputs))
    return Example(Row("s:1", "s", "ic", "x", names, "o.png"), (picture(*size),) * num_inputs, picture(*size))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_inputs_have_the_official_limits_by_their_number_and_the_one_resize_rule(count: int) -> None:
    sample = reader().sample(example(count), DRAW)
    limit = OFFICIAL_INPUT_PIXELS[min(max(count, 1), 4) - 1]
    assert len(sample.references) == count
    for reference in sample.references:
        assert reference.pixels is not None
        assert reference.pixels.shape[:2] == fit_size(1200, 1500, limit, 2048)
    assert sample.target is not None
    assert sample.target.pixels is not None
    assert sample.target.pixels.shape[:2] == fit_size(1200, 1500, 1024 * 1024, 2048)


def test_what_cannot_be_a_sample_is_refused() -> None:
    with pytest.raises(DataError, match="6 input pictures; at most 5"):
        reader().sample(example(6, (16, 16)), DRAW)
    with pytest.raises(ImageError, match="below 16 px"):
        reader().sample(example(1, (8, 400)), DRAW)
    with pytest.raises(ConfigError, match=r"drop_text=1.5: a chance is between 0 and 1"):
        ReadConfig(drop_text=1.5)


def test_the_same_picture_from_a_file_and_as_pixels_is_the_same_sample() -> None:
    pixels, file = picture(40, 50), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    row = Row("s:1", "s", "t2i", "x", (), "o.png")
    found = [reader().sample(Example(row, (), stored), DRAW).target for stored in (pixels, file.getvalue())]
    assert found[0] is not None
    assert found[1] is not None
    assert np.array_equal(found[0].pixels, found[1].pixels)


@pytest.mark.parametrize(
    ("caption", "rest"),
    [
        ("The image shows a cat.", "A cat."),
        ("This photo depicts two dogs", "Two dogs"),
        ("In this picture, a boat sails", "A boat sails"),
        ("A painting of a tree", "A painting of a tree"),
        ("The image", "The image"),
        ("the picture shows ", "the picture shows "),
        ("", ""),
    ],
)
def test_openings_of_captions_are_taken_off(caption: str, rest: str) -> None:
    assert without_opening(caption) == rest


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_a_caption_without_an_opening_stays_as_it_is_and_none_becomes_empty(text: str) -> None:
    assert without_opening(f"zebra {text}") == f"zebra {text}"
    assert bool(without_opening(f"The image shows {text}")) is True


def test_chances_follow_from_the_draw_and_do_not_disturb_each_other() -> None:
    def texts(**chances: float) -> list[tuple[str, str]]:
        made = reader(**chances)
        read = [made.read(number) for number in range(60)]
        return [(sample.text, sample.form) for sample in read if isinstance(sample, Sample)]

    plain, chatty, dropped = texts(), texts(chat_share=0.5), texts(drop_text=0.4, chat_share=0.5)
    assert texts(chat_share=0.5) == chatty
    assert {form for _, form in plain} == {"prompt"}
    assert 15 < sum(form == "chat" for _, form in chatty) < 45
    assert 10 < sum(text == "" for text, _ in dropped) < 40
    assert all(one == two for one, two in zip(chatty, dropped, strict=True) if two[0])
