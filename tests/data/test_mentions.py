"""Words of a conversation point at the one thing in the picture that they can mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import og2
from og2.conditioning.processor import Processor, load_processor
from og2.conditioning.vlm import tokenize
from og2.data.mentions import MENTION_WORDS, mentions, naming_tokens
from og2.data.world_source import item_rng
from og2.world.scenes import Scene
from og2.world.spec import sample_scene


@pytest.fixture(scope="module")
def processor() -> Processor:
    return load_processor(Path(og2.__file__).parent / "checkpoints" / "mini" / "processor")


def _scene(*kinds: tuple[str, str]) -> Scene:
    """Objects of these colours and shapes; all else as it comes."""
    drawn = sample_scene(item_rng(5, 0), num_objects=len(kinds))
    objects = (
        replace(thing, color=color, shape=shape)
        for thing, (color, shape) in zip(drawn.objects, kinds, strict=True)
    )
    return replace(drawn, objects=tuple(objects))


def _meant(processor: Processor, text: str, scene: Scene) -> list[tuple[str, str, str]]:
    """Each word that means something, with the colour and shape of what it means."""
    ids = tokenize(processor, text)
    shapes, colors = MENTION_WORDS.words[:2]
    return [
        (processor.tokenizer.decode([ids[place]]).strip(), colors[int(said[1]) - 1], shapes[int(said[0]) - 1])
        for place, said in mentions(ids, scene, naming_tokens(processor))
    ]


def test_a_shape_or_a_colour_means_the_only_thing_that_has_it(processor: Processor) -> None:
    scene = _scene(("red", "star"), ("blue", "circle"))
    found = _meant(processor, "what colour is the star? which shape is blue?", scene)
    assert found == [("star", "red", "star"), ("blue", "blue", "circle")]


def test_a_word_that_two_things_or_none_have_means_nothing(processor: Processor) -> None:
    scene = _scene(("red", "star"), ("blue", "star"))
    assert _meant(processor, "is a star there, or a green ring?", scene) == []


def test_a_shape_behind_a_colour_means_what_is_both(processor: Processor) -> None:
    scene = _scene(("red", "star"), ("blue", "star"), ("red", "ring"))
    assert _meant(processor, "the red star", scene) == [("star", "red", "star")]
    assert _meant(processor, "the green star", scene) == []


def test_all_that_is_said_of_a_thing_is_asked(processor: Processor) -> None:
    scene = _scene(("red", "star"))
    (thing,) = scene.objects
    ((_, said),) = mentions(tokenize(processor, "a star"), scene, naming_tokens(processor))
    words = [kind[int(i) - 1] for kind, i in zip(MENTION_WORDS.words, said, strict=True)]
    assert words == ["star", "red", thing.size, thing.fill_name, thing.position]
