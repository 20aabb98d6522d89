"""What trainings on the whole world see: pictures, conversations, cells; even latents; a first VLM."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from og2.conditioning.processor import load_processor
from og2.conditioning.templates import IMAGE_PAD, render_chat, render_prompt
from og2.data.conversations import KINDS, MAX_REFERENCES, Conversation, conversation
from og2.data.sight import CellWords, cell_labels
from og2.data.world_pictures import PICTURE_KINDS, PictureView, view_pictures, view_scenes
from og2.errors import ConfigError
from og2.train import vae, vlm
from og2.train.loop import RunConfig
from og2.train.optim import OptimConfig
from og2.train.tokenizer import TokenizerRecipe, run
from og2.train.vae import VaeDataConfig, VaeLossConfig, VaeModelConfig, VaeRecipe, make_task
from og2.train.vae_measures import evenness, labels_of, uneven
from og2.train.vlm import VlmDataConfig, VlmModelConfig, VlmRecipe, VlmTask
from og2.train.vlm import make_task as make_vlm_task
from og2.train.vlm_model import EMBEDDING, build_vlm, start_from
from og2.world.scenes import held_out_keys

MINI = Path(__file__).parents[2] / "src" / "og2" / "checkpoints" / "mini"
FULL = (0.4, 0.2, 0.1, 0.2, 0.1)


@pytest.mark.parametrize("kind", PICTURE_KINDS)
def test_scenes_of_every_kind_follow_from_their_number_and_hold_nothing_held_out(kind: str) -> None:
    view = PictureView(1.0, 6, kinds={kind: 1.0})
    scenes = view_scenes(view, 3, 12)
    assert scenes == [*view_scenes(PictureView(1.0, 3, kinds={kind: 1.0}), 3, 12), *scenes[3:]]
    assert len({repr(scene) for scene in scenes}) == 6
    held_out = set(held_out_keys("full"))
    assert not any(obj.key in held_out for scene in scenes for obj in scene.objects)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([(64, 0), (64, 32), (48, 48), (96, 40)]), st.integers(0, 1000))
def test_a_crop_is_a_part_of_the_whole_picture(sides: tuple[int, int], first: int) -> None:
    px, crop_px = sides
    view, whole = PictureView(1.0, 2, px, crop_px), PictureView(1.0, 2, px)
    scenes = view_scenes(view, 5, first)
    generator = torch.Generator().manual_seed(first)
    side = crop_px or px
    for seen, picture in zip(
        view_pictures(view, scenes, generator), view_pictures(whole, scenes, generator), strict=True
    ):
        assert seen.shape == (3, side, side)
        windows = picture.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)
        assert (windows == seen).flatten(2).all(dim=2).any()


@pytest.mark.parametrize("wrong", [{"kinds": {"photo": 1.0}}, {"crop_px": 200}, {"batch": 1}])
def test_a_view_that_shows_nothing_known_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"allowed|crop_px"):
        PictureView(**{"share": 1.0, "batch": 2, **wrong})  # type: ignore[arg-type]


def test_latents_of_one_size_are_even_and_a_dead_or_doubled_channel_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(400, 4, 4, 4, generator=generator)
    assert abs(uneven(white).item()) < 0.02
    dead, doubled, off = white.clone(), white.clone(), white + 1.0
    dead[:, 0] = 0.0
    doubled[:, 1] = doubled[:, 0]
    assert all(uneven(latents).item() > 0.2 for latents in (dead, doubled, off))
    found = evenness(doubled.transpose(0, 1).flatten(1))
    assert found["eigenvalue_max"] > 1.8
    assert found["eigenvalue_min"] < 0.01


def test_few_pictures_of_even_latents_are_not_taken_for_uneven_ones() -> None:
    """Colours differ from picture to picture, so two of them alone are never even."""
    generator = torch.Generator().manual_seed(1)
    found = [
        uneven(torch.randn(2, 3, 1, 1, generator=generator).expand(-1, -1, 8, 8)).item() for _ in range(4000)
    ]
    assert abs(sum(found) / len(found)) < 0.15


def test_the_loss_for_evenness_moves_latents_toward_one_size(tmp_path: Path) -> None:
    model = VaeModelConfig((4, 4), 1, 3, 2)
    view = PictureView(1.0, 8, px=32)
    data = VaeDataConfig(size_px=32, views=(view,))
    loss = VaeLossConfig(squared=0.0, absolute=0.0, kl=0.0, even=1.0)
    task = make_task(VaeRecipe(RunConfig(tmp_path), OptimConfig(1e-2, 40), model, data, loss))
    optimizer = torch.optim.Adam(task.module.encoder.parameters(), lr=1e-2)
    pixels = view_pictures(view, view_scenes(view, 9, 0), torch.Generator())

    def now() -> float:
        return uneven(task.module.encode(pixels).latent_dist.mean).item()

    before = now()
    for step in range(40):
        optimizer.zero_grad()
        (part,) = task.parts(step, torch.Generator().manual_seed(step))
        part.compute().losses["loss"].backward()
        optimizer.step()
    assert now() < 0.5 * before


@pytest.mark.parametrize("views", [(), (PictureView(1.0, 2, px=32),)])
def test_a_step_of_the_vae_computes_on_the_recipes_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: tuple[PictureView, ...]
) -> None:
    monkeypatch.setattr(vae, "chosen_device", lambda asked: torch.device("meta"))  # noqa: ARG005
    monkeypatch.setattr(vae, "half_precision", lambda device: nullcontext())  # noqa: ARG005
    monkeypatch.setattr(torch.Tensor, "item", lambda _: 0.0)
    recipe = VaeRecipe(
        RunConfig(tmp_path), OptimConfig(1e-2, 40), VaeModelConfig((4, 4), 1, 3, 2),
        VaeDataConfig(batch=2, size_px=32, views=views),
        VaeLossConfig(plain=0.5, latent_noise=0.3, even=0.1),
    )  # fmt: skip
    task = make_task(recipe)
    (part,) = task.parts(0, torch.Generator())
    part.compute().losses["loss"].backward()
    assert {p.grad.device.type for p in task.module.parameters() if p.grad is not None} == {"meta"}


def test_latents_are_noised_alike_before_and_after_an_export(tmp_path: Path) -> None:
    data, loss = VaeDataConfig(batch=2, size_px=32), VaeLossConfig(latent_noise=0.5)
    task = make_task(
        VaeRecipe(RunConfig(tmp_path), OptimConfig(1e-2, 40), VaeModelConfig((4, 4), 1, 3, 2), data, loss)
    )

    def value() -> float:
        return task._loss(0, torch.Generator().manual_seed(0)).losses["loss"].item()

    before = value()
    task.statistics = (0.1, 4.0)
    task.export(tmp_path / "export", task.module)
    assert value() == before


@pytest.mark.parametrize("views", [(), (PictureView(1.0, 2, px=32),)])
def test_ranks_learn_from_the_pictures_that_one_would_see_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: tuple[PictureView, ...]
) -> None:
    data = VaeDataConfig(batch=2, crop_batch=2, crop_steps=0, size_px=32, views=views)
    recipe = VaeRecipe(RunConfig(tmp_path), OptimConfig(1e-2, 40), VaeModelConfig((4, 4), 1, 3, 2), data)
    task = make_task(recipe)

    def pictures(ranks: int, own: int, step: int) -> torch.Tensor:
        monkeypatch.setattr(vae, "world_size", lambda: ranks)
        monkeypatch.setattr(vae, "rank", lambda: own)
        return task._pixels(step, torch.Generator().manual_seed(0))

    alone = [pictures(1, 0, step) for step in range(4)]
    shared = [pictures(2, own, step) for step in (0, 1) for own in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert not torch.equal(alone[0], alone[1])


def test_what_a_picture_shows_is_named() -> None:
    scenes = view_scenes(PictureView(1.0, 40), 1, 0, "test")
    named = {name for scene in scenes for name in labels_of(scene)}
    assert {"plates", "creatures", "gizmos", "look", "landscape", "objects"} <= named


def test_conversations_of_the_plain_world_are_what_they_always_were() -> None:
    talks = [conversation(21, i, (0.55, 0.2, 0.15, 0.1), ("a b",)) for i in range(200)]
    text = "\n".join("".join(piece for piece, _ in talk.pieces()) for talk in talks)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "bf4419406ac24991"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000))
def test_a_conversation_of_the_full_world_is_the_text_that_chat_shows(index: int) -> None:
    talk = conversation(4, index, FULL, world="full")
    assert talk == conversation(4, index, FULL, world="full")
    text = "".join(piece for piece, _ in talk.pieces())
    if talk.prompt is not None:
        assert text == render_prompt(talk.prompt)
        return
    assert text.startswith(render_chat(talk.exchanges[0].question, len(talk.scenes)))
    assert text.count(IMAGE_PAD) == len(talk.scenes) <= MAX_REFERENCES
    assert [p for p, said in talk.pieces() if said] == [e.answer + "<|im_end|>\n" for e in talk.exchanges]


def _full_talks(count: int) -> list[Conversation]:
    return [conversation(4, i, FULL, world="full") for i in range(count)]


def test_the_full_world_is_asked_about_in_all_its_kinds_and_never_shows_what_is_held_out() -> None:
    talks = _full_talks(400)
    assert {talk.kind for talk in talks} == set(KINDS)
    asked = {e.kind for talk in talks for e in talk.exchanges}
    assert {"full_pose", "full_text", "full_fill", "full_caption", "count", "critique", "chat"} <= asked
    assert any(len(t.scenes) == MAX_REFERENCES for t in talks if t.kind == "chat")
    held_out = set(held_out_keys("full"))
    shown = [obj for t in talks if t.kind == "pictures" for scene in t.scenes for obj in scene.objects]
    assert not any(obj.key in held_out for obj in shown)


def test_cells_of_the_full_world_name_creatures_with_their_pose() -> None:
    asked = CellWords.of("full")
    scenes = view_scenes(PictureView(1.0, 30, kinds={"context": 1.0}), 2, 0)
    creatures = [scene for scene in scenes if scene.creatures and not scene.gizmos]
    for scene in creatures:
        labels = cell_labels(scene, 8, asked)
        cells = labels[labels[:, 0] == 1 + asked.words[0].index("creature")]
        assert len(cells) == len(scene.creatures)
        mouths = sorted(asked.words[4][int(i) - 1] for i in cells[:, 4])
        assert mouths == sorted(c.pose.mouth for c in scene.creatures)
    assert creatures


@pytest.fixture(scope="module")
def full_processor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processor")
    words = folder / "english.txt"
    words.write_text("The house by the river is old.\n")
    run(TokenizerRecipe(folder / "out", 0, 800, 60, 60, 60, (words,), 5, 8, 2, 128, "full", 96))
    return folder / "out"


def test_small_pictures_are_shown_at_the_recipes_smallest_size_and_large_ones_at_its_largest(
    full_processor: Path,
) -> None:
    show = load_processor(full_processor).image_processor
    for side, shown in ((32, 96), (64, 96), (112, 112), (256, 128)):
        picture = Image.new("RGB", (side, side), "white")
        grid = show(images=[picture], return_tensors="pt")["image_grid_thw"].tolist()
        assert grid == [[1, shown // 8, shown // 8]]


def test_a_model_with_another_tokenizer_begins_with_what_the_shipped_one_knows(full_processor: Path) -> None:
    processor, shipped = load_processor(full_processor), load_processor(MINI / "processor")
    found = start_from(build_vlm(VlmModelConfig(), processor), processor, MINI).state_dict()
    same = build_vlm(VlmModelConfig(), shipped)
    known = start_from(same, shipped, MINI).state_dict()
    changed = {name for name, value in found.items() if not torch.equal(value, known[name])}
    assert changed == {EMBEDDING, "lm_head.weight"}
    for token in ("<|img|>", "<|im_end|>", "\u0120circle"):
        ours, theirs = processor.token_id(token), shipped.token_id(token)
        assert torch.equal(found[EMBEDDING][ours], known[EMBEDDING][theirs])
    words = [token for token in processor.tokenizer.get_vocab() if token.startswith("\u0120")]
    unknown = [word for word in words if shipped.token_id(word) is None]
    assert unknown
    for token in unknown:
        pieces = shipped.tokenizer(token.replace("\u0120", " "))["input_ids"]
        expected = known[EMBEDDING][pieces].mean(dim=0)
        torch.testing.assert_close(found[EMBEDDING][processor.token_id(token)], expected)
    with pytest.raises(ConfigError, match=r"start: .* the recipe"):
        start_from(build_vlm(VlmModelConfig(hidden_size=96), processor), processor, MINI)


def _vlm_task(processor: Path, batch: int) -> VlmTask:
    sizes = VlmModelConfig(48, 1, 2, 1, 48, (4, 4, 4), vision_hidden_size=32, vision_depth=1)
    data = VlmDataConfig(batch, world="full", size_px=128, shares=FULL)
    return make_vlm_task(VlmRecipe(RunConfig(processor), OptimConfig(1e-3, 1), processor, sizes, data))


def test_a_step_on_conversations_of_the_full_world_teaches_every_part(full_processor: Path) -> None:
    task = _vlm_task(full_processor, 6)
    for part in task.parts(0, torch.Generator()):
        sum(part.compute().losses.values(), start=torch.zeros(())).backward()
    silent = [name for name, p in task.module.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_conversations_weigh_the_same_over_any_number_of_ranks_and_parts(
    full_processor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = _vlm_task(full_processor, 7)

    def step(ranks: int) -> tuple[Mapping[str, float], Mapping[str, float]]:
        counts, losses = Counter[str](), Counter[str]()
        monkeypatch.setattr(vlm, "world_size", lambda: ranks)
        for own in range(ranks):
            monkeypatch.setattr(vlm, "rank", lambda own=own: own)
            for part in task.parts(2, torch.Generator()):
                counts.update(part.counts)
                losses.update({kind: value.item() for kind, value in part.compute().losses.items()})
        return counts, losses

    counts, losses = step(1)
    assert tuple(losses) == task.kinds
    for ranks in (2, 3, 7):
        again = step(ranks)
        assert again[0] == pytest.approx(counts)
        assert again[1] == pytest.approx(losses, rel=2e-3)
    for size in (1, 3, 7):
        task.recipe = replace(task.recipe, data=replace(task.recipe.data, part=size))
        again = step(1)
        assert len(task.parts(2, torch.Generator())) == math.ceil(7 / size)
        assert again[0] == pytest.approx(counts)
        assert again[1] == pytest.approx(losses, rel=2e-3)
    with pytest.raises(ConfigError, match="part=0; one conversation or more"):
        VlmDataConfig(part=0)
    monkeypatch.setattr(vlm, "world_size", lambda: 8)
    with pytest.raises(ConfigError, match="each of 8 ranks needs a conversation"):
        _vlm_task(full_processor, 7)
