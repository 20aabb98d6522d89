"""The renderer: a batch equals single pictures, sizes scale, edges are smooth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from og2.errors import RequestError
from og2.world.palette import lab_to_srgb, srgb_to_lab
from og2.world.render import render, render_batch
from og2.world.scenes import box_of
from og2.world.spec import sample_edit, sample_scene


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
