"""The mini benchmark's report as one HTML file: scores, controls, and the pictures, the worst first.

Self-contained: pictures are inside as PNG, nothing is fetched.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from og2.evals.intervals import Share
from og2.evals.report import Report, Row, TaskReport
from og2.files import write_text

MAX_SHOWN = 60  # items a family
_SHOWN_PX = 128
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1180px;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0}
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
h2{margin-top:2em;border-bottom:2px solid #444}
.items{display:flex;flex-wrap:wrap;gap:12px}
.item{border:1px solid #ddd;border-radius:6px;padding:8px;max-width:420px}
.item.bad{border-color:#c55}
.item.good{border-color:#5a5}
.item.unclear{border-color:#c93}
.pics{display:flex;gap:4px}
.pics figure{margin:0}
figcaption{font-size:11px;color:#777}
img{image-rendering:pixelated;width:128px;height:auto;display:block}
.why{color:#a33;font-size:12px}
.bar{display:inline-block;height:9px;background:#5b8;border-radius:3px;vertical-align:middle}
summary{cursor:pointer;font-weight:600;margin:.8em 0}
.note{color:#666}
"""


def write_page(report: Report, path: Path) -> None:
    """Writes the report to a new file.   Raises: FileExistsError when the file is there already."""
    if path.exists():
        raise FileExistsError(f"{path} is there already; choose another name")
    write_text(path, page_of(report))


def page_of(report: Report) -> str:
    """The report as HTML."""
    settings = "".join(
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>"
        for k, v in report.settings.items()
        if v not in (None, {}, "")
    )
    rates = report.certificate.summary()
    parts = [
        "<!doctype html><meta charset=utf-8><title>og2 mini benchmark</title>",
        f"<style>{_STYLE}</style><h1>Mini benchmark</h1>",
        "<p class=note>A procedural world judged from pixels: evidence about a mechanism (binding, counting, "
        "preservation, identity), not about photorealism.</p>",
        f"<table>{settings}</table>",
    ]
    for name, task in report.tasks.items():
        parts += [f"<h2>{html.escape(name)}</h2>", _scores(name, task, rates), _gallery(task)]
    return "\n".join(parts)


def _scores(name: str, task: TaskReport, rates: dict[str, dict[str, float | int]]) -> str:
    head = "<tr><th></th><th>score</th><th>95 % interval</th><th>n</th><th></th><th>scorer accepts</th></tr>"
    rows = [_line("<b>overall</b>", task.score, task.scale, "")]
    for family, share in task.families.items():
        known = rates.get(f"{name}/{family}") if task.is_certified(name, family) else None
        note = f"{known['accept_correct']:.3f} right, {known['accept_near_miss']:.3f} wrong" if known else ""
        side = f" <span class=note>{task.px[family]} px</span>" if family in task.px else ""
        rows.append(_line(html.escape(family) + side, share, task.scale, note))
    for control, (share, _) in task.controls.items():
        rows.append(_line(f"<i>control: {html.escape(control)}</i>", share, task.scale, ""))
    missing = ""
    if task.missing:
        names = ", ".join(html.escape(key) for key in task.missing)
        missing = f"<p class=why>{len(task.missing)} items are missing and not in n: {names}</p>"
    return f"<table>{head}{''.join(rows)}</table>{missing}"


def _line(name: str, share: Share, scale: float, note: str) -> str:
    width = round(160 * max(0.0, share.score) / scale)
    return (
        f"<tr><td>{name}</td><td class=n>{share.score:.3f}</td>"
        f"<td class=n>{share.low:.3f} to {share.high:.3f}</td>"
        f"<td class=n>{share.n}</td><td><span class=bar style='width:{width}px'></span></td>"
        f"<td>{note}</td></tr>"
    )


def _gallery(task: TaskReport) -> str:
    done = []
    for family in dict.fromkeys(row.family for row in task.rows):
        rows = sorted((r for r in task.rows if r.family == family), key=lambda r: (r.outcome.score, r.key))
        items = "".join(_item(row) for row in rows[:MAX_SHOWN])
        left = f", the worst {MAX_SHOWN}" if len(rows) > MAX_SHOWN else ""
        title = f"{html.escape(family)} ({len(rows)} items{left})"
        done.append(f"<details open><summary>{title}</summary><div class=items>{items}</div></details>")
    return "\n".join(done)


def _item(row: Row) -> str:
    state = "good" if row.outcome.passed else "unclear" if row.outcome.unknown else "bad"
    names = _captions(len(row.pictures))
    pictures = "".join(
        f"<figure><img src='{_inline(p)}' alt=''><figcaption>{name}</figcaption></figure>"
        for p, name in zip(row.pictures, names, strict=True)
    )
    numbers = ", ".join(f"{k} {v:.2f}" for k, v in row.outcome.numbers.items() if not k.startswith("atom "))
    why = f"<div class=why>{html.escape(row.outcome.reason)}</div>" if row.outcome.reason else ""
    return (
        f"<div class='item {state}'><div class=pics>{pictures}</div><div>{html.escape(row.text)}</div>"
        f"{why}<div class=note>{row.outcome.score:.2f} &middot; {html.escape(numbers)}</div></div>"
    )


def _captions(count: int) -> list[str]:
    if count == 1:
        return [""]
    return [
        *(f"input {i + 1}" if count > 3 else "input" for i in range(count - 2)),
        "result",
        "one right answer",
    ]


def _inline(picture: NDArray[np.uint8]) -> str:
    image = Image.fromarray(picture)
    if min(image.size) > 2 * _SHOWN_PX:
        image.thumbnail((2 * _SHOWN_PX, 2 * _SHOWN_PX), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
