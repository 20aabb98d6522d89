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
from og2.evals.items import families_of, least_px, picture_items
from og2.evals.outcomes import SCALES, Item, Outcome, judge
from og2.evals.report import Report, Row, TaskReport
from og2.evals.store import Store
from og2.world.known import Known
from og2.world.render import render_batch
from og2.world.spec import Scene

Picture = NDArray[np.uint8]
TASKS = ("t2i", "edit", "incontext", "understanding")
MIN_PX, SIZE_STEP = 32, 16
_OWN = "the model's own"
_BATCH = 32  # pictures rendered together
_SAMPLE = 64  # values of a tensor that tell it from another
PRESETS = {"t2i": "t2i", "edit": "edit", "incontext": "in-context"}


@dataclass(frozen=True)
class Options:
    """How the benchmark runs.

    limit: at most so many items of each family, None for all. seed: of the items; seeds: how the report names
    it. world: "plain" or "full". size: side of the pictures in px, None for the model's own, or what a family
    needs (`items.least_px`) where that is more. chunk: pictures per call. families: only these. controls:
    also score the controls. generate: False scores the pictures that are there. model: False scores the
    controls alone. calls: options for every call beside the presets.
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
    model: bool = True
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
    known = {task: families_of(task, options.world) for task in PRESETS}
    everything = dict.fromkeys(family for own in known.values() for family in own)
    wrong = [family for family in options.families or () if family not in everything]
    if wrong:
        raise RequestError(f"families {wrong} are unknown; there are {', '.join(everything)}")
    for task in options.tasks if options.families else ():
        own = known.get(task, ())
        if own and not set(own) & set(options.families or ()):
            raise RequestError(
                f"families {list(options.families or ())} leave nothing of task {task}, which has "
                f"{', '.join(own)}; leave the task out"
            )
    if options.size is not None and (options.size < MIN_PX or options.size % SIZE_STEP):
        raise RequestError(f"size={options.size}: use {MIN_PX} or more, a multiple of {SIZE_STEP}")
    if options.chunk < 1:
        raise RequestError(f"chunk={options.chunk}: use 1 or more pictures per call")
    if not options.generate and (folder is None or not Store.is_run(folder)):
        raise RequestError(f"{folder} holds no run to score; give the folder that a run was told with --out")
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return _evaluate(pipe, options, Path(temporary))
    return _evaluate(pipe, options, folder)


def _evaluate(pipe: Any, options: Options, folder: Path) -> Report:
    settings: dict[str, Any] = {
        "model": pipe.profile.name,
        "weights": _fingerprint(pipe),
        "presets": _short_hash(repr(getattr(pipe.profile, "presets", None)).encode()),
        "native_px": int(pipe.profile.native_size),
        "seeds": options.seeds,
    }
    settings |= {"items": _mark(options.seed), "world": options.world, "size": options.size}
    settings |= {"limit": options.limit, "tasks": list(options.tasks), "calls": options.calls}
    settings |= {"families": list(options.families) if options.families else None, "chunk": options.chunk}
    store = Store(folder, settings)
    report = Report({**settings, "controls": options.controls, "model_scored": options.model})
    for task in options.tasks:
        if task != "understanding":
            report.tasks[task] = _evaluate_pictures(pipe, task, options, store)
        elif options.model:
            size = options.size or int(pipe.profile.native_size)
            report.tasks[task] = evaluate_understanding(pipe, options, size, store)
    return report


def _mark(seed: int) -> str:
    """Names a seed without telling it."""
    return _short_hash(f"og2 items {seed}".encode())


def _fingerprint(pipe: Any) -> str:
    """Tells models apart: the hash of their files and the beginning of every tensor that is loaded."""
    profile = getattr(pipe, "adapted_profile", pipe.profile)
    digest = hashlib.sha256(getattr(profile, "model_hash", "").encode())
    for part in ("transformer", "vae", "mllm"):
        network = getattr(pipe, part, None)
        for name, tensor in network.state_dict().items() if network is not None else ():
            first = tensor.flatten()[:_SAMPLE].float().cpu().numpy().tobytes()
            digest.update(f"{part} {name} {tuple(tensor.shape)}".encode() + first)
    return digest.hexdigest()[:12]


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _evaluate_pictures(pipe: Any, task: str, options: Options, store: Store) -> TaskReport:
    items = picture_items(task, options.world, options.seed, options.limit, options.families)
    sizes = [
        options.size or max(int(pipe.profile.native_size), least_px(f"{task}/{i.family}")) for i in items
    ]
    inputs = _by_item(items, render_all([s for i in items for s in i.inputs], _repeated(items, sizes)))
    if options.generate and options.model:
        _generate_missing(pipe, task, _Asked(items, inputs, sizes), options, store)
    truths = render_all([item.truth for item in items], sizes)
    report = TaskReport(SCALES[task], px={item.family: size for item, size in zip(items, sizes, strict=True)})
    names = CONTROLS[task] if options.controls else ()
    handed_in = {name: control_pictures(name, items, inputs, truths, pipe.vae) for name in names}
    found: dict[str, list[tuple[Item, Outcome]]] = {name: [] for name in (_OWN, *names)}
    for i, item in enumerate(items):
        seen = [Known(picture) for picture in inputs[i]]  # of this item only: what is seen is large
        picture = store.picture(item.key) if options.model else None
        if picture is None:
            report.missing += [item.key] if options.model else []
        else:
            outcome = judge(item, seen, picture)
            found[_OWN].append((item, outcome))
            shown = (*inputs[i], picture, truths[i])
            report.rows.append(Row(item.key, item.family, item.prompt, shown, outcome))
        for name in names:
            found[name].append((item, judge(item, seen, handed_in[name][i])))
    report.add_outcomes(found[_OWN])
    for name in names:
        report.add_control(name, found[name])
    return report


def render_all(scenes: Sequence[Scene], sizes: int | Sequence[int]) -> list[Picture]:
    """The pictures of scenes, square, all of one side in px or each of its own."""
    sizes = [sizes] * len(scenes) if isinstance(sizes, int) else sizes
    pictures: dict[int, Picture] = {}
    for size in sorted(set(sizes)):
        own = [i for i, side in enumerate(sizes) if side == size]
        for start in range(0, len(own), _BATCH):
            part = own[start : start + _BATCH]
            pictures |= zip(part, render_batch([scenes[i] for i in part], size).numpy(), strict=True)
    return [pictures[i] for i in range(len(scenes))]


def _repeated(items: Sequence[Item], sizes: Sequence[int]) -> list[int]:
    return [size for item, size in zip(items, sizes, strict=True) for _ in item.inputs]


def _by_item(items: Sequence[Item], pictures: Sequence[Picture]) -> list[list[Picture]]:
    remaining = iter(pictures)
    return [[next(remaining) for _ in item.inputs] for item in items]


@dataclass(frozen=True)
class _Asked:
    """Items with the pictures that go in, and the side in px of each item's pictures."""

    items: list[Item]
    inputs: list[list[Picture]]
    sizes: list[int]


