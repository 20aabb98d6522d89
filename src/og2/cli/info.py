"""`og2 info`: what a model is, from its configs and file headers; no weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from og2 import footprint
from og2.cli.loading import model_folder
from og2.errors import CheckpointError


def info(given: dict[str, Any]) -> None:
    """Prints what the model is, as text or as one JSON object."""
    model = given.get("model") or "mini"
    report = describe_model(model)
    report["presets"] = _presets(Path(report["folder"]))
    if given.get("json"):
        print(json.dumps(report))
    else:
        print("\n".join(_lines(report)))


def config_of(folder: Path, part: str) -> dict[str, Any]:
    """The config.json of one network; CheckpointError if it is missing or not JSON."""
    from og2.model.checkpoint_files import read_json

    return read_json(folder / part / "config.json")


def describe_model(model: str) -> dict[str, Any]:
    """Name, folder and, for each network, parameters, stored dtypes, bytes on disk and main sizes."""
    folder = model_folder(model)
    if folder is None:
        raise CheckpointError(f"{model} is not downloaded yet; a first og2 generate --model {model} does it")
    networks: dict[str, Any] = {}
    for part in footprint.NETWORKS:
        config = config_of(folder, part)
        found = footprint.tensors(folder / part)
        text = config.get("text_config", config)
        names = (
            "hidden_size",
            "num_layers",
            "num_hidden_layers",
            "num_attention_heads",
            "num_kv_heads",
            "num_key_value_heads",
            "latent_channels",
            "block_out_channels",
            "vocab_size",
        )
        networks[part] = {
            "parameters": footprint.num_parameters(found),
            "tensors": len(found),
            "dtypes": sorted({dtype for dtype, _ in found.values()}),
            "bytes": sum(file.stat().st_size for file in (folder / part).glob("*.safetensors")),
            "sizes": {name: text[name] for name in names if name in text},
        }
    return {"model": model, "folder": str(folder), "networks": networks}


def _presets(folder: Path) -> dict[str, Any]:
    """Every preset with the model's own values."""
    from dataclasses import asdict

    from og2.presets import PRESETS, read_profile

    profile = read_profile(folder)
    return {name: asdict(profile.preset(name)) for name in PRESETS}


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['model']}" + ("" if report["model"] == report["folder"] else f" in {report['folder']}")
    for part, network in report["networks"].items():
        sizes = ", ".join(f"{name} {value}" for name, value in network["sizes"].items())
        yield (
            f"  {part:<12} {network['parameters'] / 1e6:10.2f} M parameters, {network['bytes'] / 1e6:.1f} MB "
            f"as {', '.join(network['dtypes'])}; {sizes}"
        )
    yield ""
    yield f"{'preset':<17} steps  text  image  guided     scheduler    else"
    for name, preset in report["presets"].items():
        start, end = preset["cfg_range"]
        solver = preset["scheduler"]
        yield (
            f"{name:<17} {preset['num_inference_steps']:5d} {preset['text_guidance_scale']:5.1f} "
            f"{preset['image_guidance_scale']:6.1f}  {start:g} to {end:<4g}  {solver:<11}  {_else(preset)}"
        )


def _else(preset: dict[str, Any]) -> str:
    """What a preset sets beside the columns of the table."""
    parts = []
    if preset["height"]:
        parts.append(f"{preset['width']}x{preset['height']}")
    if not preset["align_res"]:
        parts.append("own size")
    if preset["time_shift"]:
        parts.append(f"time shift {preset['time_shift']:g}")
    if preset["negative_prompt"]:
        parts.append("the long negative prompt")
    return ", ".join(parts)
