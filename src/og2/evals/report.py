"""The mini benchmark's report: numbers as JSON and as a table, pictures as a contact sheet."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from og2.evals.intervals import Share

_CELL_PX = 128
_TEXT_PX = 44
_COLUMNS = 12
_MAX_ROWS = {"t2i": 96, "edit": 60}


@dataclass(frozen=True)
class Row:
    """One item: its task, words, pictures (an edit: source, result, truth) and verdict."""

    task: str
    text: str
    pictures: tuple[NDArray[np.uint8], ...]
    passed: bool
    reason: str


@dataclass
class Report:
    """Scores per task, their breakdown, the controls, and the items themselves; filled as the run goes on."""

    settings: dict[str, Any]
    scores: dict[str, Share] = field(default_factory=dict)
    breakdown: dict[str, Share] = field(default_factory=dict)
    details: dict[str, dict[str, Share]] = field(default_factory=dict)
    controls: dict[str, Share] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    answers: list[dict[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; one key per task with score, low, high and n, pictures left out."""
        return {
            **{task: share.to_dict() for task, share in self.scores.items()},
            "breakdown": {name: share.to_dict() for name, share in self.breakdown.items()},
            "details": {t: {k: s.to_dict() for k, s in d.items()} for t, d in self.details.items()},
            "controls": {name: share.to_dict() for name, share in self.controls.items()},
            "timings": self.timings,
            "settings": self.settings,
            "answers": self.answers,
            "items": [
                {"task": r.task, "text": r.text, "passed": r.passed, "reason": r.reason} for r in self.rows
            ],
        }


def format_report(report: Report) -> str:
    """The report as a table for people."""
    settings = ", ".join(f"{k}={v}" for k, v in report.settings.items() if v not in (None, {}))
    lines = [f"mini benchmark ({settings}); 95 % intervals", ""]
    for task, share in report.scores.items():
        lines.append(f"{task:32} {share}")
        own = {n: s for n, s in report.breakdown.items() if n.startswith(f"{task} ")}
        lines += [f"  {name.removeprefix(task + ' '):30} {part}" for name, part in own.items()]
    lines += ["", "controls"]
    lines += [f"  {name:38} {share}" for name, share in report.controls.items()]
    for title, parts in report.details.items():
        lines += ["", f"{title}: " + ", ".join(f"{k} {s.score:.2f} ({s.n})" for k, s in parts.items())]
    lines += ["", *(f"{name}: {value:.2f}" for name, value in report.timings.items())]
    return "\n".join(lines)


def write_sheet(report: Report, path: Path) -> None:
    """A PNG of the items with their words, failures first; edits show source, result and truth in a row.

    Raises: FileExistsError when the file is there already.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already; choose another name")
    bands = [_band(report, task) for task in ("t2i", "edit")]
    bands = [band for band in bands if band is not None]
    if not bands:
        return
    sheet = Image.new("RGB", (max(b.width for b in bands), sum(b.height for b in bands)), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    sheet.save(path, format="PNG")


def _band(report: Report, task: str) -> Image.Image | None:
    rows = sorted((r for r in report.rows if r.task == task), key=lambda r: r.passed)[: _MAX_ROWS[task]]
    if not rows:
        return None
    across = len(rows[0].pictures)
    columns = _COLUMNS // across
    band = Image.new(
        "RGB", (_COLUMNS * (_CELL_PX + 4), -(-len(rows) // columns) * (_CELL_PX + _TEXT_PX)), "white"
    )
    draw = ImageDraw.Draw(band)
    for i, row in enumerate(rows):
        left = (i % columns) * across * (_CELL_PX + 4)
        top = (i // columns) * (_CELL_PX + _TEXT_PX)
        for k, picture in enumerate(row.pictures):
            shown = Image.fromarray(picture).resize((_CELL_PX, _CELL_PX), Image.Resampling.NEAREST)
            band.paste(shown, (left + k * (_CELL_PX + 4), top))
        color = "darkgreen" if row.passed else "firebrick"
        words = textwrap.wrap(row.text if row.passed else f"{row.text} | {row.reason}", 21 * across)[:4]
        draw.multiline_text((left, top + _CELL_PX), "\n".join(words), fill=color, spacing=0, font_size=10)
    return band
