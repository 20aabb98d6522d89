"""Pictures that are not of the mini-world, by the thousand: the scorer must refuse them, not guess or crash.

    python benchmarks/world_fuzz.py [--pictures 10000] [--seed 0] [--json]

Photos (smooth colour fields and textures), noise, blank pictures, half-finished denoisings, any size and
aspect, RGBA, greyscale, wrong value ranges, files cut off in the middle. Prints how many of each kind there
were, how many were called unknown or failed with a reason, and every one that passed or crashed.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from og2.world.render import render
from og2.world.requirements import CreatureRequirement, EditRequirements, ObjectRequirement, Requirements
from og2.world.scenes import sample_scene
from og2.world.score import score_edit, score_t2i
from og2.world.score_context import score_context

KINDS = (
    "photo",
    "texture",
    "noise",
    "blank",
    "half denoised",
    "grey",
    "rgba",
    "range",
    "cut file",
    "tiny",
    "long",
)
RULE = Requirements((ObjectRequirement("circle", "red"), ObjectRequirement("star", "blue")))
EDIT = EditRequirements("recolour", ObjectRequirement("circle", "red"), "green")
CONTEXT = Requirements(creatures=(CreatureRequirement(left_arm="up"), CreatureRequirement(mouth="open")))


def picture_of(kind: str, rng: np.random.Generator, folder: Path) -> Any:
    """A picture of that kind, as whatever a caller might hand in."""
    height, width = (int(v) for v in rng.integers(33, 200, 2))
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "photo":
        steps = rng.integers(0, 256, (*rng.integers(2, 9, 2), 3), dtype=np.uint8)
        return Image.fromarray(steps).resize((width, height), Image.Resampling.BICUBIC)
    if kind == "texture":
        coarse = Image.fromarray(noise).resize((width, height), Image.Resampling.BOX)
        return Image.blend(coarse, coarse.resize((5, 5)).resize((width, height)), 0.7)
    if kind == "blank":
        return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    if kind == "half denoised":
        share = float(rng.uniform(0.3, 0.7))
        scene = render(sample_scene(rng, world="full"), (height, width)).numpy()
        return (share * scene + (1 - share) * noise).astype(np.uint8)
    if kind == "cut file":
        return cut_file(noise, rng, folder)
    odd = {
        "grey": lambda: noise[..., 0],
        "rgba": lambda: np.concatenate([noise, noise[..., :1]], axis=-1),
        "range": lambda: noise.astype(float) * float(rng.choice([1.0, np.nan, 3.0, -1.0])),
        "tiny": lambda: noise[: int(rng.integers(0, 32))],
        "long": lambda: np.repeat(noise[:33], 12, axis=1),
    }
    return odd[kind]() if kind in odd else noise


def cut_file(noise: np.ndarray, rng: np.random.Generator, folder: Path) -> Path:
    """A picture file that ends too early."""
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=str(rng.choice(["PNG", "JPEG"])))
    path = folder / "cut"
    path.write_bytes(buffer.getvalue()[: int(rng.integers(0, len(buffer.getvalue()) - 20))])
    return path


def measure(number: int, seed: int) -> dict[str, Any]:
    """Counts per kind, and what passed or crashed."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for i in range(number):
            rng = np.random.default_rng([seed, i])
            kind = KINDS[i % len(KINDS)]
            image = picture_of(kind, rng, Path(name))
            try:
                verdicts = (
                    score_t2i(image, RULE),
                    score_edit(image, image, EDIT),
                    score_context((), image, CONTEXT),
                )
            except Exception as error:  # noqa: BLE001 - a crash is what is looked for
                wrong.append(f"{kind} {i}: {type(error).__name__}: {error}")
                continue
            passed = verdicts[0].passed or verdicts[1].success or verdicts[2].passed
            if passed or not all(verdict.reason for verdict in verdicts):
                wrong.append(f"{kind} {i}: accepted or without a reason")
            counts[f"{kind}: {'unknown' if verdicts[0].unknown else 'failed'}"] += 1
    return {"pictures": number, "counts": dict(sorted(counts.items())), "wrong": wrong}


def main() -> None:
    """Prints the counts."""
    parser = argparse.ArgumentParser(description="Feed the scorer what is not of its world.")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    found = measure(options.pictures, options.seed)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name, count in found["counts"].items():
        print(f"{name:28} {count}")
    print(f"accepted, without a reason, or crashed: {len(found['wrong'])}")
    print("\n".join(found["wrong"][:40]))
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
