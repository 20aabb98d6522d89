"""`python -m og2.train.run RECIPE.yaml [section.key=value ...]`: train what a recipe says, or resume it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from og2.config import Registry, build, override, read_yaml
from og2.errors import ConfigError, Og2Error


@dataclass(frozen=True)
class Kind:
    """Where the recipe class and the run function of one kind of training are; imported when used."""

    module: str
    recipe: str

    def load(self) -> tuple[type[Any], Callable[[Any], None]]:
        """The recipe's dataclass and the function that runs it."""
        module = import_module(self.module)
        return getattr(module, self.recipe), module.run


KINDS: Registry[Kind] = Registry(
    "kind of recipe",
    {
        "tokenizer": Kind("og2.train.tokenizer", "TokenizerRecipe"),
        "vlm": Kind("og2.train.vlm", "VlmRecipe"),
        "vae": Kind("og2.train.vae", "VaeRecipe"),
        "latents": Kind("og2.data.latents", "LatentsRecipe"),
        "ship": Kind("og2.train.ship", "ShipRecipe"),
        "flow": Kind("og2.train.flow", "FlowRecipe"),
    },
)


def run_recipe(path: str | Path, overrides: Sequence[str] = ()) -> None:
    """Train what the recipe at `path` says.   Raises: ConfigError, Og2Error."""
    tree = override(read_yaml(path), overrides)
    if "kind" not in tree:
        raise ConfigError(f"{path} has no key 'kind'; known kinds: {', '.join(sorted(KINDS))}")
    recipe_class, run = KINDS[tree.pop("kind")].load()
    run(build(recipe_class, tree, Path(path).stem))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m og2.train.run", description="Train what a recipe says, or go on with it."
    )
    parser.add_argument("recipe", help="YAML file, for example recipes/mini/vae.yaml")
    parser.add_argument("overrides", nargs="*", help="section.key=value, for example optim.steps=100")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("httpx", "urllib3", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        run_recipe(options.recipe, options.overrides)
    except Og2Error as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
