"""Model folders: what is read and written, and that everything wrong with one is said by name."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file

from og2.conditioning.vlm import load_processor
from og2.errors import CheckpointError
from og2.model import checkpoint_files, hub, weights
from og2.model.transformer import OmniGen2Transformer2DModel

CHECKPOINT = Path(__file__).parent / "golden" / "pipeline" / "model"
TRANSFORMER_FILE = "diffusion_pytorch_model.safetensors"
NETWORKS = ("transformer", "vae", "mllm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))


@pytest.fixture(scope="module")
def components() -> weights.Components:
    return weights.load_components(CHECKPOINT)


def refused(source: object, **options: object) -> str:
    """The one sentence that loading ends with."""
    with pytest.raises(CheckpointError) as caught:
        weights.load_components(source, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same_tensors(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def edit_tensors(path: Path, change) -> None:
    tensors = load_file(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, path)


# What is read


def test_every_tensor_of_the_published_layout_arrives_as_stored(components):
    for part, stem in (("transformer", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")):
        stored = load_file(CHECKPOINT / part / f"{stem}.safetensors")
        loaded = getattr(components, part).state_dict()
        assert stored.keys() == loaded.keys()
        assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    embedding = load_file(CHECKPOINT / "mllm" / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(components.mllm.get_input_embeddings().weight, embedding)
    assert components.mllm.lm_head.weight is components.mllm.get_input_embeddings().weight
    assert components.scheduler_config["dynamic_time_shift"] is True
    assert not any(getattr(components, part).training for part in NETWORKS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_take_any_dtype_on_the_way_in(dtype):
    loaded = weights.load_components(CHECKPOINT, dtype)
    for part in NETWORKS:
        assert {p.dtype for p in getattr(loaded, part).parameters()} == {dtype}
    stored = load_file(CHECKPOINT / "transformer" / TRANSFORMER_FILE)["x_embedder.weight"]
    assert torch.equal(loaded.transformer.x_embedder.weight, stored.to(dtype))


def test_class_names_in_the_model_index_are_never_read(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index["transformer"] = ["os", "system"]
    (folder / "model_index.json").write_text(json.dumps(index))
    weights.load_components(folder)
    (folder / "model_index.json").unlink()
    weights.load_components(folder)


def test_the_newer_name_of_the_processor_folder_is_accepted(folder):
    (folder / "processor").rename(folder / "mllm_processor")
    loaded = weights.load_components(folder)
    assert loaded.processor_folder == folder / "mllm_processor"
    load_processor(loaded.processor_folder)


@pytest.mark.parametrize(
    "form", ["folder", "folder with transformer/", "single file", "single file with prefix"]
)
def test_a_fine_tuned_transformer_takes_the_place_of_the_folders(form, tmp_path, components):
    tensors = {name: t + 1 for name, t in components.transformer.state_dict().items()}
    prefix = "model.diffusion_model." if form.endswith("prefix") else ""
    target = tmp_path / "transformer" if form.endswith("/") else tmp_path
    target.mkdir(exist_ok=True)
    save_file({prefix + name: t for name, t in tensors.items()}, target / TRANSFORMER_FILE)
    shutil.copy(CHECKPOINT / "transformer" / "config.json", target)
    path = target / TRANSFORMER_FILE if form.startswith("single") else tmp_path
    loaded = weights.load_components(CHECKPOINT, transformer_path=path)
    assert all(torch.equal(tensors[name], t) for name, t in loaded.transformer.state_dict().items())
    assert loaded.fingerprint != components.fingerprint


def test_loading_draws_no_random_numbers():
    state = torch.get_rng_state()
    weights.load_components(CHECKPOINT)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_published_transformer_has_its_582_tensors_and_their_shapes():
    with init_empty_weights(include_buffers=False):
        model = OmniGen2Transformer2DModel.from_config(weights.PUBLISHED_TRANSFORMER)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    width, kv, inner, cond, text = 2520, 840, 10240, 1024, 2048
    expected = {
        "x_embedder.weight": (width, 64), "x_embedder.bias": (width,),
        "ref_image_patch_embedder.weight": (width, 64), "ref_image_patch_embedder.bias": (width,),
        "image_index_embedding": (5, width),
        "time_caption_embed.timestep_embedder.linear_1.weight": (cond, 256),
        "time_caption_embed.timestep_embedder.linear_1.bias": (cond,),
        "time_caption_embed.timestep_embedder.linear_2.weight": (cond, cond),
        "time_caption_embed.timestep_embedder.linear_2.bias": (cond,),
        "time_caption_embed.caption_embedder.0.weight": (text,),
        "time_caption_embed.caption_embedder.1.weight": (width, text),
        "time_caption_embed.caption_embedder.1.bias": (width,),
        "norm_out.linear_1.weight": (width, cond), "norm_out.linear_1.bias": (width,),
        "norm_out.linear_2.weight": (64, width), "norm_out.linear_2.bias": (64,),
    }  # fmt: skip
    modulated = [f"layers.{i}" for i in range(32)]
    modulated += [f"{kind}.{i}" for kind in ("noise_refiner", "ref_image_refiner") for i in range(2)]
    for block in [*modulated, "context_refiner.0", "context_refiner.1"]:
        expected |= {
            f"{block}.attn.to_q.weight": (width, width), f"{block}.attn.to_out.0.weight": (width, width),
            f"{block}.attn.to_k.weight": (kv, width), f"{block}.attn.to_v.weight": (kv, width),
            f"{block}.attn.norm_q.weight": (120,), f"{block}.attn.norm_k.weight": (120,),
            f"{block}.feed_forward.linear_1.weight": (inner, width),
            f"{block}.feed_forward.linear_3.weight": (inner, width),
            f"{block}.feed_forward.linear_2.weight": (width, inner),
            f"{block}.norm2.weight": (width,), f"{block}.ffn_norm1.weight": (width,),
            f"{block}.ffn_norm2.weight": (width,),
        }  # fmt: skip
        norm = {f"{block}.norm1.weight": (width,)}
        if block in modulated:
            norm = {
                f"{block}.norm1.linear.weight": (4 * width, cond),
                f"{block}.norm1.linear.bias": (4 * width,),
            }
            norm[f"{block}.norm1.norm.weight"] = (width,)
        expected |= norm
    assert shapes == expected
    assert len(shapes) == 582
    assert sum(t.numel() for t in model.state_dict().values()) == 3_967_161_400
    assert not list(model.buffers())


# What is written


@pytest.mark.parametrize("shard", ["5GB", 60_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_written_model_reads_back_bit_for_bit(shard, dtype, tmp_path):
    first = weights.load_components(CHECKPOINT, dtype)
    written = weights.save_components(first, tmp_path / "copy", max_shard_size=shard)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert any(written.rglob("*.index.json")) == (shard != "5GB")
    second = weights.load_components(written)
    assert all(same_tensors(getattr(first, part), getattr(second, part)) for part in NETWORKS)
    assert dict(first.transformer.config) == dict(second.transformer.config)
    assert first.scheduler_config == second.scheduler_config
    ours = json.loads((written / "model_index.json").read_text())
    assert ours["transformer"] == ["transformer_omnigen2", "OmniGen2Transformer2DModel"]
    for path in (CHECKPOINT / "processor").iterdir():
        assert (written / "processor" / path.name).read_bytes() == path.read_bytes()


def test_a_written_model_has_the_published_tensor_names(components, tmp_path):
    written = weights.save_components(components, tmp_path / "copy")
    for part in NETWORKS:
        (ours,), (published,) = (list((root / part).glob("*.safetensors")) for root in (written, CHECKPOINT))
        assert load_file(ours).keys() == load_file(published).keys()


def test_the_language_models_config_is_written_in_the_published_form(components, tmp_path):
    weights.save_mllm(components.mllm, tmp_path)
    ours = json.loads((tmp_path / "config.json").read_text())
    published = json.loads((CHECKPOINT / "mllm" / "config.json").read_text())
    assert "text_config" not in ours
    assert ours["rope_scaling"]["mrope_section"] == published["rope_scaling"]["mrope_section"]
    same = ("rope_theta", "hidden_size", "num_hidden_layers", "torch_dtype", "image_token_id", "vocab_size")
    assert {name: ours[name] for name in same} == {name: published[name] for name in same}
    again = weights.load_mllm(tmp_path).config
    for part in ("text_config", "vision_config"):
        left, right = (getattr(config, part).to_dict() for config in (again, components.mllm.config))
        assert {**left, "_name_or_path": ""} == {**right, "_name_or_path": ""}


def test_a_processor_can_be_written_with_the_model(components, tmp_path):
    processor = load_processor(components.processor_folder)
    written = weights.save_components(components, tmp_path / "copy", processor=processor)
    again = load_processor(written / "processor")
    assert again.tokenizer("a cat")["input_ids"] == processor.tokenizer("a cat")["input_ids"]


def test_a_models_own_settings_are_kept(folder, tmp_path):
    (folder / "og2.json").write_text('{"native_size": 64}')
    written = weights.save_components(weights.load_components(folder), tmp_path / "copy")
    assert (written / "og2.json").read_text() == '{"native_size": 64}'


def test_an_existing_folder_is_replaced_only_when_asked_and_then_as_a_whole(components, tmp_path):
    target = tmp_path / "copy"
    target.mkdir()
    (target / "old.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        weights.save_components(components, target)
    assert (target / "old.txt").is_file()
    weights.save_components(components, target, overwrite=True)
    assert not (target / "old.txt").exists()
    assert (target / "model_index.json").is_file()


@pytest.mark.parametrize("had_old", [False, True])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(components, tmp_path, monkeypatch, had_old):
    target = tmp_path / "copy"
    if had_old:
        target.mkdir()
        (target / "old.txt").write_text("mine")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "write_json", full)
    with pytest.raises(CheckpointError, match="No space left"):
        weights.save_components(components, target, overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == (["copy", "old.txt"] if had_old else [])


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=repr)
def test_a_failed_swap_puts_the_old_folder_back(components, tmp_path, monkeypatch, fault):
    target = tmp_path / "copy"
    target.mkdir()
    (target / "old.txt").write_text("mine")
    rename = Path.rename

    def fails_for_new(self: Path, other: Path) -> Path:
        if self.name == ".copy.og2-new":
            raise fault
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fails_for_new)
    with pytest.raises((CheckpointError, KeyboardInterrupt)):
        weights.save_components(components, target, overwrite=True)
    assert (target / "old.txt").read_text() == "mine"


# What is wrong with a folder


@pytest.mark.parametrize(
    "name",
    [
        "transformer", "vae", "mllm", "processor",
        "transformer/config.json", "vae/config.json", "mllm/config.json",
        "scheduler/scheduler_config.json", "mllm/model.safetensors", f"vae/{TRANSFORMER_FILE}",
    ],
)  # fmt: skip
def test_a_missing_file_is_named_with_what_is_there_instead(folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = refused(folder)
    assert (path.name if path.suffix != ".safetensors" else "*.safetensors") in text
    assert str(path.parent) in text
    assert next(iter(sorted(p.name for p in path.parent.iterdir())), "nothing") in text


def test_a_tensor_of_wrong_shape_is_named_with_both_shapes(folder):
    path = folder / "transformer" / TRANSFORMER_FILE
    edit_tensors(path, lambda tensors: tensors.update({"x_embedder.weight": torch.zeros(96, 8)}))
    text = refused(folder)
    assert "x_embedder.weight: expected (96, 16), found (96, 8)" in text


@pytest.mark.parametrize("part", NETWORKS)
def test_missing_and_unexpected_tensors_are_named(folder, part):
    (path,) = (folder / part).glob("*.safetensors")
    name = next(name for name in load_file(path) if name.endswith("bias"))

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["stray.tensor"] = tensors.pop(name)

    edit_tensors(path, rename)
    text = refused(folder)
    assert "1 missing" in text
    assert "1 unexpected (stray.tensor)" in text
    assert name.rsplit(".", 2)[-2] in text


def test_a_tensor_of_wrong_shape_in_the_language_model_is_named_too(folder):
    path = folder / "mllm" / "model.safetensors"
    edit_tensors(path, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(7)}))
    text = refused(folder)
    assert "norm.weight: expected (64,), found (7,)" in text


@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "diffusion_pytorch_model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_with_a_way_out(folder, part, name):
    (path,) = (folder / part).glob("*.safetensors")
    path.rename(path.parent / name)
    text = refused(folder)
    assert name in text
    assert "safetensors" in text
    assert "run code" in text


def test_a_pickle_as_a_single_file_is_refused(tmp_path):
    (tmp_path / "t.pt").write_bytes(b"x")
    assert "refused" in refused(CHECKPOINT, transformer_path=tmp_path / "t.pt")
    assert "no transformer at" in refused(CHECKPOINT, transformer_path=tmp_path / "gone")
    assert "gone.safetensors is missing" in refused(
        CHECKPOINT, transformer_path=tmp_path / "gone.safetensors"
    )


@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.999])
def test_a_file_cut_short_is_named(folder, part, keep):
    (path,) = (folder / part).glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    text = refused(folder)
    assert str(path) in text
    assert "fetch it again" in text


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"{\"a\"",
        struct.pack("<Q", 8) + b'{"a": 1}', struct.pack("<Q", 2) + b"\xff\xff", b"\x80\x04pickle",
        struct.pack("<Q", 2) + b"{}" + b"too much",
    ],
)  # fmt: skip
def test_a_file_that_is_no_safetensors_file_is_named(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is"):
        checkpoint_files.read_header(tmp_path / "x.safetensors")


def sharded(folder: Path, components: weights.Components) -> Path:
    components.transformer.save_pretrained(folder, max_shard_size=60_000)
    return next(folder.glob("*.index.json"))


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "x.bin"]
)
def test_an_index_that_points_outside_its_folder_is_refused(tmp_path, components, name):
    index = sharded(tmp_path, components)
    value = json.loads(index.read_text())
    value["weight_map"]["x_embedder.weight"] = name
    index.write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="beside the index"):
        weights.load_transformer(tmp_path)


def test_a_missing_shard_is_named(tmp_path, components):
    shard = sorted(sharded(tmp_path, components).parent.glob("*-of-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        weights.load_transformer(tmp_path)


def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path, components):
    index = sharded(tmp_path, components)
    value = json.loads(index.read_text())
    del value["weight_map"]["x_embedder.weight"]
    index.write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match=r"disagree.*x_embedder\.weight"):
        weights.load_transformer(tmp_path)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map"):
        weights.load_transformer(tmp_path)


def test_two_sets_of_weights_in_one_folder_are_refused(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="several sets"):
        checkpoint_files.find_weights(tmp_path)


def test_adapter_files_beside_the_weights_do_not_matter(folder):
    save_file({"x": torch.zeros(1)}, folder / "transformer" / "pytorch_lora_weights.safetensors")
    weights.load_components(folder)


@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize("text", ["", "[]", "{", '{"hidden_size": "many"}'])
def test_a_config_that_makes_no_sense_is_named(folder, part, text):
    (folder / part / "config.json").write_text(text)
    said = refused(folder)
    assert str(folder / part) in said


def test_a_lone_transformer_folder_says_how_to_use_it():
    assert "transformer_path" in refused(CHECKPOINT / "transformer")
    assert "transformer_path" in refused(CHECKPOINT / "transformer" / TRANSFORMER_FILE)


# Where a folder comes from


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache as huggingface_hub lays it out, holding one snapshot made of links, and no network."""
    from huggingface_hub import constants

    commit, root = "a" * 40, tmp_path / "hub" / "models--someone--OmniGen2"
    for path in CHECKPOINT.rglob("*"):
        if path.is_file():
            link = root / "snapshots" / commit / path.relative_to(CHECKPOINT)
            link.parent.mkdir(parents=True, exist_ok=True)
            blob = root / "blobs" / str(path.relative_to(CHECKPOINT)).replace("/", "_")
            blob.parent.mkdir(exist_ok=True)
            shutil.copy(path, blob)
            link.symlink_to(os.path.relpath(blob, link.parent))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return root


