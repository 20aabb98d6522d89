"""What a model and a request cost: parameters, matrix FLOPs and memory, from configs and file headers alone.

No weights are loaded. FLOPs count two per multiply-add and each thing once, as the engine computes it: texts
once per request, the refiners of pictures once per step, the layers once per guidance branch. Memory is an
estimate: the weights are exact, the working memory is a rule of thumb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from og2.errors import CheckpointError

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
NETWORKS = ("transformer", "mllm", "vae")
PUBLISHED = {"transformer": 3_967_161_400, "mllm": 3_754_622_976, "vae": 83_819_683}
GB = 1e9


@dataclass(frozen=True)
class Branch:
    """One guidance branch of one picture: its text and references in tokens, and the steps it runs."""

    text_tokens: int
    reference_tokens: tuple[int, ...]
    target_tokens: int
    num_steps: int


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer that its cost depends on."""

    width: int
    layers: int
    refiner_layers: int
    kv_width: int
    feed_forward: int
    text_width: int
    patch_values: int
    patch_size: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        """Read from the published config names; KeyError-free: a missing name is a CheckpointError."""
        try:
            width = int(config["hidden_size"])
            multiple = int(config.get("multiple_of") or 256)
            inner = (
                4 * width
                if config.get("ffn_dim_multiplier") is None
                else int(config["ffn_dim_multiplier"] * 4 * width)
            )
            patch = int(config.get("patch_size", 2))
            return cls(
                width=width,
                layers=int(config["num_layers"]),
                refiner_layers=int(config["num_refiner_layers"]),
                kv_width=width // int(config["num_attention_heads"]) * int(config["num_kv_heads"]),
                feed_forward=multiple * -(-inner // multiple),
                text_width=int(config["text_feat_dim"]),
                patch_values=patch * patch * int(config["in_channels"]),
                patch_size=patch,
            )
        except KeyError as error:
            raise CheckpointError(
                f"the transformer's config.json has no {error}; is it an OmniGen2 transformer?"
            ) from error

    def block_flops(self, tokens: int) -> float:
        """FLOPs of one block on one sequence of `tokens`."""
        linear = 4 * self.width**2 + 4 * self.width * self.kv_width + 6 * self.width * self.feed_forward
        return float(linear * tokens + 4 * self.width * tokens**2)


def request_flops(shape: Shape, branches: Sequence[Branch]) -> float:
    """FLOPs of the transformer for one picture: its branches, each with its own number of steps."""
    if not branches:
        return 0.0
    total = 0.0
    for tokens in {branch.text_tokens for branch in branches}:
        total += (
            shape.refiner_layers * shape.block_flops(tokens) + 2 * shape.text_width * shape.width * tokens
        )
    images = [max(branches, key=lambda branch: branch.num_steps).target_tokens]
    steps = max(branch.num_steps for branch in branches)
    references = max((branch.reference_tokens for branch in branches), key=len)
    for tokens in (*images, *references):
        total += steps * shape.refiner_layers * shape.block_flops(tokens)
        total += 2 * shape.patch_values * shape.width * tokens * (steps if tokens in images else 1)
    for branch in branches:
        joint = branch.text_tokens + sum(branch.reference_tokens) + branch.target_tokens
        out = 2 * shape.width * shape.patch_values * branch.target_tokens
        total += branch.num_steps * (shape.layers * shape.block_flops(joint) + out)
    return total


def working_gb(
    shape: Shape, branches: Sequence[Branch], dtype: str, picture_pixels: int, vae_width: int
) -> float:
    """Rule of thumb for the memory a step and the VAE's last layers work in, in GB; the larger of the two."""
    joint = max((b.text_tokens + sum(b.reference_tokens) + b.target_tokens for b in branches), default=0)
    step = joint * (8 * shape.width + 3 * shape.feed_forward) * BYTES[dtype]
    decode = 5 * picture_pixels * 2 * vae_width * BYTES[dtype]
    return max(step, decode) / GB


def tensors(place: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of every tensor in a network's folder or one file, from the headers alone.

    Raises: CheckpointError if there are no weights or a header cannot be read.
    """
    from og2.model.checkpoint_files import find_weights, read_header

    headers = [read_header(path) for path in ([place] if place.is_file() else find_weights(place))]
    return {name: (item.dtype, item.shape) for header in headers for name, item in header.items()}


def num_parameters(found: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """The numbers that the tensors hold together."""
    total = 0
    for _, shape in found.values():
        size = 1
        for side in shape:
            size *= side
        total += size
    return total
