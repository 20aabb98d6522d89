"""An item of the benchmark that asks for a picture, and what scoring its picture gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from og2.world.known import Known
from og2.world.requirements import EditRequirements, Requirements
from og2.world.score import score_edit, score_t2i
from og2.world.score_context import score_context
from og2.world.spec import Scene

Picture = NDArray[np.uint8]
OF_TEN = frozenset({"sc", "pq", "overall", "pf", "success", "preservation"})
"""Measures from 0 to 10; the others are shares, or have no upper end."""
SCALES: dict[str, float] = {"t2i": 1.0, "edit": 1.0, "incontext": 10.0, "understanding": 1.0}


@dataclass(frozen=True)
class Item:
    """One request for a picture.

    key: "task/family/0007", also the name of its file. inputs: the scenes whose pictures go in, in order.
    truth: a scene whose picture is right. rule: what the picture is checked against. seed: of its noise.
    """

    key: str
    task: str
    family: str
    prompt: str
    inputs: tuple[Scene, ...]
    truth: Scene
    rule: Requirements | EditRequirements
    seed: int


@dataclass(frozen=True)
class Outcome:
    """score: what is averaged, from 0 to the task's scale. numbers: everything else that was measured."""

    score: float
    passed: bool
    reason: str
    unknown: bool = False
    numbers: dict[str, float] = field(default_factory=dict)


def judge(item: Item, inputs: Sequence[Known], picture: Picture) -> Outcome:
    """The outcome of a picture for an item, given the pictures that went in, which are looked at once."""
    return _JUDGES[item.task](item, inputs, picture)


def _judge_t2i(item: Item, _: Sequence[Known], picture: Picture) -> Outcome:
    assert isinstance(item.rule, Requirements)
    verdict = score_t2i(picture, item.rule)
    numbers = {"atoms": verdict.share, "unknown": float(verdict.unknown)}
    for word in ("count", "shape", "color", "fill", "size", "position", "background"):
        own = [met for name, met in verdict.atoms.items() if name.split(" ")[0] == word]
        if own:
            numbers[f"atom {word}"] = sum(own) / len(own)
    return Outcome(float(verdict.passed), verdict.passed, verdict.reason, verdict.unknown, numbers)


def _judge_edit(item: Item, inputs: Sequence[Known], picture: Picture) -> Outcome:
    assert isinstance(item.rule, EditRequirements)
    verdict = score_edit(inputs[0], picture, item.rule)
    numbers = {"sc": verdict.sc, "pq": verdict.pq, "overall": verdict.overall}
    numbers |= {"success": verdict.success_score, "preservation": verdict.preservation}
    measured = {
        "kept": verdict.kept,
        "kept without drift": verdict.kept_without_drift,
        "drift": verdict.drift,
    }
    numbers |= {name: value for name, value in measured.items() if not math.isnan(value)}
    numbers["unknown"] = float(verdict.unknown)
    return Outcome(float(verdict.success), verdict.success, verdict.reason, verdict.unknown, numbers)


def _judge_incontext(item: Item, inputs: Sequence[Known], picture: Picture) -> Outcome:
    assert isinstance(item.rule, Requirements)
    verdict = score_context(inputs, picture, item.rule)
    numbers = {"pf": verdict.pf, "sc": verdict.sc, "unknown": float(verdict.unknown)}
    numbers |= {"attribution error": float(verdict.is_swapped), "blend error": float(verdict.is_blend)}
    numbers["strict"] = float(verdict.passed)
    score = 0.0 if math.isnan(verdict.overall) else verdict.overall
    return Outcome(score, verdict.passed, verdict.reason, verdict.unknown, numbers)


_JUDGES: dict[str, Callable[[Item, Sequence[Known], Picture], Outcome]] = {
    "t2i": _judge_t2i,
    "edit": _judge_edit,
    "incontext": _judge_incontext,
}
