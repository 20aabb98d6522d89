"""The mini benchmark: what a checkpoint can draw, edit, combine and understand in the mini-world.

Everything is judged from pixels. Beside the scores run controls whose scores are known beforehand, through
the same code, and the certificate of the scorer itself. The model's pictures are kept in a folder, so a run
that was stopped goes on where it was, and ends with the same numbers as one that was not. Evidence about the
mechanism, not about photorealism.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from og2.errors import RequestError
from og2.evals.asking import evaluate_understanding
from og2.evals.controls import CONTROLS, control_pictures
from og2.evals.items import families_of, picture_items
from og2.evals.outcomes import SCALES, Item, Outcome, judge
from og2.evals.report import Report, Row, TaskReport
from og2.evals.store import Store
from og2.world.render import render_batch
from og2.world.spec import Scene

Picture = NDArray[np.uint8]
TASKS = ("t2i", "edit", "incontext", "understanding")
PRESETS = {"t2i": "t2i", "edit": "edit", "incontext": "in-context"}


@dataclass(frozen=True)
class Options:
    """How the benchmark runs.

    limit: at most so many items of each family, None for all. seed: of the items; seeds: how the report names
    it. world: "plain" or "full". size: side of the pictures in px, None for the model's own. chunk: pictures
    per call. families: only these. controls: also score the controls. generate: False scores the pictures
    that are there. calls: options for every call beside the presets.
    """

    limit: int | None = None
    seed: int = 0
    seeds: str = "public"
    world: str = "full"
    size: int | None = None
    chunk: int = 20
    tasks: tuple[str, ...] = TASKS
    families: tuple[str, ...] | None = None
    controls: bool = True
    generate: bool = True
    calls: dict[str, Any] = field(default_factory=dict)
    on_item: Callable[[str, int, int], None] | None = None


def evaluate(pipe: Any, options: Options | None = None, folder: Path | None = None) -> Report:
    """The scores of a pipeline on the mini benchmark, each with its number of items and 95 % interval.

    pipe: an OmniGen2Pipeline, or anything that answers its call, `chat`, `describe` and `vae`. folder: where
    pictures and answers are kept; a run found there goes on. None: a temporary one.
    Raises: RequestError for options that leave nothing to score, or a folder that holds another run.
    """
    options = options or Options()
    if options.limit is not None and options.limit < 1:
        raise RequestError(f"limit={options.limit} leaves nothing to score; use 1 or more")
    unknown = [task for task in options.tasks if task not in TASKS]
    if unknown or not options.tasks:
        raise RequestError(f"tasks {unknown}: allowed are {', '.join(TASKS)}")
    known = [family for task in PRESETS for family in families_of(task, options.world)]
    wrong = [family for family in options.families or () if family not in known]
    if wrong:
        raise RequestError(f"families {wrong} are unknown; there are {', '.join(dict.fromkeys(known))}")
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return _evaluate(pipe, options, Path(temporary))
    return _evaluate(pipe, options, folder)


def _evaluate(pipe: Any, options: Options, folder: Path) -> Report:
    size = options.size or int(pipe.profile.native_size)
    settings: dict[str, Any] = {
        "model": pipe.profile.name,
        "weights": _fingerprint(pipe),
        "seeds": options.seeds,
    }
    settings |= {"items": _mark(options.seed), "world": options.world, "size": size, "chunk": options.chunk}
    settings |= {"limit": options.limit, "tasks": list(options.tasks), "calls": options.calls}
    settings |= {"families": list(options.families) if options.families else None}
    store = Store(folder, settings)
    report = Report({**settings, "controls": options.controls})
    for task in options.tasks:
        if task == "understanding":
            report.tasks[task] = evaluate_understanding(pipe, options, size, store)
        else:
            report.tasks[task] = _evaluate_pictures(pipe, task, options, size, store)
    return report


def _mark(seed: int) -> str:
    """Names a seed without telling it."""
    return hashlib.sha256(f"og2 items {seed}".encode()).hexdigest()[:12]


def _fingerprint(pipe: Any) -> str:
    """Tells checkpoints apart: hash of the transformer's first and last parameters, or "" without one."""
    transformer = getattr(pipe, "transformer", None)
    if transformer is None:
        return ""
    parameters = list(transformer.parameters())
    digest = hashlib.sha256()
    for tensor in (parameters[0], parameters[len(parameters) // 2], parameters[-1]):
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _evaluate_pictures(pipe: Any, task: str, options: Options, size: int, store: Store) -> TaskReport:
    items = picture_items(task, options.world, options.seed, options.limit, options.families)
    inputs = [render_all(item.inputs, size) for item in items]
    if options.generate:
        _generate_missing(pipe, task, items, inputs, options, store)
    truths = render_all([item.truth for item in items], size)
    report = TaskReport(SCALES[task])
    found: list[tuple[Item, Outcome]] = []
    for i, item in enumerate(items):
        picture = store.picture(item.key)
        if picture is None:
            report.missing.append(item.key)
            continue
        outcome = judge(item, inputs[i], picture)
        found.append((item, outcome))
        shown = (*inputs[i], picture, truths[i])
        report.rows.append(Row(item.key, item.family, item.prompt, shown, outcome))
    report.add_outcomes(found)
    for name in CONTROLS[task] if options.controls else ():
        pictures = control_pictures(name, items, inputs, truths, pipe.vae)
        judged = [(item, judge(item, inputs[i], pictures[i])) for i, item in enumerate(items)]
        report.add_control(name, judged)
    return report


def render_all(scenes: Sequence[Scene], size: int) -> list[Picture]:
    """The pictures of scenes, square, of that side in px."""
    if not scenes:
        return []
    pictures: list[Picture] = []
    for start in range(0, len(scenes), 32):
        pictures += list(render_batch(list(scenes[start : start + 32]), size).numpy())
    return pictures


def _generate_missing(
    pipe: Any, task: str, items: list[Item], inputs: list[list[Picture]], options: Options, store: Store
) -> None:
    """The model's pictures, in chunks that never depend on what is there already."""
    groups: dict[tuple[str, int], list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault((item.family, len(item.inputs)), []).append(i)
    done = 0
    for indices in groups.values():
        for start in range(0, len(indices), options.chunk):
            part = indices[start : start + options.chunk]
            if not all(store.has_picture(items[i].key) for i in part):
                _generate(pipe, task, [items[i] for i in part], [inputs[i] for i in part], options, store)
            done += len(part)
            if options.on_item is not None:
                options.on_item(task, done, len(items))


def _generate(
    pipe: Any, task: str, items: list[Item], inputs: list[list[Picture]], options: Options, store: Store
) -> None:
    call: dict[str, Any] = {"seed": [item.seed for item in items], **options.calls}
    if inputs[0]:
        call["input_images"] = [[Image.fromarray(picture) for picture in own] for own in inputs]
    elif options.size is not None:
        call |= {"height": options.size, "width": options.size}
    result = pipe([item.prompt for item in items], preset=PRESETS[task], output_type="pil", **call)
    for item, image in zip(items, result.images, strict=True):
        store.put_picture(item.key, image)