def _generate_missing(pipe: Any, task: str, asked: _Asked, options: Options, store: Store) -> None:
    """The model's pictures, in chunks that never depend on what is there already."""
    groups: dict[tuple[str, int], list[int]] = {}
    for i, item in enumerate(asked.items):
        groups.setdefault((item.family, len(item.inputs)), []).append(i)
    done = 0
    for indices in groups.values():
        for start in range(0, len(indices), options.chunk):
            part = indices[start : start + options.chunk]
            if not all(store.has_picture(asked.items[i].key) for i in part):
                _generate(pipe, task, asked, part, options, store)
            done += len(part)
            if options.on_item is not None:
                options.on_item(task, done, len(asked.items))


def _generate(pipe: Any, task: str, asked: _Asked, part: list[int], options: Options, store: Store) -> None:
    """One call; the sizes are said, so that neither references nor pictures are made smaller."""
    items, size = [asked.items[i] for i in part], asked.sizes[part[0]]
    call: dict[str, Any] = {"height": size, "width": size, "seed": [item.seed for item in items]}
    call |= {"max_pixels": max(size * size, int(pipe.profile.max_pixels))}
    call |= {"max_input_image_side_length": max(size, int(pipe.profile.max_input_image_side_length))}
    if items[0].inputs:
        call["input_images"] = [[Image.fromarray(picture) for picture in asked.inputs[i]] for i in part]
    prompts = [item.prompt for item in items]
    result = pipe(prompts, preset=PRESETS[task], output_type="pil", **{**call, **options.calls})
    for item, image in zip(items, result.images, strict=True):
        store.put_picture(item.key, image)
