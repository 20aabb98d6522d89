"""Scenes to pixels: analytic signed distances, anti-aliased, a whole batch in a few torch operations.

Not imported by the scorer. All objects of one shape in the batch are drawn together; the order of the
objects in a scene is the painting order, though sampled scenes never overlap. Shapes: H, W pixels, N
objects, B pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from og2.errors import RequestError
from og2.world import shapes
from og2.world.palette import lab_to_srgb
from og2.world.scenes import Object, Scene

MIN_SIDE_PX = 8


def render(scene: Scene, size: int | tuple[int, int] = 64, device: torch.device | str = "cpu") -> Tensor:
    """The picture of one scene: uint8 (H, W, 3), sRGB.   Units: size in px, one side or (height, width)."""
    return render_batch([scene], size, device)[0]


def render_batch(
    scenes: Sequence[Scene], size: int | tuple[int, int] = 64, device: torch.device | str = "cpu"
) -> Tensor:
    """The pictures of several scenes: uint8 (B, H, W, 3), sRGB.

    Units: size in pixels, one side or (height, width); lengths in a scene scale with the shorter side.
    Raises: RequestError when a side is below 8 px.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < MIN_SIDE_PX:
        raise RequestError(f"size={height}x{width} is below {MIN_SIDE_PX} px; use 64 or more")
    backgrounds = lab_to_srgb(np.array([s.background_lab for s in scenes]).reshape(-1, 3))
    canvas = torch.as_tensor(backgrounds, dtype=torch.float32, device=device)
    canvas = canvas.clamp(0, 1)[:, None, None, :].repeat(1, height, width, 1)
    depth = max((len(s.objects) for s in scenes), default=0)
    for layer in range(depth):
        rows = [i for i, s in enumerate(scenes) if len(s.objects) > layer]
        objects = [scenes[i].objects[layer] for i in rows]
        alpha = _coverage(objects, height, width, canvas.device)[..., None]
        rgb = torch.as_tensor(
            lab_to_srgb(np.array([o.lab for o in objects])), dtype=torch.float32, device=device
        )
        index = torch.tensor(rows, device=device)
        canvas[index] = torch.lerp(canvas[index], rgb.clamp(0, 1)[:, None, None, :], alpha)
    return canvas.mul_(255.0).round_().to(torch.uint8)


def _coverage(objects: Sequence[Object], height: int, width: int, device: torch.device) -> Tensor:
    """Share of each pixel that each object covers: (N, H, W) in [0, 1]."""
    side = min(height, width)
    ys = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / side
    xs = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / side
    table = torch.tensor(
        [[o.x * width / side, o.y * height / side, o.radius, o.rotation] for o in objects], device=device
    )
    cx, cy, radius, angle = (column[:, None, None] for column in table.T)
    dx, dy = (xs[None, None, :] - cx) / radius, (ys[None, :, None] - cy) / radius
    cos, sin = torch.cos(angle), torch.sin(angle)
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    distance = torch.empty_like(u)
    names = [o.shape for o in objects]
    for name in set(names):
        index = torch.tensor([i for i, n in enumerate(names) if n == name], device=device)
        distance[index] = _DISTANCES[name](u[index], v[index])
    return (0.5 - distance * radius * side).clamp_(0.0, 1.0)


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 1.0


def _ring(u: Tensor, v: Tensor) -> Tensor:
    middle = (shapes.RING_OUTER + shapes.RING_INNER) / 2
    half = (shapes.RING_OUTER - shapes.RING_INNER) / 2
    return (torch.hypot(u, v) - middle).abs() - half


def _box(u: Tensor, v: Tensor, half_width: float, half_height: float) -> Tensor:
    qx, qy = u.abs() - half_width, v.abs() - half_height
    return torch.hypot(qx.clamp(min=0), qy.clamp(min=0)) + torch.maximum(qx, qy).clamp(max=0)


def _square(u: Tensor, v: Tensor) -> Tensor:
    return _box(u, v, shapes.SQUARE_HALF_SIDE, shapes.SQUARE_HALF_SIDE)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    long, wide = shapes.CROSS_HALF_LENGTH, shapes.CROSS_HALF_WIDTH
    return torch.minimum(_box(u, v, long, wide), _box(u, v, wide, long))


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    inradius = shapes.TRIANGLE_CIRCUMRADIUS / 2
    v = v - shapes.TRIANGLE_SHIFT
    slanted = u.abs() * (math.sqrt(3) / 2) - v * 0.5
    return torch.maximum(v, slanted) - inradius


def _star(u: Tensor, v: Tensor) -> Tensor:
    """Folded into one half of one point; there the outline is a single line from tip to notch."""
    sector = 2.0 * math.pi / 5.0
    angle = torch.atan2(u, -v)
    angle = (angle - torch.round(angle / sector) * sector).abs()
    length = torch.hypot(u, v)
    x, y = length * torch.sin(angle), length * torch.cos(angle)
    notch_x, notch_y = shapes.STAR_INNER * math.sin(sector / 2), shapes.STAR_INNER * math.cos(sector / 2)
    along_x, along_y = notch_x, notch_y - shapes.STAR_OUTER
    norm = math.hypot(along_x, along_y)
    return (-along_y * x + along_x * (y - shapes.STAR_OUTER)) / norm


_DISTANCES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
