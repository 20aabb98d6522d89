"""Signed distances of the renderer's figures, as functions of a figure's own coordinates.

Each takes u, v (N, h, w) in units of the figure's radius, u to its right and v downward, and its numbers
p, a sequence of (N, 1, 1), and gives the distance to the outline (N, h, w), negative inside. Distances of
ellipses are approximate near the outline, which is where they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from og2.world import shapes
from og2.world.glyphs import GLYPH_HEIGHT, GLYPH_WIDTH, LETTER_PITCH, glyph_table

Params = Sequence[Tensor]
TEXT_SAMPLES = 3


def circle(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """A disc of radius 1."""
    return torch.hypot(u, v) - 1.0


def ring(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """A ring, see `shapes`."""
    middle = (shapes.RING_OUTER + shapes.RING_INNER) / 2
    half = (shapes.RING_OUTER - shapes.RING_INNER) / 2
    return (torch.hypot(u, v) - middle).abs() - half


def _box(u: Tensor, v: Tensor, half_width: float | Tensor, half_height: float | Tensor) -> Tensor:
    qx, qy = u.abs() - half_width, v.abs() - half_height
    return torch.hypot(qx.clamp(min=0), qy.clamp(min=0)) + torch.maximum(qx, qy).clamp(max=0)


def square(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """A square, see `shapes`."""
    return _box(u, v, shapes.SQUARE_HALF_SIDE, shapes.SQUARE_HALF_SIDE)


def cross(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """A cross, see `shapes`."""
    long, wide = shapes.CROSS_HALF_LENGTH, shapes.CROSS_HALF_WIDTH
    return torch.minimum(_box(u, v, long, wide), _box(u, v, wide, long))


def triangle(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """An equilateral triangle, tip up, see `shapes`."""
    inradius = shapes.TRIANGLE_CIRCUMRADIUS / 2
    v = v - shapes.TRIANGLE_SHIFT
    slanted = u.abs() * (math.sqrt(3) / 2) - v * 0.5
    return torch.maximum(v, slanted) - inradius


def star(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """A star, folded into one half of one point; there the outline is a single line from tip to notch."""
    sector = 2.0 * math.pi / 5.0
    angle = torch.atan2(u, -v)
    angle = (angle - torch.round(angle / sector) * sector).abs()
    length = torch.hypot(u, v)
    x, y = length * torch.sin(angle), length * torch.cos(angle)
    notch_x, notch_y = shapes.STAR_INNER * math.sin(sector / 2), shapes.STAR_INNER * math.cos(sector / 2)
    along_x, along_y = notch_x, notch_y - shapes.STAR_OUTER
    norm = math.hypot(along_x, along_y)
    return (-along_y * x + along_x * (y - shapes.STAR_OUTER)) / norm


def hexagon(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """A regular hexagon, a corner to the right, see `shapes`."""
    half = math.sqrt(3) / 2
    return torch.maximum(u.abs() * half + v.abs() * 0.5, v.abs()) - shapes.HEXAGON_CIRCUMRADIUS * half


def crescent(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """A disc without a smaller disc, see `shapes`."""
    u = u - shapes.CRESCENT_SHIFT
    outer = torch.hypot(u, v) - shapes.CRESCENT_OUTER
    cut = torch.hypot(u - shapes.CRESCENT_CUT_X, v) - shapes.CRESCENT_CUT
    return torch.maximum(outer, -cut)


def _ellipse(u: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
    inside = torch.hypot(u / a, v / b)
    slope = torch.hypot(u / (a * a), v / (b * b)).clamp(min=1e-6)
    return inside * (inside - 1.0) / slope


def ellipse(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """p: half axes along u and v."""
    return _ellipse(u, v, p[0], p[1])


def pair(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """Two mirrored ellipses. p: u, v of the right one's middle, its direction, half width, half length."""
    du, dv = u.abs() - p[0], v - p[1]
    return _ellipse(dv * p[2] - du * p[3], du * p[2] + dv * p[3], p[4], p[5])


