"""Contact sheets of every task family, to be looked at: `python -m og2.world.sheets FOLDER`.

One PNG a family; each row is one kind of task, each cell a picture (references and source first, the answer
last) over the words that ask for it. The same seed gives the same sheet.
"""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from og2.world.clips import sample_clip
from og2.world.critique import FAULTS, reflect, say_defect, seen_in, spoil
from og2.world.critique import find_defects as defects_of
from og2.world.edits import ALL_EDIT_KINDS, sample_edit
from og2.world.incontext import INCONTEXT_TASKS, sample_incontext
from og2.world.prompts import PROMPT_TASKS, sample_prompt
from og2.world.render import render_batch
from og2.world.scenes import Scene

_SIDE_PX = 144
_GAP_PX = 6
_WORDS_PX = 66
_INK, _PAPER = (40, 40, 40), (250, 250, 248)


@dataclass(frozen=True)
class Cell:
    """Pictures side by side, and the words under them."""

    scenes: tuple[Scene, ...]
    words: str


def prompts_sheet(rng: Generator) -> list[list[Cell]]:
    """Drawings: a row for each task."""
    found = [[sample_prompt(rng, task) for _ in range(6)] for task in PROMPT_TASKS]
    return [[Cell((p.scene,), p.text) for p in row] for row in found]


def edits_sheet(rng: Generator) -> list[list[Cell]]:
    """Edits: a row for each kind, source and target."""
    found = [[sample_edit(rng, (kind,), world="full") for _ in range(3)] for kind in ALL_EDIT_KINDS]
    return [[Cell((e.source, e.target), e.instruction) for e in row] for row in found]


def incontext_sheet(rng: Generator) -> list[list[Cell]]:
    """In-context tasks: a row for each, references and the answer."""
    found = [sample_incontext(rng, task) for task in INCONTEXT_TASKS for _ in range(2)]
    return [[Cell((*item.references, item.target), item.instruction)] for item in found]


def critique_sheet(rng: Generator) -> list[list[Cell]]:
    """Wrong pictures with what is wrong with them, a row for each fault."""
    rows: list[list[Cell]] = []
    for fault in FAULTS:
        row: list[Cell] = []
        while len(row) < 6:
            prompt = sample_prompt(rng, "attribution" if fault != "moved" else "position")
            wrong = spoil(rng, prompt.scene, fault)
            found = defects_of(seen_in(wrong), prompt.requirements) if wrong else ()
            if wrong and found:
                edit = reflect(rng, seen_in(wrong), prompt.requirements).edit
                row.append(Cell((wrong,), f"{prompt.text} / {say_defect(found[0])} / {edit}"))
        rows.append(row)
    return rows


def clips_sheet(rng: Generator) -> list[list[Cell]]:
    """Clips: a row for each, every second frame."""
    clips = [sample_clip(rng, 16, 2) for _ in range(6)]
    return [[Cell(c.frames[::2], f"shots start at frames {', '.join(map(str, c.shots))}")] for c in clips]


SHEETS: dict[str, Callable[[Generator], list[list[Cell]]]] = {
    "prompts": prompts_sheet,
    "edits": edits_sheet,
    "incontext": incontext_sheet,
    "critiques": critique_sheet,
    "clips": clips_sheet,
}


def draw_sheet(rows: Sequence[Sequence[Cell]], hand: str = "clean") -> Image.Image:
    """The rows as one picture; hand: see `render.render_batch`."""
    step = _SIDE_PX + _GAP_PX
    widths = [sum(len(cell.scenes) for cell in row) * step + _GAP_PX for row in rows]
    height = len(rows) * (_SIDE_PX + _WORDS_PX) + _GAP_PX
    sheet = Image.new("RGB", (max(widths), height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x, y = _GAP_PX, _GAP_PX + number * (_SIDE_PX + _WORDS_PX)
        for cell in row:
            for picture in render_batch(cell.scenes, _SIDE_PX, hand=hand).numpy():
                sheet.paste(Image.fromarray(picture), (x, y))
                x += step
            wide = len(cell.scenes) * step
            lines = textwrap.wrap(cell.words, max(10, int(wide / 6.2)))[:5]
            pen.multiline_text((x - wide, y + _SIDE_PX + 1), "\n".join(lines), fill=_INK, spacing=0)
    return sheet


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: writes the sheets, returns the exit code."""
    parser = argparse.ArgumentParser(description="Contact sheets of the mini-world's task families.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=tuple(SHEETS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hand", default="clean")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    for family in options.family or tuple(SHEETS):
        sheet = draw_sheet(SHEETS[family](np.random.default_rng(options.seed)), options.hand)
        path = options.folder / f"world_{family}.png"
        partial = path.with_suffix(".partial")
        sheet.save(partial, format="PNG", optimize=True)
        os.replace(partial, path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
