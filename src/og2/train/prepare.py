"""Data before training: the cache of a recipe filled ahead, its data looked through row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig

from og2.conditioning.processor import load_processor
from og2.config import read_yaml
from og2.data.check import CheckConfig, Progress, Report, check_data
from og2.data.examples import ReadConfig
from og2.data.fill import FillConfig, FillReport, fill_cache
from og2.data.mix import Mixture, open_mix, read_mix
from og2.device import chosen_device
from og2.errors import ConfigError
from og2.model.transformer import OmniGen2Transformer2DModel
from og2.model.weights import resolve_folder
from og2.train.recipe import TransformerRecipe
from og2.train.run import read_recipe
from og2.train.transformer import data_of, processor_folder


def fill(
    path: Path, overrides: Sequence[str], config: FillConfig, on_progress: Progress | None = None
) -> Iterator[tuple[str, FillReport]]:
    """Every stage of the recipe by name, its cache filled.   Raises: ConfigError, DataError."""
    recipe = _recipe(path, overrides)
    if recipe.data.cache is None:
        raise ConfigError(f"{path} names no cache; give data.cache=FOLDER")
    device = chosen_device(recipe.compute.device)
    for number, stage in enumerate(recipe.curriculum()):
        data = stage.data(recipe.data)
        reader, encoder = data_of(recipe, data, device, stage=number)
        yield stage.name, fill_cache(reader.mixture, data.read, encoder, config, on_progress)


def check(
    path: Path, overrides: Sequence[str], config: CheckConfig, on_progress: Progress | None = None
) -> Iterator[tuple[str, Report]]:
    """Every stage of a recipe by name, or a mix alone, with its report.

    A mix alone says nothing of a model: lengths are counted by mini's tokenizer, and none is refused.
    Raises: ConfigError, DataError.
    """
    if "kind" not in read_yaml(path):
        if overrides:
            raise ConfigError(f"{path} is a mix, not a recipe; changes such as {overrides[0]} need a recipe")
        mixture = open_mix(read_mix(path), 0, path.parent)
        config = replace(config, tokenizer="mini")
        yield path.stem, _checked(mixture, ReadConfig(), resolve_folder("mini"), config, on_progress)
        return
    recipe = _recipe(path, overrides)
    folder = resolve_folder(recipe.model)
    longest = Qwen2_5_VLConfig.from_pretrained(folder / "mllm").get_text_config().max_position_embeddings
    token_px = _token_px(recipe, folder)
    for number, stage in enumerate(recipe.curriculum()):
        data = stage.data(recipe.data)
        mixture = open_mix(data.mix, recipe.run.seed + number)
        limits = replace(
            config,
            max_text_tokens=min(longest, data.encode.max_text_tokens or longest),
            budget=data.loader.packing.budget,
            token_px=token_px,
            tokenizer=str(recipe.model),
        )
        yield stage.name, _checked(mixture, data.read, folder, limits, on_progress)


def _token_px(recipe: TransformerRecipe, folder: Path) -> int:
    """Side of the area that one token of the transformer shows."""
    vae = AutoencoderKL.load_config(folder / "vae")
    stored = OmniGen2Transformer2DModel.load_config(folder / "transformer")
    patch_size = recipe.fresh.patch_size if recipe.fresh else stored["patch_size"]
    return patch_size * 2 ** (len(vae["block_out_channels"]) - 1)


def _checked(
    mixture: Mixture, read: ReadConfig, model: Path, config: CheckConfig, on_progress: Progress | None
) -> Report:
    return check_data(mixture, read, load_processor(processor_folder(model)), config, on_progress)


def _recipe(path: Path, overrides: Sequence[str]) -> TransformerRecipe:
    kind, recipe, _ = read_recipe(path, overrides)
    if not isinstance(recipe, TransformerRecipe):
        raise ConfigError(f"{path} is a recipe of kind {kind}; this is for kind transformer")
    return recipe
