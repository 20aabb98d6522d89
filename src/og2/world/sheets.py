"""Contact sheets of every task family, to be looked at: `python -m og2.world.sheets FOLDER`.

One WebP a family; each row is one kind of task, each cell a picture (references and source first, the answer
last) over the words that ask for it. The same seed gives the same sheet.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from og2.files import written
from og2.world.clips import sample_clip
from og2.world.critique import FAULTS, reflect, say_defect, seen_in, spoil
from og2.world.critique import find_defects as defects_of
from og2.world.dialogue import typed_questions
from og2.world.edits import ALL_EDIT_KINDS, sample_edit
from og2.world.incontext import INCONTEXT_TASKS, sample_incontext
from og2.world.prompts import PROMPT_TASKS, sample_prompt
from og2.world.render import render_batch
from og2.world.scenes import Scene

_SIDE_PX = 144
_GAP_PX = 6
_LINE_PX = 13
_INK, _FAINT, _PAPER = (40, 40, 40), (120, 120, 120), (250, 250, 248)
_QUALITY = 82


@dataclass(frozen=True)
class Cell:
    """Pictures side by side, and the words under them."""

    scenes: tuple[Scene, ...]
    words: str


Rows = dict[str, list[Cell]]


def prompts_sheet(rng: Generator) -> Rows:
    """Drawings: a row for each task."""
    found = {task: [sample_prompt(rng, task) for _ in range(6)] for task in PROMPT_TASKS}
    return {task: [Cell((p.scene,), p.text) for p in row] for task, row in found.items()}


def edits_sheet(rng: Generator) -> Rows:
    """Edits: a row for each kind, source and target."""
    found = {kind: [sample_edit(rng, (kind,), world="full") for _ in range(3)] for kind in ALL_EDIT_KINDS}
    return {
        _words(kind): [Cell((e.source, e.target), e.instruction) for e in row] for kind, row in found.items()
    }


def incontext_sheet(rng: Generator) -> Rows:
    """In-context tasks: a row for each, references and the answer."""
    rows: Rows = {}
    for task in INCONTEXT_TASKS:
        found = [sample_incontext(rng, task) for _ in range(2)]
        rows[_words(task)] = [Cell((*item.references, item.target), item.instruction) for item in found]
    return rows


def questions_sheet(rng: Generator) -> Rows:
    """Questions with their answers, about drawings, and about pictures put together."""
    drawings = [sample_prompt(rng, task).scene for task in ("position", "chain", "counting", "text") * 2]
    groups = [sample_incontext(rng, INCONTEXT_TASKS[i]).target for i in (0, 2, 4, 7) * 2]
    rows: Rows = {}
    for name, scenes in (("about drawings", drawings), ("about creatures and gadgets", groups)):
        asked = [typed_questions(scene, rng, "full") for scene in scenes]
        cells = [Cell((s,), _some_asked(rng, own)) for s, own in zip(scenes, asked, strict=True)]
        rows |= {name: cells[:4], f"more {name}": cells[4:]}
    return rows


def critique_sheet(rng: Generator) -> Rows:
    """Wrong pictures with what is wrong with them, a row for each fault."""
    rows: Rows = {}
    for fault in FAULTS:
        row = rows.setdefault(_words(fault), [])
        while len(row) < 6:
            prompt = sample_prompt(rng, "attribution" if fault != "moved" else "position")
            wrong = spoil(rng, prompt.scene, fault)
            found = defects_of(seen_in(wrong), prompt.requirements) if wrong else ()
            if wrong and found:
                edit = reflect(rng, seen_in(wrong), prompt.requirements).edit
                row.append(Cell((wrong,), f"{prompt.text} / {say_defect(found[0])} / {edit}"))
    return rows


def clips_sheet(rng: Generator) -> Rows:
    """Clips: a row for each, every second frame."""
    clips = [sample_clip(rng, 16, 2) for _ in range(6)]
    said = [f"every second of 16 frames; shots start at {' and '.join(map(str, c.shots))}" for c in clips]
    return {
        f"clip {i + 1}": [Cell(c.frames[::2], words)]
        for i, (c, words) in enumerate(zip(clips, said, strict=True))
    }


SHEETS: dict[str, Callable[[Generator], Rows]] = {
    "prompts": prompts_sheet,
    "edits": edits_sheet,
    "incontext": incontext_sheet,
    "questions": questions_sheet,
    "critiques": critique_sheet,
    "clips": clips_sheet,
}


def draw_sheet(rows: Rows, hand: str = "clean") -> Image.Image:
    """The rows as one picture, each under its name; hand: see `render.render_batch`."""
    step = _SIDE_PX + _GAP_PX
    words = {
        name: [_wrapped(cell.words, len(cell.scenes) * step - _GAP_PX) for cell in row]
        for name, row in rows.items()
    }
    heights = {
        n: _SIDE_PX + (1 + max(len(lines) for lines in own)) * _LINE_PX + 2 * _GAP_PX
        for n, own in words.items()
    }
    width = max(sum(len(cell.scenes) for cell in row) for row in rows.values()) * step + _GAP_PX
    sheet = Image.new("RGB", (width, sum(heights.values()) + _GAP_PX), _PAPER)
    pen, y = ImageDraw.Draw(sheet), _GAP_PX
    for name, row in rows.items():
        pen.text((_GAP_PX, y), name, fill=_FAINT, font=_font())
        x, top = _GAP_PX, y + _LINE_PX
        for cell, lines in zip(row, words[name], strict=True):
            pen.multiline_text((x, top + _SIDE_PX + 1), "\n".join(lines), fill=_INK, font=_font(), spacing=1)
            for picture in render_batch(cell.scenes, _SIDE_PX, hand=hand).numpy():
                sheet.paste(Image.fromarray(picture), (x, top))
                x += step
        y += heights[name]
    return sheet


def _some_asked(rng: Generator, asked: Sequence[tuple[str, str, str]], number: int = 4) -> str:
    chosen = sorted(rng.permutation(len(asked))[:number])
    return " / ".join(f"{asked[i][1]} {asked[i][2]}" for i in chosen)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(11)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines no wider than so many px."""
    lines, font = [""], _font()
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: writes the sheets, returns the exit code."""
    parser = argparse.ArgumentParser(description="Contact sheets of the mini-world's task families.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=tuple(SHEETS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hand", default="clean")
    options = parser.parse_args(arguments)
    for family in options.family or tuple(SHEETS):
        sheet = draw_sheet(SHEETS[family](np.random.default_rng(options.seed)), options.hand)
        with written(options.folder / f"world_{family}.webp") as place:
            sheet.save(place, format="WEBP", quality=_QUALITY, method=6)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
