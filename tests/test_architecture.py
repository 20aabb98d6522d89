"""The house keeps its shape: who may import whom, and what `import og2` costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "og2"

# What each room may import of og2, beside itself. `errors` and `config` are open to all.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "config": set(),
    "device": set(),
    "tracking": set(),
    "files": set(),
    "model": {"device"},
    "conditioning": set(),
    "sampling": set(),
    "world": set(),
    "data": {"device", "conditioning", "sampling", "world"},
    "presets": set(),
    "limits": {"sampling", "presets"},
    "request": {"sampling", "conditioning", "presets", "limits"},
    "png": {"request", "conditioning"},
    "call": {"request", "presets", "conditioning"},
    "placement": {"model"},
    "adapters": {"placement", "presets", "model"},
    "drawing": {"call", "placement", "request", "model", "sampling"},
    "pipeline": {
        "adapters",
        "presets",
        "request",
        "call",
        "placement",
        "drawing",
        "model",
        "conditioning",
        "sampling",
        "png",
    },
    "train": {
        "device",
        "model",
        "conditioning",
        "sampling",
        "data",
        "world",
        "tracking",
        "pipeline",
        "request",
        "png",
    },
    "evals": {"world", "pipeline", "request", "data"},
    "footprint": {"model"},
    "doctor": {"device", "request", "pipeline", "model", "conditioning", "footprint"},
    "cli": {
        "device",
        "request",
        "presets",
        "pipeline",
        "png",
        "doctor",
        "footprint",
        "train",
        "evals",
        "world",
        "conditioning",
        "model",
        "data",
    },
    "__init__": {"model", "pipeline", "request"},
    "__main__": {"cli"},
}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Full names of the og2 modules that a file imports anywhere, also inside functions."""
    package = ("og2", *path.relative_to(SOURCE).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.update([module, *(f"{module}.{alias.name}" for alias in node.names)])
    return {name for name in found if name == "og2" or name.startswith("og2.")}


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_rooms_import_only_what_the_table_allows(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{room} is a new room: say in ALLOWED what it may import"
    allowed = ALLOWED[room] | {room, "errors", "config", "files"}
    rooms = {name.split(".")[1] for name in imported_modules(path) if "." in name}
    public = {
        "OmniGen2Pipeline",
        "OmniGen2Transformer2DModel",
        "Guidance",
        "Request",
        "Result",
        "__version__",
    }
    assert rooms - public <= allowed, f"{path.name} imports {sorted(rooms - public - allowed)}"


def test_the_scorer_never_imports_the_renderer_not_even_through_others() -> None:
    for path in (SOURCE / "world").glob("score*.py"):
        todo, seen = [path], {path}
        while todo:
            for name in imported_modules(todo.pop()):
                parts = name.split(".")[1:]
                own = SOURCE.joinpath(*parts).with_suffix(".py") if parts else path
                if own.exists() and own not in seen:
                    seen.add(own)
                    todo.append(own)
        drawing = {"render.py", "strokes.py", "shapes.py", "scenes.py"}
        assert not drawing & {own.name for own in seen}, path.name


def test_no_room_knows_how_another_one_is_imported_in_a_circle() -> None:
    edges = {room: ALLOWED[room] & ALLOWED.keys() for room in ALLOWED}

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        return any(
            step == goal or (step not in seen and reaches(step, goal, seen | {step})) for step in edges[start]
        )

    assert [room for room in edges if reaches(room, room, set())] == []


def test_import_og2_loads_no_heavy_library_and_takes_under_a_fifth_of_a_second() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import og2; took = time.perf_counter() - start;"
        "heavy = {'torch', 'transformers', 'diffusers', 'numpy', 'PIL', 'typer'} & set(sys.modules);"
        "assert not heavy, heavy; print(took)"
    )
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        times.append(float(done.stdout))
        time.sleep(0.05)
    assert min(times) < 0.2
