"""`og2 generate` and `og2 edit`: from flags to a Request, through the pipeline, to PNG files and a report.

Everything that can be refused is refused before a network is loaded: settings, pictures, names of files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from og2.cli import loading, outputs, settings
from og2.errors import Cancelled, RequestError
from og2.request import Profile, Request, plan, read_profile, resolve

if TYPE_CHECKING:
    from og2.request import Result

REQUEST_FIELDS = frozenset(item.name for item in fields(Request))


def draw(verb: str, given: Mapping[str, Any]) -> None:
    """Carries out one command line; `verb` is generate or edit."""
    start = time.perf_counter()
    decided = settings.gather(given)
    loading.quiet_libraries()
    request = request_of(verb, decided)
    if "params_from" in decided and "dtype" not in decided:
        decided["dtype"] = _dtype_of(decided["params_from"])
    folder = loading.model_folder(decided.get("model"))
    profile = read_profile(folder) if folder else Profile()
    seed = resolve(request, profile).seed
    assert seed is not None
    request = replace(request, seed=seed)
    seeds = [seed + index for index in range(request.num_images_per_prompt)]
    files = outputs.plan_outputs(decided.get("output"), seeds)
    planned = plan(request, profile)  # refuses bad pictures and sizes before anything is loaded
    if decided.get("dry_run"):
        from og2.cli.forecast import forecast

        loading.say_model(decided)
        forecast(planned, files, decided)
        return
    where = loading.target(decided)
    loading.check_adapters(decided)
    height, width = planned.output_size
    outputs.make_ready(files, height * width * len(files))
    loading.say_model(decided)
    try:
        pipe = loading.load(decided, where)
        loaded = time.perf_counter()
        result = pipe.run(request)
        saved = _save(files, result, decided)
    except KeyboardInterrupt as error:
        raise Cancelled("stopped; nothing was written") from error
    if saved != files:
        taken = f"{files[0]} was taken while this was drawn; it is in {saved[0]}"
        result = replace(result, notes=(*result.notes, taken))
    timings = {"load_s": loaded - start, **result.timings, "total_s": time.perf_counter() - start}
    _report(saved, result, timings, decided, where.device)


def request_of(verb: str, decided: Mapping[str, Any]) -> Request:
    """The request that the user's decisions make, over the settings of --params-from.

    Raises: RequestError, ConfigError.
    """
    options: dict[str, Any] = {key: value for key, value in decided.items() if key in REQUEST_FIELDS}
    prompt = settings.prompt_of(decided)
    if prompt is not None:
        options["prompt"] = prompt
    if decided.get("no_align_res"):
        options["align_res"] = False
    pictures, notes = settings.pictures_of(decided.get("input", ()))
    if pictures:
        options["input_images"] = tuple(pictures)
    if "params_from" in decided:
        options = {**_params_from(decided["params_from"], pictures), **options}
    options["notes"] = (*options.get("notes", ()), *notes)
    if "cfg_range_start" in decided or "cfg_range_end" in decided:
        start, end = options.get("cfg_range") or (0.0, 1.0)
        options["cfg_range"] = (decided.get("cfg_range_start", start), decided.get("cfg_range_end", end))
    if "prompt" not in options:
        raise RequestError(f'no prompt was given; og2 {verb} "PROMPT" ..., or - to read it from stdin')
    if verb == "edit" and not options.get("input_images"):
        raise RequestError(
            "og2 edit needs a picture: --input a.png; to draw from words alone use og2 generate"
        )
    return Request.from_options(options)


def _params_from(path: str, pictures: Sequence[str]) -> dict[str, Any]:
    """The settings inside a PNG that og2 wrote; `pictures` take the place of those it was made from."""
    from og2.png import read_parameters

    found = read_parameters(path, pictures or None)
    return {key: value for key, value in found.options().items() if value is not None} | {
        "notes": found.notes
    }


def _dtype_of(path: str) -> str | None:
    """The dtype that a picture was drawn in, where the command line has it; else the run notes the other."""
    from og2.png import stored_dtype

    found = stored_dtype(path)
    return found if found in loading.DTYPES else None


def _save(files: list[Path], result: Result, decided: Mapping[str, Any]) -> list[Path]:
    """The files of every picture, written, or none: after a failure those already written are taken back.

    Where og2 chose the names and another process has taken one since, the next free ones.
    """
    from og2.png import write_png

    written: list[Path] = []
    try:
        for index, (file, picture) in enumerate(zip(files, result.images, strict=True)):
            write_png(file, picture, None if decided.get("no_metadata") else result, index)
            written.append(file)
        return files
    except BaseException as error:
        for file in written:
            file.unlink(missing_ok=True)
        is_taken = isinstance(error, RequestError) and any(file.exists() for file in files)
        if not (is_taken and outputs.is_own_choice(decided.get("output"))):
            raise
    free = outputs.plan_outputs(decided.get("output"), [seed or 0 for seed in result.seeds])
    return _save(free, result, decided)


def _report(
    files: Sequence[Path],
    result: Result,
    timings: Mapping[str, float],
    decided: Mapping[str, Any],
    device: str,
) -> None:
    import torch

    from og2.device import peak_gb

    sizes = [list(picture.size) for picture in result.images]
    most_gb = peak_gb(torch.device(device))
    if decided.get("json"):
        report = {
            "files": [str(file) for file in files],
            "seeds": list(result.seeds),
            "sizes": sizes,
            "notes": list(result.notes),
            "timings": {name: round(value, 4) for name, value in timings.items()},
            "peak_gb": round(most_gb, 3),
            "model": decided.get("model") or "mini",
        }
        print(json.dumps(report))
        return
    for note in result.notes:
        loading.say(f"note: {note}", decided)
    for file, seed, (width, height) in zip(files, result.seeds, sizes, strict=True):
        print(f"{file}  seed {seed}  {width}x{height}")
    stages = (f"{name.removesuffix('_s').replace('_', ' ')} {value:.2f} s" for name, value in timings.items())
    print("; ".join([*stages, f"peak {most_gb:.2f} GB"]))
