"""Reading drawings: lines around things, light, grain, patterns, and near misses that are wrong in truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from og2.evals.certify import Plan, certify
from og2.evals.near_miss import Draft, half_removed, merged, mirrored
from og2.world.backdrops import sample_backdrop
from og2.world.detect import read
from og2.world.palette import COLORS, lab_to_srgb
from og2.world.pixels import denoised
from og2.world.prompts import sample_prompt
from og2.world.render import render
from og2.world.scenes import WORLDS, Scene, dressed, make_object, world_named
from og2.world.score import score_t2i
from og2.world.spec import ObjectRequirement, Requirements

GREY = (190, 190, 190)


def rgb(lab):
    return tuple(int(v) for v in np.clip(lab_to_srgb(lab), 0, 1) * 255)


def disc(color, line=None, width=2):
    """A disc of 40 px in the middle of a grey picture of 128 px, with a line around it or none."""
    large = Image.new("RGB", (512, 512), GREY)
    ImageDraw.Draw(large).ellipse((176, 176, 336, 336), fill=color, outline=line, width=4 * width)
    return np.asarray(large.resize((128, 128), Image.Resampling.BOX))


def names(picture):
    return [(thing.shape, thing.color, thing.fill) for thing in read(picture).objects]


@pytest.mark.parametrize("color", ["orange", "yellow", "pink", "white", "blue"])
@pytest.mark.parametrize("grain", [0.0, 6.0])
def test_a_thin_dark_line_around_a_thing_and_grain_leave_its_words_alone(color, grain):
    fill = rgb(COLORS[color])
    picture = disc(fill, tuple(int(0.4 * v) for v in fill))
    noise = np.random.default_rng(0).normal(0.0, grain, picture.shape)
    assert names(np.clip(picture + noise, 0, 255).astype(np.uint8)) == [("circle", color, "flat")]


def test_a_broad_band_of_another_colour_is_no_line_but_a_second_colour():
    picture = disc(rgb(COLORS["yellow"]), rgb(COLORS["purple"]), width=7)
    assert [thing.color for thing in read(picture).objects] != ["yellow"]


@pytest.mark.parametrize(
    ("to", "is_known"), [(0.75, True), (0.1, False)], ids=["light on one colour", "red that runs into black"]
)
def test_light_on_a_thing_keeps_its_colour_and_a_run_into_another_colour_has_none(to, is_known):
    red = np.array(rgb(COLORS["red"]))
    place = np.clip((np.arange(128) - 44) / 40.0, 0.0, 1.0)[None, :, None]
    light = 1.0 + (to - 1.0) * place
    flat = disc(tuple(red))
    covered = (np.abs(flat.astype(int) - GREY).sum(axis=-1) > 30)[..., None]
    picture = np.where(covered, flat * light, flat).astype(np.uint8)
    assert [thing.color for thing in read(picture).objects] == ["red" if is_known else None]


def test_the_second_hand_is_read_nearly_as_well_as_the_first():
    found = certify(Plan(10, 21, tasks=("t2i/attribution", "t2i/plain single"), conditions=("second style",)))
    rates = found.summary("second style")
    for task in ("t2i/attribution", "t2i/plain single"):
        assert rates[task]["accept_correct"] >= 0.9
        assert rates[task]["accept_near_miss"] <= 0.02


def lone(shape, seed, fill=None):
    rng = np.random.default_rng(seed)
    obj = None
    while obj is None:
        obj = make_object(rng, shape, "blue", "medium", "middle")
    return Scene((dressed(rng, obj, WORLDS["full"], fill or "flat"),), "grey", (65.0, 0.0, 0.0))


def test_half_a_crescent_is_no_crescent():
    rule = Requirements((ObjectRequirement("crescent"),))
    for seed in range(8):
        draft = Draft(lone("crescent", seed), rule, world_named("full"), 128)
        assert score_t2i(draft.draw(draft.scene), rule).passed
        assert not score_t2i(half_removed(draft, np.random.default_rng(seed)), rule).passed


@pytest.mark.parametrize("fill", ["flat", "stripes", "dots", "checker"])
def test_every_pattern_is_told_apart_on_thin_things_too(fill):
    for shape in ("ring", "star", "square"):
        assert names(render(lone(shape, 3, fill), 128)) == [(shape, "blue", fill)]


def test_a_mirrored_near_miss_turns_a_word_that_was_said_into_its_opposite():
    rng = np.random.default_rng(5)
    for _ in range(12):
        prompt = sample_prompt(rng, "position")
        draft = Draft(prompt.scene, prompt.requirements, world_named("full"), 64)
        axis = 1 if prompt.requirements.relations[0][1] in ("left of", "right of") else 0
        assert (mirrored(draft, rng) == np.flip(draft.draw(prompt.scene), axis)).all()
        unsaid = Requirements(prompt.requirements.objects)
        assert mirrored(Draft(prompt.scene, unsaid, world_named("full"), 64), rng) is None


def test_objects_that_hardly_touch_are_not_called_merged():
    scene = lone("circle", 1)
    small = make_object(np.random.default_rng(2), "star", "red", "small", "top")
    far = Draft(Scene((*scene.objects, small), "grey", (65.0, 0.0, 0.0)), Requirements(), WORLDS["full"], 64)
    made = [merged(far, np.random.default_rng(seed)) for seed in range(6)]
    assert any(picture is not None for picture in made)
    for picture in made:
        if picture is not None:
            assert len(read(picture).objects) == 1


@pytest.mark.parametrize("kind", ["plain", "gradient", "landscape", "tiles", "noise"])
def test_a_backdrop_keeps_its_family_behind_a_large_object_and_under_grain(kind):
    rng = np.random.default_rng(11)
    backdrop = None if kind == "plain" else sample_backdrop(rng, kind)
    scene = lone("square", 4)
    name = "grey" if backdrop is None else backdrop.name
    scene = Scene(scene.objects, name, (65.0, 0.0, 0.0), backdrop)
    rule = Requirements((ObjectRequirement("square"),), background=name, backdrop=kind)
    for hand in ("clean", "inked"):
        assert score_t2i(render(scene, 128, hand=hand), rule).passed


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), step=st.floats(20.0, 90.0), row=st.integers(2, 14))
def test_denoising_evens_out_grain_and_leaves_edges_where_they_are(seed, step, row):
    clean = np.zeros((16, 16, 3))
    clean[row:] = step
    noisy = clean + np.random.default_rng(seed).normal(0.0, 1.0, clean.shape)
    even = denoised(noisy, 8.0)
    assert np.abs(even - clean).mean() < 0.6 * np.abs(noisy - clean).mean()
    assert np.abs(even - clean).max() < 6.0
