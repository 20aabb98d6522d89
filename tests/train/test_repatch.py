"""Finer patches start from what coarse ones have learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from og2.data.latents import PoolConfig
from og2.data.pool_packs import PoolDataConfig
from og2.errors import ConfigError
from og2.model.packing import patchify
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.train.flow import FlowEvalConfig, FlowModelConfig, FlowRecipe, make_transformer
from og2.train.loop import RunConfig
from og2.train.optim import OptimConfig

SIZES = FlowModelConfig(
    in_channels=3,
    hidden_size=24,
    num_layers=1,
    num_attention_heads=2,
    multiple_of=8,
    axes_dim_rope=(4, 4, 4),
    text_feat_dim=8,
)


@pytest.fixture
def coarse(tmp_path: Path) -> Path:
    """The folder of a transformer with patches of two and weights that say something everywhere."""
    torch.manual_seed(0)
    model = OmniGen2Transformer2DModel(**vars(SIZES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "coarse")
    return tmp_path / "coarse"


def test_a_fine_patch_is_embedded_as_the_coarse_patch_that_repeats_it(coarse: Path) -> None:
    old = OmniGen2Transformer2DModel.from_pretrained(coarse)
    new = make_transformer(FlowModelConfig(**{**vars(SIZES), "patch_size": 1}), coarse)
    cell = torch.randn(3, 1, 1)
    for name in ("x_embedder", "ref_image_patch_embedder"):
        expected = getattr(old, name)(patchify(cell.expand(3, 2, 2), 2))
        torch.testing.assert_close(getattr(new, name)(patchify(cell, 1)), expected)


def test_a_fine_patch_moves_as_the_mean_over_the_parts_of_a_coarse_one(coarse: Path) -> None:
    old = OmniGen2Transformer2DModel.from_pretrained(coarse).norm_out.linear_2
    new = make_transformer(FlowModelConfig(**{**vars(SIZES), "patch_size": 1}), coarse).norm_out.linear_2
    state = torch.randn(1, 24)
    torch.testing.assert_close(new(state), old(state).unflatten(1, (4, 3)).mean(1))


def test_all_other_weights_are_taken_over(coarse: Path) -> None:
    old = OmniGen2Transformer2DModel.from_pretrained(coarse).state_dict()
    new = make_transformer(FlowModelConfig(**{**vars(SIZES), "patch_size": 1}), coarse).state_dict()
    changed = {name for name, value in new.items() if not torch.equal(value, old[name])}
    assert changed == {
        "x_embedder.weight",
        "ref_image_patch_embedder.weight",
        "norm_out.linear_2.weight",
        "norm_out.linear_2.bias",
    }


@pytest.mark.parametrize(
    ("change", "said"), [({"patch_size": 3}, "patch_size=3"), ({"num_layers": 2}, "model.num_layers=2")]
)
def test_weights_of_another_size_are_refused(coarse: Path, change: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_transformer(FlowModelConfig(**{**vars(SIZES), **change}), coarse)


def test_a_body_is_all_but_what_reads_and_writes_latents(coarse: Path) -> None:
    trained = OmniGen2Transformer2DModel.from_pretrained(coarse).state_dict()
    torch.manual_seed(1)
    sizes = FlowModelConfig(**{**vars(SIZES), "patch_size": 4, "in_channels": 5})
    new = make_transformer(sizes, start_body=coarse)
    other = {
        name
        for name, value in new.state_dict().items()
        if value.shape != trained[name].shape or not torch.equal(value, trained[name])
    }
    assert other == {
        f"{layer}.{kind}"
        for layer in ("x_embedder", "ref_image_patch_embedder", "norm_out.linear_2")
        for kind in ("weight", "bias")
    }
    assert new.patch_size == 4
    assert new.in_channels == 5


def test_a_body_of_another_width_is_refused(coarse: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.num_layers=2, but the weights in .* have 1"):
        make_transformer(FlowModelConfig(**{**vars(SIZES), "num_layers": 2}), start_body=coarse)


def test_weights_and_a_body_to_begin_from_are_not_both_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start and start_body"):
        FlowRecipe(
            run=RunConfig(tmp_path),
            optim=OptimConfig(lr=1e-3),
            data=PoolDataConfig(tmp_path, PoolConfig()),
            evaluation=FlowEvalConfig(tmp_path, tmp_path, tmp_path),
            start=tmp_path,
            start_body=tmp_path,
        )
