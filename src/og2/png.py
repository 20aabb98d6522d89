"""Pictures on disk with the settings that made them, and back: PNG files with two text chunks.

`parameters` is the line that other programs show; `og2` is a JSON object from which the same picture is
made again. Files appear whole or not at all and never replace another one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from og2.conditioning.reading import load_image
from og2.errors import ImageError, RequestError
from og2.request import Provenance, Request, Result, picture_hash

SCHEMA = 1
CHUNK = "og2"
LIBRARIES = ("torch", "transformers", "diffusers", "pillow")
SAMPLERS = {"euler": "Euler", "euler-stochastic": "Euler stochastic", "dpmsolver++": "DPM++ 2M"}
_TUPLES = ("cfg_range", "timesteps")


def write_png(
    path: str | os.PathLike[str], picture: Image.Image, result: Result | None = None, index: int = 0
) -> Path:
    """Writes a picture, with the settings of picture `index` of `result` if one is given; returns its path.

    Raises: RequestError if the file exists. OSError if it cannot be written, with no file left behind;
    a full disk is errno ENOSPC.
    """
    path = Path(path)
    info = PngInfo()
    if result is not None:
        metadata = metadata_of(result, index)
        info.add_text("parameters", parameters_text(metadata))
        info.add_text(CHUNK, json.dumps(metadata, ensure_ascii=True))
    temporary = path.with_name(f".og2-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            picture.save(file, format="PNG", pnginfo=info)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, path)
    except OSError as error:
        if error.filename is None or error.filename == str(temporary):
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def metadata_of(result: Result, index: int = 0) -> dict[str, Any]:
    """Everything that picture `index` of a result was made with, as plain values; alone it is made again."""
    plan, seed = result.plan_of(index), result.seeds[index]
    chosen = replace(plan.request, num_images_per_prompt=1, seed=seed, input_images=())
    chosen = replace(chosen, made_by=None, made_in=None)
    if chosen.align_res and len(plan.reference_sizes) == 1:
        chosen = replace(chosen, height=None, width=None)
    provenance = plan.provenance
    return {
        "schema": SCHEMA,
        "version": _version("og2"),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "model": {"name": plan.profile.name, "hash": plan.profile.model_hash},
        "dtype": provenance.dtype,
        "device": provenance.device,
        "blocks": provenance.blocks,
        "pack": provenance.pack,
        "given": list(provenance.given),
        "request": {key: value for key, value in chosen.options().items() if key != "input_images"},
        "references": [
            {"name": _portable(name), "sha256": digest, "used_at": list(size)}
            for (name, digest), size in zip(provenance.references, plan.reference_sizes, strict=True)
        ],
        "drawn_at": list(plan.size),
        "size": list(plan.output_size),
        "notes": list(plan.notes),
    }


def parameters_text(metadata: Mapping[str, Any]) -> str:
    """The settings in the form that A1111's web page made common: prompt, negative prompt, one line."""
    asked, model = metadata["request"], metadata["model"]
    start, end = asked["cfg_range"]
    height, width = metadata["size"]
    facts = {
        "Steps": len(asked["timesteps"] or ()) or asked["num_inference_steps"],
        "Sampler": SAMPLERS[asked["scheduler"]],
        "CFG scale": f"{asked['text_guidance_scale']:g}",
        "Image CFG scale": f"{asked['image_guidance_scale']:g}",
        "CFG range": f"{start:g}-{end:g}",
        "Seed": asked["seed"],
        "Size": f"{width}x{height}",
        "Model hash": model["hash"],
        "Model": model["name"],
        "Version": f"og2 {metadata['version']}",
    }
    lines = [asked["prompt"]]
    if asked["negative_prompt"]:
        lines.append(f"Negative prompt: {asked['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in facts.items() if value not in (None, "")))
    return "\n".join(lines)


@dataclass(frozen=True)
class _Found:
    """A reference of the original: the name it had and the hash of its pixels."""

    name: str | None
    sha256: str


def read_parameters(path: str | os.PathLike[str], input_images: Sequence[Any] | None = None) -> Request:
    """The request that made a picture, from its metadata.

    `input_images` take the place of the original references; without them these are looked for by name,
    here and beside the picture. Differences that change the picture are in the request's notes; the
    model, the dtype, the blocks and the device are compared when the request is run.
    Raises: RequestError if the file has no settings of ours, if it was made from tensors given by hand,
    or if a reference is missing or another one; ImageError if it cannot be read.
    """
    path = Path(path)
    stored = _stored(path)
    found = [_Found(item["name"], item["sha256"]) for item in stored["references"]]
    if input_images:
        pictures, notes = tuple(input_images), _given_notes(found, input_images)
    else:
        pictures, notes = tuple(_look_for(item, path) for item in found), []
    if stored["pack"] != "picture":
        notes.append("the original was computed in a pack with other pictures; bytes may differ slightly")
    options = {
        key: tuple(v) if key in _TUPLES and v is not None else v for key, v in stored["request"].items()
    }
    blocks = stored.get("blocks", "plain")  # pictures from before there were fused ones do not say
    made_in = Provenance(stored["dtype"], stored["device"], blocks).arithmetic
    options |= {"made_by": stored["model"]["hash"] or None, "made_in": made_in}
    return Request.from_options({**options, "input_images": pictures, "notes": tuple(notes)})


def stored_dtype(path: str | os.PathLike[str]) -> str:
    """The dtype that a picture was drawn in, by torch's name.   Raises: as `read_parameters`."""
    return _stored(Path(path))["dtype"]


def _stored(path: Path) -> dict[str, Any]:
    """The JSON chunk of a PNG, checked."""
    try:
        with Image.open(path) as picture:
            text = getattr(picture, "text", {}).get(CHUNK)
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist; give a PNG that og2 wrote") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(
            f"{path} cannot be read as a picture ({error}); give a PNG that og2 wrote"
        ) from error
    if text is None:
        raise RequestError(f"{path} holds no og2 settings; give a PNG that og2 wrote with its metadata")
    try:
        stored = json.loads(text)
        schema, given = stored["schema"], stored["given"]
        _ = (stored["request"]["prompt"], stored["model"]["hash"], stored["pack"])
        _ = (stored["dtype"], stored["device"])
        _ = [(item["name"], item["sha256"]) for item in stored["references"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"the og2 settings in {path} are damaged ({error}); give the settings yourself"
        ) from error
    if schema != SCHEMA:
        raise RequestError(
            f"{path} has settings of schema {schema}; this og2 reads {SCHEMA}, use the newer og2"
        )
    if given:
        raise RequestError(
            f"{path} was made with {', '.join(given)} given by hand, which its settings do not hold; "
            "make it again from the program that made it"
        )
    return stored


def _look_for(item: _Found, path: Path) -> str:
    """The file of a reference, by its name, from here and from beside the picture."""
    if item.name is None:
        raise RequestError(
            f"{path} was made from a picture without a file name (sha256 {item.sha256[:12]}); "
            "give it as input picture"
        )
    places = [Path(item.name), path.parent / item.name, path.parent / Path(item.name).name]
    there = [place for place in places if place.is_file()]
    for place in there:
        if picture_hash(load_image(place)[0]) == item.sha256:
            return str(place)
    if there:
        raise RequestError(
            f"{there[0]} is not the picture that {path} was made from (sha256 {item.sha256[:12]}); "
            "give the right one as input picture"
        )
    raise RequestError(f"{path} was made from {item.name}, which is not here; give it as input picture")


def _given_notes(found: Sequence[_Found], given: Sequence[Any]) -> list[str]:
    if len(given) != len(found):
        return [f"the original was made from {len(found)} input pictures, not from {len(given)}"]
    pairs = enumerate(zip(found, given, strict=True), start=1)
    return [
        f"input picture {i} is not the one the original was made from; the picture will be another"
        for i, (item, source) in pairs
        if picture_hash(load_image(source)[0]) != item.sha256
    ]


def _portable(name: str | None) -> str | None:
    """A file name as given, but without the folders of an absolute path, which are nobody else's business."""
    return name if name is None or not Path(name).is_absolute() else Path(name).name


def _publish(temporary: Path, path: Path) -> None:
    """Gives the finished file its name, unless that is taken; then sees that the folder remembers it."""
    taken = RequestError(f"{path} exists already and og2 never overwrites; choose another name")
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise taken from error
    except OSError:
        # A file system without hard links: the name is reserved first, then filled.
        try:
            path.open("xb").close()
        except FileExistsError as error:
            raise taken from error
        os.replace(temporary, path)
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
