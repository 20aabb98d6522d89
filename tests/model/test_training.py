"""The transformer as something to train, adapt, save and load."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from recorded import relative_error
from small import CHANNELS, TEXT_WIDTH, random_sample, small_model, velocities

from og2.errors import ConfigError
from og2.model.transformer import OmniGen2Transformer2DModel


def two_samples():
    generator = torch.Generator().manual_seed(0)
    return [random_sample(generator, 4, [(4, 4)], (4, 6)), random_sample(generator, 3, [], (2, 4))]


def test_fresh_model_predicts_exactly_zero():
    model = OmniGen2Transformer2DModel(**{**dict(small_model().config), "num_layers": 3})
    assert all(v.abs().max() == 0 for v in velocities(model, two_samples()))


def test_fresh_weights_have_the_published_statistics():
    model = OmniGen2Transformer2DModel(
        hidden_size=384, num_layers=1, num_attention_heads=4, num_kv_heads=2, text_feat_dim=256,
        axes_dim_rope=(32, 32, 32), in_channels=16,
    )  # fmt: skip
    state = model.state_dict()
    for name in ("layers.0.attn.to_k.weight", "layers.0.feed_forward.linear_1.weight", "x_embedder.weight"):
        bound = math.sqrt(6 / sum(state[name].shape))
        assert bound * 0.98 < state[name].abs().max() <= bound
        assert state[name].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    for name in ("time_caption_embed.timestep_embedder.linear_1.weight", "image_index_embedding"):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.1)
    assert state["time_caption_embed.caption_embedder.1.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    zero = ("norm1.linear.weight", "norm_out.linear_1.weight", "norm_out.linear_2.weight", "bias")
    one = (
        "norm2.weight",
        "norm1.norm.weight",
        "norm1.weight",
        "norm_q.weight",
        "ffn_norm1.weight",
        "embedder.0.weight",
    )
    for name, tensor in state.items():
        if name.endswith(zero):
            assert tensor.abs().max() == 0, name
        if name.endswith(one):
            assert (tensor == 1).all(), name


def test_gradient_checkpointing_changes_no_gradient():
    model = small_model().train()

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        sum(v.square().sum() for v in velocities(model, two_samples())).backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    model.enable_gradient_checkpointing()
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))


def test_lora_trains_through_peft_and_starts_without_effect():
    model = small_model()
    before = velocities(model, two_samples())
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    model.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights="gaussian"))
    after = velocities(model, two_samples())
    assert all(relative_error(a, b) <= 1e-6 for a, b in zip(after, before, strict=True))
    adapters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(adapters) == (2 + 3) * 4 * 2
    sum(v.square().sum() for v in after).backward()
    assert all(p.grad is not None for p in adapters.values())


def test_saved_model_loads_and_computes_the_same(tmp_path: Path):
    model = small_model()
    model.save_pretrained(tmp_path)
    loaded = OmniGen2Transformer2DModel.from_pretrained(tmp_path)
    again = OmniGen2Transformer2DModel.from_config(OmniGen2Transformer2DModel.load_config(tmp_path))
    assert tuple(again.config.axes_dim_rope) == tuple(model.config.axes_dim_rope)
    with torch.inference_mode():
        for a, b in zip(velocities(model, two_samples()), velocities(loaded, two_samples()), strict=True):
            assert torch.equal(a, b)


def test_sizes_that_do_not_fit_are_refused():
    for changes in ({"axes_dim_rope": (4, 4, 6)}, {"num_kv_heads": 3}, {"axes_dim_rope": (3, 5, 4)}):
        with pytest.raises(ConfigError, match=r"multiple|add up"):
            small_model(**changes)


def test_forward_gives_back_the_form_it_was_given():
    model = small_model()
    latents, text, mask = torch.randn(2, CHANNELS, 4, 4), torch.randn(2, 3, TEXT_WIDTH), torch.ones(2, 3)
    with torch.inference_mode():
        stacked = model(latents, torch.tensor([0.2, 0.7]), text, mask).sample
        (listed,) = model(list(latents), torch.tensor([0.2, 0.7]), text, mask, return_dict=False)
        one_time = model(latents, 0.2, text, mask).sample
    assert torch.equal(stacked, torch.stack(listed))
    assert relative_error(one_time[0], stacked[0]) <= 1e-5
