"""Measures the scorer itself: how often it accepts right pictures and refuses wrong ones.

Right pictures and every kind of near miss are drawn fresh for each task, clean and under conditions that a
model's pictures bring along (blur, noise, half resolution, JPEG, a round trip through a VAE) and under shifts
of what the scorer knows (colours and sizes moved, a second manner of drawing). Done in blocks that depend
only on seed, task and number, so a stopped run goes on where it was.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

from og2.errors import ConfigError, RequestError
from og2.evals.certificate import CLEAN, RIGHT, Certificate, Counts
from og2.evals.controls import through_vae
from og2.evals.items import PLAIN_DRAW, PLAIN_EDITS, SCORED_EDITS
from og2.evals.near_miss import (
    EDIT_NEAR_MISSES,
    T2I_NEAR_MISSES,
    TEXT_NEAR_MISSES,
    Draft,
    EditDraft,
    Picture,
    with_blend,
    with_stranger,
    with_swapped,
)
from og2.world.incontext import INCONTEXT_TASKS, sample_incontext
from og2.world.prompts import PROMPT_TASKS, sample_prompt
from og2.world.requirements import EditRequirements
from og2.world.scenes import Scene, sample_scene, world_named
from og2.world.score import score_edit, score_t2i
from og2.world.score_context import score_context
from og2.world.spec import Edit, requirements, sample_edit
from og2.world.subjects import look

DEFAULT_N = 1500
SIZES = "64 for the plain world, 128 for the full one, 256 in context"
BLOCK = 10
_PLAIN_PX, _FULL_PX, _CONTEXT_PX = 64, 128, 256
Corruption = Callable[[Picture, Generator], Picture]
_SHIFT_DE = 5.0
_SHIFT_SIZE = 1.03


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


def jpeg(quality: int) -> Corruption:
    """Through a JPEG file of that quality."""

    def corrupt(picture: Picture, _rng: Generator) -> Picture:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
        buffer.seek(0)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return corrupt


CORRUPTIONS: dict[str, Corruption] = {
    CLEAN: clean,
    "blur 1.0": blurred(1.0),
    "noise 8": noisy(8.0),
    "half size": half_resolution,
    "jpeg 75": jpeg(75),
}
SHIFTED, INKED, VAE = "shifted", "second style", "VAE"


@dataclass(frozen=True)
class Plan:
    """What to measure: n right pictures a task and wrong ones of each kind; None stands for all, or the
    usual.

    vae: for the condition "VAE", left out when None. on_block: told of progress.
    """

    n: int = DEFAULT_N
    seed: int = 1
    size: int | None = None
    tasks: tuple[str, ...] | None = None
    conditions: tuple[str, ...] | None = None
    vae: Any = None
    on_block: Callable[[str, int, int], None] | None = None


@dataclass(frozen=True)
class Case:
    """One thing to score: the kind of picture, the clean picture, and whether it is accepted once
    corrupted."""

    kind: str
    picture: Picture
    accepts: Callable[[Picture], bool]


Maker = Callable[[Generator, int, str, Callable[[Scene], Scene]], list[Case]]


def certify(plan: Plan, state: Path | None = None) -> Certificate:
    """The certificate by that plan; `state`: a file of finished blocks to go on from and add to.

    Raises: RequestError for an unknown task or condition; ConfigError when the file is of another plan.
    """
    tasks, conditions = _chosen(plan)
    settings = {"n": plan.n, "seed": plan.seed, "size": plan.size or SIZES}
    done = _read_state(state, settings)
    counts: Counts = {task: {c: {} for c in conditions} for task in tasks}
    blocks = -(-plan.n // BLOCK)
    for task in tasks:
        for block in range(blocks):
            for condition in conditions:
                key = f"{task}|{condition}|{block}"
                if key not in done:
                    done[key] = _block(plan, task, condition, block)
                    _add_state(state, key, done[key])
                for kind, (k, n) in done[key].items():
                    have = counts[task][condition].get(kind, (0, 0))
                    counts[task][condition][kind] = (have[0] + k, have[1] + n)
            if plan.on_block is not None:
                plan.on_block(task, block + 1, blocks)
    return Certificate(settings, counts)


def _chosen(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if plan.n < 1:
        raise RequestError(f"n={plan.n} leaves nothing to measure; use 1 or more")
    known = (*CORRUPTIONS, *((VAE,) if plan.vae is not None else ()), SHIFTED, INKED)
    tasks, conditions = plan.tasks or tuple(TASKS), plan.conditions or known
    for name, given, allowed in (("tasks", tasks, tuple(TASKS)), ("conditions", conditions, known)):
        wrong = [g for g in given if g not in allowed]
        if wrong:
            raise RequestError(f"{name} {wrong} are unknown; there are {', '.join(allowed)}")
    return tasks, conditions


def _block(plan: Plan, task: str, condition: str, block: int) -> dict[str, tuple[int, int]]:
    """Accepted and number per kind, of BLOCK requests."""
    rng, dirt = (np.random.default_rng([plan.seed, zlib.crc32(task.encode()), block, use]) for use in (0, 1))
    world = "plain" if "plain" in task else "full"
    usual = _CONTEXT_PX if task.startswith("incontext") else _PLAIN_PX if world == "plain" else _FULL_PX
    size = plan.size or usual
    hand = "inked" if condition == INKED else "clean"
    shift = shifted if condition == SHIFTED else _as_it_is
    found: dict[str, tuple[int, int]] = {}
    for _ in range(min(BLOCK, plan.n - block * BLOCK)):
        for case in TASKS[task](rng, size, hand, shift):
            accepted = case.accepts(_corrupted(case.picture, condition, plan, dirt))
            k, n = found.get(case.kind, (0, 0))
            found[case.kind] = (k + int(accepted), n + 1)
    return found


def _corrupted(picture: Picture, condition: str, plan: Plan, rng: Generator) -> Picture:
    if condition == VAE:
        return through_vae(plan.vae, [picture])[0]
    return CORRUPTIONS.get(condition, clean)(picture, rng)


def shifted(scene: Scene) -> Scene:
    """The scene with every colour moved by 5 dE and every size by 3 %: other prototypes than the scorer's."""
    objects = []
    for obj in scene.objects:
        angle = zlib.crc32(obj.color.encode()) % 360 * np.pi / 180
        move = (0.0, _SHIFT_DE * float(np.cos(angle)), _SHIFT_DE * float(np.sin(angle)))
        if obj.color in ("black", "white"):
            move = (3.0 if obj.color == "black" else -3.0, 0.0, 0.0)
        lab = (obj.lab[0] + move[0], obj.lab[1] + move[1], obj.lab[2] + move[2])
        objects.append(replace(obj, lab=lab, radius=obj.radius * _SHIFT_SIZE))
    return replace(scene, objects=tuple(objects))


