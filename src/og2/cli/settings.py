"""What the user decided, gathered: flags over a config file over a PNG's settings; prompts and pictures.

Not here: defaults. What nobody decided is left to the preset and the model (`og2.request`).
"""

from __future__ import annotations

import contextlib
import glob
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from og2.cli.flags import DRAWING, INPUT, LORA, MODEL, OFFLOAD, REPORT, Flag, normalize
from og2.config import nearest, read_yaml
from og2.errors import ConfigError, ImageError, RequestError

OFFLOAD_FLAGS = ("model_cpu_offload", "sequential_cpu_offload", "group_offload")
_ONE_OF = (("text", "prompt"), ("align_res", "no_align_res"), ("preset", "params_from"), OFFLOAD_FLAGS)
_TEXTS = {
    "text": "the prompt",
    "prompt": "--prompt",
    "negative_prompt": "--negative-prompt",
    "question": "--question",
}
_NOT_IN_CONFIG = ("config", "params_from", "dry_run", "json", "quiet")


def gather(given: Mapping[str, Any]) -> dict[str, Any]:
    """The decisions of the command line over those of --config; contradictions are refused.

    Raises: ConfigError, naming the two flags or the nearest right key; RequestError for a text that is none.
    """
    settings = dict(given)
    if "config" in settings:
        file = _from_config(settings.pop("config"))
        overridden = {name for names in _ONE_OF for name in names if set(names) & set(given)}
        settings = {**{name: value for name, value in file.items() if name not in overridden}, **settings}
    for name in _TEXTS.keys() & settings.keys():
        with utf8(_TEXTS[name]):
            settings[name].encode()
    if settings.get("align_res") and settings.get("no_align_res"):
        raise ConfigError("--align-res and --no-align-res contradict each other; give one of them")
    offloads = [name for name in OFFLOAD_FLAGS if settings.get(name)]
    if len(offloads) > 1:
        both = " and ".join("--" + name.replace("_", "-") for name in offloads)
        raise ConfigError(
            f"{both} exclude each other; give the first for speed, or the sequential one for memory"
        )
    if "preset" in settings and "params_from" in settings:
        raise ConfigError(
            "--preset and --params-from each set everything; give one of them and single flags beside it"
        )
    return settings


def prompt_of(settings: Mapping[str, Any]) -> str | None:
    """The prompt as argument, as --prompt, or read from stdin where it is "-"; None where none was given."""
    if "text" in settings and "prompt" in settings:
        raise ConfigError("the prompt is given twice, as argument and as --prompt; give it once")
    text = settings.get("text", settings.get("prompt"))
    if text != "-":
        return text
    with utf8("the prompt"):
        text = sys.stdin.read().strip()
        text.encode()
    return text


@contextlib.contextmanager
def utf8(name: str) -> Iterator[None]:
    """Bytes inside that are not UTF-8, which Python keeps as lone surrogates in an argument, are refused.

    Raises: RequestError.
    """
    try:
        yield
    except UnicodeError as error:
        raise RequestError(f"{name} is not UTF-8 text; type it or save it as UTF-8") from error


def adapters_of(settings: Mapping[str, Any]) -> list[tuple[str, float]]:
    """File and scale of every --lora, in order.   Raises: ConfigError for a scale that is no number."""
    found = []
    for text in settings.get("lora", ()):
        name, separator, scale = text.rpartition(":")
        if not separator or Path(text).exists():
            found.append((text, 1.0))
            continue
        try:
            number = float(scale)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"--lora {text}: {scale!r} is no number; give FILE or FILE:SCALE")
        found.append((name, number))
    return found


def pictures_of(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The picture files that names, folders and patterns stand for, in order; folders and patterns sorted.

    And notes on files that were left out. Raises: ImageError if one of them stands for nothing.
    """
    files: list[str] = []
    notes: list[str] = []
    for pattern in patterns:
        if Path(pattern).is_dir():
            from og2.conditioning.reading import list_images

            found, left_out = list_images(pattern)
            files += [str(path) for path in found]
            notes += left_out
        elif not Path(pattern).exists() and glob.has_magic(pattern):
            matching = sorted(glob.glob(pattern))
            if not matching:
                raise ImageError(f"no file matches {pattern}")
            files += matching
        else:
            files.append(pattern)
    return files, notes


def _from_config(path: str) -> dict[str, Any]:
    known = {
        flag.name: flag
        for flag in (*DRAWING, *MODEL, *OFFLOAD, *REPORT, INPUT, LORA)
        if flag.name not in _NOT_IN_CONFIG
    }
    settings: dict[str, Any] = {}
    for key, value in read_yaml(path).items():
        name = normalize(str(key)).replace("-", "_")
        if name not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; {nearest(name, known)}")
        if name in settings:
            raise ConfigError(f"{path}: {key!r} sets {name} a second time; give it once")
        settings[name] = _checked(known[name], value, f"{path}: {key}")
    return settings


def _checked(flag: Flag, value: Any, where: str) -> Any:
    if flag.kind == list[str]:
        values = value if isinstance(value, list) else [value]
        if all(isinstance(item, str) for item in values):
            return values
    elif flag.kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, flag.kind) and (flag.kind is bool or not isinstance(value, bool)):
        return value
    wanted = "a list of names" if flag.kind == list[str] else flag.kind.__name__
    raise ConfigError(f"{where}: {value!r} is {type(value).__name__}; expected {wanted}")
