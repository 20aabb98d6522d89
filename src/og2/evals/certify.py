"""The scorer's certificate: how often it accepts right pictures and refuses wrong ones, measured.

Right pictures and near misses are drawn fresh, clean and corrupted as a model's pictures are (blur, noise,
half resolution, a round trip through a given VAE), and scored from pixels: what a score is worth.
`python -m og2.evals.certify` prints the table, `--json` the numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

from og2.evals.intervals import Share, share_of
from og2.evals.near_miss import EDIT_NEAR_MISSES, T2I_NEAR_MISSES, Draft, Picture
from og2.world.render import render_batch
from og2.world.score import score_edit, score_t2i
from og2.world.spec import EDIT_KINDS, requirements, sample_edit, sample_scene

Corruption = Callable[[Picture, Generator], Picture]


def clean(picture: Picture, _rng: Generator) -> Picture:
    """The picture as it is."""
    return picture


def blurred(sigma_px: float) -> Corruption:
    """Gaussian blur of that standard deviation."""

    def corrupt(picture: Picture, _rng: Generator) -> Picture:
        offsets = np.arange(-4, 5)
        kernel = np.exp(-0.5 * (offsets / sigma_px) ** 2)
        kernel /= kernel.sum()
        values = np.pad(picture.astype(np.float64), ((4, 4), (4, 4), (0, 0)), mode="edge")
        values = np.stack([values[i : i + picture.shape[0]] for i in range(9)], axis=-1) @ kernel
        values = np.stack([values[:, i : i + picture.shape[1]] for i in range(9)], axis=-1) @ kernel
        return (values + 0.5).astype(np.uint8)

    return corrupt


def noisy(sigma: float) -> Corruption:
    """Independent Gaussian noise on every channel, in steps of 1/255."""

    def corrupt(picture: Picture, rng: Generator) -> Picture:
        return np.clip(picture + rng.normal(0.0, sigma, picture.shape) + 0.5, 0, 255).astype(np.uint8)

    return corrupt


def half_resolution(picture: Picture, _rng: Generator) -> Picture:
    """Down to half the size and back."""
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((width // 2, height // 2), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


CORRUPTIONS: dict[str, Corruption] = {
    "clean": clean,
    "blur 0.7": blurred(0.7),
    "blur 1.0": blurred(1.0),
    "noise 5": noisy(5.0),
    "noise 8": noisy(8.0),
    "half size": half_resolution,
}


def certify(
    n: int = 300, seed: int = 0, size: int = 64, extra: dict[str, Corruption] | None = None
) -> dict[str, dict[str, dict[str, Share]]]:
    """Acceptance shares: task ("t2i", "edit") -> corruption -> "correct", "swapped" or the kind of near miss.

    n: pictures per cell; extra: more corruptions, such as a round trip through a trained VAE.
    """
    table: dict[str, dict[str, dict[str, Share]]] = {"t2i": {}, "edit": {}}
    for name, corrupt in {**CORRUPTIONS, **(extra or {})}.items():
        table["t2i"][name] = certify_t2i(np.random.default_rng([seed, 1]), n, size, corrupt)
        table["edit"][name] = certify_edit(np.random.default_rng([seed, 2]), n, size, corrupt)
    return table


def certify_t2i(rng: Generator, n: int, size: int, corrupt: Corruption) -> dict[str, Share]:
    """Acceptance of one-object pictures, of swapped prompts, and of each kind of near miss.

    "correct" asks for number, shape and colour, "every word" for size, place and background as well.
    """
    scenes = [sample_scene(rng, 1) for _ in range(n)]
    pictures = render_batch(scenes, size).numpy()
    rules = [requirements(scene) for scene in scenes]
    corrupted = [corrupt(picture, rng) for picture in pictures]
    every_word = [requirements(scene, sizes=True, places=True, background=True) for scene in scenes]
    shares = {
        "correct": share_of([score_t2i(p, r).passed for p, r in zip(corrupted, rules, strict=True)]),
        "every word": share_of([score_t2i(p, r).passed for p, r in zip(corrupted, every_word, strict=True)]),
        "swapped": share_of(
            [
                score_t2i(p, r).passed
                for p, r, a, b in zip(corrupted, _rolled(rules), scenes, _rolled(scenes), strict=True)
                if a.objects[0].kind != b.objects[0].kind
            ]
        ),
    }
    for kind, spoil in T2I_NEAR_MISSES.items():
        outcomes = []
        for scene, picture, rule in zip(scenes, pictures, rules, strict=True):
            wrong = spoil(Draft(scene, picture, size), rng)
            outcomes.append(score_t2i(corrupt(wrong, rng), rule).passed)
        shares[kind] = share_of(outcomes)
    return shares


def certify_edit(rng: Generator, n: int, size: int, corrupt: Corruption) -> dict[str, Share]:
    """Acceptance of correct edits (the corruption on the result only) and of each kind of near miss."""
    edits = [sample_edit(rng, (EDIT_KINDS[i % len(EDIT_KINDS)],)) for i in range(n)]
    sources = render_batch([e.source for e in edits], size).numpy()
    targets = render_batch([e.target for e in edits], size).numpy()
    verdicts = [
        score_edit(s, corrupt(t, rng), e.requirements)
        for s, t, e in zip(sources, targets, edits, strict=True)
    ]
    shares = {"correct": share_of([v.success for v in verdicts])}
    shares["kept 0.9"] = share_of([v.kept >= 0.9 for v in verdicts])
    for kind, spoil in EDIT_NEAR_MISSES.items():
        shares[kind] = share_of(
            [
                score_edit(s, corrupt(spoil(e, rng, size), rng), e.requirements).success
                for s, e in zip(sources, edits, strict=True)
            ]
        )
    return shares


def format_certificate(table: dict[str, dict[str, dict[str, Share]]]) -> str:
    """The certificate as text: one row per kind of picture, one column per corruption."""
    lines: list[str] = []
    for task, columns in table.items():
        n = max(share.n for column in columns.values() for share in column.values())
        lines.append(f"{task}: share accepted, at most {n} pictures per cell")
        lines.append("".join([f"{'':14}", *(f"{name:>10}" for name in columns)]))
        for row in next(iter(columns.values())):
            lines.append(
                "".join([f"{row:14}", *(f"{column[row].score:10.3f}" for column in columns.values())])
            )
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: prints the certificate. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure the mini-world scorer's own error rates.")
    parser.add_argument("--limit", type=int, default=300, help="pictures per cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in px")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    table = certify(options.limit, options.seed, options.size)
    settings: dict[str, Any] = {"n": options.limit, "seed": options.seed, "size": options.size}
    if options.json:
        as_data = {
            t: {c: {k: s.to_dict() for k, s in r.items()} for c, r in cs.items()} for t, cs in table.items()
        }
        text = json.dumps({"settings": settings, "table": as_data}, indent=1)
    else:
        text = format_certificate(table)
    sys.stdout.write(text + "\n")
    return 0


def _rolled(items: list[Any]) -> list[Any]:
    return items[1:] + items[:1]


if __name__ == "__main__":
    raise SystemExit(main())
