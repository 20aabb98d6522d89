"""The scorer's certificate as data: what `og2 world certify` measured, read from the package or a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from og2.errors import ConfigError
from og2.evals.intervals import Share, wilson

SHIPPED = Path(__file__).with_name("certificate.json")
Counts = dict[str, dict[str, dict[str, tuple[int, int]]]]
RIGHT, CLEAN = "correct", "clean"


@dataclass(frozen=True)
class Certificate:
    """settings: how it was measured. counts: task -> condition -> kind of picture -> (accepted, of n).

    The kind "correct" is right pictures, every other one a kind of wrong pictures.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)

    @staticmethod
    def shipped() -> Certificate:
        """The one inside the package; empty when there is none."""
        return Certificate.load(SHIPPED) if SHIPPED.exists() else Certificate()

    @staticmethod
    def load(path: Path) -> Certificate:
        """The one in a file.   Raises: ConfigError when the file holds none."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            counts = {
                task: {
                    condition: {kind: (int(k), int(n)) for kind, (k, n) in kinds.items()}
                    for condition, kinds in conditions.items()
                }
                for task, conditions in data["counts"].items()
            }
            return Certificate(data["settings"], counts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} holds no certificate: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data, the inverse of `load`."""
        return {"settings": self.settings, "counts": self.counts}

    def share(self, task: str, condition: str, kind: str) -> Share:
        """One cell with its interval."""
        return wilson(*self.counts[task][condition][kind])

    def summary(self, condition: str = CLEAN) -> dict[str, dict[str, float | int]]:
        """Per task: share of right and of all kinds of wrong pictures accepted; n, the fewer of the two."""
        done: dict[str, dict[str, float | int]] = {}
        for task, conditions in self.counts.items():
            kinds = conditions.get(condition, {})
            right = wilson(*kinds.get(RIGHT, (0, 0)))
            wrong = [cell for kind, cell in kinds.items() if kind != RIGHT]
            false = wilson(sum(k for k, _ in wrong), sum(n for _, n in wrong))
            done[task] = {
                "accept_correct": right.score,
                "accept_near_miss": false.score,
                "n": min(right.n, false.n),
            }
        return done

    def format(self) -> str:
        """The certificate as text: one block per task, one row per kind, one column per condition."""
        lines: list[str] = []
        for task, conditions in self.counts.items():
            kinds = list(dict.fromkeys(kind for cells in conditions.values() for kind in cells))
            most = max((n for cells in conditions.values() for _, n in cells.values()), default=0)
            lines.append(f"{task}: share accepted, at most {most} pictures per cell")
            lines.append("".join([f"{'':20}", *(f"{name:>14}" for name in conditions)]))
            for kind in kinds:
                row = [f"{kind:20}"]
                for cells in conditions.values():
                    k, n = cells.get(kind, (0, 0))
                    row.append(f"{k / n:14.3f}" if n else f"{'-':>14}")
                lines.append("".join(row))
            lines.append("")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The certificate as Markdown: a table of the tasks, one of the conditions, and one of the kinds."""
        conditions = list(dict.fromkeys(c for cells in self.counts.values() for c in cells))
        blocks = [
            _table(["task", "right accepted", "near misses accepted", "worst kind", "n"], self._tasks())
        ]
        if len(conditions) > 1:
            blocks.append(_table(["condition, all tasks", "right", "near misses", "n"], self._conditions()))
        blocks.append(_table(["kind of picture, all tasks, clean", "accepted", "n"], self._kinds()))
        return "\n\n".join(blocks)

    def _tasks(self) -> list[list[str]]:
        rows: list[list[str]] = []
        for task, conditions in self.counts.items():
            kinds = conditions.get(CLEAN, {})
            right, wrong = wilson(*kinds.get(RIGHT, (0, 0))), _pooled([kinds])
            rates = {kind: k / n for kind, (k, n) in kinds.items() if kind != RIGHT and n}
            worst = max(rates, key=lambda kind: rates[kind], default="")
            named = f"{worst} {rates[worst]:.3f}" if worst and rates[worst] > 0 else "-"
            rows.append([task, _interval(right), _interval(wrong), named, f"{right.n}, {wrong.n}"])
        return rows

    def _conditions(self) -> list[list[str]]:
        rows: list[list[str]] = []
        for name in dict.fromkeys(c for cells in self.counts.values() for c in cells):
            cells = [conditions[name] for conditions in self.counts.values() if conditions.get(name)]
            right = wilson(*(sum(c.get(RIGHT, (0, 0))[i] for c in cells) for i in (0, 1)))
            wrong = _pooled(cells)
            rows.append([name, _interval(right), _interval(wrong), f"{right.n}, {wrong.n}"])
        return rows

    def _kinds(self) -> list[list[str]]:
        cells = [conditions.get(CLEAN, {}) for conditions in self.counts.values()]
        names = dict.fromkeys(kind for kinds in cells for kind in kinds)
        found = {kind: [kinds[kind] for kinds in cells if kind in kinds] for kind in names}
        shares = {kind: wilson(sum(k for k, _ in own), sum(n for _, n in own)) for kind, own in found.items()}
        return [[kind, _interval(share), str(share.n)] for kind, share in shares.items()]


def _pooled(cells: list[dict[str, tuple[int, int]]]) -> Share:
    """Share accepted of all wrong pictures."""
    wrong = [cell for kinds in cells for kind, cell in kinds.items() if kind != RIGHT]
    return wilson(sum(k for k, _ in wrong), sum(n for _, n in wrong))


def _interval(share: Share) -> str:
    return f"{share.score:.3f} [{share.low:.3f}, {share.high:.3f}]" if share.n else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
