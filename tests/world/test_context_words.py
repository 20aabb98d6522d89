"""Every word of the requirements counts beside creatures, gizmos and plates too, or is refused."""

from dataclasses import replace

import numpy as np
import pytest

from og2.errors import RequestError
from og2.evals.context_near_miss import without_first
from og2.world.casting import Room, place_creature, place_gizmo
from og2.world.render import render
from og2.world.requirements import (
    CreatureRequirement,
    EditRequirements,
    GizmoRequirement,
    ObjectRequirement,
    PlateRequirement,
    Reference,
    Requirements,
)
from og2.world.scenes import WORLDS, empty_scene
from og2.world.score import score_edit, score_t2i
from og2.world.score_context import score_context
from og2.world.spec import sample_edit, sample_incontext

BLANK = np.full((64, 64, 3), 200, np.uint8)


def sign_with_object(seed=3):
    """A scene of a plate and one object, and its requirements."""
    rng = np.random.default_rng(seed)
    while True:
        scene = sample_edit(rng, ("text",), world="full").source
        if scene.objects:
            obj = scene.objects[0]
            words = ObjectRequirement(obj.shape, obj.color, obj.size, obj.position, obj.fill_name)
            return scene, Requirements((words,), plates=(PlateRequirement(scene.plates[0].text),))


def test_words_said_of_an_object_beside_a_sign_count():
    scene, rule = sign_with_object()
    picture, said = render(scene, 128), rule.objects[0]
    assert score_t2i(picture, rule).passed
    wrong = {
        "shape": "ring" if said.shape != "ring" else "star",
        "color": "pink" if said.color != "pink" else "red",
        "size": "large" if said.size != "large" else "small",
        "position": "middle" if said.position != "middle" else "top left",
        "fill": "dots" if said.fill != "dots" else "stripes",
    }
    for word, value in wrong.items():
        verdict = score_t2i(picture, replace(rule, objects=(replace(said, **{word: value}),)))
        assert not verdict.passed
        assert not verdict.atoms[word]


def test_what_must_not_be_beside_a_sign_counts():
    scene, rule = sign_with_object()
    picture, there = render(scene, 128), scene.objects[0]
    unwanted = ObjectRequirement(there.shape, there.color)
    assert not score_t2i(picture, replace(rule, absent=(unwanted,))).atoms["absent"]
    assert score_t2i(picture, replace(rule, absent=(replace(unwanted, color="nothing"),))).passed


@pytest.mark.parametrize("place", [place_creature, place_gizmo])
def test_a_row_said_of_a_creature_or_gizmo_is_judged(place):
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(8):
        scene = place(rng, empty_scene(rng, WORLDS["full"], "plain"), Room())
        one = (scene.creatures or scene.gizmos)[0]
        row = "top" if one.y < 0.35 else "bottom" if one.y > 0.65 else None
        if row is None:
            continue
        seen.add(row)
        picture = render(scene, 256)
        for asked in ("top", "bottom"):
            wanted = (CreatureRequirement if scene.creatures else GizmoRequirement)(position=asked)
            rule = Requirements(creatures=(wanted,)) if scene.creatures else Requirements(gizmos=(wanted,))
            assert score_t2i(picture, rule).passed == (asked == row)
    assert seen


@pytest.mark.parametrize("task", ["multi_character", "multi_character_object", "single_object"])
def test_of_a_subject_that_is_missing_nothing_holds(task):
    asked = sample_incontext(np.random.default_rng(8), task)
    references = [render(scene, 256) for scene in asked.references]
    full = score_context(references, render(asked.target, 256), asked.requirements)
    missing = score_context(references, render(without_first(asked.target), 256), asked.requirements)
    assert set(missing.atoms) == set(full.atoms)
    assert missing.pf < full.pf


def test_too_few_references_are_refused_with_their_number():
    rule = Requirements(creatures=(CreatureRequirement(reference=Reference(1)),), scene_of=2)
    for judge in (lambda: score_context([BLANK], BLANK, rule), lambda: score_t2i(BLANK, rule)):
        with pytest.raises(RequestError, match="hand in 3"):
            judge()


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        (Requirements(creatures=(CreatureRequirement(mouth="wide"),)), "open, closed"),
        (Requirements(gizmos=(GizmoRequirement(position="behind"),)), "top left"),
        (Requirements(gizmos=(GizmoRequirement(),) * 2, relations=((0, "larger than", 1),)), "left of"),
        (Requirements(gizmos=(GizmoRequirement(),), relations=((0, "above", 1),)), "0 to 0"),
    ],
)
def test_words_that_cannot_be_judged_are_refused_and_the_allowed_ones_named(rule, allowed):
    with pytest.raises(RequestError, match=allowed):
        score_context((), BLANK, rule)


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        (EditRequirements("tone", tone="sunny"), "night"),
        (EditRequirements("tone"), "tone"),
        (EditRequirements("style", style="cubist"), "sepia"),
        (EditRequirements("motion"), "creature"),
        (EditRequirements("motion", creature=CreatureRequirement()), "left_arm"),
        (EditRequirements("recolour", ObjectRequirement("circle"), "crimson"), "red"),
        (EditRequirements("blur"), "recolour"),
        (EditRequirements("hybrid", parts=(EditRequirements("remove"),)), "subject"),
    ],
)
def test_edits_that_cannot_be_judged_are_refused_and_what_is_needed_named(rule, allowed):
    with pytest.raises(RequestError, match=allowed):
        score_edit(BLANK, BLANK, rule)
