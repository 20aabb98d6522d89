"""The mini benchmark's report: numbers as JSON and as a table. The page with the pictures is in `page`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from og2.evals.certificate import Certificate
from og2.evals.intervals import Share, corrected, mean_of, mean_of_families
from og2.evals.items import least_px
from og2.evals.outcomes import OF_TEN, Item, Outcome
from og2.world.prompts import GENEVAL_TASKS


@dataclass(frozen=True)
class Row:
    """One item: its words, pictures (what went in, the result, and a right one) and outcome."""

    key: str
    family: str
    text: str
    pictures: tuple[NDArray[np.uint8], ...]
    outcome: Outcome


@dataclass
class TaskReport:
    """Scores of one task.

    scale: the best score. families: family -> score. numbers: family -> measure -> mean. means: measure ->
    mean over the families that have it. controls: control -> (score, family -> score), control_means: control
    -> its means. missing: keys of items without a picture or answer. px: side of a family's pictures.
    """

    scale: float
    score: Share = field(default_factory=lambda: Share(0.0, 0.0, 1.0, 0))
    families: dict[str, Share] = field(default_factory=dict)
    numbers: dict[str, dict[str, Share]] = field(default_factory=dict)
    means: dict[str, Share] = field(default_factory=dict)
    controls: dict[str, tuple[Share, dict[str, Share]]] = field(default_factory=dict)
    control_means: dict[str, dict[str, Share]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    px: dict[str, int] = field(default_factory=dict)

    def add_outcomes(self, found: list[tuple[Item, Outcome]]) -> None:
        """Scores, breakdown and measures of the model's own items."""
        scores, measured = _by_family(found), _by_measure(found)
        self.add_families(scores)
        self.numbers = {family: {} for family in self.families}
        for name, families in measured.items():
            for family, own in families.items():
                self.numbers[family][name] = mean_of(own, _scale_of(name))
        self.means = _means(measured, scores)

    def add_families(self, values: dict[str, list[float]]) -> None:
        """The task's score as the mean over these families, and each one's own."""
        self.score = mean_of_families(values, self.scale)
        self.families = {family: mean_of(own, self.scale) for family, own in values.items()}

    def add_breakdown(self, name: str, values: list[float]) -> None:
        """A figure beside the families that does not count into the score."""
        self.families[name] = mean_of(values, self.scale)

    def add_control(self, name: str, judged: list[tuple[Item, Outcome]]) -> None:
        """A control's scores and measures."""
        scores = _by_family(judged)
        self.add_control_families(name, scores)
        self.control_means[name] = _means(_by_measure(judged), scores)

    def add_control_families(self, name: str, values: dict[str, list[float]]) -> None:
        """A control's scores, as score per item of each family."""
        parts = {family: mean_of(own, self.scale) for family, own in values.items()}
        self.controls[name] = (mean_of_families(values, self.scale), parts)

    def is_certified(self, task: str, family: str) -> bool:
        """Whether the pictures are as large as those that the scorer is certified on."""
        return self.px.get(family, 0) >= least_px(f"{task}/{family}")

    def to_dict(self, task: str, certificate: dict[str, Any]) -> dict[str, Any]:
        """JSON-ready data of the task of that name; `corrected` is the score with the scorer's own error
        rates taken out."""
        data: dict[str, Any] = {**self.score.to_dict(), "scale": self.scale, "missing": self.missing}
        data["means"] = {name: share.to_dict() for name, share in self.means.items()}
        breakdown: dict[str, Any] = {}
        for family, share in self.families.items():
            numbers = {n: s.score for n, s in self.numbers.get(family, {}).items()}
            breakdown[family] = {**share.to_dict(), "numbers": numbers}
            breakdown[family] |= {"px": self.px[family]} if family in self.px else {}
            rates = certificate.get(f"{task}/{family}")
            if rates and self.is_certified(task, family):
                breakdown[family]["certificate"] = rates
                if self.scale == 1.0:  # shares of passes; other scores have no error rates
                    right, wrong = rates["accept_correct"], rates["accept_near_miss"]
                    breakdown[family]["corrected"] = corrected(share, right, wrong).to_dict()
        data["breakdown"] = breakdown
        data["controls"] = {
            name: {
                **share.to_dict(),
                "means": {n: s.to_dict() for n, s in self.control_means.get(name, {}).items()},
                "breakdown": {f: s.to_dict() for f, s in parts.items()},
            }
            for name, (share, parts) in self.controls.items()
        }
        return data


