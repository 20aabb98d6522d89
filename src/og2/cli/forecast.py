"""`--dry-run`: what a request would do and cost, from plan, configs and tokenizer; no weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from og2 import footprint
from og2.cli.info import config_of
from og2.cli.loading import dtype_name, model_folder
from og2.conditioning.templates import render_prompt
from og2.request import Plan, Request

# The published transformer and VAE, for a hub id that is not downloaded.
PUBLISHED_CONFIG = {
    "hidden_size": 2520,
    "num_layers": 32,
    "num_refiner_layers": 2,
    "num_attention_heads": 21,
    "num_kv_heads": 7,
    "text_feat_dim": 2048,
    "in_channels": 16,
    "patch_size": 2,
    "multiple_of": 256,
}
PUBLISHED_VAE_WIDTH = 128
WORDS_TO_TOKENS = 1.4


def forecast(planned: Plan, files: Sequence[Path], decided: Mapping[str, Any]) -> None:
    """Prints the plan, as text or as one JSON object."""
    report = report_of(planned, files, decided)
    if decided.get("json"):
        print(json.dumps(report))
        return
    for name, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list):
            value = "; ".join(str(item) for item in value)
        if value != "":
            print(f"{name.replace('_', ' '):<16} {value}")


def report_of(planned: Plan, files: Sequence[Path], decided: Mapping[str, Any]) -> dict[str, Any]:
    """The plan as plain values: files, seeds, sizes (width x height), tokens, branches, evaluations, cost."""
    folder = model_folder(decided.get("model"))
    config = config_of(folder, "transformer") if folder else PUBLISHED_CONFIG
    shape = footprint.Shape.from_config(config)
    prompt, negative = planned.request.prompt, planned.request.negative_prompt or ""
    tokens = {"prompt": count_tokens(prompt, folder)}
    if planned.num_steps_with("uncond"):
        tokens["negative"] = count_tokens(negative, folder)
    branches = [
        footprint.Branch(
            tokens["prompt" if name == "cond" else "negative"],
            () if name == "uncond" else planned.reference_tokens,
            planned.target_tokens,
            planned.num_steps_with(name),
        )
        for name in ("cond", "ref", "uncond")
        if planned.num_steps_with(name)
    ]
    flops = footprint.request_flops(shape, branches) * len(files)
    notes = list(planned.notes)
    if folder is None:
        notes.append("the model is not downloaded: the published sizes are assumed, and tokens are estimated")
    return {
        "model": decided.get("model") or "mini",
        "files": [str(file) for file in files],
        "seeds": list(planned.seeds),
        "size": _wh(planned.output_size),
        "drawn_at": _wh(planned.size),
        "references": [_wh(size) for size in planned.reference_sizes],
        "settings": _settings(planned.request),
        "tokens": {**tokens, "picture": planned.target_tokens, "references": sum(planned.reference_tokens)},
        "steps": planned.num_steps,
        "branches": {name: planned.num_steps_with(name) for name in ("cond", "ref", "uncond")},
        "evaluations": planned.num_evaluations * len(files),
        "transformer_tflop": round(flops / 1e12, 3),
        "memory_gb": _memory(folder, shape, branches, planned, decided),
        "notes": notes,
    }


def count_tokens(prompt: str, folder: Path | None) -> int:
    """Tokens of a prompt inside its template; by words where there is no tokenizer."""
    text = render_prompt(prompt)
    path = folder / "processor" / "tokenizer.json" if folder else None
    if path is None or not path.is_file():
        return round(WORDS_TO_TOKENS * len(text.replace("<|", " <|").split()))
    from tokenizers import Tokenizer

    return len(Tokenizer.from_file(str(path)).encode(text, add_special_tokens=False).ids)


def _memory(
    folder: Path | None,
    shape: footprint.Shape,
    branches: Sequence[footprint.Branch],
    planned: Plan,
    decided: Mapping[str, Any],
) -> dict[str, float]:
    """Weights and working memory in GB, in the dtype asked for (fp32 for mini and bf16 otherwise)."""
    is_mini = decided.get("model") in (None, "mini")
    dtype = dtype_name(decided.get("dtype")) or ("float32" if is_mini else "bfloat16")
    sizes = footprint.PUBLISHED
    vae_width = PUBLISHED_VAE_WIDTH
    if folder is not None:
        sizes = {
            part: footprint.num_parameters(footprint.tensors(folder / part)) for part in footprint.NETWORKS
        }
        vae_width = int(config_of(folder, "vae").get("block_out_channels", [vae_width])[0])
    weights = sum(sizes.values()) * footprint.BYTES[dtype] / footprint.GB
    pixels = planned.size[0] * planned.size[1]
    working = footprint.working_gb(shape, branches, dtype, pixels, vae_width)
    return {
        "weights": round(weights, 3),
        "working_about": round(working, 3),
        "all_about": round(weights + working, 2),
    }


def _settings(request: Request) -> dict[str, Any]:
    hidden = {"prompt", "input_images", "height", "width", "num_inference_steps"}
    return {
        key: value
        for key, value in request.options().items()
        if value not in (None, "") and key not in hidden
    }


def _wh(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
