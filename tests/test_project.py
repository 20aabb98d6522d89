"""The project itself: pins, targets, pages, sizes, and that nothing in it belongs to one machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from itertools import chain
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "og2"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Put together here so that this file does not hold what it looks for.
FOREIGN = [
    *("/" + name + "/" for name in ("work", "opt", "root", "home")),
    *(name + "." + end for name, end in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))),
    *("download.pytorch" + ".org", "conda.anaconda" + ".org"),
    *("index" + "-url", "find" + "-links", "trusted" + "-host"),
]
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".cfg", ".sh", ".ini", ""}


def tracked_files() -> list[Path]:
    """Files of the project: what git tracks, or all of them where this is no git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [
            ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()
        ]
    skipped = {".git", ".venv", "__pycache__", "demo", "build"}
    return [
        path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)
    ]


def test_no_file_names_a_path_of_one_machine_or_a_package_registry() -> None:
    found = []
    for path in tracked_files():
        if path.suffix not in TEXT_SUFFIXES or path.name in {"tokenizer.json", "vocab.json"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FOREIGN if word in text]
    assert found == []


def test_source_is_ascii() -> None:
    found = [str(path.relative_to(ROOT)) for path in SOURCE.rglob("*.py") if not path.read_bytes().isascii()]
    assert found == []


def test_source_files_and_functions_are_short() -> None:
    too_long = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            too_long.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                too_long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert too_long == []


def test_every_dependency_has_a_range_and_a_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    for entry in wanted:
        name, _, _ = entry.partition(">=")
        assert name != entry, f"{entry} has no lower bound"
        assert name.lower().replace("_", "-") in pins, f"{name} is not pinned"
    assert pins["torch"] == "2.13.0"


def test_the_build_machine_runs_make_test_and_passes_its_status_on() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "clean"])
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_failing_test_fails_make_test(tmp_path: Path) -> None:
    """The recipe of `make test` hands the status on: with a test runner that fails, make fails."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").write_text("#!/bin/sh\nexit 1\n")
    (bin_folder / "python").chmod(0o755)
    for stamp in (".setup", ".setup-dev"):
        (tmp_path / stamp).touch()
    done = subprocess.run(["make", "test", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} -> {target}"


def test_the_readme_names_every_source_file() -> None:
    text = (ROOT / "README.md").read_text()
    files = [path for path in SOURCE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    missing = [
        str(path.relative_to(SOURCE)) for path in files if not re.search(rf"\b{re.escape(path.name)}\b", text)
    ]
    assert missing == []


def test_the_package_data_is_at_most_64_megabytes() -> None:
    folder = SOURCE / "checkpoints"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 64e6
