"""Sample grids: the pictures that a user would get from the weights as they are exported, and the commands.

Drawn by `OmniGen2Pipeline` from the exported files, as `og2 generate` and `og2 edit` do; the commands beside
the pictures make the same bytes while those files stand.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from og2.conditioning.reading import load_image
from og2.files import replaced
from og2.model.lora import WEIGHTS
from og2.pipeline import OmniGen2Pipeline
from og2.png import write_png
from og2.request import Request
from og2.train.recipe import SampleConfig, TransformerRecipe

COMMANDS = "commands.txt"
GRID = "grid.png"
MARGIN_PX = 4
_SETTINGS = ("num_inference_steps", "text_guidance_scale", "image_guidance_scale", "height", "width", "seed")


def draw_samples(recipe: TransformerRecipe, exported: Path, folder: Path, device: torch.device) -> None:
    """Writes `0.png`, `1.png`, ..., `grid.png` and `commands.txt` into `folder`, which appears whole.

    The folder is named for the step.
    """
    pipe = _pipeline(recipe, exported, device)
    pipe.set_progress_bar_config(disable=True)
    results = [pipe.run(_request(sample)) for sample in recipe.samples]
    again = f"og2 export {shlex.quote(str(recipe.run.folder))} FOLDER --step N"
    commands = [
        f"# Weights: {exported} as it was at {folder.name}, until the next evaluation; kept ones: {again}",
        *(
            shlex.join(["og2", *command(recipe, exported, sample, f"{index}.png")])
            for index, sample in enumerate(recipe.samples)
        ),
    ]

    def write(place: Path) -> None:
        place.mkdir()
        for index, result in enumerate(results):
            write_png(place / f"{index}.png", result.images[0], result)
        grid([result.images[0] for result in results]).save(place / GRID)
        (place / COMMANDS).write_text("\n".join(commands) + "\n", encoding="utf-8")

    replaced(folder, write)


def command(recipe: TransformerRecipe, exported: Path, sample: SampleConfig, output: str) -> list[str]:
    """The words of the command line that draws this sample from the exported files."""
    words = ["edit" if sample.input_images else "generate", sample.prompt, "--model", recipe.model]
    for picture in sample.input_images:
        words += ["--input", str(picture)]
    if recipe.lora is not None:
        words += ["--lora", str(exported / WEIGHTS)]
    else:
        words += ["--transformer-path", str(exported / "transformer")]
    for name in _SETTINGS:
        value = getattr(sample, name)
        if value is not None:
            words += ["--" + name.replace("_", "-"), str(value)]
    return [*words, "--output", output]


def grid(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures side by side in rows of four, each in the middle of its cell."""
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = (max(sides) + MARGIN_PX for sides in zip(*(p.size for p in pictures), strict=True))
    sheet = Image.new("RGB", (columns * width + MARGIN_PX, rows * height + MARGIN_PX), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left = MARGIN_PX + column * width + (width - MARGIN_PX - picture.width) // 2
        top = MARGIN_PX + row * height + (height - MARGIN_PX - picture.height) // 2
        sheet.paste(picture, (left, top))
    return sheet


def _pipeline(recipe: TransformerRecipe, exported: Path, device: torch.device) -> OmniGen2Pipeline:
    """The pipeline as the command line loads it."""
    is_exact = device.type == "cpu" or recipe.model == "mini"
    pipe = OmniGen2Pipeline.from_pretrained(
        recipe.model,
        dtype=torch.float32 if is_exact else torch.bfloat16,
        transformer_path=None if recipe.lora is not None else exported / "transformer",
    )
    if recipe.lora is not None:
        pipe.load_lora_weights(exported / WEIGHTS)
        pipe.merge_lora()
    return pipe.to(device) if device.type != "cpu" else pipe


def check_samples(samples: Sequence[SampleConfig]) -> None:
    """Raises: RequestError for a sample that could not be drawn, before a run is under way."""
    for sample in samples:
        for picture in _request(sample).input_images:
            load_image(picture)


def _request(sample: SampleConfig) -> Request:
    settings = {name: getattr(sample, name) for name in _SETTINGS}
    return Request(
        prompt=sample.prompt,
        input_images=tuple(map(str, sample.input_images)),
        **{name: value for name, value in settings.items() if value is not None},
    )
