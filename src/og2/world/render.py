"""Scenes to pixels: analytic signed distances, anti-aliased, a whole batch in a few torch operations.

Not imported by the scorer. The n-th strokes of all scenes are painted together, grouped by figure and by the
size of the window they touch; the order of a scene's strokes is the painting order. Shapes: H, W pixels,
N strokes, B pictures, h, w a window's pixels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from og2.errors import RequestError
from og2.world.backdrop_pixels import paint_backdrops
from og2.world.distances import DISTANCES, text_coverage
from og2.world.looks import add_grain, apply_look
from og2.world.palette import FILLS, lab_to_srgb
from og2.world.scenes import Scene
from og2.world.strokes import NUM_PARAMS, Stroke, strokes_of

MIN_SIDE_PX = 8
HANDS = ("clean", "inked")
_SIDES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_PAPER_SHARE = 0.86
_COLUMNS = 5 + NUM_PARAMS + 12


@dataclass(frozen=True)
class _Pen:
    """How lines and areas are drawn: width of a line along outlines in pixels (0 = none), shading, paper."""

    line_px: float = 0.0
    line_tone: float = 0.45
    shading: float = 1.0
    paper: Tensor | None = None


def render(
    scene: Scene, size: int | tuple[int, int] = 64, device: torch.device | str = "cpu", hand: str = "clean"
) -> Tensor:
    """The picture of one scene: uint8 (H, W, 3), sRGB.   Units: size in px, one side or (height, width)."""
    return render_batch([scene], size, device, hand)[0]


def render_batch(
    scenes: Sequence[Scene],
    size: int | tuple[int, int] = 64,
    device: torch.device | str = "cpu",
    hand: str = "clean",
) -> Tensor:
    """The pictures of several scenes: uint8 (B, H, W, 3), sRGB.

    Units: size in pixels, one side or (height, width); lengths in a scene scale with the shorter side.
    hand: who draws; "inked" is a second manner (outlines, stronger shading, grain), held out from training.
    Raises: RequestError when a side is below 8 px or the hand is unknown.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < MIN_SIDE_PX:
        raise RequestError(f"size={height}x{width} is below {MIN_SIDE_PX} px; use 64 or more")
    if hand not in HANDS:
        raise RequestError(f"hand={hand!r} is unknown; use one of {', '.join(HANDS)}")
    canvas = paint_backdrops(scenes, height, width, torch.device(device))
    ink = max(1.2, 0.009 * min(height, width))
    pen = _Pen(ink, 0.45, 2.2) if hand == "inked" else _Pen()
    outlined = [i for i, s in enumerate(scenes) if s.style == "outline"]
    _paint(canvas, {i: s for i, s in enumerate(scenes) if s.style != "outline"}, pen)
    if outlined:
        paper = canvas.mean(dim=(2, 3))
        line = max(1.5, 0.016 * min(height, width))
        _paint(canvas, {i: scenes[i] for i in outlined}, _Pen(line, 1.0, 0.0, paper))
    if hand == "inked":
        add_grain(canvas)
    pictures = canvas.mul_(255.0).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    for i, scene in enumerate(scenes):
        if scene.tone or scene.style not in (None, "outline"):
            pictures[i] = apply_look(pictures[i], scene.style, scene.tone)
    return pictures


def _paint(canvas: Tensor, scenes: dict[int, Scene], pen: _Pen) -> None:
    """All strokes of the scenes onto their pictures (canvas (B, 3, H, W) in [0, 1], in place)."""
    height, width = canvas.shape[2:]
    painted = {i: strokes_of(scene) for i, scene in scenes.items()}
    everything = [(i, layer, stroke) for i, found in painted.items() for layer, stroke in enumerate(found)]
    if not everything:
        return
    table = torch.as_tensor(_table([s for _, _, s in everything], height, width), device=canvas.device)
    groups: dict[tuple[int, str, int, int], list[int]] = defaultdict(list)
    corners: list[tuple[int, int]] = []
    for row, (_, layer, stroke) in enumerate(everything):
        left, top, w, h = _window(stroke, height, width)
        corners.append((left, top))
        groups[(layer, stroke.figure, h, w)].append(row)
    pictures = torch.tensor([i for i, _, _ in everything], device=canvas.device)
    origin = torch.tensor(corners, device=canvas.device)
    plain = _Pen()  # for what belongs to the backdrop
    planes = torch.arange(3, device=canvas.device)[None, :, None, None]
    for (_, figure, h, w), rows in sorted(groups.items()):
        index = torch.tensor(rows, device=canvas.device)
        left, top = origin[index, 0], origin[index, 1]
        ys = top[:, None] + torch.arange(h, device=canvas.device)
        xs = left[:, None] + torch.arange(w, device=canvas.device)
        place = (pictures[index][:, None, None, None], planes, ys[:, None, :, None], xs[:, None, None, :])
        pen_here = plain if figure == "fir" else pen
        paper = None if pen.paper is None else pen.paper[pictures[index]]
        paint = _Paint(table[index], pen_here, min(height, width), paper)
        canvas[place] = _blend(canvas[place], figure, xs, ys, paint)