@dataclass
class Report:
    """A whole run."""

    settings: dict[str, Any]
    tasks: dict[str, TaskReport] = field(default_factory=dict)
    certificate: Certificate = field(default_factory=Certificate.shipped)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; one key per task, pictures left out."""
        rates = self.certificate.summary()
        return {
            **{name: task.to_dict(name, rates) for name, task in self.tasks.items()},
            "settings": self.settings,
            "certificate": {"settings": self.certificate.settings, "table": rates},
            "items": [
                {
                    "key": row.key,
                    "text": row.text,
                    "score": row.outcome.score,
                    "passed": row.outcome.passed,
                    "unknown": row.outcome.unknown,
                    "reason": row.outcome.reason,
                    "numbers": {n: None if math.isnan(v) else v for n, v in row.outcome.numbers.items()},
                }
                for task in self.tasks.values()
                for row in task.rows
            ],
        }


def format_report(report: Report) -> str:
    """The report as a table for people."""
    settings = ", ".join(f"{k}={v}" for k, v in report.settings.items() if v not in (None, {}, ""))
    lines = [f"mini benchmark ({settings}); 95 % intervals", ""]
    for name, task in report.tasks.items():
        scale = "" if task.scale == 1.0 else f" of {task.scale:.0f}"
        lines.append(f"{name:28} {task.score}{scale}")
        lines += [f"  {n:26} {s}" for n, s in task.means.items() if n in (GENEVAL, *_HEADLINES)]
        rates = report.certificate.summary()
        for family, share in task.families.items():
            known = rates.get(f"{name}/{family}") if task.is_certified(name, family) else None
            note = (
                f"  scorer: {known['accept_correct']:.3f} / {known['accept_near_miss']:.3f}" if known else ""
            )
            side = f"  {task.px[family]} px" if family in task.px else ""
            lines.append(f"  {family:26} {share}{side}{note}")
            shown = {n: s for n, s in task.numbers.get(family, {}).items() if n in _SHOWN}
            if shown:
                lines.append("      " + ", ".join(f"{n} {s.score:.2f}" for n, s in shown.items()))
        for control, (share, _) in task.controls.items():
            own = task.control_means.get(control, {})
            shown = "".join(f"  {n} {own[n].score:.2f}" for n in _HEADLINES if n in own)
            lines.append(f"  control: {control:17} {share}{shown}")
        if task.missing:
            some = ", ".join(task.missing[:5]) + (", ..." if len(task.missing) > 5 else "")
            lines.append(f"  MISSING {len(task.missing)} items, not in n: {some}")
        lines.append("")
    lines.append("scorer: share of right and of nearly right pictures that it accepts (`og2 world certify`).")
    lines.append("This is evidence about a mechanism in a procedural world, not about photorealism.")
    return "\n".join(lines)


def controls_table(report: Report) -> str:
    """The controls of every family as a Markdown table, one column a control, scores as in the report."""
    names = list(dict.fromkeys(c for task in report.tasks.values() for c in task.controls))
    rows = [["family", *names, "of", "n"], ["---"] * (len(names) + 3)]
    for name, task in report.tasks.items():
        for family in dict.fromkeys(f for _, parts in task.controls.values() for f in parts):
            own = [task.controls[c][1].get(family) if c in task.controls else None for c in names]
            number = max(share.n for share in own if share is not None)
            cells = ["" if share is None else f"{share.score:.2f}" for share in own]
            rows.append([f"{name}/{family}", *cells, f"{task.scale:.0f}", str(number)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


GENEVAL = "the six of GenEval"
_HEADLINES = ("sc", "pq", "pf", "overall")
_SHOWN = ("sc", "pq", "overall", "pf", "kept", "atoms", "unknown")


def _by_family(found: list[tuple[Item, Outcome]]) -> dict[str, list[float]]:
    families: dict[str, list[float]] = {}
    for item, outcome in found:
        families.setdefault(item.family, []).append(outcome.score)
    return families


def _by_measure(found: list[tuple[Item, Outcome]]) -> dict[str, dict[str, list[float]]]:
    """Measure -> family -> what was measured, NaN left out."""
    measured: dict[str, dict[str, list[float]]] = {}
    for item, outcome in found:
        for name, value in outcome.numbers.items():
            if not math.isnan(value):
                measured.setdefault(name, {}).setdefault(item.family, []).append(value)
    return dict(sorted(measured.items()))


def _means(measured: dict[str, dict[str, list[float]]], scores: dict[str, list[float]]) -> dict[str, Share]:
    """Measures over the families that have them, and the score over GenEval's tasks where all are there."""
    means = {name: mean_of_families(families, _scale_of(name)) for name, families in measured.items()}
    six = {family: scores[family] for family in GENEVAL_TASKS if family in scores}
    return {GENEVAL: mean_of_families(six), **means} if len(six) == len(GENEVAL_TASKS) else means


def _scale_of(measure: str) -> float:
    return 10.0 if measure in OF_TEN else 1.0
