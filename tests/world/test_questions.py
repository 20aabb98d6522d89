"""Questions and captions of the full world: they say only what a picture decides."""

import re
from dataclasses import replace

import numpy as np
import pytest

from og2.data.conversations import conversation
from og2.world import palette
from og2.world.casting import Room, place_creature, place_gizmo
from og2.world.creatures import sample_anatomy
from og2.world.dialogue import finish_question
from og2.world.edits_pictures import creature_scene
from og2.world.language import MAX_RELATED
from og2.world.scenes import WORLDS, empty_scene, place_object
from og2.world.spec import describe, plain_caption, sample_prompt, sample_scene, typed_questions

FULL = WORLDS["full"]
COLOR = re.compile(rf"\b({'|'.join(palette.COLORS)}|color|colour|background)\b")


def test_no_question_about_shapes_or_numbers_is_of_what_a_gadget_shows_too():
    rng, counted = np.random.default_rng(0), 0
    for _ in range(60):
        scene = place_gizmo(rng, empty_scene(rng, FULL, "plain"), Room(2))
        scene = scene and place_gizmo(rng, scene, Room(2))
        scene = scene and (place_object(rng, scene, 4, world=FULL) or scene)
        if scene is None:
            continue
        shown = {shape for g in scene.gizmos for shape in (g.body, g.cap, g.emblem)}
        for kind, question, answer in typed_questions(scene, rng, "full"):
            if kind in ("count", "yes_no", "none", "color", "shape"):
                assert not re.search("objects|(how many|the) shapes", question)
                assert not any(re.search(rf"\b{shape}(e?s)?\b", question) for shape in shown)
            if kind == "count":
                assert answer != "zero" or scene.objects
                counted += 1
    assert counted


def test_how_many_objects_there_are_is_asked_of_objects_alone():
    rng = np.random.default_rng(1)
    scenes = [creature_scene(rng, "train", FULL) for _ in range(40)]
    scenes += [sample_prompt(rng, "text").scene for _ in range(20)]
    for scene in filter(None, scenes):
        said = {kind: question for kind, question, _ in typed_questions(scene, rng, "full")}
        assert "object" not in said.get("count", "")
        assert "how many shapes" not in said.get("count", "").lower()


@pytest.mark.parametrize("look", [{"style": "sepia"}, {"tone": "night"}])
def test_in_a_style_or_a_tone_nothing_is_asked_that_names_a_colour(look):
    rng = np.random.default_rng(2)
    for i in range(60):
        scene = sample_scene(rng, world="full") if i % 2 else creature_scene(rng, "train", FULL)
        if scene is not None:
            asked = typed_questions(replace(scene, **look), rng, "full")
            assert asked
            assert "caption" not in {kind for kind, _, _ in asked}
            assert not any(COLOR.search(f"{question} {answer}") for _, question, answer in asked)


def test_conversations_about_pictures_keep_the_caption_for_the_end():
    captions = 0
    for i in range(60):
        kinds = [e.kind for e in conversation(5, i, (1.0, 0.0, 0.0, 0.0, 0.0), world="full").exchanges]
        if any(kind.startswith("full") for kind in kinds):
            assert "full_caption" not in kinds[:-1]
            captions += kinds[-1] == "full_caption"
    assert captions > 5


def test_a_caption_does_not_depend_on_the_order_in_which_subjects_were_painted():
    rng = np.random.default_rng(3)
    for _ in range(20):
        scene = empty_scene(rng, FULL, "plain")
        for column in ("right", "left", "center"):
            room = Room(3, column)
            scene = place_creature(rng, scene, room, sample_anatomy(rng)) or scene
            scene = place_gizmo(rng, scene, room) or scene
        turned = replace(scene, creatures=scene.creatures[::-1], gizmos=scene.gizmos[::-1])
        assert plain_caption(turned) == plain_caption(scene)
        places = re.findall(r"creature (?:on|in) the (left|middle|right)", plain_caption(scene))
        assert places == sorted(places, key=("left", "middle", "right").index)


def test_a_caption_names_every_object_that_it_requires():
    rng = np.random.default_rng(4)
    for i in range(90):
        scene = sample_scene(rng, MAX_RELATED + 1 + i % 3, world="full")
        said = describe(scene, rng)
        for wanted in said.requirements.objects:
            assert wanted.color in said.text
            assert wanted.shape.removesuffix("s") in said.text


def test_no_question_ends_in_two_marks():
    rng = np.random.default_rng(5)
    ends = {finish_question(text, rng)[-2:] for text in ("Describe this picture.", "what is it?") * 40}
    assert ends == {"e.", "t?"}
