"""The renderer: a batch equals single pictures, sizes scale, edges are smooth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.errors import RequestError
from og2.world.palette import BACKDROP_CHROMA, BACKDROP_LIGHTNESS, BACKDROPS, lab_to_srgb, srgb_to_lab
from og2.world.render import HANDS, render, render_batch
from og2.world.scenes import WORLDS, box_of, empty_scene
from og2.world.spec import ALL_EDIT_KINDS, sample_edit, sample_incontext, sample_scene


def scenes(n, seed=0):
    rng = np.random.default_rng(seed)
    return [sample_scene(rng) for _ in range(n)]


def test_a_batch_holds_the_same_bytes_as_single_pictures():
    drawn = scenes(24)
    assert torch.equal(render_batch(drawn, 64), torch.stack([render(s, 64) for s in drawn]))


@pytest.mark.parametrize("size", [32, 64, 128, (64, 96), (96, 64)])
def test_pictures_have_the_size_asked_for(size):
    height, width = (size, size) if isinstance(size, int) else size
    picture = render_batch(scenes(3), size)
    assert picture.shape == (3, height, width, 3)
    assert picture.dtype == torch.uint8


def test_an_object_fills_its_box_and_nothing_outside_it():
    for scene in scenes(40, seed=1):
        empty = render(replace(scene, objects=()), 128).int()
        for obj in scene.objects:
            seen = (render(replace(scene, objects=(obj,)), 128).int() - empty).abs().sum(-1) > 0
            rows, columns = torch.nonzero(seen.any(1))[:, 0], torch.nonzero(seen.any(0))[:, 0]
            found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 128
            np.testing.assert_allclose(found, box_of(obj), atol=2.0 / 128)


def test_edges_are_smooth_and_the_inside_has_the_objects_colour():
    scene = next(s for s in scenes(60, seed=2) if s.objects[0].shape == "circle" and len(s.objects) == 1)
    picture, obj = render(scene, 64).numpy(), scene.objects[0]
    inside = picture[int(obj.y * 64), int(obj.x * 64)] / 255.0
    np.testing.assert_allclose(inside, np.clip(lab_to_srgb(obj.lab), 0, 1), atol=0.5 / 255 + 1e-6)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_an_edit_leaves_every_pixel_outside_the_changed_object_identical():
    rng = np.random.default_rng(4)
    for _ in range(40):
        edit = sample_edit(rng)
        changed = (set(edit.source.objects) ^ set(edit.target.objects)).pop()
        left, top, right, bottom = box_of(changed)
        differs = (render(edit.source) != render(edit.target)).any(-1)
        rows, columns = torch.nonzero(differs, as_tuple=True)
        assert len(rows) > 0
        assert rows.min() >= top * 64 - 2
        assert rows.max() <= bottom * 64 + 1
        assert columns.min() >= left * 64 - 2
        assert columns.max() <= right * 64 + 1


def test_an_empty_batch_and_an_empty_scene_are_pictures_too():
    assert render_batch([], 64).shape == (0, 64, 64, 3)
    empty = replace(scenes(1)[0], objects=())
    assert len(torch.unique(render(empty).reshape(-1, 3), dim=0)) == 1


def test_a_side_below_eight_pixels_is_refused():
    with pytest.raises(RequestError, match="8 px"):
        render_batch(scenes(1), 4)


def test_lab_and_srgb_are_inverse():
    rgb = np.random.default_rng(0).random((200, 3))
    np.testing.assert_allclose(lab_to_srgb(srgb_to_lab(rgb)), rgb, atol=1e-4)
    np.testing.assert_allclose(srgb_to_lab(np.array([1.0, 1.0, 1.0])), [100.0, 0.0, 0.0], atol=1e-3)


def full_scenes(seed=0):
    rng = np.random.default_rng(seed)
    drawn = [sample_scene(rng, world="full") for _ in range(10)]
    drawn += [sample_edit(rng, (kind,), world="full").target for kind in ALL_EDIT_KINDS]
    return [*drawn, sample_incontext(rng, "scene_character_object").target]


@pytest.mark.parametrize("hand", HANDS)
def test_a_batch_of_every_kind_of_scene_holds_the_same_bytes_as_single_pictures(hand):
    drawn = full_scenes()
    single = torch.stack([render(s, 96, hand=hand) for s in drawn])
    assert torch.equal(render_batch(drawn, 96, hand=hand), single)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(8, 160), width=st.integers(8, 160), seed=st.integers(0, 99))
def test_every_size_and_aspect_can_be_drawn(height, width, seed):
    picture = render_batch(full_scenes(seed)[::4], (height, width))
    assert picture.shape[1:] == (height, width, 3)


@pytest.mark.parametrize("kind", BACKDROPS)
def test_backdrops_keep_to_their_limits_and_subjects_stand_outside(kind):
    rng = np.random.default_rng(5)
    for picture in render_batch([empty_scene(rng, WORLDS["full"], kind) for _ in range(30)], 96).numpy():
        lab = srgb_to_lab(picture / 255.0)
        assert lab[..., 0].min() >= BACKDROP_LIGHTNESS[0] - 1.5
        assert lab[..., 0].max() <= BACKDROP_LIGHTNESS[1] + 1.5
        assert np.hypot(lab[..., 1], lab[..., 2]).max() <= BACKDROP_CHROMA + 1.0
    for _ in range(60):
        for obj in sample_scene(rng, world="full").objects:
            for tone in (obj.lab, *((obj.fill.lab,) if obj.fill else ())):
                chroma = np.hypot(tone[1], tone[2])
                inside = BACKDROP_LIGHTNESS[0] <= tone[0] <= BACKDROP_LIGHTNESS[1]
                assert not (inside and chroma <= BACKDROP_CHROMA + 4.0)


def test_the_inked_hand_draws_the_same_layout_with_dark_outlines():
    drawn = [s for s in full_scenes(3) if s.style is None and s.tone is None]
    clean, inked = render_batch(drawn, 128).float(), render_batch(drawn, 128, hand="inked").float()
    assert (clean - inked).abs().mean() > 1.0
    assert inked.mean() < clean.mean()
    with pytest.raises(RequestError, match="clean, inked"):
        render_batch(drawn, 128, hand="chalk")


def test_a_picture_of_twice_the_size_shows_the_same_scene():
    drawn = [s for s in full_scenes(4) if s.style in (None, "sepia")]
    small, large = render_batch(drawn, 128).float(), render_batch(drawn, 256).float()
    halved = large.reshape(len(drawn), 128, 2, 128, 2, 3).mean(dim=(2, 4))
    assert (halved - small).abs().mean() < 2.0
