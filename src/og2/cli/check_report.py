"""What `og2 data check` says: shares asked for and found, sizes and lengths, and problems by their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from og2.data.check import Report

MOST_SIZES = 12


def lines(name: str, report: Report) -> Iterator[str]:
    """The report in lines."""
    bad = f"{report.num_bad} cannot be used" if report.num_bad else "all can be used"
    yield f"{name}: {report.num_checked} rows looked at, {bad}"
    yield f"  {'source':32} {'rows':>9} {'asked':>7} {'drawn':>7}  tasks"
    for source in report.sources:
        tasks = ", ".join(f"{task} {count}" for task, count in source.tasks.items())
        shares = f"{source.asked_share:7.2%} {source.drawn_share:7.2%}"
        yield f"  {source.name:32} {source.num_rows:9d} {shares}  {tasks}"
    yield "  sizes: " + _counts(report.sizes)
    yield "  input pictures: " + _counts(report.num_references)
    yield f"  prompt tokens, by the tokenizer of {report.tokenizer}: " + _counts(report.prompt_tokens)
    for change, count in report.changes.items():
        yield f"  pictures read with a change, {change}: {count}"
    yield f"  targets that are there more than once: {report.num_duplicates}"
    for group in report.duplicates:
        yield "    " + _printable(" = ".join(group))
    for kind, count in report.num_problems.items():
        yield f"  problems of kind {kind}: {count}"
    for problem in report.problems:
        named = problem.id in problem.message
        yield "    " + _printable(problem.message if named else f"{problem.id}: {problem.message}")


def _printable(text: str) -> str:
    """The text, with escapes for the bytes of file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _counts(found: Mapping[str, int]) -> str:
    shown = [f"{name}: {count}" for name, count in list(found.items())[:MOST_SIZES]]
    more = len(found) - len(shown)
    return "; ".join([*shown, *([f"{more} more"] if more > 0 else [])]) or "none"
