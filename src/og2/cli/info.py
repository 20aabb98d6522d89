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
    report["presets"] = _presets()
    if given.get("json"):
        print(json.dumps(report))
    else:
        print("\n".join(_lines(report)))


def config_of(folder: Path, part: str) -> dict[str, Any]:
    """The config.json of one network; CheckpointError if it is missing or not JSON."""
    path = folder / part / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; give the folder of a complete model") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


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


def _presets() -> dict[str, Any]:
    from dataclasses import asdict, is_dataclass

    from og2.request import PRESETS

    return {
        name: asdict(preset) if is_dataclass(preset) and not isinstance(preset, type) else dict(preset)
        for name, preset in PRESETS.items()
    }


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['model']}: {report['folder']}"
    for part, network in report["networks"].items():
        sizes = ", ".join(f"{name} {value}" for name, value in network["sizes"].items())
        yield (
            f"  {part:<12} {network['parameters'] / 1e6:10.2f} M parameters, {network['bytes'] / 1e6:.1f} MB "
            f"as {', '.join(network['dtypes'])}; {sizes}"
        )
    yield "presets (og2 generate --preset NAME):"
    for name, preset in report["presets"].items():
        settings = ", ".join(f"{key} {value}" for key, value in preset.items() if value is not None)
        yield f"  {name:<12} {settings}"