@pytest.mark.parametrize("local_only", [False, True])
def test_a_cached_hub_model_is_found_offline(cache, local_only):
    loaded = weights.load_components("someone/OmniGen2", local_files_only=local_only)
    assert loaded.folder.is_relative_to(cache)
    assert loaded.fingerprint == weights.fingerprint(CHECKPOINT)
    weights.load_components("someone/OmniGen2", revision="main")


@pytest.mark.usefixtures("cache")
def test_a_hub_model_that_is_not_cached_says_how_to_get_it():
    assert "not in the local cache" in refused("someone/else")
    assert "not in the local cache" in refused("someone/else", local_files_only=True)
    assert "revision v2" in refused("someone/OmniGen2", revision="v2")


@pytest.mark.parametrize("name", ["./no/such", "/no/such/model", "no-such", "a/b/c", "a b/c", "", "../x"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused_at_once(name):
    assert f"no folder {name!r}" in refused(name)


def test_an_unreachable_hub_is_one_sentence(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "someone/else" in refused("someone/else")


def test_only_what_is_read_is_downloaded(monkeypatch, tmp_path):
    import fnmatch

    import huggingface_hub

    asked = {}

    def download(_: str, **options: object) -> str:
        asked.update(options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.resolve_folder("someone/OmniGen2", revision="v1") == tmp_path
    wanted = lambda name: any(fnmatch.fnmatch(name, pattern) for pattern in asked["allow_patterns"])  # noqa: E731
    assert asked["revision"] == "v1"
    for name in ("model_index.json", "mllm/model-00001-of-00004.safetensors", "processor/merges.txt"):
        assert wanted(name)
    for name in (
        "transformer/transformer_omnigen2.py",
        "mllm/pytorch_model.bin",
        "README.md",
        "assets/a.png",
    ):
        assert not wanted(name)


# Fingerprints


def test_a_copy_has_the_same_fingerprint_and_a_changed_tensor_another(folder):
    assert weights.fingerprint(folder) == weights.fingerprint(CHECKPOINT)
    assert len(weights.fingerprint(folder)) == 10
    path = folder / "vae" / TRANSFORMER_FILE
    edit_tensors(path, lambda tensors: tensors["decoder.conv_in.weight"].add_(1e-3))
    assert weights.fingerprint(folder) != weights.fingerprint(CHECKPOINT)


def test_a_changed_config_has_another_fingerprint_and_words_and_presets_do_not_count(folder):
    (folder / "README.md").write_text("words")
    (folder / "og2.json").write_text("{}")
    assert weights.fingerprint(folder) == weights.fingerprint(CHECKPOINT)
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace("1000.0", "999.0"))
    assert weights.fingerprint(folder) != weights.fingerprint(CHECKPOINT)
