"""`og2 train RECIPE.yaml [section.key=value ...]`: train what a recipe says, go on with it, or try a step."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from og2.config import Registry, build, override, read_yaml, to_tree
from og2.errors import ConfigError, Og2Error
from og2.files import write_text

logger = logging.getLogger(__name__)
RESOLVED = "recipe.yaml"


@dataclass(frozen=True)
class Kind:
    """Where the recipe class and the functions of one kind of training are; imported when used."""

    module: str
    recipe: str

    def load(self) -> tuple[type[Any], Any]:
        """The recipe's dataclass and its module: `run`, and `make_task` where the loop runs it."""
        module = import_module(self.module)
        return getattr(module, self.recipe), module


KINDS: Registry[Kind] = Registry(
    "kind of recipe",
    {
        "tokenizer": Kind("og2.train.tokenizer", "TokenizerRecipe"),
        "vlm": Kind("og2.train.vlm", "VlmRecipe"),
        "vae": Kind("og2.train.vae", "VaeRecipe"),
        "latents": Kind("og2.data.latents", "LatentsRecipe"),
        "ship": Kind("og2.train.ship", "ShipRecipe"),
        "flow": Kind("og2.train.flow", "FlowRecipe"),
        "transformer": Kind("og2.train.transformer", "TransformerRecipe"),
        "encodings": Kind("og2.train.encoding_sweep", "EncodingsRecipe"),
    },
)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> tuple[str, Any, Any]:
    """The kind, the recipe and the module of its kind.   Raises: ConfigError."""
    tree = override(read_yaml(path), overrides)
    if "kind" not in tree:
        raise ConfigError(f"{path} has no key 'kind'; known kinds: {', '.join(sorted(KINDS))}")
    kind = tree.pop("kind")
    recipe_class, module = KINDS[kind].load()
    return kind, build(recipe_class, tree, Path(path).stem), module


def run_recipe(path: str | Path, overrides: Sequence[str] = ()) -> None:
    """Train what the recipe at `path` says.

    The resolved recipe is written to `run.folder`; a run that goes on under another one says what differs.
    Raises: ConfigError, Og2Error.
    """
    kind, recipe, module = read_recipe(path, overrides)
    if hasattr(recipe, "run") and os.environ.get("RANK", "0") == "0":
        keep_resolved(kind, recipe)
    module.run(recipe)


def resolved(kind: str, recipe: Any) -> str:
    """The recipe with every value, as YAML that is a recipe again."""
    return yaml.safe_dump({"kind": kind, **_writable(to_tree(recipe))}, sort_keys=False, width=110)


def dry_run(path: str | Path, overrides: Sequence[str] = ()) -> str:
    """What a recipe would do and cost, in words: all its values, one step's time and memory, the whole run's.

    Nothing stays. Raises: ConfigError, Og2Error.
    """
    from og2.train.loop import try_step

    kind, recipe, module = read_recipe(path, overrides)
    text = resolved(kind, recipe)
    if not hasattr(module, "make_task"):
        return f"{text}\nkind {kind} has no steps to try; the recipe is well-formed"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a dry run is one process; leave torchrun out")
    schedule: Callable[[Any], Any] = getattr(module, "whole_schedule", lambda recipe: recipe.optim)
    with tempfile.TemporaryDirectory() as folder:
        trial = try_step(
            module.make_task(recipe),
            replace(recipe.run, folder=Path(folder)),
            schedule(recipe),
            getattr(recipe, "rate", None),
        )
    steps = schedule(recipe).steps
    lines = [
        f"one step: {trial.seconds:.2f} s, {trial.samples} samples, {trial.tokens} tokens; "
        f"peak memory {trial.peak_gb:.2f} GB, of which {trial.state_gb:.3g} GB are weights, average and "
        "optimizer",
        f"all {steps} steps: about {_span(trial.seconds * steps)} on this machine, evaluations not counted",
        f"a checkpoint: about {trial.state_gb:.3g} GB; {trial.num_parameters / 1e6:.2f} million values learn",
    ]
    return text + "\n" + "\n".join(lines)


def keep_resolved(kind: str, recipe: Any) -> None:
    """Writes the resolved recipe into its run's folder, and warns of what is not as it was there before."""
    path = recipe.run.folder / RESOLVED
    text = resolved(kind, recipe)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        before, now = _flat(read_yaml(path)), _flat(yaml.safe_load(text))
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                logger.warning("%s was %s in this run so far, now %s", name, before.get(name), now.get(name))
    write_text(path, text)


def _writable(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {str(key): _writable(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_writable(value) for value in tree]
    return str(tree) if isinstance(tree, Path) else tree


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {name: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{name}.{key}".strip(".")).items()}


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command as a module, for torchrun; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m og2.train.run", description="Train what a recipe says, or go on with it."
    )
    parser.add_argument("recipe", help="YAML file, for example recipes/mini/vae.yaml")
    parser.add_argument("overrides", nargs="*", help="section.key=value, for example optim.steps=100")
    options = parser.parse_args(arguments)
    start_logging()
    try:
        run_recipe(options.recipe, options.overrides)
    except (Og2Error, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def start_logging() -> None:
    """The run's own messages on stderr; those of libraries from warnings on."""
    # Under autocast norms keep their weights in float32, which torch remarks on.
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("httpx", "urllib3", "filelock", "torch"):
        logging.getLogger(name).setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
