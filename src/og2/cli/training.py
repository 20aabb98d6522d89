"""`og2 train`, `og2 cache`, `og2 data check`, `og2 export`: what concerns training, and reports of it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from og2.cli import exits

_RECIPE = typer.Argument(..., help="A recipe: a YAML file.", metavar="RECIPE")
_OVERRIDES = typer.Argument(None, help="Changes to it: section.key=value.", metavar="[KEY=VALUE]...")
_MIX = typer.Argument(..., help="A recipe, or a mix: a YAML file.", metavar="RECIPE")
_WORKERS = typer.Option(0, "--workers", min=0, help="Processes that read; 0 reads in this one.")
_MAX_ROWS = typer.Option(None, "--max-rows", min=1, help="Rows of each source, evenly spread (default: all).")
_JSON = typer.Option(False, "--json", help="Print one JSON object on stdout and nothing else there.")
_DRY_RUN = typer.Option(
    False, "--dry-run", help="Print the whole recipe, try one step, and say what it costs."
)
_RUN = typer.Argument(..., help="The folder of a run: run.folder of its recipe.", metavar="RUN")
_OUT = typer.Argument(..., help="The folder to write; it must not exist.", metavar="FOLDER")
_STEP = typer.Option(None, "--step", help="The checkpoint to take (default: the newest).")
_MERGE = typer.Option(False, "--merge", help="Add a LoRA to the weights and write a whole model.")
_PLAIN = typer.Option(False, "--no-average", help="Take the weights of that step, not their average.")
_DTYPE = typer.Option("fp32", "--dtype", help="fp32, bf16 or fp16: what the weights are stored in.")


def attach(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("train")(train)
    app.command("export")(export)
    app.command("cache")(cache)
    data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look through training data.")
    data.command("check")(check)
    app.add_typer(data, name="data")


def train(recipe: str = _RECIPE, overrides: list[str] = _OVERRIDES, dry_run: bool = _DRY_RUN) -> None:
    """Train what a recipe says, or go on with it.

    og2 train recipes/debug_cpu.yaml optim.steps=100
    """
    _begin()
    from og2.train import run

    if dry_run:
        print(run.dry_run(recipe, overrides or []))
    else:
        run.start_logging()
        run.run_recipe(recipe, overrides or [])


def export(
    run: Path = _RUN,
    folder: Path = _OUT,
    step: int | None = _STEP,
    merge: bool = _MERGE,
    no_average: bool = _PLAIN,
    dtype: str = _DTYPE,
) -> None:
    """Write what a run has learned: a whole model in the published layout, or an adapter alone.

    og2 export runs/finetune my-model
    """
    _begin()
    from og2.cli.loading import dtype_name
    from og2.train.export import ExportConfig, export_run

    name = dtype_name(dtype)
    assert name is not None
    for path in export_run(run, folder, ExportConfig(step, merge, not no_average, name)):
        print(path)


def cache(
    recipe: Path = _RECIPE,
    overrides: list[str] = _OVERRIDES,
    workers: int = _WORKERS,
    max_rows: int | None = _MAX_ROWS,
) -> None:
    """Encode all pictures and prompts that a recipe trains on, ahead of training.

    og2 cache recipes/finetune_lora.yaml
    """
    _begin()
    from og2.data.fill import FillConfig
    from og2.train.prepare import fill

    with _counting() as progress:
        for stage, report in fill(recipe, overrides or [], FillConfig(workers, max_rows), progress):
            for skipped in report.skipped:
                sys.stderr.write(f"{skipped.reason}\n")
            print(
                f"{stage}: {report.num_rows} rows, {report.num_made} entries made, {report.num_found} were "
                f"there, {len(report.skipped)} rows left out"
            )


def check(
    recipe: Path = _MIX,
    overrides: list[str] = _OVERRIDES,
    workers: int = _WORKERS,
    max_rows: int | None = _MAX_ROWS,
    as_json: bool = _JSON,
) -> int:
    """Look at every row as training would read it, and at the shares that training would see.

    og2 data check data/mix.yaml
    """
    _begin()
    from og2.cli.check_report import lines
    from og2.data.check import CheckConfig
    from og2.train.prepare import check as look

    config = CheckConfig(workers=workers, max_rows=max_rows)
    found = {}
    with _counting() as progress:
        for stage, report in look(recipe, overrides or [], config, progress):
            found[stage] = report
            if not as_json:
                print("\n".join(lines(stage, report)))
    if as_json:
        print(json.dumps({stage: report.to_tree() for stage, report in found.items()}))
    return 0 if all(report.is_clean for report in found.values()) else exits.BAD_INPUT


@contextlib.contextmanager
def _counting() -> Iterator[Callable[[int, int], None]]:
    """Shows how many rows are done, on a terminal."""
    from tqdm import tqdm

    with tqdm(unit="row", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _begin() -> None:
    from og2.cli.loading import collect_garbage, quiet_libraries

    quiet_libraries()
    collect_garbage()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