def pair_of_discs(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """Two mirrored discs. p: u, v of the right one's middle, radius."""
    return torch.hypot(u.abs() - p[0], v - p[1]) - p[2]


def pair_of_legs(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """Two upright rounded bars. p: u of the right one, v of its upper and lower end, half thickness."""
    du = u.abs() - p[0]
    return torch.hypot(du, v - torch.minimum(torch.maximum(v, p[1]), p[2])) - p[3]


def limb(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """A rounded bar that starts at the origin, along u. p: length, half thickness at its start and end."""
    along = torch.minimum(u.clamp(min=0.0), p[0])
    return torch.hypot(u - along, v) - (p[1] + (p[2] - p[1]) * (along / p[0]) ** 3)


def arc(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """A bent bar, symmetric about v. p: radius, sine and cosine of half its angle, half thickness."""
    u = u.abs()
    beyond = p[2] * u > p[1] * v
    tip = torch.hypot(u - p[1] * p[0], v - p[2] * p[0])
    return torch.where(beyond, tip, (torch.hypot(u, v) - p[0]).abs()) - p[3]


def spikes(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """A row of triangles. p: how many, spacing, half base, v of the base, v of the tips."""
    half = (p[0] - 1.0) / 2.0
    index = torch.minimum(torch.round(u / p[1] + half).clamp(min=0.0), p[0] - 1.0)
    du, height = (u - (index - half) * p[1]).abs(), p[3] - p[4]
    slanted = (du * height - (v - p[4]) * p[2]) / torch.hypot(height, p[2])
    return torch.maximum(v - p[3], slanted)


def discs(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """Several discs. p: radius, then u and v of each middle; a disc that is not there lies far away."""
    found = [torch.hypot(u - p[i], v - p[i + 1]) for i in range(1, len(p) - 1, 2)]
    return torch.stack(found).amin(dim=0) - p[0]


def plate(u: Tensor, v: Tensor, p: Params) -> Tensor:
    """A board with round corners. p: half width, half height, radius of the corners."""
    return _box(u, v, p[0] - p[2], p[1] - p[2]) - p[2]


def text_coverage(u: Tensor, v: Tensor, p: Params, pixel: Tensor) -> Tensor:
    """Share of each pixel that lies on ink, (N, h, w) in [0, 1]. The unit is a cell, the origin the middle.

    p: number of letters, then the index of each. pixel: side of a pixel in cells, (N, 1, 1).
    """
    atlas = torch.as_tensor(glyph_table(), device=u.device).flatten()
    letters = torch.stack([index.reshape(-1) for index in p[1:7]], dim=1).long()
    total = torch.zeros_like(u)
    steps = [(i + 0.5) / TEXT_SAMPLES - 0.5 for i in range(TEXT_SAMPLES)]
    width = p[0] * LETTER_PITCH - 1.0
    rows = torch.arange(len(letters), device=u.device)[:, None, None]
    for dy in steps:
        row = torch.floor(v + dy * pixel + GLYPH_HEIGHT / 2)
        for dx in steps:
            column = torch.floor(u + dx * pixel + width / 2)
            place = torch.div(column, LETTER_PITCH, rounding_mode="floor")
            within = column - place * LETTER_PITCH
            inside = (
                (row >= 0) & (row < GLYPH_HEIGHT) & (within < GLYPH_WIDTH) & (place >= 0) & (place < p[0])
            )
            letter = letters[rows, place.clamp(0, 5).long()]
            cell = (letter * GLYPH_HEIGHT + row.clamp(0, GLYPH_HEIGHT - 1).long()) * GLYPH_WIDTH
            total += atlas[cell + within.clamp(0, GLYPH_WIDTH - 1).long()] * inside
    return total / TEXT_SAMPLES**2


def fir(u: Tensor, v: Tensor, _p: Params) -> Tensor:
    """A fir of height 1 that stands on the origin: three tiers and a trunk."""
    du, up = u.abs(), -v
    found = torch.maximum(du - 0.07, torch.maximum(-up, up - 0.3))
    for top, low, slope in ((1.0, 0.62, 0.62), (0.82, 0.38, 0.62), (0.60, 0.12, 0.66)):
        found = torch.minimum(found, torch.maximum(du - slope * (top - up), low - up))
    return found


DISTANCES: dict[str, Callable[[Tensor, Tensor, Params], Tensor]] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "ring": ring,
    "crescent": crescent,
    "hexagon": hexagon,
    "ellipse": ellipse,
    "pair": pair,
    "pair_of_discs": pair_of_discs,
    "pair_of_legs": pair_of_legs,
    "limb": limb,
    "arc": arc,
    "spikes": spikes,
    "discs": discs,
    "plate": plate,
    "fir": fir,
}
