"""The recordings of the official transformer under tests/golden, as models, inputs and outputs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from og2.model.transformer import OmniGen2Transformer2DModel

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import recipe  # noqa: E402

CASES = [
    (folder.name, case)
    for folder in sorted((GOLDEN / "transformer").iterdir())
    for case in json.loads((folder / "meta.json").read_text())["cases"]
]


@dataclass(frozen=True)
class Case:
    """One recording: the call's arguments and everything recorded."""

    samples: list[dict[str, Any]]
    info: dict[str, Any]
    tensors: dict[str, Tensor]

    def arguments(self, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        """Arguments of the official call."""
        count = len(self.samples)
        hidden = [self.tensors[f"in.hidden.{i}"].to(dtype) for i in range(count)]
        references = [
            [self.tensors[f"in.ref.{i}.{j}"].to(dtype) for j in range(len(sample["refs_hw"]))]
            if sample["refs_hw"]
            else None
            for i, sample in enumerate(self.samples)
        ]
        return {
            "hidden_states": torch.stack(hidden) if self.info["hidden_form"] == "tensor" else hidden,
            "timestep": self.tensors["in.timestep"].to(dtype),
            "text_hidden_states": self.tensors["in.text"].to(dtype),
            "text_attention_mask": self.tensors["in.text_mask"],
            "ref_image_hidden_states": None if self.info["ref_argument"] == "None" else references,
        }

    def recorded(self, name: str) -> list[Tensor]:
        """The recorded outputs `name.0`, `name.1`, ..."""
        return [
            self.tensors[f"{name}.{i}"] for i in range(len(self.samples)) if f"{name}.{i}" in self.tensors
        ]


def meta(config: str) -> dict[str, Any]:
    return json.loads((GOLDEN / "transformer" / config / "meta.json").read_text())


def golden_case(config: str, case: str) -> Case:
    info = meta(config)["cases"][case]
    return Case(info["samples"], info, load_file(GOLDEN / "transformer" / config / f"{case}.safetensors"))


def golden_model(config: str, dtype: torch.dtype = torch.float32) -> OmniGen2Transformer2DModel:
    info = meta(config)
    model = OmniGen2Transformer2DModel.from_config(info["config"])
    weights = GOLDEN / "transformer" / config / "weights.safetensors"
    if weights.exists():
        state = load_file(weights)
    else:
        state = {
            name: torch.from_numpy(recipe.param(name, entry["shape"], info["seed"]))
            for name, entry in info["weight_table"].items()
        }
    model.load_state_dict(state)
    return model.to(dtype).eval()


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest expected value."""
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()