def _as_it_is(scene: Scene) -> Scene:
    return scene


def _draw_cases(task: str) -> Maker:
    """Right pictures of a family of prompts, and every near miss that is wrong for them."""

    def make(rng: Generator, size: int, hand: str, shift: Callable[[Scene], Scene]) -> list[Case]:
        if task == PLAIN_DRAW:
            scene = sample_scene(rng, 1)
            rule, world = requirements(scene), world_named("plain")
        else:
            prompt = sample_prompt(rng, task)
            scene, rule, world = prompt.scene, prompt.requirements, world_named("full")
        draft = Draft(shift(scene), rule, world, size, hand)

        def accepts(picture: Picture) -> bool:
            return score_t2i(picture, rule).passed

        cases = [Case(RIGHT, draft.draw(draft.scene), accepts)]
        spoils = TEXT_NEAR_MISSES if scene.plates else T2I_NEAR_MISSES
        for kind, spoil in spoils.items():
            wrong = spoil(draft, rng)
            if wrong is not None:
                cases.append(Case(kind, wrong, accepts))
        return cases

    return make


def _edit_cases(kind: str, world: str) -> Maker:
    """Right results of a kind of edit and every wrong one; only the result is corrupted."""

    def make(rng: Generator, size: int, hand: str, shift: Callable[[Scene], Scene]) -> list[Case]:
        edit = sample_edit(rng, (kind,), world=world)
        edit = replace(edit, source=shift(edit.source), target=shift(edit.target))
        draft = EditDraft(edit, size, hand)
        source = draft.draw(edit.source)

        def accepts(picture: Picture) -> bool:
            return score_edit(source, picture, edit.requirements).success

        cases = [Case(RIGHT, draft.draw(edit.target), accepts)]
        for name, spoil in EDIT_NEAR_MISSES.items():
            wrong = spoil(draft, rng)
            if wrong is not None:
                cases.append(Case(name, wrong, accepts))
        return cases

    return make


def _context_cases(task: str) -> Maker:
    """Right answers in context, copies of the first reference, and answers with another subject, with two
    subjects in each other's roles, or with a mixture of two."""

    def make(rng: Generator, size: int, hand: str, shift: Callable[[Scene], Scene]) -> list[Case]:
        asked = sample_incontext(rng, task)
        draw = EditDraft(Edit(task, asked.target, asked.target, "", EditRequirements(task)), size, hand).draw
        references = [draw(shift(scene)) for scene in asked.references]
        seen = [look(reference) for reference in references]

        def accepts(picture: Picture) -> bool:
            return score_context(seen, picture, asked.requirements).passed

        wrong = {
            "another subject": with_stranger(asked.target, rng),
            "swapped subjects": with_swapped(asked.target),
            "blend": with_blend(asked.target),
        }
        return [
            Case(RIGHT, draw(shift(asked.target)), accepts),
            Case("copy reference", references[0], accepts),
            *(Case(kind, draw(shift(scene)), accepts) for kind, scene in wrong.items() if scene is not None),
        ]

    return make


TASKS: dict[str, Maker] = {
    **{f"t2i/{task}": _draw_cases(task) for task in (PLAIN_DRAW, *PROMPT_TASKS)},
    **{f"edit/{name}": _edit_cases(kind, "plain") for kind, name in PLAIN_EDITS.items()},
    **{f"edit/{kind}": _edit_cases(kind, "full") for kind in SCORED_EDITS},
    **{f"incontext/{task}": _context_cases(task) for task in INCONTEXT_TASKS},
}


def _read_state(path: Path | None, settings: dict[str, Any]) -> dict[str, dict[str, tuple[int, int]]]:
    """Finished blocks; a last line that was cut off when a run was killed does not count."""
    if path is None or not path.exists():
        if path is not None:
            path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        found = json.loads(lines[0])["settings"]
    except (IndexError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is no state of a certification: {error}") from error
    if {k: found.get(k) for k in ("seed", "size")} != {k: settings[k] for k in ("seed", "size")}:
        raise ConfigError(f"{path} is the state of another plan ({found}); choose another file")
    done: dict[str, dict[str, tuple[int, int]]] = {}
    for line in lines[1:]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        full = entry["of"] == min(BLOCK, settings["n"] - int(entry["block"].rpartition("|")[2]) * BLOCK)
        if full:
            done[entry["block"]] = {kind: (int(k), int(n)) for kind, (k, n) in entry["counts"].items()}
    return done


def _add_state(path: Path | None, key: str, counts: dict[str, tuple[int, int]]) -> None:
    if path is None:
        return
    line = json.dumps({"block": key, "of": counts[RIGHT][1], "counts": counts})
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if _ends_clean(path) else "\n") + line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _ends_clean(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
