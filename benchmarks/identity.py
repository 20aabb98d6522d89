"""How well the scorer tells a subject from another that differs in one part only: AUC for each part.

    python benchmarks/identity.py [--subjects 200] [--seed 1] [--kind creature] [--condition "jpeg 75"]

Of every subject there is a reference and an answer in another pose, at another place, in another size (one in
three as large as where three share a picture) and in front of another backdrop; and for each part an impostor
in such an answer. AUC: how often an impostor is farther from the reference than the same subject is, ties
counting half. Beside it the shares that are recognised (identity 5 or more of 10), and how often each word of
a pose was read right. 256 px.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator

from og2.evals.conditions import CORRUPTIONS
from og2.world.casting import Room, place_creature, place_gizmo
from og2.world.creature_reading import SeenCreature
from og2.world.creatures import Anatomy, near_miss, sample_anatomy, visible_parts
from og2.world.gizmo_reading import SeenGizmo
from og2.world.identity import creature_distance, gizmo_distance, identity_score
from og2.world.props import GIZMO_PARTS, Gizmo, near_miss_gizmo, sample_gizmo
from og2.world.render import render
from og2.world.scenes import WORLDS, Scene, empty_scene
from og2.world.subjects import look

SIZE_PX = 256
FAR = 99.0  # the distance where the subject is not found
POSE = ("left_arm", "right_arm", "mouth", "facing", "gaze")


@dataclass
class Tally:
    """Distances from the reference of the same subjects and of the impostors by part; pose words read."""

    same: list[float] = field(default_factory=list)
    impostors: dict[str, list[float]] = field(default_factory=dict)
    words: dict[str, list[bool]] = field(default_factory=dict)
    looks: int = 0
    missed: int = 0


def staged(rng: Generator, who: Anatomy | Gizmo, crowd: int) -> Scene:
    """A scene with that subject alone, in a random pose, as large as where so many share a picture."""
    while True:
        empty = empty_scene(rng, WORLDS["full"])
        if isinstance(who, Anatomy):
            scene = place_creature(rng, empty, Room(crowd), who)
        else:
            scene = place_gizmo(rng, empty, Room(crowd), who)
        if scene is not None:
            return scene


def seen_in(scene: Scene, condition: str, rng: Generator, tally: Tally) -> SeenCreature | SeenGizmo | None:
    """The only subject that the scorer sees in the scene's picture; None when there is none or more."""
    sight = look(CORRUPTIONS[condition](render(scene, SIZE_PX).numpy(), rng))
    tally.looks += 1
    found = (*sight.creatures, *sight.gizmos)
    if len(found) != 1:
        tally.missed += 1
        return None
    if scene.creatures and isinstance(found[0], SeenCreature):
        for word in POSE:
            right = found[0].words[word].value == getattr(scene.creatures[0].pose, word)
            tally.words.setdefault(word, []).append(right)
    return found[0]


def apart(a: SeenCreature | SeenGizmo | None, b: SeenCreature | SeenGizmo | None) -> float:
    """The scorer's distance between two subjects, FAR where they are not of one kind or not found."""
    if isinstance(a, SeenCreature) and isinstance(b, SeenCreature):
        return min(FAR, creature_distance(a, b))
    if isinstance(a, SeenGizmo) and isinstance(b, SeenGizmo):
        return gizmo_distance(a, b)
    return FAR


def measure(kind: str, subjects: int, seed: int, condition: str) -> Tally:
    """Every distance of that many subjects of a kind."""
    tally = Tally()
    for i in range(subjects):
        rng = np.random.default_rng([seed, i])
        who: Anatomy | Gizmo = sample_anatomy(rng) if kind == "creature" else sample_gizmo(rng, 0.5, 0.5, 0.1)
        reference = seen_in(staged(rng, who, 1), "clean", rng, tally)
        tally.same.append(apart(reference, seen_in(staged(rng, who, 1 + i % 3), condition, rng, tally)))
        parts = visible_parts(who) if isinstance(who, Anatomy) else GIZMO_PARTS
        for part in parts:
            other = near_miss(rng, who, part) if isinstance(who, Anatomy) else near_miss_gizmo(rng, who, part)
            seen = seen_in(staged(rng, other, 1 + i % 3), condition, rng, tally)
            tally.impostors.setdefault(part, []).append(apart(reference, seen))
    return tally


def auc(same: list[float], impostors: list[float]) -> float:
    """How often an impostor is farther than a same subject, ties counting half."""
    near, far = np.array(same)[:, None], np.array(impostors)[None, :]
    return float((near < far).mean() + 0.5 * (near == far).mean())


def report(kind: str, tally: Tally) -> dict[str, Any]:
    """The figures of a tally, as JSON-ready data."""
    recognised = [identity_score(d, kind == "creature") >= 5.0 for d in tally.same]
    parts = {
        part: {
            "auc": auc(tally.same, ds),
            "recognised": float(np.mean([identity_score(d, kind == "creature") >= 5.0 for d in ds])),
            "nearest": min(ds),
            "n": len(ds),
        }
        for part, ds in sorted(tally.impostors.items())
    }
    every = [d for ds in tally.impostors.values() for d in ds]
    return {
        "same_recognised": float(np.mean(recognised)),
        "same_distance_95": float(np.quantile(tally.same, 0.95)),
        "not_found": tally.missed,
        "auc": auc(tally.same, every),
        "n": len(tally.same),
        "parts": parts,
        "pose_words_right": {word: float(np.mean(ok)) for word, ok in tally.words.items()},
    }


def main() -> None:
    """Prints the table, or with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=("creature", "gizmo"), action="append")
    parser.add_argument("--condition", choices=tuple(CORRUPTIONS), default="clean")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in args.kind or ("creature", "gizmo"):
        start = time.process_time()
        tally = measure(kind, args.subjects, args.seed, args.condition)
        found[kind] = report(kind, tally) | {
            "pictures_per_cpu_s": tally.looks / (time.process_time() - start)
        }
    if args.json:
        print(json.dumps(found))
        return
    for kind, figures in found.items():
        print(f"{kind}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items() if not isinstance(v, dict)))
        for part, row in figures["parts"].items():
            print(f"  {part:15s} " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if figures["pose_words_right"]:
            print("  words: " + ", ".join(f"{w} {s:.3f}" for w, s in figures["pose_words_right"].items()))


if __name__ == "__main__":
    main()
