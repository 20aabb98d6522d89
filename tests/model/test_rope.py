"""Omni-RoPE against recordings of the official implementation."""

from __future__ import annotations

import json

import pytest
import torch
from recorded import GOLDEN
from safetensors.torch import load_file

from og2.model.rope import rotary_table, rotate, sequence_ids

INFO = json.loads((GOLDEN / "rope" / "meta.json").read_text())
TENSORS = load_file(GOLDEN / "rope" / "rope.safetensors")


def ids_of(sample: dict, patch: int) -> list[torch.Tensor]:
    grids = [(h // patch, w // patch) for h, w in sample["refs_hw"] or []]
    height, width = sample["target_hw"]
    return sequence_ids(sample["text_len"], grids, (height // patch, width // patch))


@pytest.mark.parametrize("name", sorted(INFO))
def test_position_ids_are_equal_and_angles_within_1e_6(name: str):
    info = INFO[name]
    rows = TENSORS[f"{name}.rows"].long()
    for index, sample in enumerate(info["samples"]):
        ids = torch.cat(ids_of(sample, info["patch_size"]))
        length = info["seq_lengths"][index]
        assert torch.equal(ids, TENSORS[f"{name}.position_ids"][index, :length].to(ids.dtype))
        table = rotary_table(ids, tuple(info["axes_dim"]))
        kept = rows < length
        torch.testing.assert_close(
            table.cos[rows[kept]], TENSORS[f"{name}.cos"][index][kept].float(), atol=1e-6, rtol=0
        )
        torch.testing.assert_close(
            table.sin[rows[kept]], TENSORS[f"{name}.sin"][index][kept].float(), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("name", sorted(INFO))
def test_parts_of_a_sequence_have_the_recorded_angles(name: str):
    info = INFO[name]
    for index, sample in enumerate(info["samples"]):
        text, *references, target = ids_of(sample, info["patch_size"])
        parts = {"cap": text, "img": target, "ref": torch.cat([text[:0], *references])}
        for part, ids in parts.items():
            table = rotary_table(ids, tuple(info["axes_dim"]))
            recorded = TENSORS[f"{name}.{part}_cos"][index, : len(ids)].float()
            torch.testing.assert_close(table.cos, recorded, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(INFO))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotation_equals_the_recording(name: str, dtype: torch.dtype):
    info = INFO[name]
    rows = TENSORS[f"{name}.rows"].long()
    for index, sample in enumerate(info["samples"]):
        table = rotary_table(torch.cat(ids_of(sample, info["patch_size"])), tuple(info["axes_dim"]), dtype)
        kept = rows < info["seq_lengths"][index]
        turned = rotate(TENSORS[f"{name}.x"][index][kept], table.take(rows[kept]))
        torch.testing.assert_close(turned, TENSORS[f"{name}.x_rotated"][index][kept], atol=2e-6, rtol=0)


def test_ids_beyond_the_published_table_are_fine():
    table = rotary_table(torch.tensor([[5000, 3000, 2000]]), (40, 40, 40))
    assert table.cos.isfinite().all()
    assert table.cos.shape == (1, 60)
