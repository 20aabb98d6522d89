"""Who is who: the same subject in another pose and place is recognised, one with another part is not."""

from dataclasses import replace

import numpy as np
import pytest

from og2.evals.context_near_miss import half_removed_subject, with_blend, with_swapped
from og2.evals.near_miss import with_stranger
from og2.world.creatures import Creature, creature_box, near_miss, sample_anatomy, sample_pose, visible_parts
from og2.world.identity import creature_distance, gizmo_distance, identity_score
from og2.world.incontext import INCONTEXT_TASKS, sample_incontext
from og2.world.props import GIZMO_PARTS, near_miss_gizmo, sample_gizmo
from og2.world.render import render
from og2.world.scenes import WORLDS, empty_scene
from og2.world.score_context import score_context
from og2.world.spec import sample_scene
from og2.world.subjects import look


def creature_alone(rng, anatomy, radius):
    creature = Creature(anatomy, sample_pose(rng), 0.5, 0.5, radius)
    left, top, right, bottom = creature_box(creature)
    creature = replace(creature, x=1.0 - (left + right) / 2, y=1.0 - (top + bottom) / 2)
    return replace(empty_scene(rng, WORLDS["full"]), creatures=(creature,))


def gizmo_alone(rng, gizmo, radius):
    placed = replace(gizmo, x=0.5, y=0.55, radius=radius)
    return replace(empty_scene(rng, WORLDS["full"]), gizmos=(placed,))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_creature_half_as_large_in_another_pose_is_the_same_and_one_with_any_other_part_is_not(seed):
    rng = np.random.default_rng(seed)
    anatomy = replace(sample_anatomy(rng), spot_count=3)
    (reference,) = look(render(creature_alone(rng, anatomy, 0.19), 240)).creatures
    (same,) = look(render(creature_alone(rng, anatomy, 0.19), 128)).creatures
    assert creature_distance(reference, same) < 0.7
    for part in visible_parts(anatomy):
        other = near_miss(rng, anatomy, part)
        (seen,) = look(render(creature_alone(rng, other, 0.19), 128)).creatures
        assert creature_distance(reference, seen) > 1.5, part


@pytest.mark.parametrize("seed", [3, 4])
def test_a_smaller_gizmo_is_the_same_and_one_with_any_other_part_is_not(seed):
    rng = np.random.default_rng(seed)
    gizmo = sample_gizmo(rng, 0.5, 0.5, 0.1)
    (reference,) = look(render(gizmo_alone(rng, gizmo, 0.3), 160)).gizmos
    (same,) = look(render(gizmo_alone(rng, gizmo, 0.25), 128)).gizmos
    assert identity_score(gizmo_distance(reference, same), is_creature=False) > 8
    for part in GIZMO_PARTS:
        (seen,) = look(render(gizmo_alone(rng, near_miss_gizmo(rng, gizmo, part), 0.25), 128)).gizmos
        assert identity_score(gizmo_distance(reference, seen), is_creature=False) < 2, part


@pytest.mark.parametrize("seed", [1, 6])
def test_among_lines_a_small_creature_is_the_same_and_one_with_any_other_part_is_not(seed):
    rng = np.random.default_rng(seed)
    anatomy = replace(sample_anatomy(rng), spot_count=3, horn_count=2)
    (reference,) = look(render(creature_alone(rng, anatomy, 0.16), 256, hand="inked")).creatures
    (same,) = look(render(creature_alone(rng, anatomy, 0.11), 256, hand="inked")).creatures
    assert creature_distance(reference, same) < 0.8
    assert (same.horns, same.spots) == (2, 3)
    for part in visible_parts(anatomy):
        other = creature_alone(rng, near_miss(rng, anatomy, part), 0.11)
        (seen,) = look(render(other, 256, hand="inked")).creatures
        assert creature_distance(reference, seen) > 1.2, part


