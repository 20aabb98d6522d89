"""A LoRA trained here: its file, and the same numbers from every program that reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import MODEL, recipe
from torch import nn

from og2 import OmniGen2Pipeline
from og2.cli import run as og2
from og2.errors import CheckpointError, ConfigError, RequestError
from og2.model import wide
from og2.model.lora import WEIGHTS, attach, merge, new_adapter, read_adapter, scales, transformer_hash
from og2.model.transformer import OmniGen2Transformer2DModel, Sequence
from og2.model.weights import load_transformer
from og2.placement import can_fuse, is_fused
from og2.train.export import ExportConfig, export_run
from og2.train.run import RESOLVED, keep_resolved
from og2.train.transformer import run

LORA = {"rank": 3, "alpha": 12.0}
SMALL = ["--height", "32", "--width", "32", "--num-inference-steps", "2", "--seed", "3", "--quiet"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a LoRA with an effect that shows."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lora")
    made = recipe(folder, "optim.lr=0.02", "optim.steps=4", "optim.ema=0.5", lora=LORA)
    keep_resolved("transformer", made)
    run(made)
    return folder


@pytest.fixture(scope="module")
def file(trained: Path) -> Path:
    return trained / "export" / WEIGHTS


def _velocity(model: OmniGen2Transformer2DModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    text, latents = torch.randn(5, 64, generator=generator), torch.randn(4, 4, 6, generator=generator)
    with torch.no_grad():
        prepared = model.eval().prepare([text], [latents * 2], [(4, 6)], [Sequence(0, (0,), 0)])
        return model.velocity([latents], torch.tensor([0.4]), prepared)[0]


def _base() -> OmniGen2Transformer2DModel:
    return load_transformer(MODEL, torch.float32)


def test_the_file_holds_the_adapter_alone_and_says_what_it_is_for(file: Path) -> None:
    with safe_open(file, framework="pt") as stored:
        ours = json.loads(stored.metadata()["og2"])
        names = list(stored.keys())
    assert ours == {"rank": 3, "alpha": 12.0, "base_hash": transformer_hash(MODEL)}
    assert all(name.startswith("transformer.") and ".lora_" in name for name in names)
    assert len(names) == 2 * 4 * (3 + 3)
    assert sum(p.numel() for p in load_file(file).values()) < 30_000
    assert read_adapter(file.parent).ranks.keys() == {name.split(".lora_")[0][12:] for name in names}


def test_what_learns_is_in_float32_on_weights_of_any_dtype() -> None:
    model = load_transformer(MODEL, torch.bfloat16)
    new_adapter(model, 2, 2.0, ("to_q", "to_v"))
    learning = {p.dtype for p in model.parameters() if p.requires_grad}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert (learning, torch.bfloat16 in frozen) == ({torch.float32}, True)


def test_an_adapter_goes_on_over_the_weights_it_began_with_alone(trained: Path, tmp_path: Path) -> None:
    run_folder, model = tmp_path / "run", tmp_path / "model"
    shutil.copytree(trained, run_folder)
    shutil.copytree(MODEL, model)
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: x * 1.01 for name, x in load_file(weights).items()}, weights)
    with pytest.raises(ConfigError, match="this run's adapter was learned on transformer"):
        run(recipe(run_folder, "optim.steps=6", "optim.ema=0.5", lora=LORA, model=str(model)))


def test_peft_diffusers_and_the_merged_weights_give_the_same_numbers(file: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    ours = _base()
    before = _velocity(ours)
    attach(ours, read_adapter(file))
    expected = _velocity(ours)
    assert float((expected - before).abs().max()) > 1e-2
    theirs = _base()
    theirs.load_lora_adapter(file, use_safetensors=True)  # without it diffusers does not read the header
    assert torch.equal(_velocity(theirs), expected)
    plain = _base()
    with safe_open(file, framework="pt") as stored:
        told = json.loads(stored.metadata()["lora_adapter_metadata"])
    config = LoraConfig(**{key.removeprefix("transformer."): value for key, value in told.items()})
    inject_adapter_in_model(config, plain)
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(file).items()}
    set_peft_model_state_dict(plain, tensors)
    assert torch.equal(_velocity(plain), expected)
    merge(ours)
    assert not any(".lora_" in name for name, _ in ours.named_parameters())
    torch.testing.assert_close(_velocity(ours), expected, rtol=0, atol=2e-5)


def test_export_of_the_run_is_the_file_and_merged_a_whole_model(
    trained: Path, file: Path, tmp_path: Path
) -> None:
    (alone,) = export_run(trained, tmp_path / "alone", ExportConfig())
    exported, again = load_file(file), load_file(alone)
    assert all(torch.equal(tensor, again[name]) for name, tensor in exported.items())
    (whole,) = export_run(trained, tmp_path / "whole", ExportConfig(merged=True))
    ours = _base()
    attach(ours, read_adapter(file))
    torch.testing.assert_close(_velocity(load_transformer(whole, None)), _velocity(ours), rtol=0, atol=2e-5)
    assert OmniGen2Pipeline.from_pretrained(whole).transformer_hash == transformer_hash(whole)
    with pytest.raises(CheckpointError, match="exists already"):
        export_run(trained, tmp_path / "whole", ExportConfig())
    with pytest.raises(CheckpointError, match="no checkpoint of step 77; it has 4"):
        export_run(trained, tmp_path / "x", ExportConfig(step=77))
    assert (trained / RESOLVED).is_file()


def test_generate_draws_with_it_at_a_scale_and_says_so(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(name: str, *words: str) -> Image.Image:
        out = tmp_path / f"{name}.png"
        assert og2(["generate", "a thing", "--model", str(MODEL), *words, *SMALL, "--output", str(out)]) == 0
        return Image.open(out)

    plain, none = draw("plain"), draw("none", "--lora", f"{file}:0")
    assert plain.tobytes() == none.tobytes()
    capsys.readouterr()
    whole = draw("whole", "--transformer-lora-path", str(file.parent), "--json")
    said = json.loads(capsys.readouterr().out)
    assert any(f"LoRA {WEIGHTS}" in note and note.endswith("at 1") for note in said["notes"])
    assert whole.tobytes() != plain.tobytes()
    pipe = OmniGen2Pipeline.from_pretrained(MODEL, fuse=False)
    pipe.load_lora_weights(file)
    options = {"height": 32, "width": 32, "num_inference_steps": 2, "seed": 3}
    attached = pipe("a thing", **options).images[0]
    differences = torch.frombuffer(bytearray(attached.tobytes()), dtype=torch.uint8).int() - torch.frombuffer(
        bytearray(whole.convert("RGB").tobytes()), dtype=torch.uint8
    )
    assert int(differences.abs().max()) <= 1
    pipe.unload_lora_weights()
    assert pipe.adapter_notes == ()


OPTIONS = {"height": 32, "width": 32, "num_inference_steps": 1, "seed": 3}


def test_a_picture_drawn_after_unloading_is_that_of_the_model_alone_and_says_so(file: Path) -> None:
    pipe = OmniGen2Pipeline.from_pretrained(MODEL)
    before = pipe("a thing", **OPTIONS)
    pipe.load_lora_weights(file)
    assert pipe("a thing", **OPTIONS).plan.profile.model_hash != before.plan.profile.model_hash
    pipe.unload_lora_weights()
    after = pipe("a thing", **OPTIONS)
    assert after.images[0].tobytes() == before.images[0].tobytes()
    assert (after.notes, after.plan.profile, after.plan.provenance) == (
        before.notes,
        before.plan.profile,
        before.plan.provenance,
    )


@pytest.mark.parametrize("how", ["merge_lora", "fuse_lora"])
def test_what_was_merged_stays_in_the_record_when_adapters_are_unloaded(file: Path, how: str) -> None:
    pipe = OmniGen2Pipeline.from_pretrained(MODEL)
    base_hash = pipe.profile.model_hash
    pipe.load_lora_weights(file, scale=0.5)
    notes, drawn_hash = pipe.adapter_notes, pipe.adapted_profile.model_hash
    getattr(pipe, how)()
    pipe.unload_lora_weights()
    result = pipe("a thing", **OPTIONS)
    assert notes[0].endswith("at 0.5")
    assert result.notes[: len(notes)] == notes
    assert result.plan.profile.model_hash == drawn_hash != base_hash
    assert not scales(pipe.transformer)


def test_the_record_follows_the_scale_that_acts_at_the_moment(file: Path) -> None:
    pipe = OmniGen2Pipeline.from_pretrained(MODEL)
    base_hash = pipe.profile.model_hash
    pipe.load_lora_weights(file, "first")
    whole = pipe.adapted_profile.model_hash
    pipe.set_adapters(["first"], [0.0])
    assert pipe.adapter_notes[0].endswith("at 0")
    assert pipe.adapted_profile.model_hash == base_hash
    pipe.set_adapters(["first"], [1.0])
    assert pipe.adapted_profile.model_hash == whole
    pipe.load_lora_weights(file, "second", scale=0.25)
    pipe.set_adapters(["second"], [0.25])
    assert [note.rpartition(" at ")[2] for note in pipe.adapter_notes] == ["0", "0.25"]
    pipe.load_lora_weights(file, "third", scale=0.5)
    assert [note.rpartition(" at ")[2] for note in pipe.adapter_notes] == ["0", "0.25", "0.5"]
    pipe.delete_adapters("third")
    drawn = _velocity(pipe.transformer)
    pipe.merge_lora()
    assert [note.rpartition(" at ")[2] for note in pipe.adapter_notes] == ["0.25"]
    torch.testing.assert_close(_velocity(pipe.transformer), drawn, rtol=0, atol=2e-5)


def test_calls_that_would_make_the_record_wrong_are_refused(file: Path, tmp_path: Path) -> None:
    pipe = OmniGen2Pipeline.from_pretrained(MODEL)
    with pytest.raises(RequestError, match="no LoRA to merge"):
        pipe.merge_lora()
    pipe.load_lora_weights(file, "first")
    with pytest.raises(CheckpointError, match=r"merge_lora\(\) or unload_lora_weights\(\) first"):
        pipe.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    pipe.fuse_lora()
    with pytest.raises(RequestError, match=r"first is fused into the weights; call unfuse_lora\(\)"):
        pipe.set_adapters(["first"], [0.5])
    pipe.merge_lora()
    pipe.save_pretrained(tmp_path / "saved")
    drawn = pipe("a thing", **OPTIONS).images[0]
    again = OmniGen2Pipeline.from_pretrained(tmp_path / "saved")("a thing", **OPTIONS).images[0]
    assert again.tobytes() == drawn.tobytes()


def test_adapters_are_named_by_what_is_free_and_a_taken_name_is_refused(file: Path) -> None:
    pipe = OmniGen2Pipeline.from_pretrained(MODEL)
    for _ in range(2):
        pipe.load_lora_weights(file)
    pipe.delete_adapters("lora_0")
    pipe.load_lora_weights(file)
    assert set(pipe.transformer.peft_config) == {"lora_0", "lora_1"}
    with pytest.raises(RequestError, match="there is an adapter 'lora_1' already; give another adapter_name"):
        pipe.load_lora_weights(file, "lora_1")


def test_an_offloaded_transformer_keeps_its_plain_blocks_when_adapters_are_merged(file: Path) -> None:
    pipe = OmniGen2Pipeline.from_pretrained(MODEL)
    pipe.load_lora_weights(file)
    pipe.enable_sequential_cpu_offload(device="cpu")
    assert not can_fuse(pipe.transformer)


def test_in_bfloat16_without_its_instructions_what_lies_under_an_adapter_computes_in_float32(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide, "has_products", lambda dtype: dtype == torch.float32)
    pipe = OmniGen2Pipeline.from_pretrained(MODEL, dtype=torch.bfloat16)
    pipe.load_lora_weights(file)
    kinds = {type(module) for module in pipe.transformer.modules() if hasattr(module, "in_features")}
    assert nn.Linear not in kinds
    assert wide.WideLinear in kinds
    pipe.unload_lora_weights()
    assert is_fused(pipe.transformer)


def test_an_adapter_that_does_not_belong_is_refused_or_said(file: Path, tmp_path: Path) -> None:
    tensors = load_file(file)
    name = next(iter(tensors))
    for what, changed in {
        "no linear layer": {k.replace("layers.0", "layers.9"): v for k, v in tensors.items()},
        "needs": {k: v[:, :-1] if v.shape[0] == 3 else v for k, v in tensors.items()},
        "one half": {k: v for k, v in tensors.items() if k != name},
        "no part of a LoRA": {**tensors, "x": torch.zeros(1)},
    }.items():
        path = tmp_path / "other.safetensors"
        save_file({k: v.contiguous() for k, v in changed.items()}, path)
        with pytest.raises(CheckpointError, match=what):
            attach(_base(), read_adapter(path))
    (tmp_path / "adapter.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="can run code"):
        read_adapter(tmp_path / "adapter.bin")
    pipe = OmniGen2Pipeline.from_pretrained(MODEL)
    pipe.transformer_hash = "another"
    pipe.load_lora_weights(file, scale=0.5)
    assert pipe.adapter_notes[0].endswith("at 0.5; it was trained on other weights than these")


def test_names_of_other_programs_are_understood(file: Path, tmp_path: Path) -> None:
    expected = read_adapter(file)
    for prefix, sides in (
        ("base_model.model.", ("lora_A", "lora_B")),
        ("diffusion_model.", ("lora_down", "lora_up")),
    ):
        renamed = {
            prefix
            + name.removeprefix("transformer.").replace("lora_A", sides[0]).replace("lora_B", sides[1]): t
            for name, t in load_file(file).items()
        }
        renamed |= {f"{prefix}{layer}.alpha": torch.tensor(12.0) for layer in expected.ranks}
        save_file(renamed, tmp_path / "theirs.safetensors")
        found = read_adapter(tmp_path / "theirs.safetensors")
        assert found.alphas == expected.alphas
        assert found.tensors.keys() == expected.tensors.keys()


def test_an_adapter_needs_a_layer_and_trains_with_ddp(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no linear layer of the transformer ends in to_nothing"):
        run(recipe(tmp_path, lora={"targets": ["to_nothing"]}))
    with pytest.raises(ConfigError, match="use ddp"):
        run(recipe(tmp_path, "compute.strategy=fsdp", lora=LORA))
