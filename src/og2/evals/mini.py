"""The mini benchmark: what a checkpoint can draw, edit and understand in the mini-world, judged from pixels.

T2I: prompts for one object whose (shape, colour, size, position) never occurs in training. Editing: unseen
recolour, add and remove edits, success and the share of kept pixels. Understanding: questions, captions,
and when to answer with a picture. Beside them run controls whose scores are known beforehand (ground truth,
ground truth through the model's VAE, swapped prompts, a copy of the source, a blank picture). Evidence about
the mechanism, not about photorealism. Command: `og2 eval mini`, or `python -m og2.evals.mini`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from og2.errors import RequestError
from og2.evals.intervals import Share, mean_of, share_of
from og2.evals.items import DrawItem, ask_items, draw_items, edit_items, route_items
from og2.evals.near_miss import Picture
from og2.evals.report import Report, Row, format_report, write_sheet
from og2.world.render import render_batch
from og2.world.score import EditVerdict, Verdict, score_edit, score_t2i
from og2.world.spec import EDIT_KINDS, Edit, Scene

NUM_DRAW, NUM_EDIT, NUM_ASK, NUM_ROUTE = 200, 100, 60, 60
TASKS = ("t2i", "edit", "understanding")


@dataclass(frozen=True)
class Options:
    """How the benchmark runs.

    limit: at most so many items of each kind, None for all. size: side of the pictures in px, None for
    the model's own. chunk: pictures per call. draw, edit: options for the calls beside the presets.
    """

    limit: int | None = None
    seed: int = 0
    size: int | None = None
    chunk: int = 20
    tasks: tuple[str, ...] = TASKS
    draw: dict[str, Any] = field(default_factory=dict)
    edit: dict[str, Any] = field(default_factory=dict)
    on_item: Callable[[str, int, int], None] | None = None


def evaluate(pipe: Any, options: Options | None = None) -> Report:
    """The scores of a pipeline on the mini benchmark, each with its number of items and 95 % interval.

    pipe: an OmniGen2Pipeline, or anything that answers its call, `chat`, `describe` and `vae`.
    Raises: RequestError for a limit below 1.
    """
    options = options or Options()
    if options.limit is not None and options.limit < 1:
        raise RequestError(f"limit={options.limit} leaves nothing to score; use 1 or more")
    size = options.size or int(pipe.profile.native_size)
    settings = {"seed": options.seed, "limit": options.limit, "size": size}
    settings |= {"model": pipe.profile.name, "draw": options.draw, "edit": options.edit}
    report = Report(settings)
    if "t2i" in options.tasks:
        _evaluate_drawing(pipe, options, size, report)
    if "edit" in options.tasks:
        _evaluate_editing(pipe, options, size, report)
    if "understanding" in options.tasks:
        _evaluate_understanding(pipe, options, size, report)
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: evaluates a model, prints a table or, with --json, one JSON object. Returns 0."""
    parser = argparse.ArgumentParser(prog="og2 eval mini", description="Score a model in the mini-world.")
    parser.add_argument(
        "--model", default=None, help="folder or hub id; default the mini model in the package"
    )
    parser.add_argument("--limit", type=int, default=None, help="at most so many items of each kind")
    parser.add_argument("--seed", type=int, default=0, help="seed of the items and of the pictures")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument(
        "--steps", type=int, default=None, help="steps per picture; default the model's preset"
    )
    parser.add_argument(
        "--pack",
        choices=("picture", "batch"),
        default="picture",
        help="batch is faster where networks are wide",
    )
    parser.add_argument(
        "--sheet", type=Path, default=None, help="write the pictures to this PNG, the worst first"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    if given.sheet is not None and given.sheet.exists():
        parser.error(f"--sheet {given.sheet} is there already; choose another name")
    from og2 import OmniGen2Pipeline

    pipe = OmniGen2Pipeline.from_pretrained(given.model)
    pipe.set_progress_bar_config(disable=True)
    how: dict[str, Any] = {"pack": given.pack}
    how |= {"num_inference_steps": given.steps} if given.steps else {}
    on_item = None if given.json else _show_progress
    limit, tasks = given.limit or None, tuple(given.tasks)
    report = evaluate(pipe, Options(limit, given.seed, tasks=tasks, draw=how, edit=how, on_item=on_item))
    if given.sheet is not None:
        write_sheet(report, given.sheet)
    sys.stdout.write((json.dumps(report.to_dict(), indent=1) if given.json else format_report(report)) + "\n")
    return 0


def _evaluate_drawing(pipe: Any, options: Options, size: int, report: Report) -> None:
    items = draw_items(_number(NUM_DRAW, options), options.seed)
    start = time.perf_counter()
    pictures = list(_generate(pipe, options, [i.prompt for i in items], None, "t2i"))
    report.timings["t2i_s_per_picture"] = (time.perf_counter() - start) / len(items)
    truth = _render([i.scene for i in items], size)
    verdicts = [score_t2i(p, i.required) for p, i in zip(pictures, items, strict=True)]
    report.scores["t2i"] = share_of([v.passed for v in verdicts])
    for atom in ("shape", "color", "count"):
        report.breakdown[f"t2i {atom}"] = share_of([v.atoms.get(atom, False) for v in verdicts])
    report.breakdown["t2i every word"] = _accepted(pictures, items, every_word=True)
    report.breakdown["t2i unknown"] = share_of([v.unknown for v in verdicts])
    for word in ("shape", "color", "size", "position"):
        _break_down(
            report,
            f"t2i by {word}",
            [(getattr(i.scene.objects[0], word), v) for i, v in _pairs(items, verdicts)],
        )
    report.controls["t2i ground truth"] = _accepted(truth, items)
    report.controls["t2i ground truth through VAE"] = _accepted(_through_vae(pipe, truth), items)
    report.controls["t2i swapped prompts, ground truth"] = _swapped(truth, items)
    report.controls["t2i swapped prompts, model"] = _swapped(pictures, items)
    blank = [np.full((size, size, 3), 200, np.uint8)] * len(items)
    report.controls["t2i blank"] = _accepted(blank, items)
    for item, picture, verdict in zip(items, pictures, verdicts, strict=True):
        report.rows.append(Row("t2i", item.prompt, (picture,), verdict.passed, verdict.reason))


def _evaluate_editing(pipe: Any, options: Options, size: int, report: Report) -> None:
    edits = edit_items(_number(NUM_EDIT, options), options.seed)
    sources, truth = (_render([getattr(e, which) for e in edits], size) for which in ("source", "target"))
    start = time.perf_counter()
    results = list(_generate(pipe, options, [e.instruction for e in edits], sources, "edit"))
    report.timings["edit_s_per_picture"] = (time.perf_counter() - start) / len(edits)
    verdicts = _edit_verdicts(sources, results, edits)
    report.scores["edit"] = share_of([v.success for v in verdicts])
    report.breakdown["edit kept"] = mean_of([v.kept for v in verdicts])
    report.breakdown["edit kept without drift"] = mean_of([v.kept_without_drift for v in verdicts])
    for kind in EDIT_KINDS:
        own = [v for v, e in zip(verdicts, edits, strict=True) if e.kind == kind]
        report.breakdown[f"edit {kind}"] = share_of([v.success for v in own])
        report.breakdown[f"edit {kind} kept"] = mean_of([v.kept for v in own])
    for name, pictures in (
        ("ground truth", truth),
        ("ground truth through VAE", _through_vae(pipe, truth)),
        ("copy of the source", sources),
        ("blank", [np.full_like(p, 200) for p in sources]),
    ):
        found = _edit_verdicts(sources, pictures, edits)
        report.controls[f"edit {name}"] = share_of([v.success for v in found])
        report.controls[f"edit {name}, kept"] = mean_of([v.kept for v in found])
    for edit, source, result, right, verdict in zip(edits, sources, results, truth, verdicts, strict=True):
        report.rows.append(
            Row("edit", edit.instruction, (source, result, right), verdict.success, verdict.reason)
        )


def _evaluate_understanding(pipe: Any, options: Options, size: int, report: Report) -> None:
    items = ask_items(_number(NUM_ASK, options), options.seed)
    outcomes: dict[str, list[bool]] = {}
    pictures = _render([i.scene for i in items], size)
    for number, (item, picture) in enumerate(zip(items, pictures, strict=True)):
        for kind, question, answer in item.questions:
            said = pipe.describe(Image.fromarray(picture), question)
            right = _plain(said) == _plain(answer)
            outcomes.setdefault(kind, []).append(right)
            if not right or kind == "caption":
                report.answers.append({"kind": kind, "question": question, "answer": said, "right": answer})
        _tell(options, "understanding", number + 1, len(items))
    everything = [right for kind in outcomes.values() for right in kind]
    report.scores["understanding"] = share_of(everything)
    for kind, found in outcomes.items():
        report.breakdown[f"understanding {kind}"] = share_of(found)
    routes = route_items(_number(NUM_ROUTE, options), options.seed)
    right_ways = []
    for route in routes:
        shown = [] if route.scene is None else [Image.fromarray(_render([route.scene], size)[0])]
        result = pipe.chat(route.text, shown, num_inference_steps=1, seed=options.seed)
        right_ways.append(bool(len(result.images)) == route.wants_image)
    report.breakdown["understanding picture or words"] = share_of(right_ways)


def _generate(
    pipe: Any, options: Options, prompts: list[str], sources: list[Picture] | None, preset: str
) -> Iterator[Picture]:
    """The model's pictures, in chunks; picture i is drawn from seed + i."""
    own = options.edit if sources is not None else options.draw
    for start in range(0, len(prompts), options.chunk):
        part = slice(start, start + options.chunk)
        call: dict[str, Any] = {"seed": [options.seed + i for i in range(len(prompts))][part], **own}
        if sources is not None:
            call["input_images"] = [[Image.fromarray(picture)] for picture in sources[part]]
        elif options.size is not None:
            call |= {"height": options.size, "width": options.size}
        result = pipe(prompts[part], preset=preset, output_type="pil", **call)
        for image in result.images:
            yield np.asarray(image.convert("RGB"))
        _tell(options, preset, min(start + options.chunk, len(prompts)), len(prompts))


@torch.no_grad()
def _through_vae(pipe: Any, pictures: list[Picture]) -> list[Picture]:
    """Pictures encoded to the posterior's mean and decoded again: what no model with this VAE can beat."""
    weights = next(pipe.vae.parameters())
    done = []
    for picture in pictures:
        pixels = (
            torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].to(weights.device, weights.dtype) / 127.5
            - 1
        )
        decoded = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mode(), return_dict=False)[0]
        shown = ((decoded[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        done.append(shown.permute(1, 2, 0).cpu().numpy())
    return done


def _accepted(pictures: list[Picture], items: list[DrawItem], every_word: bool = False) -> Share:
    rules = [i.every_word if every_word else i.required for i in items]
    return share_of([score_t2i(p, r).passed for p, r in zip(pictures, rules, strict=True)])


def _swapped(pictures: list[Picture], items: list[DrawItem]) -> Share:
    """Acceptance of each picture under the next item's prompt, where that asks for something else."""
    shifted = items[1:] + items[:1]
    return share_of(
        [
            score_t2i(picture, other.required).passed
            for picture, item, other in zip(pictures, items, shifted, strict=True)
            if other.required != item.required
        ]
    )


def _edit_verdicts(sources: list[Picture], results: list[Picture], edits: list[Edit]) -> list[EditVerdict]:
    return [score_edit(s, r, e.requirements) for s, r, e in zip(sources, results, edits, strict=True)]


def _break_down(report: Report, title: str, pairs: list[tuple[str, Verdict]]) -> None:
    for value in sorted({value for value, _ in pairs}):
        report.details.setdefault(title, {})[value] = share_of([v.passed for key, v in pairs if key == value])


def _pairs(items: list[DrawItem], verdicts: list[Verdict]) -> list[tuple[DrawItem, Verdict]]:
    return list(zip(items, verdicts, strict=True))


def _render(scenes: list[Scene], size: int) -> list[Picture]:
    return list(render_batch(scenes, size).numpy())


def _number(standard: int, options: Options) -> int:
    return standard if options.limit is None else min(standard, options.limit)


def _plain(text: str) -> str:
    return " ".join(text.lower().replace(".", " ").split())


def _tell(options: Options, task: str, done: int, total: int) -> None:
    if options.on_item is not None:
        options.on_item(task, done, total)


def _show_progress(task: str, done: int, total: int) -> None:
    sys.stderr.write(f"\r{task}: {done}/{total} " + ("\n" if done == total else ""))
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
