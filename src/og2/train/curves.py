"""Curves as a picture: values over steps on a logarithmic scale, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from og2.files import written

COLORS = ((204, 87, 46), (46, 110, 204), (38, 140, 80), (130, 60, 160))
SIZE = (960, 600)
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 30, 930, 530


@dataclass(frozen=True)
class Series:
    """One curve: (step, value) pairs; curves of one label have one color, an index into COLORS."""

    label: str
    points: tuple[tuple[int, float], ...]
    color: int


def draw_curves(path: Path, series: Sequence[Series], axes: tuple[str, str], mark: float | None) -> None:
    """Writes the PNG; values that are not positive numbers are left out. mark: a value to draw a line at."""
    kept = [
        Series(s.label, tuple(p for p in s.points if math.isfinite(p[1]) and p[1] > 0.0), s.color)
        for s in series
    ]
    values = [value for s in kept for _, value in s.points] + ([mark] if mark else [])
    if not values:
        return
    frame = _Frame(
        max((step for s in kept for step, _ in s.points), default=1),
        math.floor(math.log10(min(values))),
        math.ceil(math.log10(max(values)) + 1e-9),
    )
    image = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(15)
    _draw_axes(pen, font, frame, axes)
    if mark is not None:
        y = frame.y(mark)
        for x in range(_LEFT, _RIGHT, 12):
            pen.line((x, y, x + 6, y), fill=(120, 120, 120))
    for s in kept:
        if len(s.points) > 1:
            pen.line([(frame.x(step), frame.y(v)) for step, v in s.points], COLORS[s.color], 2)
    for row, (label, color) in enumerate(dict.fromkeys((s.label, s.color) for s in kept)):
        y = _TOP + 10 + 22 * row
        pen.line((_RIGHT - 330, y + 9, _RIGHT - 300, y + 9), COLORS[color], 4)
        pen.text((_RIGHT - 290, y), label, "black", font)
    with written(path) as place:
        image.save(place, format="PNG")


@dataclass(frozen=True)
class _Frame:
    """From data to pixels: steps from 0 to `last`, values between two powers of ten."""

    last: int
    low: int
    high: int

    def x(self, step: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * step / max(1, self.last)

    def y(self, value: float) -> float:
        share = (math.log10(value) - self.low) / max(1, self.high - self.low)
        return _BOTTOM - (_BOTTOM - _TOP) * share


def _draw_axes(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    frame: _Frame,
    axes: tuple[str, str],
) -> None:
    grey = (225, 225, 225)
    for power in range(frame.low, frame.high + 1):
        y = frame.y(10.0**power)
        pen.line((_LEFT, y, _RIGHT, y), fill=grey)
        pen.text((_LEFT - 60, y - 9), f"{10.0**power:g}", "black", font)
    for tick in range(6):
        step = frame.last * tick / 5
        pen.line((frame.x(step), _TOP, frame.x(step), _BOTTOM), fill=grey)
        pen.text((frame.x(step) - 14, _BOTTOM + 8), f"{step:.0f}", "black", font)
    pen.rectangle((_LEFT, _TOP, _RIGHT, _BOTTOM), outline="black")
    pen.text(((_LEFT + _RIGHT) / 2 - 20, _BOTTOM + 32), axes[0], "black", font)
    pen.text((_LEFT - 60, _TOP - 22), axes[1], "black", font)
