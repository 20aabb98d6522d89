"""bfloat16: bit-equal to the official implementation where the arithmetic is the same."""

from __future__ import annotations

import pytest
import torch
from recorded import Case, golden_case, golden_model, relative_error
from torch import Tensor
from torch.nn import functional

from og2.model import blocks
from og2.model.transformer import OmniGen2Transformer2DModel, Sequence

# Samples that the official implementation ran without padding: alone, or as the longest of its batch.
UNPADDED = [
    ("A", "t2i_b1", 0),
    ("A", "edit_b1_ref1", 0),
    ("B", "edit_b2_ref1_2", 0),
    ("C", "edit_b1_ref2", 0),
]
PADDED = [("B", "edit_b2_ref1_2", 1)]
# The recording was made with the bfloat16 products of this instruction set; others add up in another order.
SAME_PRODUCTS = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def velocity_of(model: OmniGen2Transformer2DModel, case: Case, index: int, numerics: str) -> Tensor:
    arguments, sample = case.arguments(torch.bfloat16), case.samples[index]
    references = arguments["ref_image_hidden_states"][index] if sample["refs_hw"] else []
    text = arguments["text_hidden_states"][index, : sample["text_len"]]
    sequence = Sequence(0, tuple(range(len(references))), 0)
    with torch.inference_mode():
        prepared = model.prepare(
            [text], references, [tuple(sample["target_hw"])], [sequence], numerics=numerics
        )
        t = arguments["timestep"][index : index + 1]
        return model.velocity([arguments["hidden_states"][index]], t, prepared)[0]


@pytest.mark.parametrize(("config", "name", "index"), UNPADDED)
def test_official_numerics_give_the_recorded_bits(config: str, name: str, index: int):
    case, model = golden_case(config, name), golden_model(config, torch.bfloat16)
    output, recorded = velocity_of(model, case, index, "official"), case.recorded("out_bf16")[index]
    assert output.dtype == torch.bfloat16
    if SAME_PRODUCTS:
        assert torch.equal(output, recorded)
    assert relative_error(output, recorded) <= 0.03


@pytest.mark.parametrize(("config", "name", "index"), UNPADDED + PADDED)
@pytest.mark.parametrize("numerics", ["native", "official"])
def test_bfloat16_is_as_close_to_float32_as_the_official_one(
    config: str, name: str, index: int, numerics: str
):
    case, model = golden_case(config, name), golden_model(config, torch.bfloat16)
    exact = case.recorded("out_fp32_tbf16")[index].double()
    ours = (velocity_of(model, case, index, numerics).double() - exact).norm()
    official = (case.recorded("out_bf16")[index].double() - exact).norm()
    assert ours <= 1.25 * official


def test_padding_explains_the_bits_of_a_padded_sample(monkeypatch):
    # The shorter sample of this batch was padded: text 7 to 12, references 6 to 16, all 35 to 44 tokens.
    padded_to = {7: 12, 6: 16, 35: 44}

    def padded_attention(
        q_NHE: Tensor, k_SKE: Tensor, v_SKE: Tensor, asking: tuple, lengths: tuple
    ) -> Tensor:
        parts = zip(q_NHE.split(asking), k_SKE.split(lengths), v_SKE.split(lengths), strict=True)
        return torch.cat([attend_padded(q, k, v, padded_to.get(len(k), len(k))) for q, k, v in parts])

    monkeypatch.setattr(blocks, "packed_attention", padded_attention)
    (config, name, index) = PADDED[0]
    case, model = golden_case(config, name), golden_model(config, torch.bfloat16)
    output, recorded = velocity_of(model, case, index, "official"), case.recorded("out_bf16")[index]
    if SAME_PRODUCTS:
        assert torch.equal(output, recorded)
    assert relative_error(output, recorded) <= 0.03


def attend_padded(q_NHE: Tensor, k_SKE: Tensor, v_SKE: Tensor, length: int) -> Tensor:
    """Attention with a key mask in a row of that length; the queries are the last of the valid part."""
    num_keys, num_queries, group = len(k_SKE), len(q_NHE), q_NHE.shape[1] // k_SKE.shape[1]

    def row(x: Tensor, start: int) -> Tensor:
        padded = x.new_ones(length, *x.shape[1:])
        padded[start : start + len(x)] = x
        return padded.transpose(0, 1)[None]

    q = row(q_NHE, num_keys - num_queries)
    k, v = (row(x.repeat_interleave(group, dim=1), 0) for x in (k_SKE, v_SKE))
    mask = (torch.arange(length) < num_keys)[None, None, None]
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out[0].transpose(0, 1)[num_keys - num_queries : num_keys]
