"""The commands in the pages work: every `og2 ...` line is run, in order, in an empty folder for each page.

With mini they are carried out; with another model as a dry run; training and measuring are only parsed.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from og2.cli import run as og2
from og2.evals.command import _certify_parser, _eval_parser

ROOT = Path(__file__).parents[1]
MINI = ROOT / "src" / "og2" / "checkpoints" / "mini" / "transformer" / "config.json"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINE = re.compile(r'^(?: {4}|\$ )?(?:echo (?P<said>"[^"]*") \| )?(?P<line>og2 (?!COMMAND).*?)(?:\s+#.*)?$')
LONG = ("train", "eval", "cache", "data", "export", "world")


def commands(page: Path) -> list[tuple[list[str], str | None]]:
    """The command lines inside the fenced and indented blocks of a page, with what is piped into them."""
    found: list[tuple[list[str], str | None]] = []
    is_fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
            continue
        match = LINE.match(line) if is_fenced or line.startswith("    ") else None
        if match:
            said = shlex.split(match["said"])[0] if match["said"] else None
            found.append((shlex.split(match["line"], comments=True)[1:], said))
    return found


def adapted(arguments: list[str]) -> list[str]:
    """The line as it can be run here: offline, and without hours of work."""
    if arguments[0] in LONG:
        return [*arguments[: 2 if arguments[0] in ("eval", "data", "world") else 1], "--help"]
    if "--model" in arguments and arguments[0] in ("generate", "edit") and "--dry-run" not in arguments:
        return [*arguments, "--dry-run"]
    return arguments


def supply_pictures(arguments: list[str]) -> None:
    """Pictures that a line reads and no line before it made."""
    reads = arguments[0] in ("edit", "describe", "chat")
    for index, name in enumerate(arguments):
        is_output = arguments[index - 1] in ("--output", "-o")
        if reads and name.endswith(".png") and not is_output and not Path(name).exists():
            Image.new("RGB", (64, 64), "red").save(name)


def needs_mini(arguments: list[str]) -> bool:
    return "--help" not in arguments and "--model" not in arguments and "info" not in arguments[:1]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda path: path.name)
def test_every_command_of_a_page_works(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, said in commands(page):
        line = adapted(arguments)
        if line[:1] == ["info"] and len(line) > 1 and not Path(line[1]).exists():
            continue
        if not MINI.is_file() and (needs_mini(line) or line[:1] == ["info"]):
            pytest.skip("mini is not in this checkout")
        supply_pictures(line)
        monkeypatch.setattr(sys, "stdin", io.StringIO(said or ""))
        code = og2(line)
        assert code == 0, f"og2 {shlex.join(line)}: {capsys.readouterr().err}"


def test_lines_that_measure_name_options_that_exist() -> None:
    parsers = {("eval", "mini"): _eval_parser(), ("world", "certify"): _certify_parser()}
    lines = [arguments for page in PAGES for arguments, _ in commands(page)]
    measuring = [line for line in lines if tuple(line[:2]) in parsers]
    assert len(measuring) > 3
    for line in measuring:
        parsers[line[0], line[1]].parse_args(line[2:])  # ends the test when an option is unknown


def test_the_pages_hold_commands() -> None:
    assert len(commands(ROOT / "README.md")) >= 6
    assert len(commands(ROOT / "docs" / "cli.md")) >= 6
