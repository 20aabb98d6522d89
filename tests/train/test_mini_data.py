"""What the mini trainings see: conversations, picture patches, the pool of latents, packs drawn from it."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

import og2
from og2.conditioning.processor import Processor, load_processor
from og2.conditioning.templates import IMAGE_PAD, SYSTEM, render_chat, render_prompt
from og2.conditioning.vlm import tokenize
from og2.data import conversations, latents, world_source
from og2.data.latents import LatentPool, LatentsRecipe, PoolConfig
from og2.data.pool_packs import PoolDataConfig, PoolPacks
from og2.data.sight import CellWords, cell_labels, covered_labels
from og2.errors import ConfigError
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.train import flow
from og2.train.flow import (
    FlowEvalConfig,
    FlowLossConfig,
    FlowModelConfig,
    FlowRecipe,
    FlowTask,
    Judge,
    make_task,
)
from og2.train.loop import RunConfig
from og2.train.optim import OptimConfig
from og2.train.preview import PreviewConfig
from og2.train.tokenizer import TokenizerRecipe, run
from og2.train.vlm import tokenize_conversation, vision_patches
from og2.world.render import render_batch
from og2.world.scenes import Scene, boxes_of

SHARES = (0.4, 0.2, 0.2, 0.2)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    folder = tmp_path_factory.mktemp("processor")
    words = folder / "english.txt"
    words.write_text("The house by the river is old.\n")
    run(TokenizerRecipe(folder / "out", 0, 700, 300, 100, 100, (words,), 5, 8, 2, 64))
    return load_processor(folder / "out")


def test_the_trained_tokenizer_knows_its_special_tokens_and_writes_any_text(processor: Processor) -> None:
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", IMAGE_PAD, "<|img|>"):
        assert processor.token_id(token) is not None
    text = "A r\u00f4le for \u4e2d\u6587 and \U0001f600!\n"
    assert processor.tokenizer.decode(tokenize(processor, text)) == text
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hi"}]}]
    rendered = processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert rendered == render_chat("hi", 1)
    assert SYSTEM in rendered


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_conversation_is_the_text_that_chat_shows_with_its_answers(index: int) -> None:
    talk = conversations.conversation(3, index, SHARES)
    assert talk == conversations.conversation(3, index, SHARES)
    text = "".join(piece for piece, _ in talk.pieces())
    if talk.prompt is not None:
        assert text == render_prompt(talk.prompt)
    else:
        assert text.startswith(render_chat(talk.exchanges[0].question, len(talk.scenes)))
        assert [p for p, said in talk.pieces() if said] == [e.answer + "<|im_end|>\n" for e in talk.exchanges]


def test_answers_are_found_again_in_the_token_ids(processor: Processor) -> None:
    talk = next(
        t for t in (conversations.conversation(3, i, (1, 0, 0, 0)) for i in range(9)) if len(t.exchanges) > 1
    )
    row = tokenize_conversation(talk, processor, num_picture_tokens=16)
    assert sum(i == processor.token_id(IMAGE_PAD) for i in row.ids) == 16
    for exchange, (kind, start, end) in zip(talk.exchanges, row.answers, strict=True):
        assert kind == exchange.kind
        assert processor.tokenizer.decode(row.ids[start:end]) == exchange.answer + "<|im_end|>\n"
        assert all(row.said[start:end])
    assert sum(row.said) == sum(end - start for _, start, end in row.answers)


def test_picture_patches_equal_those_of_the_picture_processor(processor: Processor) -> None:
    scenes = world_source.scenes(0, 0, 3)
    pixels = render_batch(scenes, 64)
    made = processor.image_processor(images=[Image.fromarray(p.numpy()) for p in pixels], return_tensors="pt")
    ours = vision_patches(world_source.to_model(pixels), 8, 2)
    torch.testing.assert_close(ours, made["pixel_values"], rtol=0, atol=1e-6)


def test_each_object_labels_the_cell_of_its_centre() -> None:
    for scene in world_source.scenes(1, 0, 20):
        labels = cell_labels(scene, 4, CellWords.of("plain"))
        assert 1 <= int((labels[:, 0] > 0).sum()) <= len(scene.objects)
        assert ((labels > 0).all(dim=1) == (labels > 0).any(dim=1)).all()


def test_what_covers_a_cell_labels_it_and_smaller_things_label_the_cell_of_their_centre() -> None:
    asked, cells = CellWords.of("full"), 8
    for item in latents.items(FULL_POOL):
        scene = item.target
        centres, covered = cell_labels(scene, cells, asked), covered_labels(scene, cells, asked)
        assert bool((covered[:, 0] > 0)[centres[:, 0] > 0].all())
        middles = [((k % cells + 0.5) / cells, (k // cells + 0.5) / cells) for k in range(cells**2)]
        for (x, y), label, centre in zip(middles, covered, centres, strict=True):
            boxes = boxes_of(scene)
            is_inside = any(a < x < c and b < y < d for a, b, c, d in boxes)
            assert bool(label.any()) == (is_inside or bool(centre.any()))


MINI = Path(og2.__file__).parent / "checkpoints" / "mini"
POOL = PoolConfig(seed=3, num_drawings=(6, 4, 3), num_edits=8)


@pytest.fixture
def pool_folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    count, edits = sum(POOL.num_drawings) + POOL.num_edits, POOL.num_edits
    pictures = {
        f"{name}_{part}": torch.rand(n, 16, 8, 8, generator=generator).half()
        for name, n in (("target", count), ("source", edits))
        for part in ("mean", "std")
    }
    lengths = torch.tensor([4 + i % 2 for i in range(count)] + [2])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    texts = {
        "prefix": torch.ones(5, 7).bfloat16(),
        "suffix": torch.rand(int(starts[-1]), 7, generator=generator).bfloat16(),
    }
    save_file(pictures, tmp_path / "pictures.safetensors")
    save_file({**texts, "starts": starts}, tmp_path / "texts.safetensors")
    return tmp_path


def _pool_data(folder: Path, emphasis: dict[str, float]) -> PoolDataConfig:
    return PoolDataConfig(folder, POOL, 5, 4, emphasis=emphasis)


def test_the_pool_lists_drawings_first_then_edits() -> None:
    items = latents.items(POOL)
    assert items == latents.items(POOL)
    assert [len(i.target.objects) for i in items[:13]] == [1] * 6 + [2] * 4 + [3] * 3
    assert [len(i.references) for i in items] == [0] * 13 + [1] * 8


FULL_POOL = PoolConfig(seed=3, num_drawings=(7, 0, 0), num_edits=6, world="full", num_contexts=9)


@pytest.fixture
def full_pool_folder(tmp_path: Path) -> Path:
    """Latents of the full world that say which picture they are of: targets from 0, references from 100."""
    counts = [len(item.references) for item in latents.items(FULL_POOL)]
    sizes = {"target": len(counts), "source": sum(counts)}
    numbers = {"target": 0.0, "source": 100.0}
    pictures = {
        f"{name}_mean": (torch.arange(n) + numbers[name])[:, None, None, None].expand(n, 16, 2, 2).half()
        for name, n in sizes.items()
    }
    pictures |= {name.replace("mean", "std"): torch.zeros_like(value) for name, value in pictures.items()}
    starts = torch.tensor([0, *counts]).cumsum(0)
    save_file({**pictures, "source_starts": starts}, tmp_path / "pictures.safetensors")
    texts = {"prefix": torch.ones(5, 7).bfloat16(), "suffix": torch.rand(len(counts) + 1, 7).bfloat16()}
    save_file({**texts, "starts": torch.arange(len(counts) + 2)}, tmp_path / "texts.safetensors")
    return tmp_path


def test_the_full_pool_lists_drawings_edits_and_in_context_requests_of_the_training_split() -> None:
    items = latents.items(FULL_POOL)
    assert items == latents.items(FULL_POOL)
    assert [len(i.references) for i in items[:13]] == [0] * 7 + [1] * 6
    assert all(i.references for i in items[13:])
    assert len({len(i.references) for i in items[13:]}) > 1
    for wrong in ({"num_contexts": 3}, {"tasks": {"single": 1.0}}, {"plain_share": 0.5}):
        with pytest.raises(ConfigError, match="world: full"):
            PoolConfig(**wrong)


def test_a_pool_chooses_its_tasks_and_how_many_drawings_show_only_what_is_asked_for() -> None:
    def scenes(**options: Any) -> list[Scene]:
        return [i.target for i in latents.items(replace(FULL_POOL, num_drawings=(60, 0, 0), **options))[:60]]

    def bare(scene: Scene) -> bool:
        return scene.backdrop is None and all(o.fill is None for o in scene.objects)

    counted = scenes(tasks={"counting": 0.5, "two": 0.5})
    assert all(len(s.objects) > 1 and not s.plates for s in counted)
    shares = [sum(map(bare, scenes(plain_share=share))) / 60 for share in (0.0, 0.5, 1.0)]
    assert shares[0] < 0.3 < shares[1] < 0.6 < shares[2]
    with pytest.raises(ConfigError, match=r"\['triple'\] are unknown; there are single"):
        PoolConfig(world="full", tasks={"triple": 1.0})
    with pytest.raises(ConfigError, match="add up to 1"):
        PoolConfig(world="full", tasks={"two": 0.5})
    with pytest.raises(ConfigError, match="use a share from 0 to 1"):
        PoolConfig(world="full", plain_share=1.5)


def test_a_pack_of_in_context_requests_holds_every_samples_own_references(full_pool_folder: Path) -> None:
    pool = LatentPool(full_pool_folder, FULL_POOL)
    data = PoolDataConfig(full_pool_folder, FULL_POOL, 2, 2, 3, drop_text=0.0)
    packer, generator = PoolPacks(pool, data), torch.Generator().manual_seed(0)
    starts = torch.tensor([0, *(len(i.references) for i in latents.items(FULL_POOL))]).cumsum(0).tolist()
    for _ in range(20):
        for pack in (packer.edits(generator), packer.contexts(generator)):
            assert len({len(own) for _, own, _ in pack.sequences}) == 1
            for index, (_, own, target) in zip(pack.draws, pack.sequences, strict=True):
                assert pack.targets[target].unique().item() == index
                said = [pack.references[k].unique().item() - 100 for k in own]
                assert said == list(range(starts[index], starts[index + 1]))
    without = PoolConfig(seed=3, num_drawings=(7, 0, 0), num_edits=15, world="full")
    with pytest.raises(ConfigError, match="the pool has none"):
        PoolPacks(LatentPool(full_pool_folder, without), replace(data, pool=without))


@pytest.mark.parametrize("dropped", [False, True])
def test_packs_hold_one_task_and_one_text_length(pool_folder: Path, dropped: bool) -> None:
    pool = LatentPool(pool_folder, POOL)
    config = PoolDataConfig(pool_folder, POOL, 5, 4, drop_text=float(dropped), drop_references=0.0)
    packer = PoolPacks(pool, config)
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        drawings, edits = packer.drawings(generator), packer.edits(generator)
        assert len(drawings.targets) == 5
        assert len(edits.targets) == len(edits.references) == 4
        assert not drawings.references
        for pack in (drawings, edits):
            assert len({len(text) for text in pack.texts}) == 1
            assert len(pack.texts) == (1 if dropped else len(pack.targets))
            assert [target for _, _, target in pack.sequences] == list(range(len(pack.targets)))
        if dropped:
            assert len(drawings.texts[0]) == 5 + 2


@pytest.mark.parametrize(
    ("counts", "tasks"),
    [((3, 2, 1), ["draw", "edit", "context"]), ((3, 0, 0), ["draw"]), ((0, 2, 1), ["edit", "context"])],
)
def test_a_step_has_a_pack_of_each_kind_that_is_asked_for(
    full_pool_folder: Path, counts: tuple[int, int, int], tasks: list[str]
) -> None:
    drawings, edits, contexts = counts
    data = PoolDataConfig(full_pool_folder, FULL_POOL, drawings, edits, contexts)
    packs = PoolPacks(LatentPool(full_pool_folder, FULL_POOL), data).step(torch.Generator().manual_seed(0))
    assert [pack.tasks[0] for pack in packs] == tasks
    assert [len(pack.targets) for pack in packs] == [count for count in counts if count]


@pytest.mark.parametrize("counts", [(0, 0, 0), (3, -1, 0)])
def test_a_step_without_samples_is_refused(tmp_path: Path, counts: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=f"edits={counts[1]}.*0 or more samples of each, and some of one"):
        PoolDataConfig(tmp_path, FULL_POOL, *counts)


def test_samples_that_the_pool_has_not_are_refused(pool_folder: Path) -> None:
    with pytest.raises(ConfigError, match="contexts=2, but the pool has none; set num_contexts"):
        PoolPacks(LatentPool(pool_folder, POOL), PoolDataConfig(pool_folder, POOL, 3, 2, 2))


def test_packs_without_references_are_plain_unconditional_ones(pool_folder: Path) -> None:
    config = PoolDataConfig(pool_folder, POOL, 5, 4, drop_text=1.0, drop_references=1.0)
    pack = PoolPacks(LatentPool(pool_folder, POOL), config).edits(torch.Generator().manual_seed(0))
    assert not pack.references
    assert all(references == () for _, references, _ in pack.sequences)


def test_balanced_packs_weigh_faint_targets_more_and_one_on_average(pool_folder: Path) -> None:
    pool = LatentPool(pool_folder, POOL)
    packer = PoolPacks(pool, PoolDataConfig(pool_folder, POOL, drawings=4, edits=3, balance=0.2))
    pack = packer.drawings(torch.Generator().manual_seed(0))
    assert pack.weights is not None
    contrast = torch.stack(
        [(x - x.flatten(1).median(1).values[:, None, None]).square().mean() for x in pack.targets]
    )
    assert torch.equal(pack.weights.argsort(), contrast.argsort(descending=True))
    every = packer._weights
    assert every is not None
    assert every.mean().item() == pytest.approx(1.0)
    assert PoolPacks(pool, PoolDataConfig(pool_folder, POOL)).drawings(torch.Generator()).weights is None


def test_what_is_emphasised_is_drawn_more_often_within_its_number_of_objects(pool_folder: Path) -> None:
    drawings = latents.items(POOL)[: sum(POOL.num_drawings)]
    ones = drawings[: POOL.num_drawings[0]]
    shape = ones[0].target.objects[0].shape
    shows = [any(o.shape == shape for o in item.target.objects) for item in drawings]
    packer = PoolPacks(LatentPool(pool_folder, POOL), _pool_data(pool_folder, {shape: 5.0}))
    generator, counts = torch.Generator().manual_seed(0), [0] * len(drawings)
    for _ in range(400):
        for index in packer.drawings(generator).draws:
            counts[index] += 1
    share = sum(counts[: len(ones)]) / sum(counts)
    assert share == pytest.approx(0.6, abs=0.05)
    one = (
        [counts[i] for i in range(len(ones)) if shows[i]],
        [counts[i] for i in range(len(ones)) if not shows[i]],
    )
    assert mean(one[0]) == pytest.approx(5 * mean(one[1]), rel=0.25)


@pytest.mark.parametrize("emphasis", [{"blob": 2.0}, {"star": 0.0}])
def test_an_emphasis_of_nothing_known_or_of_nothing_at_all_is_refused(
    pool_folder: Path, emphasis: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match=r"data\.emphasis"):
        PoolPacks(LatentPool(pool_folder, POOL), _pool_data(pool_folder, emphasis))


def test_a_pool_that_is_not_the_recipes_is_refused(pool_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not what the recipe says"):
        LatentPool(pool_folder, PoolConfig(num_drawings=(1, 1, 1), num_edits=1))
    with pytest.raises(ConfigError, match="make the pool first"):
        LatentPool(tmp_path / "none", POOL)


def test_what_was_made_from_another_pool_or_by_other_networks_is_not_taken_as_ready(tmp_path: Path) -> None:
    pool = replace(POOL, num_drawings=(2, 0, 0), num_edits=1)
    recipe = LatentsRecipe(tmp_path, MINI / "vae", MINI / "mllm", MINI / "processor", pool, threads=1)
    latents.run(recipe)
    latents.run(recipe)
    LatentPool(tmp_path, pool)
    with pytest.raises(ConfigError, match=r"pictures\.safetensors was made with pool .* remove the file"):
        LatentPool(tmp_path, replace(pool, seed=4))
    with pytest.raises(ConfigError, match=r"was made with pool"):
        latents.run(replace(recipe, pool=replace(pool, seed=4)))
    with pytest.raises(ConfigError, match=r"texts\.safetensors was made with networks"):
        latents.run(replace(recipe, mllm=MINI / "vae"))


def test_a_pool_without_edits_is_made_and_read(tmp_path: Path) -> None:
    pool = replace(POOL, num_drawings=(1, 1, 0), num_edits=0)
    recipe = LatentsRecipe(tmp_path, MINI / "vae", MINI / "mllm", MINI / "processor", pool, threads=1)
    latents.run(recipe)
    read = LatentPool(tmp_path, pool)
    assert read.num_references.tolist() == [0, 0]
    assert read.target(1).shape == (16, 8, 8)


def test_sights_of_other_pictures_are_not_taken(pool_folder: Path) -> None:
    labels = torch.zeros(sum(POOL.num_drawings) + POOL.num_edits, 16, 2, dtype=torch.uint8)
    path = pool_folder / "sights.safetensors"
    save_file({"labels": labels}, path, metadata={"pool": repr(POOL)})
    assert LatentPool(pool_folder, POOL).sights([0], 16).shape == (1, 16, 2)
    save_file({"labels": labels}, path, metadata={"pool": repr(replace(POOL, seed=99))})
    with pytest.raises(ConfigError, match=r"sights\.safetensors was made with pool .*seed=99"):
        LatentPool(pool_folder, POOL).sights([0], 16)
    save_file({"labels": labels[1:]}, path)
    with pytest.raises(ConfigError, match="is of 20 pictures, the pool has 21; remove it"):
        LatentPool(pool_folder, POOL).sights([0], 16)


def test_empty_scenes_come_as_often_as_asked_and_change_no_other_scene() -> None:
    plain = world_source.scenes(1, 0, 300)
    some = world_source.scenes(1, 0, 300, empty=0.3)
    assert 60 <= sum(len(scene.objects) == 0 for scene in some) <= 120
    assert all(b.background_lab == a.background_lab for a, b in zip(plain, some, strict=True))
    assert all(b in (a, replace(a, objects=())) for a, b in zip(plain, some, strict=True))


def _task(pool_folder: Path, loss: FlowLossConfig | None = None, **data: float) -> FlowTask:
    sizes = FlowModelConfig(
        hidden_size=48, num_layers=1, num_attention_heads=1, multiple_of=16, text_feat_dim=7
    )
    seen = PoolDataConfig(pool_folder, POOL, drawings=3, edits=3, **data)
    nowhere = FlowEvalConfig(pool_folder, pool_folder, pool_folder)
    recipe = FlowRecipe(RunConfig(pool_folder), OptimConfig(1e-3, 1), seen, nowhere, sizes)
    if loss is not None:
        recipe = replace(recipe, loss=loss, model=replace(sizes, num_layers=2))
    return make_task(recipe)


def test_a_step_takes_packs_of_every_pool_and_their_samples_tell_which(
    pool_folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(pool_folder, tmp_path / "small")
    alone = _task(pool_folder)
    both = make_task(replace(alone.recipe, also=(PoolDataConfig(other, POOL, drawings=2, edits=0),)))
    parts = both.parts(0, torch.Generator().manual_seed(0))
    own = alone.parts(0, torch.Generator().manual_seed(0))
    assert [part.ids for part in parts[:2]] == [part.ids for part in own]
    assert [len(part.ids) for part in parts] == [3, 3, 2]
    assert all(name.startswith("small:") for name in parts[2].ids)
    assert not any(name.startswith("small:") for part in own for name in part.ids)


def test_further_pools_are_not_asked_what_they_draw(pool_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(pool_folder, tmp_path / "full")
    nowhere = tmp_path / "none"
    latents.run(LatentsRecipe(pool_folder, nowhere, nowhere, nowhere, POOL, ("sights",), 1))
    recipe = _task(pool_folder, FlowLossConfig(0.5, 1)).recipe
    full = PoolDataConfig(other, replace(POOL, world="full"), drawings=2, edits=0)
    *own, foreign = make_task(replace(recipe, also=(full,))).parts(0, torch.Generator().manual_seed(0))
    assert all(set(part.counts) == set(part.compute().losses) == {"loss", "sight"} for part in own)
    assert set(foreign.counts) == set(foreign.compute().losses) == {"loss"}


@pytest.mark.parametrize(("asked", "judged"), [("num_drawings", "draw_"), ("num_edits", "edit_")])
def test_previews_may_be_of_drawings_alone_or_of_edits_alone(asked: str, judged: str) -> None:
    counts = {"num_drawings": 0, "num_edits": 0, asked: 1}
    config = FlowEvalConfig(
        MINI / "vae", MINI / "mllm", MINI / "processor", preview=PreviewConfig(1), **counts
    )
    model = OmniGen2Transformer2DModel.from_pretrained(MINI / "transformer")
    found = Judge(config, POOL, torch.device("cpu")).scores(model)
    assert found
    assert all(name.startswith(judged) for name in found)


def test_weights_multiply_the_errors_of_their_samples(pool_folder: Path) -> None:
    task = _task(pool_folder)
    pack = task.sources[0].drawings(torch.Generator().manual_seed(0))

    def loss(weights: torch.Tensor | None) -> float:
        found = task._loss(replace(pack, weights=weights), torch.Generator().manual_seed(1))
        return found.losses["loss"].item()

    each = [loss(one) for one in torch.eye(3)]
    assert sum(each) == pytest.approx(loss(None), rel=1e-5)
    assert loss(torch.tensor([2.0, 0.0, 0.5])) == pytest.approx(2 * each[0] + 0.5 * each[2], rel=1e-5)


def test_a_step_computes_on_the_recipes_device(pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "chosen_device", lambda asked: torch.device("meta"))  # noqa: ARG005
    monkeypatch.setattr(flow, "half_precision", lambda device: nullcontext())  # noqa: ARG005
    nowhere = pool_folder / "none"
    latents.run(LatentsRecipe(pool_folder, nowhere, nowhere, nowhere, POOL, ("sights",), 1))
    task = _task(pool_folder, FlowLossConfig(0.5, 1), balance=0.2)
    for part in task.parts(0, torch.Generator()):
        losses = part.compute().losses
        torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for p in task.module.parameters() if p.grad is not None]
    assert {gradient.device.type for gradient in gradients} == {"meta"}


def test_target_tokens_are_asked_what_they_draw_and_the_head_is_not_exported(
    pool_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"stages=\[sights\]"):
        _task(pool_folder, FlowLossConfig(0.5, 1)).parts(0, torch.Generator())
    with pytest.raises(ConfigError, match=r"loss\.layer=2; .* 1 to 1"):
        _task(pool_folder, FlowLossConfig(0.5, 2))
    nowhere = tmp_path / "none"
    latents.run(LatentsRecipe(pool_folder, nowhere, nowhere, nowhere, POOL, ("sights",), 1))
    task = _task(pool_folder, FlowLossConfig(0.5, 1))
    plain = _task(pool_folder, FlowLossConfig())
    task.transformer.load_state_dict(plain.transformer.state_dict())
    parts, without = (t.parts(0, torch.Generator().manual_seed(0)) for t in (task, plain))
    for part, other in zip(parts, without, strict=True):
        found = part.compute().losses
        assert tuple(found) == tuple(part.counts) == task.kinds
        assert found["loss"].item() == pytest.approx(other.compute().losses["loss"].item(), rel=1e-4)
        found["sight"].backward()
    asked = {name for name, p in task.transformer.named_parameters() if p.grad is not None and p.grad.any()}
    assert "x_embedder.weight" in asked
    assert any(name.startswith("layers.0") for name in asked)
    assert not any(name.startswith(("layers.1", "norm_out")) for name in asked)
    task.export(tmp_path / "export", task.module)
    OmniGen2Transformer2DModel.from_pretrained(tmp_path / "export").load_state_dict(
        plain.transformer.state_dict()
    )


def test_finer_tokens_share_the_labels_of_their_cell(pool_folder: Path) -> None:
    nowhere = pool_folder / "none"
    latents.run(LatentsRecipe(pool_folder, nowhere, nowhere, nowhere, POOL, ("sights",), 1))
    pool = LatentPool(pool_folder, POOL)
    coarse, fine = pool.sights([5, 2], 16), pool.sights([5, 2], 64)
    assert torch.equal(coarse[0], covered_labels(latents.items(POOL)[5].target, 4, CellWords.of("plain")))
    for row, column in ((0, 0), (3, 5), (7, 2)):
        assert torch.equal(fine[:, row * 8 + column], coarse[:, (row // 2) * 4 + column // 2])
    for tokens in (36, 24):
        with pytest.raises(ConfigError, match=f"{tokens} tokens a picture do not refine"):
            pool.sights([0], tokens)


RECORDED = [
    ([[5, 11, 7], [14, 16, 16]], [4773.885, 4585.374]),
    ([[2, 0, 4], [18, 20, 14]], [4736.876, 4641.198]),
    ([[7, 5, 11], [18, 18, 20]], [4574.600, 4425.434]),
    ([[8, 0, 8], [17, 17, 19]], [4457.749, 4679.811]),
]
"""Per step and pack: samples of the pool, and the weighted loss."""


def test_steps_on_the_pool_are_those_of_the_runs_that_made_mini(pool_folder: Path) -> None:
    """Recorded before packs, networks and errors became those of kind transformer; checkpoints go on too."""
    task = _task(pool_folder, balance=0.2, drop_text=0.5)
    assert "x_embedder.weight" in dict(task.module.named_parameters())  # as checkpoints name it
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # a fresh model gives zeros, which would hide differences
        for parameter in task.module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    for step, (drawn, losses) in enumerate(RECORDED):
        parts = task.parts(step, torch.Generator().manual_seed(step))
        assert [[int(name.rpartition(":")[2]) for name in part.ids] for part in parts] == drawn
        found = [part.compute() for part in parts]
        assert [part.losses["loss"].item() for part in found] == pytest.approx(losses, rel=5e-4)
        assert {"loss_draw", "loss_edit"} <= {name for part in found for name in part.figures}


@pytest.mark.parametrize("stopped_at", [0, 1, 2])
def test_a_pool_that_was_stopped_goes_on_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    recipe = LatentsRecipe(
        tmp_path / "whole", MINI / "vae", MINI / "mllm", MINI / "processor", FULL_POOL, ("pictures",), 1, 3
    )
    monkeypatch.setattr(latents, "PART", 5)
    latents.run(recipe)
    stopped, encoded, calls = replace(recipe, folder=tmp_path / "stopped"), latents._encoded, []

    def encode(*given: Any) -> dict[str, torch.Tensor]:
        calls.append(len(given[1]))
        if len(calls) == stopped_at + 1:
            raise KeyboardInterrupt
        return encoded(*given)

    monkeypatch.setattr(latents, "_encoded", encode)
    with pytest.raises(KeyboardInterrupt):
        latents.run(stopped)
    assert not (stopped.folder / "pictures.safetensors").exists()
    again: list[Any] = []
    monkeypatch.setattr(latents, "_encoded", lambda *given: again.append(given) or encoded(*given))
    latents.run(stopped)
    found, expected = (load_file(r.folder / "pictures.safetensors") for r in (stopped, recipe))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    parts = sum(-(-len(expected[f"{name}_mean"]) // 5) for name in ("target", "source"))
    assert len(again) == parts - stopped_at
    assert [path.name for path in stopped.folder.iterdir()] == ["pictures.safetensors"]
