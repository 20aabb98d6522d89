"""The recorded runs of the official pipeline, as calls of ours. Shared by the tests of this folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from og2.pipeline import OmniGen2Pipeline

GOLDEN = Path(__file__).parents[1] / "golden" / "pipeline"
MODEL = GOLDEN / "model"
META: dict[str, Any] = json.loads((GOLDEN / "meta.json").read_text())["cases"]
CASES = [name for name in META if not any(word in name for word in ("teacache", "taylorseer", "truncated"))]


@dataclass(frozen=True)
class Case:
    args: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    calls_per_step: list[list[str]]

    def options(self) -> dict[str, Any]:
        """The arguments of our call that repeat the recorded one."""
        args, tensors = self.args, self.tensors
        names = {
            "steps": "num_inference_steps",
            "tg": "text_guidance_scale",
            "ig": "image_guidance_scale",
            "n": "num_images_per_prompt",
            "max_seq": "max_sequence_length",
            "max_side": "max_input_image_side_length",
        }
        kept = ("prompt", "negative_prompt", "height", "width", "max_pixels", "align_res", "cfg_range")
        options = {names.get(k, k): v for k, v in args.items() if k in names or k in kept}
        if args.get("scheduler") == "dpm":
            options["scheduler"] = "dpmsolver++"
        if "images" in args:
            nested = [
                pictures and [to_picture(tensors[f"in.image.{i}.{j}"]) for j in range(len(pictures))]
                for i, pictures in enumerate(args["images"])
            ]
            options["input_images"] = nested if isinstance(args["prompt"], list) else nested[0]
        # The official default limits; ours depend on the model.
        options.setdefault("max_pixels", 1024 * 1024)
        options.setdefault("max_input_image_side_length", 1024)
        options["latents"] = tensors["in.latents"]
        noise = [tensors[key] for key in sorted(tensors) if key.startswith("in.posterior_noise.")]
        options["reference_noise"] = noise or None
        return options


def to_picture(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(np.asarray(pixels))


def case(name: str) -> Case:
    entry = META[name]
    return Case(entry["args"], load_file(GOLDEN / f"{name}.safetensors"), entry["info"]["calls_per_step"])


@cache
def pipeline(dtype: torch.dtype = torch.float32, fuse: bool | None = None) -> OmniGen2Pipeline:
    pipe = OmniGen2Pipeline.from_pretrained(MODEL, dtype=dtype, fuse=fuse)
    pipe.set_progress_bar_config(disable=True)
    return pipe
