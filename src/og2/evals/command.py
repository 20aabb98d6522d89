"""The commands `og2 eval mini`, `og2 eval subject`, `og2 world certify` and `og2 world subject`: their
options, and what they print.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from og2.errors import ConfigError, Og2Error
from og2.evals.certificate import Certificate
from og2.evals.certify import DEFAULT_N, SIZES, Plan, certify
from og2.evals.conditions import VAE
from og2.evals.intervals import Share, paired_difference
from og2.evals.mini import TASKS, Options, evaluate
from og2.evals.page import write_page
from og2.evals.report import Report, controls_table, format_report
from og2.evals.seeds import seed_of
from og2.files import user_path, write_text
from og2.world.scenes import WORLDS

_SIZE_HELP = "side of the pictures in px; default the model's own, or what a family needs if that is more"


def eval_mini(arguments: Sequence[str] | None = None) -> int:
    """Evaluates a model, prints a table or, with --json, one JSON object. Returns 0."""
    given = _parsed(_eval_parser(), arguments)
    for path in (given.html, given.save):
        if path is not None and path.exists():
            raise ConfigError(f"{path} is there already; choose another name")
    other = None if given.against is None else _scores_in(given.against)
    from og2 import OmniGen2Pipeline

    pipe = OmniGen2Pipeline.from_pretrained(given.model)
    pipe.set_progress_bar_config(disable=True)
    report = evaluate(pipe, _options(given), given.out)
    data = report.to_dict()
    if other is not None:
        data["against"] = _against(data, other)
    if given.html is not None:
        write_page(report, given.html)
    text = json.dumps(data, indent=1)
    if given.save is not None:
        write_text(given.save, text + "\n")
    if given.markdown:
        text = controls_table(report)
    sys.stdout.write((text if given.json or given.markdown else _table(report, data)) + "\n")
    return 0


def world_certify(arguments: Sequence[str] | None = None) -> int:
    """Measures the scorer, prints its certificate as a table or as JSON. Returns 0."""
    given = _parsed(_certify_parser(), arguments)
    if given.out is not None and given.out.exists():
        raise ConfigError(f"{given.out} is there already; choose another name")
    if given.show is not None:
        certificate = Certificate.load(given.show)
    else:
        certificate = certify(_plan(given), given.state)
    if given.out is not None:
        write_text(given.out, json.dumps(certificate.to_dict(), indent=1) + "\n")
    if given.markdown:
        text = certificate.markdown()
    else:
        text = json.dumps(certificate.summary(), indent=1) if given.json else certificate.format()
    sys.stdout.write(text + "\n")
    return 0


class _Parser(argparse.ArgumentParser):
    """One that raises what is wrong, so that it is reported as everywhere in og2, also with --json."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} ({self.prog} --help)")


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options as typed, with `-` or `_` in their names."""
    typed = [item.partition("=") for item in (sys.argv[1:] if arguments is None else arguments)]
    return parser.parse_args(
        [
            (name.replace("_", "-") if name.startswith("--") else name) + equals + value
            for name, equals, value in typed
        ]
    )


def _certify_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="og2 world certify", description="Measure the scorer itself.")
    add = parser.add_argument
    add("--n", type=int, default=DEFAULT_N, help="right pictures per task")
    add("--n-conditions", type=int, default=None, help="the same under each condition but clean; default --n")
    add("--kinds", type=int, default=None, help="near misses of each drawing and edit; default of every kind")
    add("--seed", type=int, default=1, help="of the pictures; thresholds were set on seed 0")
    add("--tasks", nargs="+", default=None, help="only these tasks")
    add("--conditions", nargs="+", default=None, help="only these conditions (clean, blur 1.0, noise 8, ...)")
    add("--size", type=int, default=None, help=f"side of the pictures in px; default {SIZES}")
    add(
        "--vae", default=None, help="model whose VAE makes the round trip; default mini, 'none' leaves it out"
    )
    add("--workers", type=int, default=0, help="processes beside this one")
    add("--minutes", type=float, default=None, help="begin nothing new after so long; print what is done")
    add("--state", type=user_path, default=None, help="file of what is done; a stopped run goes on from it")
    add("--out", type=user_path, default=None, help="write the certificate to this file")
    add("--show", type=user_path, default=None, help="measure nothing, print the certificate in this file")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print {task: {accept_correct, ...}}")
    shape.add_argument("--markdown", action="store_true", help="print the tables of docs/world.md")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    if given.workers < 0 or (given.minutes is not None and given.minutes <= 0):
        raise ConfigError(
            f"--workers {given.workers} and --minutes {given.minutes}: use 0 or more, and above 0"
        )
    needs_vae = given.conditions is None or VAE in given.conditions
    return Plan(
        given.n,
        given.seed,
        given.size,
        tuple(given.tasks) if given.tasks else None,
        tuple(given.conditions) if given.conditions else None,
        _vae(given.vae) if needs_vae and given.vae != "none" else None,
        None if given.json else _show_progress,
        given.n_conditions,
        given.kinds,
        given.workers,
        None if given.minutes is None else 60.0 * given.minutes,
    )


def eval_subject(arguments: Sequence[str] | None = None) -> int:
    """Measures an adapter on the newcomer of the world, prints a table or, with --json, JSON. Returns 0."""
    parser = _Parser(prog="og2 eval subject", description="Score a LoRA of the newcomer.")
    add = parser.add_argument
    add("--lora", type=user_path, required=True, help="the adapter: a safetensors file, or a folder with one")
    add("--model", default=None, help="folder or hub id; default the mini model in the package")
    add("--n", type=int, default=25, help="prompts of each group that name the subject")
    add("--plain", type=int, default=100, help="prompts that do not name it")
    add("--seed", type=int, default=0, help="of prompts and noise")
    add("--out", type=user_path, default=None, help="folder for report.json and sheet.png")
    add("--json", action="store_true", help="print one JSON object")
    given = _parsed(parser, arguments)
    from og2 import OmniGen2Pipeline
    from og2.evals.subject import SubjectOptions, evaluate_subject, format_subject

    pipe = OmniGen2Pipeline.from_pretrained(given.model)
    pipe.set_progress_bar_config(disable=True)
    options = SubjectOptions(given.n, given.plain, given.seed)
    report = evaluate_subject(pipe, given.lora, options, given.out)
    text = json.dumps(report.to_dict(), indent=1) if given.json else format_subject(report)
    sys.stdout.write(text + "\n")
    return 0


def world_subject(arguments: Sequence[str] | None = None) -> int:
    """Writes the few pictures of the newcomer with their captions. Returns 0."""
    parser = _Parser(prog="og2 world subject", description="Pictures of a new subject.")
    add = parser.add_argument
    add("folder", type=user_path, help="where to write 00.png, 00.txt and so on; it must not exist")
    add("--n", type=int, default=20, help="how many pictures")
    add("--size", type=int, default=64, help="their side in px")
    add("--seed", type=int, default=0, help="of the scenes")
    given = _parsed(parser, arguments)
    from og2.evals.subject import write_pictures

    paths = write_pictures(given.folder, given.size, given.seed, given.n)
    sys.stdout.write(f"{len(paths)} pictures with captions in {given.folder}\n")
    return 0


def _eval_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="og2 eval mini", description="Score a model in the mini-world.")
    add = parser.add_argument
    add("--model", default=None, help="folder or hub id; default the mini model in the package")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", default="public", help="which items: public, sealed, fresh:N or a number")
    seeds.add_argument("--seed", type=int, default=None, help="the same as --seeds NUMBER")
    add("--limit", type=int, default=None, help="at most so many items of each family")
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--families", nargs="+", default=None, help="only these families of items (one task)")
    add("--world", choices=tuple(WORLDS), default="full", help="plain is what the mini model draws")
    add("--size", type=int, default=None, help=_SIZE_HELP)
    add("--steps", type=int, default=None, help="steps per picture; default the model's preset")
    add("--pack", choices=("picture", "batch"), default="batch", help="what is computed together")
    add("--chunk", type=int, default=20, help="pictures per call")
    add("--out", type=user_path, default=None, help="folder for pictures and answers; a stopped run goes on")
    add("--score-only", action="store_true", help="score what is in --out, draw nothing")
    controls = parser.add_mutually_exclusive_group()
    controls.add_argument("--no-controls", action="store_true", help="leave the controls out")
    controls.add_argument("--controls-only", action="store_true", help="score the controls, draw nothing")
    add("--html", type=user_path, default=None, help="write a page with the pictures, the worst first")
    add("--save", type=user_path, default=None, help="write the JSON to this file too")
    add("--against", type=user_path, default=None, help="JSON of another run: print the paired differences")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print one JSON object")
    shape.add_argument("--markdown", action="store_true", help="print the table of controls of docs/world.md")
    return parser


def _options(given: argparse.Namespace) -> Options:
    seed, name = seed_of(given.seeds if given.seed is None else str(given.seed))
    if given.score_only and given.out is None:
        raise ConfigError("--score-only needs --out, the folder with the pictures")
    calls: dict[str, Any] = {"pack": given.pack}
    calls |= {"num_inference_steps": given.steps} if given.steps is not None else {}
    return Options(
        limit=given.limit,
        seed=seed,
        seeds=name,
        world=given.world,
        size=given.size,
        chunk=given.chunk,
        tasks=tuple(given.tasks),
        families=tuple(given.families) if given.families else None,
        controls=not given.no_controls,
        generate=not given.score_only,
        model=not given.controls_only,
        calls=calls,
        on_item=None if given.json else _show_progress,
    )


def _scores_in(path: Path) -> dict[str, tuple[str, float]]:
    """Text and score of every item of a report, by key.   Raises: ConfigError."""
    try:
        other = json.loads(path.read_text(encoding="utf-8"))
        return {item["key"]: (item["text"], float(item["score"])) for item in other["items"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--against {path} holds no report: {error}") from error


def _against(data: dict[str, Any], other: dict[str, tuple[str, float]]) -> dict[str, Any]:
    """Per task the mean of this run's scores less the other's, over items of one key and text."""
    done = {}
    for task in dict.fromkeys(item["key"].split("/")[0] for item in data["items"]):
        new, old = {}, {}
        for item in data["items"]:
            key, (text, score) = item["key"], other.get(item["key"], ("", 0.0))
            if key in other and key.startswith(f"{task}/") and text == item["text"]:
                new[key], old[key] = item["score"], score
        done[task] = paired_difference(new, old).to_dict()
    return done


def _table(report: Report, data: dict[str, Any]) -> str:
    text = format_report(report)
    for task, share in data.get("against", {}).items():
        text += f"\n{task}: {Share(**share)} more than the other run, over the items of both"
    return text


def _vae(model: str | None) -> Any:
    from og2 import OmniGen2Pipeline

    try:
        return OmniGen2Pipeline.from_pretrained(model).vae
    except Og2Error as error:
        raise ConfigError(
            f"the VAE for the round trip cannot be loaded: {error}; --vae none leaves it out"
        ) from error


def _show_progress(task: str, done: int, total: int) -> None:
    sys.stderr.write(f"\r{task}: {done}/{total} " + ("\n" if done == total else ""))
    sys.stderr.flush()
