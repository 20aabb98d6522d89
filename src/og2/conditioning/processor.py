"""The tokenizer and the picture processor of the vision-language model, built straight from their files.

The published processor folder holds no config.json, which the library's own processor loader asks for, and
its usual picture processor needs a package that og2 does not; both parts are therefore made directly.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from og2.errors import CheckpointError

_GEOMETRY = {
    "patch_size": "patch_size",
    "merge_size": "spatial_merge_size",
    "temporal_patch_size": "temporal_patch_size",
}
_IMAGE_OPTIONS = (
    *("do_resize", "resample", "size", "min_pixels", "max_pixels", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "do_convert_rgb", *_GEOMETRY),
)


@dataclass(frozen=True)
class Processor:
    """What turns words and pictures into the language model's inputs: objects of the library, whose classes
    differ between its versions."""

    tokenizer: Any
    image_processor: Any

    def token_id(self, token: str) -> int | None:
        """The id of a token by its exact text, or None where the vocabulary has no such token."""
        found = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(found, int) or self.tokenizer.convert_ids_to_tokens(found) != token:
            return None
        return found

    def save_pretrained(self, folder: str | os.PathLike[str], **_: object) -> None:
        """Write tokenizer and picture processor files into the folder, in the published layout."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


def load_processor(folder: str | os.PathLike[str]) -> Processor:
    """Tokenizer and picture processor of a checkpoint's `processor/` folder.

    Without a preprocessor_config.json the library's defaults for this architecture are used, with the patch
    sizes of `../mllm/config.json` where that exists.
    Raises: CheckpointError if tokenizer files are missing or unreadable.
    """
    folder = Path(folder)
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        held = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise CheckpointError(f"{folder} has no tokenizer.json nor vocab.json; it holds: {held}")
    has_fast = (folder / "tokenizer.json").is_file()
    kind = _library_class("PreTrainedTokenizerFast" if has_fast else "AutoTokenizer")
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the tokenizer files in {folder} cannot be read: {error}") from error
    return Processor(tokenizer, make_image_processor(_image_options(folder)))


def make_image_processor(options: dict[str, Any]) -> Any:
    """The library's Qwen2-VL picture processor, the variant that works on Pillow and NumPy alone.

    `options` are those of a preprocessor_config.json; pixel limits are understood in every form that versions
    of the library have written them in.
    """
    kind = _library_class("Qwen2VLImageProcessorPil", "Qwen2VLImageProcessor")
    known = {name: options[name] for name in _IMAGE_OPTIONS if options.get(name) is not None}
    limits = known.pop("size", {})
    for edge, pixels in (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels")):
        limit = known.get(pixels, limits.get(edge, limits.get(pixels)))
        if limit is not None:
            known[pixels] = limit
    return kind(**known)


def _image_options(folder: Path) -> dict[str, Any]:
    written = folder / "preprocessor_config.json"
    if written.is_file():
        return _read_json(written)
    config = folder.parent / "mllm" / "config.json"
    vision = _read_json(config).get("vision_config", {}) if config.is_file() else {}
    return {ours: vision[theirs] for ours, theirs in _GEOMETRY.items() if theirs in vision}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error


def _library_class(*names: str) -> Any:
    """The first of these classes that this version of transformers has; where they live differs."""
    library = import_module("transformers")
    return next(found for name in names if (found := getattr(library, name, None)) is not None)
