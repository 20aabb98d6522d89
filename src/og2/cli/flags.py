"""The flags of the commands: one table, the names users bring from elsewhere, and what is refused.

Not here: what the flags do (`settings.py`), nor the commands themselves (`app.py`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from og2.presets import ALIASES as REQUEST_ALIASES

# A name brought from the official programs or other tools -> our name; `_` and `-` are the same everywhere.
ALIASES = {
    **{theirs.replace("_", "-"): ours.replace("_", "-") for theirs, ours in REQUEST_ALIASES.items()},
    "image": "input",
    "images": "input",
    "input-images": "input",
    "input-image-path": "input",
    "image-path": "input",
    "model-path": "model",
    "output-image-path": "output",
    "steps": "num-inference-steps",
    "disable-align-res": "no-align-res",
    "enable-model-cpu-offload": "model-cpu-offload",
    "enable-sequential-cpu-offload": "sequential-cpu-offload",
    "enable-group-offload": "group-offload",
    "transformer-lora-path": "lora",
}
INPUT_FLAGS = frozenset(
    {"--input", "-i", *(f"--{theirs}" for theirs, ours in ALIASES.items() if ours == "input")}
)


HELP = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True)
class Flag:
    """One option: its Python name, type and help; `refused` is the sentence said to whoever gives it."""

    name: str
    kind: Any
    help: str
    short: str = ""
    refused: str = ""

    @property
    def option(self) -> str:
        """The flag as it is typed: `--num-inference-steps`."""
        return "--" + self.name.replace("_", "-")


MODEL = (
    Flag("model", str, "Folder or hub id of a model; without it, mini, the small model inside the package."),
    Flag("dtype", str, "fp32, bf16 or fp16 (default: fp32 on a CPU and for mini, bf16 on an accelerator)."),
    Flag("device", str, "auto, cpu, cuda, cuda:1, mps ... (default: auto)."),
)
REPORT = (
    Flag("json", bool, "Print one JSON object on stdout and nothing else there."),
    Flag("quiet", bool, "No progress bar and no remarks on stderr; errors only.", short="-q"),
)
LORA = Flag(
    "lora",
    list[str],
    "An adapter (LoRA) to draw with: a safetensors file or its folder, FILE or FILE:SCALE; once for each.",
)
OFFLOAD = (
    Flag("transformer_path", str, "Take the transformer from this folder instead of the model's own."),
    Flag("model_cpu_offload", bool, "Keep on the accelerator only the network that is running."),
    Flag(
        "sequential_cpu_offload",
        bool,
        "Keep on the accelerator only the layer that is running; slowest, smallest.",
    ),
    Flag("group_offload", bool, "Move two blocks at a time to the accelerator."),
)
DRAWING = (
    Flag(
        "output",
        str,
        "PNG to write (n > 1: NAME_0.png ...), or a folder. Default: the first free output.png.",
        short="-o",
    ),
    Flag("prompt", str, "The prompt, where it is not given as the argument; - reads it from stdin."),
    Flag("negative_prompt", str, "What guidance moves away from."),
    Flag("height", int, "Height of the picture in pixels."),
    Flag("width", int, "Width of the picture in pixels."),
    Flag("num_inference_steps", int, "Steps of the solver."),
    Flag("text_guidance_scale", float, "Strength of the prompt; 1 is no guidance."),
    Flag("image_guidance_scale", float, "Strength of the input pictures; 1 is no guidance."),
    Flag("cfg_range_start", float, "Guide from this share of the steps on (default 0)."),
    Flag("cfg_range_end", float, "Guide up to this share of the steps (default 1)."),
    Flag("scheduler", str, "euler, euler-stochastic or dpmsolver++."),
    Flag(
        "seed",
        int,
        "Seed of the first picture; the next ones take seed + 1, ...; -1 draws one and prints it.",
    ),
    Flag("num_images_per_prompt", int, "How many pictures to draw.", short="-n"),
    Flag("max_pixels", int, "Most pixels of the picture and of each input picture."),
    Flag("max_input_image_side_length", int, "Longest side of an input picture; larger ones are reduced."),
    Flag("max_sequence_length", int, "Most tokens of the prompt; a longer one is refused."),
    Flag("align_res", bool, "With one input picture, draw at its size (default)."),
    Flag("no_align_res", bool, "With one input picture, draw at --height x --width all the same."),
    Flag(
        "numerics",
        str,
        "float32 (default) or official: the official implementation's roundings, bit for bit.",
    ),
    Flag("preset", str, "A named set of settings; og2 info lists them."),
    Flag("params_from", str, "Take every setting from the metadata of this PNG; other flags override."),
    Flag("config", str, "Take settings from this YAML file (flag names as keys); other flags override."),
    Flag("no_metadata", bool, "Do not write the settings into the PNG."),
    Flag("dry_run", bool, "Print what would be done and what it would cost; load no weights, draw nothing."),
)
NOT_YET = (
    Flag(
        "enable_teacache",
        bool,
        "",
        refused="og2 has no TeaCache yet; leave the flag out, the picture is the exact one",
    ),
    Flag("teacache_rel_l1_thresh", float, "", refused="og2 has no TeaCache yet; leave the flag out"),
    Flag(
        "enable_taylorseer",
        bool,
        "",
        refused="og2 has no TaylorSeer yet; leave the flag out, the picture is the exact one",
    ),
    Flag("trust_remote_code", bool, "", refused="og2 never runs code from a checkpoint; leave the flag out"),
)
INPUT = Flag(
    "input",
    list[str],
    "An input picture, a folder or a glob pattern; give it once for each, in order.",
    short="-i",
)
NO_INPUT = Flag(
    "input", list[str], "", refused="og2 generate draws from words only; for input pictures use og2 edit"
)

GENERATE = (*DRAWING, NO_INPUT, LORA, *MODEL, *OFFLOAD, *REPORT, *NOT_YET)
EDIT = (INPUT, *DRAWING, LORA, *MODEL, *OFFLOAD, *REPORT, *NOT_YET)
TALK = (
    Flag("max_new_tokens", int, "Longest answer, in tokens (default 256)."),
    Flag("seed", int, "Seed of the answer where the model samples it, and of a drawn picture."),
)
DESCRIBE = (
    Flag("question", str, "What to ask (default: to describe the picture)."),
    *TALK,
    *MODEL,
    *OFFLOAD,
    *REPORT,
)
CHAT = (
    Flag("output", str, "Folder for the pictures that are drawn (default: chat).", short="-o"),
    INPUT,
    *TALK,
    *MODEL,
    *OFFLOAD,
)


def dashed(name: str) -> str:
    """The name of a flag or command with `-` where `_` was typed."""
    return name.replace("_", "-")


def normalize(name: str) -> str:
    """Our name of a flag or command as it was typed, without the dashes: `model_path` -> `model`."""
    name = dashed(name)
    return ALIASES.get(name, name)


def expand_inputs(arguments: Iterable[str]) -> list[str]:
    """The arguments with one `--input` before each picture, also for the official `--input a.png b.png`.

    Only what looks like a picture or exists as a folder is taken as one more input; anything else, such as
    the instruction, stays where it is.
    """
    result: list[str] = []
    after_input = False
    pending = False
    for argument in arguments:
        is_flag = argument.startswith("-") and argument != "-"
        if is_flag:
            name, _, value = argument.replace("_", "-").partition("=")
            after_input = name in INPUT_FLAGS
            pending = after_input and not value
            result.append(argument)
            continue
        if after_input and not pending:
            if _is_picture(argument):
                result.append("--input")
            else:
                after_input = False
        pending = False
        result.append(argument)
    return result


def _is_picture(text: str) -> bool:
    from og2.conditioning.reading import SUFFIXES

    if text.lower().endswith(SUFFIXES):
        return True
    return len(text) < 1024 and not re.search(r"\s", text) and Path(text).is_dir()


def attach(
    app: typer.Typer,
    name: str,
    flags: Sequence[Flag],
    arguments: Sequence[inspect.Parameter],
    run: Callable[..., None],
) -> None:
    """Adds a command whose parameters are `arguments` and then `flags`; `run` gets what was given, by name.

    Flags that were not given are left out, so that `run` knows what the user decided.
    """

    def command(**given: Any) -> None:
        refused = {flag.name: flag.refused for flag in flags if flag.refused}
        chosen = {key: value for key, value in given.items() if value is not None and value != []}
        for key in chosen:
            if key in refused:
                raise typer.BadParameter(refused[key])
        run(**chosen)

    parameters = [*arguments, *(_parameter(flag) for flag in flags)]
    command.__doc__ = run.__doc__
    command.__name__ = name
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, context_settings={"token_normalize_func": normalize, **HELP})(command)


def argument(name: str, kind: Any, shown: str, help_text: str) -> inspect.Parameter:
    """An optional positional parameter, `shown` in the help."""
    default = typer.Argument(None, help=help_text, show_default=False, metavar=shown)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _parameter(flag: Flag) -> inspect.Parameter:
    names = (flag.option, flag.short) if flag.short else (flag.option,)
    default = typer.Option(None, *names, help=flag.help, show_default=False, hidden=bool(flag.refused))
    annotation = flag.kind | None if flag.kind is not Any else Any
    return inspect.Parameter(
        flag.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
