"""`--dry-run`: what a request would do and cost, from plan, configs and tokenizer; no weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from og2 import footprint
from og2.cli.info import config_of
from og2.cli.loading import best_device, chosen_dtype, device_kind, model_folder
from og2.conditioning.templates import render_prompt
from og2.errors import CheckpointError
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
    other = _other_transformer(decided)
    shape = footprint.Shape.from_config(_transformer_config(folder, other))
    device = decided.get("device", "auto")
    dtype = chosen_dtype(decided, device_kind(best_device() if device == "auto" else device))
    tokenizer = _tokenizer_file(folder)
    prompt, negative = planned.request.prompt, planned.request.negative_prompt or ""
    tokens = {"prompt": count_tokens(prompt, tokenizer)}
    if planned.num_steps_with("uncond"):
        tokens["negative"] = count_tokens(negative, tokenizer)
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
    pixels, vae_width = planned.size[0] * planned.size[1], _vae_width(folder)
    weights = sum(_sizes(folder, other).values()) * footprint.BYTES[dtype] / footprint.GB
    working = footprint.working_gb(shape, branches, dtype, pixels, vae_width)
    notes = list(planned.notes)
    if folder is None:
        notes.append("the model is not downloaded: the published sizes are assumed, and tokens are estimated")
    elif tokenizer is None:
        notes.append("the model has no tokenizer.json: tokens are estimated from the words")
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
        "dtype": dtype,
        "memory_gb": _memory(weights, working),
        "notes": notes,
    }


def count_tokens(prompt: str, tokenizer: Path | None) -> int:
    """Tokens of a prompt inside its template, by a tokenizer.json; by words where there is none."""
    text = render_prompt(prompt)
    if tokenizer is None:
        return round(WORDS_TO_TOKENS * len(text.replace("<|", " <|").split()))
    from tokenizers import Tokenizer

    return len(Tokenizer.from_file(str(tokenizer)).encode(text, add_special_tokens=False).ids)


def _tokenizer_file(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    files = (folder / name / "tokenizer.json" for name in ("processor", "mllm_processor"))
    return next((file for file in files if file.is_file()), None)


def _other_transformer(decided: Mapping[str, Any]) -> Path | None:
    """The file or folder of the transformer that takes the place of the model's own.

    Raises: CheckpointError if it is not there.
    """
    if "transformer_path" not in decided:
        return None
    place = Path(decided["transformer_path"]).expanduser()
    if not place.exists():
        raise CheckpointError(f"there is no transformer at {place}; give a folder or a .safetensors file")
    return place / "transformer" if (place / "transformer").is_dir() else place


def _transformer_config(folder: Path | None, other: Path | None) -> dict[str, Any]:
    """The transformer's config; a single file has none, and takes the model's or the published one."""
    if other is not None and other.is_dir():
        return config_of(other.parent, other.name)
    is_here = folder is not None and (folder / "transformer" / "config.json").is_file()
    if folder is None or (other is not None and not is_here):
        return PUBLISHED_CONFIG
    return config_of(folder, "transformer")


def _sizes(folder: Path | None, other: Path | None) -> dict[str, int]:
    """Parameters of each network."""
    places = {} if folder is None else {part: folder / part for part in footprint.NETWORKS}
    if other is not None:
        places["transformer"] = other
    found = {part: footprint.num_parameters(footprint.tensors(place)) for part, place in places.items()}
    return {**footprint.PUBLISHED, **found}


def _vae_width(folder: Path | None) -> int:
    widths = config_of(folder, "vae").get("block_out_channels") if folder else None
    return int(widths[0]) if widths else PUBLISHED_VAE_WIDTH


def _memory(weights: float, working: float) -> dict[str, float]:
    """Weights and working memory in GB."""
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
