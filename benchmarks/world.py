"""Rates of the mini-world: pictures drawn and scored per second, beside a plain loop over objects.

    python benchmarks/world.py [--pictures 256] [--threads 1] [--json]

The plain world's rendering is timed against a renderer without batches that samples every pixel 4 x 4
times, one object after another, in numpy: the plainest way to anti-alias. Both draw the same scenes and their
difference is printed, so that the ratio compares equal pictures. Scoring has no plain twin; its rate is
printed for one, two and three objects, and for the full world's drawings, edits (a source that is new each
time) and in-context answers (with their references). The full world is drawn in batches of 64 against one
picture at a time. Rates are per CPU second of one thread, the median of several runs, so that other work on
the machine does not count; with more threads they are per second of the clock.

Bars, for two cores: 300 pictures drawn and 60 scored a second at 128 px. One thread is held to the whole of
both, as two processes score twice as many.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from og2.evals.items import SCORED_EDITS
from og2.world import shapes
from og2.world.palette import lab_to_srgb
from og2.world.render import render_batch
from og2.world.scenes import Object, Scene
from og2.world.score import score_edit, score_t2i
from og2.world.score_context import score_context
from og2.world.spec import (
    ALL_EDIT_KINDS,
    INCONTEXT_TASKS,
    PROMPT_TASKS,
    requirements,
    sample_clip,
    sample_edit,
    sample_incontext,
    sample_prompt,
    sample_scene,
)

SAMPLES = 4


def plain_render(scene: Scene, size: int) -> np.ndarray:
    """One picture (H, W, 3) uint8, object by object: the share of 4 x 4 points of each pixel inside it."""
    fine = (np.arange(size * SAMPLES) + 0.5) / (size * SAMPLES)
    xs, ys = np.meshgrid(fine, fine)
    picture = np.broadcast_to(np.clip(lab_to_srgb(scene.background_lab), 0, 1), (size, size, 3)).copy()
    for obj in scene.objects:
        inside = is_inside(obj, xs, ys).astype(np.float64)
        share = inside.reshape(size, SAMPLES, size, SAMPLES).mean(axis=(1, 3))[..., None]
        picture = picture * (1 - share) + np.clip(lab_to_srgb(obj.lab), 0, 1) * share
    return (picture * 255 + 0.5).astype(np.uint8)


def is_inside(obj: Object, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Whether points lie in an object, by the plain definition of each shape."""
    dx, dy = (xs - obj.x) / obj.radius, (ys - obj.y) / obj.radius
    u = dx * math.cos(obj.rotation) + dy * math.sin(obj.rotation)
    v = dy * math.cos(obj.rotation) - dx * math.sin(obj.rotation)
    if obj.shape == "circle":
        return u * u + v * v <= 1
    if obj.shape == "ring":
        square = u * u + v * v
        return (square <= shapes.RING_OUTER**2) & (square >= shapes.RING_INNER**2)
    if obj.shape == "square":
        return np.maximum(abs(u), abs(v)) <= shapes.SQUARE_HALF_SIDE
    if obj.shape == "cross":
        long, wide = np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
        return (long <= shapes.CROSS_HALF_LENGTH) & (wide <= shapes.CROSS_HALF_WIDTH)
    return _in_polygon(corners(obj.shape), u, v)