@pytest.mark.parametrize("seed", [3, 4])
def test_among_lines_a_smaller_gizmo_is_the_same_and_one_with_any_other_part_is_not(seed):
    rng = np.random.default_rng(seed)
    gizmo = sample_gizmo(rng, 0.5, 0.5, 0.1)
    (reference,) = look(render(gizmo_alone(rng, gizmo, 0.2), 256, hand="inked")).gizmos
    (same,) = look(render(gizmo_alone(rng, gizmo, 0.12), 256, hand="inked")).gizmos
    assert identity_score(gizmo_distance(reference, same), is_creature=False) > 6
    for part in GIZMO_PARTS:
        other = gizmo_alone(rng, near_miss_gizmo(rng, gizmo, part), 0.12)
        (seen,) = look(render(other, 256, hand="inked")).gizmos
        assert identity_score(gizmo_distance(reference, seen), is_creature=False) < 2, part


def test_only_the_second_hand_has_lines():
    rng = np.random.default_rng(12)
    for _ in range(6):
        scene = gizmo_alone(rng, sample_gizmo(rng, 0.5, 0.5, 0.1), 0.15)
        seen = [look(render(scene, 256, hand=hand)).gizmos[0].line for hand in ("clean", "inked")]
        assert seen[0] is None
        assert seen[1] is not None
        assert seen[1] < 0.8


def test_every_word_of_a_pose_is_read_from_small_creatures():
    rng = np.random.default_rng(5)
    for _ in range(12):
        scene = creature_alone(rng, sample_anatomy(rng), 0.2)
        (seen,) = look(render(scene, 128)).creatures
        pose = scene.creatures[0].pose
        assert {word: seen.words[word].value for word in seen.words} == {
            word: getattr(pose, word) for word in ("left_arm", "right_arm", "mouth", "facing", "gaze")
        }
        assert (seen.horns, seen.spots) == (
            scene.creatures[0].anatomy.horn_count,
            scene.creatures[0].anatomy.spot_count,
        )


@pytest.mark.parametrize("task", INCONTEXT_TASKS)
def test_a_right_answer_passes_and_a_copy_or_another_subject_does_not(task):
    rng = np.random.default_rng(7)
    asked = sample_incontext(rng, task)
    references = [look(render(scene, 256)) for scene in asked.references]
    right = score_context(references, render(asked.target, 256), asked.requirements)
    copied = score_context(references, references[0], asked.requirements)
    other = score_context(references, render(with_stranger(asked.target, rng), 256), asked.requirements)
    assert right.passed
    assert right.pf == 10
    half = half_removed_subject(lambda scene: render(scene, 256).numpy(), asked.target, rng)
    assert not score_context(references, half, asked.requirements).passed
    assert not other.passed
    assert not copied.passed
    assert copied.pf <= right.pf - 4


def test_exchanged_subjects_are_an_attribution_error_and_a_mixture_is_a_blend_error():
    rng = np.random.default_rng(9)
    asked = sample_incontext(rng, "multi_character")
    references = [look(render(scene, 256)) for scene in asked.references]

    def verdict(scene):
        return score_context(references, render(scene, 256), asked.requirements)

    right, swapped = verdict(asked.target), verdict(with_swapped(asked.target))
    blend = verdict(with_blend(asked.target))
    assert [(v.is_swapped, v.is_blend) for v in (right, swapped)] == [(False, False), (True, False)]
    assert min(swapped.identities) > 8
    assert blend.is_blend
    assert not swapped.passed
    assert not blend.passed


def test_a_gizmo_whose_body_and_emblem_look_like_a_ring_is_a_gizmo():
    rng = np.random.default_rng(9)
    gizmo = replace(
        sample_gizmo(rng, 0.5, 0.5, 0.1), body="circle", emblem="circle", fill=None, cap_size=0.38
    )
    gizmo = replace(gizmo, cap="triangle", emblem_lab=(12.0, 0.0, 0.0), body_lab=(47.0, 65.0, 44.0))
    sight = look(render(gizmo_alone(rng, gizmo, 0.17), 256))
    assert (len(sight.gizmos), len(sight.objects)) == (1, 0)


def test_dark_dots_on_white_are_no_eyes():
    rng = np.random.default_rng(10)
    found = 0
    while found < 6:
        scene = sample_scene(rng, 1, world="full")
        if scene.objects[0].color != "white" or scene.objects[0].fill_name == "flat":
            continue
        found += 1
        assert not look(render(scene, 192)).creatures
