"""What a run has learned, as others read it: a model in the published layout, or an adapter's file alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from og2.config import build, read_yaml
from og2.errors import CheckpointError, ConfigError
from og2.model.lora import WEIGHTS, merge, save_adapter
from og2.model.weights import load_components, save_components
from og2.train import checkpoint
from og2.train.answers import plain_mllm
from og2.train.network import TrainedNetworks
from og2.train.recipe import TransformerRecipe
from og2.train.run import RESOLVED
from og2.train.transformer import base_hash, trained_networks


@dataclass(frozen=True)
class ExportConfig:
    """step: of the checkpoint, None for the newest. merged: a LoRA becomes part of the weights.

    is_average: the average of the weights where the run keeps one. dtype: that of stored weights.
    """

    step: int | None = None
    merged: bool = False
    is_average: bool = True
    dtype: str = "float32"


def export_run(run: Path, folder: Path, config: ExportConfig) -> list[Path]:
    """Writes what `run` has learned into `folder`, and returns what was written.

    A whole model with everything that `og2 generate --model` needs; or, for a LoRA not merged, its file.
    Raises: CheckpointError when there is no such checkpoint, or `folder` exists; ConfigError for another kind
    of run.
    """
    recipe = _recipe(run)
    if folder.exists():
        raise CheckpointError(f"{folder} exists already; choose another name")
    networks = learned(run, recipe, config)
    if recipe.lora is not None and not config.merged:
        if recipe.answers is not None:
            raise ConfigError("this run trained the language model too; export it with --merge")
        return [save_adapter(networks.transformer, folder / WEIGHTS, base_hash(recipe))]
    if recipe.lora is not None:
        merge(networks.transformer)
    dtype = getattr(torch, config.dtype)
    base = load_components(recipe.model, dtype)
    mllm = base.mllm if networks.mllm is None else plain_mllm(networks.mllm).to(dtype)
    made = replace(base, transformer=networks.transformer.to(dtype).eval(), mllm=mllm)
    return [save_components(made, folder)]


def learned(run: Path, recipe: TransformerRecipe, config: ExportConfig) -> TrainedNetworks:
    """The networks of a run with the weights of one of its checkpoints, in float32 on the CPU."""
    folder = _checkpoint(run, config.step)
    networks = trained_networks(recipe, torch.device("cpu"))
    wanted = {name: p for name, p in networks.named_parameters() if p.requires_grad}
    has_average = config.is_average and recipe.optim.ema > 0
    found = checkpoint.read_group(folder, "average" if has_average else "parameters", wanted)
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(found[name])
    return networks


def _recipe(run: Path) -> TransformerRecipe:
    path = run / RESOLVED
    if not path.is_file():
        raise CheckpointError(f"{run} holds no {RESOLVED}; give run.folder of a training run")
    tree = read_yaml(path)
    kind = tree.pop("kind", None)
    if kind != "transformer":
        raise ConfigError(f"{run} is a run of kind {kind}; its export/ folder is what it exports")
    return build(TransformerRecipe, tree, str(path))


def _checkpoint(run: Path, step: int | None) -> Path:
    folders = checkpoint.finished(run / "checkpoints")
    known = {checkpoint.step_of(folder): folder for folder in folders}
    if not known or (step is not None and step not in known):
        steps = ", ".join(map(str, known)) or "none"
        raise CheckpointError(
            f"{run} has no checkpoint{'' if step is None else f' of step {step}'}; it has {steps}"
        )
    return folders[-1] if step is None else known[step]