def corners(shape: str) -> list[tuple[float, float]]:
    """The corners of a triangle or a star of nominal radius 1, in order."""
    if shape == "triangle":
        radius, shift = shapes.TRIANGLE_CIRCUMRADIUS, shapes.TRIANGLE_SHIFT
        half = radius * math.sqrt(3) / 2
        return [(0.0, shift - radius), (half, shift + radius / 2), (-half, shift + radius / 2)]
    radii = [shapes.STAR_OUTER, shapes.STAR_INNER] * 5
    return [(r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in enumerate(radii)]


def _in_polygon(outline: list[tuple[float, float]], u: np.ndarray, v: np.ndarray) -> np.ndarray:
    inside = np.zeros(u.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(outline, outline[1:] + outline[:1], strict=True):
        if y0 != y1:
            inside ^= ((y0 > v) != (y1 > v)) & (u < (x1 - x0) * (v - y0) / (y1 - y0) + x0)
    return inside


def rate(work: Callable[[], Any], pictures: int, runs: int) -> float:
    """Pictures per second (see the top), the median of several runs after one to warm up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    work()
    times = []
    for _ in range(runs):
        start = clock()
        work()
        times.append(clock() - start)
    return pictures / statistics.median(times)


def full_scenes(rng: np.random.Generator, number: int) -> dict[str, list[Scene]]:
    """Scenes of the full world by the task they come from, `number` of each."""
    frames: list[Scene] = []
    while len(frames) < number:
        frames += sample_clip(rng, 16).frames
    return {
        "drawings": [sample_prompt(rng, PROMPT_TASKS[i % len(PROMPT_TASKS)]).scene for i in range(number)],
        "edits": [
            sample_edit(rng, (ALL_EDIT_KINDS[i % len(ALL_EDIT_KINDS)],), world="full").target
            for i in range(number)
        ],
        "incontext": [
            sample_incontext(rng, INCONTEXT_TASKS[i % len(INCONTEXT_TASKS)]).target for i in range(number)
        ],
        "clips": frames[:number],
    }


def measure_full(num_pictures: int, runs: int, device: str) -> dict[str, Any]:
    """Rates of the full world at 128 px."""
    found: dict[str, Any] = {}
    for task, scenes in full_scenes(np.random.default_rng(1), num_pictures).items():
        fast = rate(lambda s=scenes: draw(s, device), num_pictures, runs)
        few = scenes[:16]
        slow = rate(lambda s=few: [render_batch([scene], 128, device) for scene in s], len(few), runs)
        found[f"full_{task}_128px"] = {"batched_per_s": fast, "single_per_s": slow, "ratio": fast / slow}
    return found


def measure_scoring(num_pictures: int, runs: int) -> dict[str, Any]:
    """Pictures of the full world scored per second; right ones, which take longer than most wrong ones."""
    rng, number = np.random.default_rng(2), min(num_pictures, 32)
    found: dict[str, Any] = {}
    prompts = [sample_prompt(rng, PROMPT_TASKS[i % len(PROMPT_TASKS)]) for i in range(number)]
    pictures = render_batch([p.scene for p in prompts], 128).numpy()
    drawn = [(picture, p.requirements) for picture, p in zip(pictures, prompts, strict=True)]
    found["score_drawings_128px_per_s"] = rate(lambda: [score_t2i(*pair) for pair in drawn], number, runs)
    edits = [sample_edit(rng, (SCORED_EDITS[i % len(SCORED_EDITS)],), world="full") for i in range(number)]
    pairs = [(*render_batch([e.source, e.target], 128).numpy(), e.requirements) for e in edits]
    found["score_edits_128px_per_s"] = rate(lambda: [score_edit(*given) for given in pairs], number, runs)
    tasks = [sample_incontext(rng, INCONTEXT_TASKS[i % len(INCONTEXT_TASKS)]) for i in range(number)]
    answers = [
        (
            list(render_batch(t.references, 256).numpy()),
            render_batch([t.target], 256)[0].numpy(),
            t.requirements,
        )
        for t in tasks
    ]
    found["score_incontext_256px_per_s"] = rate(
        lambda: [score_context(*given) for given in answers], number, runs
    )
    return found


def draw(scenes: list[Scene], device: str) -> None:
    """All pictures at 128 px, in batches of 64, finished when this returns."""
    for first in range(0, len(scenes), 64):
        pictures = render_batch(scenes[first : first + 64], 128, device)
    if device != "cpu":
        pictures.cpu()


def measure(num_pictures: int, runs: int) -> dict[str, Any]:
    """Every rate of the plain world, as JSON-ready data."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "pictures": num_pictures}
    found["scenes_per_s"] = rate(lambda: [sample_scene(rng) for _ in range(num_pictures)], num_pictures, runs)
    found["edits_per_s"] = rate(lambda: [sample_edit(rng) for _ in range(num_pictures)], num_pictures, runs)
    scenes = [sample_scene(rng) for _ in range(num_pictures)]
    few = scenes[:24]
    for size in (64, 128, 256):
        drawn = render_batch(few, size).numpy().astype(int)
        plain = np.stack([plain_render(s, size) for s in few]).astype(int)
        fast = rate(lambda size=size: render_batch(scenes, size), num_pictures, runs)
        slow = rate(lambda size=size: [plain_render(s, size) for s in few], len(few), runs)
        found[f"render_{size}px"] = {
            "batched_per_s": fast,
            "plain_loop_per_s": slow,
            "ratio": fast / slow,
            "mean_difference": float(abs(drawn - plain).mean()),
            "pixels_within_16": float((abs(drawn - plain).max(axis=-1) <= 16).mean()),
        }
    for size in (64, 128, 256):
        for count in (1, 2, 3):
            own = [sample_scene(rng, count) for _ in range(min(num_pictures, 64))]
            pairs = list(zip(render_batch(own, size).numpy(), map(requirements, own), strict=True))
            found[f"score_{size}px_{count}_objects_per_s"] = rate(
                lambda pairs=pairs: [score_t2i(picture, rule) for picture, rule in pairs], len(pairs), runs
            )
    return found


def main() -> None:
    """Prints the rates."""
    parser = argparse.ArgumentParser(description="Rates of the mini-world.")
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of the full world's pictures")
    parser.add_argument("--full-only", action="store_true", help="leave the plain world out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {} if options.full_only else measure(options.pictures, options.runs)
    found |= measure_full(options.pictures, options.runs, options.device)
    found |= measure_scoring(options.pictures, options.runs)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        print(f"{name:32} " + "  ".join(f"{key} {number:.4g}".strip() for key, number in parts))


if __name__ == "__main__":
    main()
