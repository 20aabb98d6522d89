"""The transformer against recordings of the official implementation, float32."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from recorded import CASES, golden_case, golden_model, meta, relative_error

from og2.model.transformer import OmniGen2Transformer2DModel

TOLERANCE = 1e-4
PUBLISHED = {
    "hidden_size": 2520,
    "num_layers": 32,
    "num_attention_heads": 21,
    "num_kv_heads": 7,
    "axes_dim_rope": [40, 40, 40],
    "axes_lens": [1024, 1664, 1664],
    "text_feat_dim": 2048,
    "timestep_scale": 1000.0,
}


def scale_for_eps(model: OmniGen2Transformer2DModel, factors: list[list]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            factor = next((value for part, value in factors if part in name), None)
            if factor is not None:
                parameter.mul_(factor)


@pytest.mark.parametrize(("config", "name"), CASES)
def test_velocity_equals_the_recording(config: str, name: str):
    case, model = golden_case(config, name), golden_model(config)
    if name == "eps_sensitive":
        scale_for_eps(model, case.info["factors"])
    with torch.inference_mode():
        outputs = model(**case.arguments()).sample
    expected = case.recorded("out")
    assert isinstance(outputs, torch.Tensor) == (case.info["hidden_form"] == "tensor")
    assert len(outputs) == len(expected)
    for output, recorded in zip(outputs, expected, strict=True):
        assert relative_error(output, recorded) <= TOLERANCE


@pytest.mark.parametrize(("config", "name"), [c for c in CASES if "mid.temb" in golden_case(*c).tensors])
def test_every_recorded_stage_equals_the_recording(config: str, name: str):
    case, model = golden_case(config, name), golden_model(config)
    stages = {
        "temb": model.time_caption_embed.timestep_embedder,
        "text_embed": model.time_caption_embed.caption_embedder,
        "text_refined": model.context_refiner[-1],
        "noise_embed": model.x_embedder,
        "noise_refined": model.noise_refiner[-1],
        "ref_embed": model.ref_image_patch_embedder,
        "ref_refined": model.ref_image_refiner[-1],
        "head": model.norm_out.linear_2,
        **{f"layer.{k}": layer for k, layer in enumerate(model.layers)},
    }
    seen: dict[str, list[torch.Tensor]] = {stage: [] for stage in [*stages, "joint_in"]}
    for stage, module in stages.items():
        module.register_forward_hook(lambda _m, _i, out, stage=stage: seen[stage].append(out))
    model.layers[0].register_forward_pre_hook(lambda _m, args: seen["joint_in"].append(args[0]))
    with torch.inference_mode():
        model(**case.arguments())
    packed = {stage: torch.cat(parts) for stage, parts in seen.items() if parts}
    for stage, expected in recorded_rows(case, len(model.layers)).items():
        if len(expected):
            assert relative_error(packed[stage], expected) <= TOLERANCE, stage


def recorded_rows(case, num_layers: int) -> dict[str, torch.Tensor]:
    """The valid rows of the padded recordings, in packed order."""
    texts = [sample["text_len"] for sample in case.samples]
    targets = [math.prod(sample["target_hw"]) // 4 for sample in case.samples]
    references = [[math.prod(hw) // 4 for hw in sample["refs_hw"] or []] for sample in case.samples]
    joints = [t + sum(r) + n for t, r, n in zip(texts, references, targets, strict=True)]
    tensors = {name[4:]: tensor for name, tensor in case.tensors.items() if name.startswith("mid.")}
    counts = {
        "text_embed": texts,
        "text_refined": texts,
        "noise_embed": targets,
        "noise_refined": targets,
        "ref_embed": [sum(r) for r in references],
        "ref_refined": [n for r in references for n in r or [0]],
        "joint_in": joints,
        **{f"layer.{k}": joints for k in range(num_layers - 1)},
    }
    rows = {
        stage: torch.cat([row[:n] for row, n in zip(tensors[stage], lengths, strict=False)])
        for stage, lengths in counts.items()
    }
    spans = list(zip(joints, targets, strict=True))
    for stage in (f"layer.{num_layers - 1}", "head"):
        rows[stage] = torch.cat([row[s - n : s] for row, (s, n) in zip(tensors[stage], spans, strict=True)])
    return {"temb": tensors["temb"], **rows}


@pytest.mark.parametrize("with_references", [False, True])
def test_velocity_equals_the_published_example_values(with_references: bool):
    model = OmniGen2Transformer2DModel(
        in_channels=4,
        hidden_size=72,
        num_layers=3,
        num_refiner_layers=2,
        num_attention_heads=6,
        num_kv_heads=2,
        multiple_of=32,
        axes_dim_rope=(4, 4, 4),
        text_feat_dim=20,
        timestep_scale=1000.0,
    )
    state = {}
    for n, (name, parameter) in enumerate(sorted(model.state_dict().items())):
        values = 0.15 * torch.sin(0.37 * torch.arange(parameter.numel(), dtype=torch.float64) + n)
        centre = 1.0 if parameter.ndim == 1 and not name.endswith("bias") else 0.0
        state[name] = (values + centre).float().view_as(parameter)
    model.load_state_dict(state)
    assert len(state) == 147
    assert sum(p.numel() for p in model.parameters()) == 868_788

    def wave(function, rate: float, *shape: int) -> torch.Tensor:
        return function(rate * torch.arange(math.prod(shape), dtype=torch.float64)).float().view(shape)

    references = (
        [[wave(torch.cos, 0.07, 4, 4, 10), wave(torch.cos, 0.13, 4, 6, 2)]] if with_references else None
    )
    with torch.inference_mode():
        out = model(
            wave(torch.sin, 0.11, 1, 4, 8, 12),
            torch.tensor([0.3]),
            wave(torch.sin, 0.05, 1, 5, 20),
            torch.ones(1, 5),
            references,
        ).sample[0]
    without = ([0.38720, 0.07393, 0.34546, -0.00632, 0.20413, -0.22924], 0.094321, 1.570676, 0.10820, 1.53612)
    with_two = (
        [0.36944, 0.05470, 0.32855, -0.02068, 0.17344, -0.25171],
        0.088106,
        1.474712,
        0.13658,
        1.42859,
    )
    first, mean, mean_abs, late, early = with_two if with_references else without
    actual = [*out.flatten()[:6].tolist(), out.mean(), out.abs().mean(), out[3, 7, 11], out[1, 2, 5]]
    assert [float(x) for x in actual] == pytest.approx([*first, mean, mean_abs, late, early], abs=1e-4)


def test_time_sinusoid_puts_cosines_first():
    from og2.model.blocks import time_sinusoid

    sinusoid = time_sinusoid(torch.tensor([0.3]), 1000.0)[0]
    expected = [-0.022097, -0.908918, -0.571130, 0.999480, -0.999756, 0.416976, 0.032233]
    assert sinusoid[[0, 1, 2, 127, 128, 129, 255]].tolist() == pytest.approx(expected, abs=2e-4)


def test_published_configuration_has_the_published_tensors():
    with torch.device("meta"):
        model = OmniGen2Transformer2DModel.from_config(PUBLISHED)
    assert len(model.state_dict()) == 582
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_967_161_400
    assert not list(model.buffers())


@pytest.mark.parametrize("config", ["A", "B", "C"])
def test_tensor_names_and_shapes_are_the_recorded_ones(config: str):
    info = meta(config)
    with torch.device("meta"):
        model = OmniGen2Transformer2DModel.from_config(info["config"])
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == {
        name: entry["shape"] for name, entry in info["weight_table"].items()
    }


def test_what_the_text_mask_leaves_out_does_not_matter():
    case, model = golden_case("A", "t2i_b2_textpad"), golden_model("A")
    arguments = case.arguments()
    text, mask = arguments["text_hidden_states"], arguments["text_attention_mask"].bool()
    with torch.inference_mode():
        outputs = []
        for garbage in (0.0, 1e30, float("nan")):
            arguments["text_hidden_states"] = torch.where(mask[..., None], text, torch.tensor(garbage))
            outputs.append(model(**arguments).sample)
    assert all(torch.equal(a, b) for a, b in pairwise(outputs))
