"""What came out of the experiment on position encodings: a table beside the paper's, and the curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from og2.files import write_text
from og2.train.curves import Series, draw_curves
from og2.train.encodings import ENCODINGS

LAST_SHARE = 0.1
TABLE, FIGURE = "report.md", "curves.png"


@dataclass(frozen=True)
class Outcome:
    """One run: the learning rate (and its factor), mean losses by step since the step before, accuracy.

    is_finite: False when the loss was no number any more.
    """

    encoding: str
    factor: float
    rate: float
    seed: int
    curve: tuple[tuple[int, float], ...]
    accuracy: float
    is_finite: bool = True

    @property
    def final_loss(self) -> float:
        """The mean loss over the last tenth of the steps; infinite if the run broke off."""
        if not self.is_finite or not self.curve:
            return math.inf
        first = self.curve[-1][0] * (1.0 - LAST_SHARE)
        return statistics.fmean(loss for step, loss in self.curve if step > first)

    def steps_to(self, threshold: float) -> float:
        """The first logged step whose mean loss is below the threshold; infinite if there is none."""
        return min((step for step, loss in self.curve if loss < threshold), default=math.inf)


def write_report(
    folder: Path, outcomes: Sequence[Outcome], best: Mapping[str, float], threshold: float
) -> None:
    """Writes `report.md` and `curves.png`; `best`: each encoding's factor, empty while it is searched."""
    write_text(folder / TABLE, format_report(outcomes, best, threshold))
    counted = _counted(outcomes, best)
    shown = [o for group in counted.values() for o in group] or list(outcomes)
    colors = {name: index for index, name in enumerate(ENCODINGS)}
    series = [Series(ENCODINGS[o.encoding].label, o.curve, colors[o.encoding]) for o in shown]
    draw_curves(folder / FIGURE, series, ("steps", "loss"), threshold)


def format_report(outcomes: Sequence[Outcome], best: Mapping[str, float], threshold: float) -> str:
    """Markdown: the search, the table, and what became of the order."""
    lines = ["Search for the learning rate (one seed, final loss):", "", "| encoding | rate | final loss |"]
    lines.append("|---|---|---|")
    counted = _counted(outcomes, best)
    seeds = {o.seed for group in counted.values() for o in group}
    for o in (o for o in outcomes if o.seed not in seeds):
        lines.append(f"| {ENCODINGS[o.encoding].label} | {o.rate:.2g} | {_loss(o.final_loss)} |")
    if not counted:
        return "\n".join(lines) + "\n"
    lines += [
        "",
        f"At the best rate: median [lowest, highest] over seeds; steps to a loss below {threshold:g}:",
        "",
        "| encoding | rate | seeds | steps to threshold | final loss | k-th picture | paper: steps | loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, group in counted.items():
        known = ENCODINGS[name]
        steps = _spread([o.steps_to(threshold) for o in group], "{:.0f}")
        loss = _spread([o.final_loss for o in group], "{:.4f}")
        accuracy = _spread([o.accuracy for o in group], "{:.3f}")
        lines.append(
            f"| {known.label} | {group[0].rate:.2g} | {len(group)} | {steps} | {loss} | {accuracy} | "
            f"{known.paper_steps} | {known.paper_loss} |"
        )
    lines += ["", *_orders(counted, threshold)]
    return "\n".join(lines) + "\n"


def _counted(outcomes: Sequence[Outcome], best: Mapping[str, float]) -> dict[str, list[Outcome]]:
    """By encoding the runs at its best rate, those of the search left out."""
    if not best:
        return {}
    searched = outcomes[0].seed
    groups = {name: [o for o in outcomes if o.encoding == name and o.seed != searched] for name in best}
    return {name: group for name, group in groups.items() if group}


def _orders(counted: Mapping[str, Sequence[Outcome]], threshold: float) -> list[str]:
    """The encodings from best to worst, and in how many seeds the paper's order of three holds."""
    steps = {n: statistics.median(o.steps_to(threshold) for o in g) for n, g in counted.items()}
    losses = {n: statistics.median(o.final_loss for o in g) for n, g in counted.items()}
    lines = [
        f"Order by steps to threshold: {_ordered(steps)}.",
        f"Order by final loss: {_ordered(losses)}.",
    ]
    three = ("omni", "qwen", "lumina")
    if all(name in counted for name in three):
        trios = list(zip(*(counted[name] for name in three), strict=False))
        by_steps = sum(
            a.steps_to(threshold) < b.steps_to(threshold) < c.steps_to(threshold) for a, b, c in trios
        )
        by_loss = sum(a.final_loss < b.final_loss < c.final_loss for a, b, c in trios)
        lines.append(
            f"Omni before Qwen2-VL before Lumina, seed by seed: by steps in {by_steps} of {len(trios)}, "
            f"by final loss in {by_loss} of {len(trios)}."
        )
    return lines


def _ordered(values: Mapping[str, float]) -> str:
    """Names from the lowest value on; equal ones (also: never reached) are joined by "="."""
    names = sorted(values, key=lambda name: values[name])
    text = names[0]
    for before, name in pairwise(names):
        text += f" {'=' if values[before] == values[name] else '<'} {name}"
    return text


def _spread(values: Sequence[float], form: str) -> str:
    middle, low, high = (f(values) for f in (statistics.median, min, max))
    said = [form.format(v) if math.isfinite(v) else "never" for v in (middle, low, high)]
    return f"{said[0]} [{said[1]}, {said[2]}]"


def _loss(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "broke off"