def _window(stroke: Stroke, height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels a stroke may touch; sizes are rounded up to few values."""
    side = min(height, width)
    cx, cy = stroke.x * width, stroke.y * height
    spans = []
    for center, low, high, limit in (
        (cx, stroke.box[0], stroke.box[2], width),
        (cy, stroke.box[1], stroke.box[3], height),
    ):
        first = math.floor(center + low * side - 1.0)
        last = math.ceil(center + high * side + 1.0)
        length = next((s for s in _SIDES if s >= last - first), limit)
        length = min(length, limit)
        spans.append((min(max(first, 0), limit - length), length))
    (left, w), (top, h) = spans
    return left, top, w, h


def _table(strokes: Sequence[Stroke], height: int, width: int) -> np.ndarray:
    """Numbers of the strokes, float32 (N, columns): place, unit, turn, params, colours, fill, shading."""
    side = min(height, width)
    table = np.zeros((len(strokes), _COLUMNS), dtype=np.float64)
    second: list[tuple[float, float, float]] = []
    for row, s in zip(table, strokes, strict=True):
        row[:3] = s.x * width / side + s.offset[0], s.y * height / side + s.offset[1], s.radius
        row[3], row[4] = math.cos(s.turn), math.sin(s.turn)
        row[5 : 5 + len(s.params)] = s.params
        rest = row[5 + NUM_PARAMS + 6 :]
        if s.fill:
            turn = (math.cos(s.fill.angle), math.sin(s.fill.angle))
            rest[:5] = FILLS.index(s.fill.kind), s.fill.period, *turn, s.fill.phase
        rest[5] = s.shading
        second.append(s.fill.lab if s.fill else s.lab)
    start = 5 + NUM_PARAMS
    table[:, start : start + 3] = np.clip(lab_to_srgb(np.array([s.lab for s in strokes])), 0, 1)
    table[:, start + 3 : start + 6] = np.clip(lab_to_srgb(np.array(second)), 0, 1)
    return table.astype(np.float32)


@dataclass(frozen=True)
class _Paint:
    """Rows of the table for N strokes of one figure, the pen, and the picture's shorter side in pixels."""

    rows: Tensor
    pen: _Pen
    side: int
    paper: Tensor | None

    def column(self, index: int) -> Tensor:
        """One number of each stroke: (N, 1, 1)."""
        return self.rows[:, index, None, None]

    def rgb(self, second: bool = False) -> Tensor:
        """The first or second colour: (N, 3, 1, 1)."""
        start = 5 + NUM_PARAMS + 3 * second
        return self.rows[:, start : start + 3, None, None]


def _blend(under: Tensor, figure: str, xs: Tensor, ys: Tensor, paint: _Paint) -> Tensor:
    """Windows (N, 3, h, w) with a stroke painted over each; xs (N, w) and ys (N, h) are pixel indices."""
    radius, cos, sin = (paint.column(i) for i in (2, 3, 4))
    dx = ((xs[:, None, :] + 0.5) / paint.side - paint.column(0)) / radius
    dy = ((ys[:, :, None] + 0.5) / paint.side - paint.column(1)) / radius
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    params = [paint.column(5 + i) for i in range(NUM_PARAMS)]
    unit_px = radius * paint.side
    if figure == "text":
        return torch.lerp(under, paint.rgb(), text_coverage(u, v, params, 1.0 / unit_px)[:, None])
    depth = DISTANCES[figure](u, v, params) * unit_px
    alpha = (0.5 - depth).clamp_(0.0, 1.0)
    return torch.lerp(under, _inside(u, v, dx + dy, depth, paint), alpha[:, None])


def _inside(u: Tensor, v: Tensor, toward_light: Tensor, depth: Tensor, paint: _Paint) -> Tensor:
    """Colour of a stroke at every pixel: fill, shading, line; broadcasts to (N, 3, h, w)."""
    rgb, pen = paint.rgb(), paint.pen
    fill = 5 + NUM_PARAMS + 6
    if bool((paint.rows[:, fill] > 0).any()):
        rgb = torch.lerp(rgb, paint.rgb(second=True), _pattern(u, v, paint, fill)[:, None])
    shading = paint.column(fill + 5) * pen.shading
    if bool((shading != 0).any()):
        light = 1.0 - shading * (toward_light * 0.5).clamp(-1.0, 1.0)
        rgb = (rgb * light[:, None]).clamp(0.0, 1.0)
    if pen.line_px:
        inner = (0.5 - (depth + pen.line_px)).clamp(0.0, 1.0)[:, None]
        line = paint.rgb() * pen.line_tone
        if paint.paper is not None:
            rgb = torch.lerp(rgb, paint.paper[:, :, None, None], _PAPER_SHARE)
        rgb = torch.lerp(line, rgb, inner)
    return rgb


def _pattern(u: Tensor, v: Tensor, paint: _Paint, fill: int) -> Tensor:
    """Share of the second tone at every pixel: (N, h, w) in [0, 1]."""
    kind, period, cos, sin, phase = (paint.column(fill + i) for i in range(5))
    period = period.clamp(min=1e-3)
    s, t = (u * cos + v * sin) / period + phase, (v * cos - u * sin) / period + 0.61 * phase
    wave_s, wave_t = (s - torch.floor(s) - 0.5).abs(), (t - torch.floor(t) - 0.5).abs()
    stripes = wave_s - 0.23
    dots = torch.hypot(wave_s, wave_t) - 0.30
    # Checks: the sign of the product of two triangle waves, as a distance near the edges.
    from_s, from_t = wave_s - 0.25, wave_t - 0.25
    checker = torch.where(from_s * from_t > 0, -1.0, 1.0) * torch.minimum(from_s.abs(), from_t.abs())
    distance = torch.where(kind == 1, stripes, torch.where(kind == 2, dots, checker))
    share = (0.5 - distance * period * paint.column(2) * paint.side).clamp(0.0, 1.0)
    return share * (kind > 0)
