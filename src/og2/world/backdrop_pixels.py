"""Backdrops to pixels: every family painted for all its pictures at once.

Not imported by the scorer. Colours are blended in sRGB between colours within the backdrop's limits, so that
all pixels stay within them. Trees are strokes, see `strokes`. Shapes: n pictures of one family, H, W pixels,
colour planes first; x, y are fractions of width and height.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from og2.world.backdrops import Backdrop
from og2.world.palette import Lab, lab_to_srgb
from og2.world.scenes import Scene

_SUN: Lab = (80.5, 1.0, 11.0)
_MOON: Lab = (80.5, 0.0, 3.0)
_FLOOR_SAMPLES = 3
_GRAIN = 0.030
# Scales of the grain: cells along the shorter side, and weight.
_OCTAVES = ((7, 0.45), (17, 0.35), (80, 0.20))
_MAX_HILLS = 2


def paint_backdrops(scenes: Sequence[Scene], height: int, width: int, device: torch.device) -> Tensor:
    """The backdrops of several scenes: float (B, 3, H, W) in [0, 1]."""
    labs = np.array([s.background_lab for s in scenes]).reshape(-1, 3)
    canvas = _colors(labs, device).repeat(1, 1, height, width)
    families: dict[str, list[int]] = defaultdict(list)
    for i, scene in enumerate(scenes):
        families[scene.backdrop_kind].append(i)
    y = ((torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height)[None, None, :, None]
    x = ((torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width)[None, None, None, :]
    painters = {"gradient": _gradient, "landscape": _landscape, "tiles": _tiles, "noise": _noise}
    for kind, rows in families.items():
        if kind != "plain":
            backdrops = [b for b in (scenes[i].backdrop for i in rows) if b is not None]
            canvas[torch.tensor(rows, device=device)] = painters[kind](backdrops, x, y)
    return canvas


def _gradient(backdrops: Sequence[Backdrop], x: Tensor, y: Tensor) -> Tensor:
    first, second = (_labs(backdrops, i, x.device) for i in (0, 1))
    angle = _numbers([b.angle for b in backdrops], x.device)
    cos, sin = torch.cos(angle), torch.sin(angle)
    share = 0.5 + ((x - 0.5) * cos + (y - 0.5) * sin) / (cos.abs() + sin.abs())
    return torch.lerp(first, second, share.clamp(0.0, 1.0))


def _noise(backdrops: Sequence[Backdrop], x: Tensor, y: Tensor) -> Tensor:
    """Rough paper: random values on lattices of two coarse scales and a fine one, smoothly interpolated."""
    height, width = y.shape[2], x.shape[3]
    side = min(height, width)
    total = torch.full((len(backdrops), 1, height, width), -0.5, device=x.device)
    for cells, weight in _OCTAVES:
        rows, columns = (2 + cells * length // side for length in (height, width))
        lattice = [np.random.default_rng([b.seed, cells]).random((rows, columns)) for b in backdrops]
        values = torch.as_tensor(np.array(lattice), dtype=torch.float32, device=x.device)[:, None]
        total += weight * interpolate(values, (height, width), mode="bilinear")
    return (_labs(backdrops, 0, x.device) + 2.0 * _GRAIN * total).clamp_(0.0, 1.0)


def _tiles(backdrops: Sequence[Backdrop], x: Tensor, y: Tensor) -> Tensor:
    """A wall, and below the horizon a checkered floor in perspective."""
    wall, one, other = (_labs(backdrops, i, x.device) for i in (0, 1, 2))
    horizon = _numbers([b.horizon for b in backdrops], x.device)
    period = 2.2 * _numbers([b.period for b in backdrops], x.device)
    height, width = y.shape[2], x.shape[3]
    share = torch.zeros((len(backdrops), 1, height, width), device=x.device)
    steps = [(i + 0.5) / _FLOOR_SAMPLES - 0.5 for i in range(_FLOOR_SAMPLES)]
    for dy in steps:
        near = 1.0 / ((y + dy / height) - horizon + 0.22).clamp(min=0.05) / period
        across = torch.floor(near)
        for dx in steps:
            share += torch.remainder(across + torch.floor(((x + dx / width) - 0.5) * near), 2.0)
    floor = torch.lerp(one, other, share / _FLOOR_SAMPLES**2)
    return torch.lerp(wall, floor, ((y - horizon) * height + 0.5).clamp(0.0, 1.0))


def _landscape(backdrops: Sequence[Backdrop], x: Tensor, y: Tensor) -> Tensor:
    """Sky, sun, hills, ground."""
    device, height = x.device, y.shape[2]
    skies, grounds = (np.array([b.labs[i] for b in backdrops]) for i in (0, 1))
    horizon = _numbers([b.horizon for b in backdrops], device)
    share = (y / horizon).clamp(0.0, 1.0)
    sky = torch.lerp(_colors(skies, device, -2.5), _colors(skies, device, 1.5), share)
    picture = torch.lerp(sky, *_sun(backdrops, x, y))
    for i in range(_MAX_HILLS):
        hill = _numbers([b.hills[i] if i < len(b.hills) else (0.0, 1.0, 0.0) for b in backdrops], device)
        rise = hill[0] * (0.55 + 0.45 * torch.sin(2.0 * torch.pi * x / hill[1] + hill[2]))
        shade = _colors(skies + (grounds - skies) * (0.55 + 0.3 * i), device, -2.0 - 1.5 * i)
        edge = ((y - horizon + rise) * height + 0.5).clamp(0.0, 1.0) * (hill[0] > 0)
        picture = torch.lerp(picture, shade, edge)
    depth = ((y - horizon) / (1.0 - horizon)).clamp(0.0, 1.0)
    ground = torch.lerp(_colors(grounds, device, 1.0), _colors(grounds, device, -1.5), depth)
    water = [i for i, b in enumerate(backdrops) if b.name == "seaside"]
    if water:
        ripple = torch.sin(92.0 * torch.sqrt(depth[water] + 0.02) + 0.6 * torch.sin(9.0 * x))
        ground = ground.expand(len(backdrops), 3, height, x.shape[3]).clone()
        ground[water] += 0.008 * ripple
    return torch.lerp(picture, ground, ((y - horizon) * height + 0.5).clamp(0.0, 1.0))


def _sun(backdrops: Sequence[Backdrop], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The sun's colour, and its disc and glow as a share of each pixel."""
    height, width = y.shape[2], x.shape[3]
    side = min(height, width)
    sun = _numbers([b.sun or (0.5, 0.5, -1.0) for b in backdrops], x.device)
    away = torch.hypot((x - sun[0]) * width, (y - sun[1]) * height) - sun[2] * side
    labs = np.array([_MOON if b.name in ("dusk", "snow") else _SUN for b in backdrops])
    glow = 0.30 * torch.exp(-away.clamp(min=0.0) / (0.05 * side))
    shown = torch.maximum((0.5 - away).clamp(0.0, 1.0), glow) * (sun[2] > 0)
    return _colors(labs, x.device), shown


def _labs(backdrops: Sequence[Backdrop], index: int, device: torch.device) -> Tensor:
    return _colors(np.array([b.labs[index] for b in backdrops]), device)


def _colors(labs: np.ndarray, device: torch.device, lighter: float = 0.0) -> Tensor:
    """CIELAB colours (n, 3) as sRGB (n, 3, 1, 1), that much lighter."""
    rgb = lab_to_srgb(labs + np.array([lighter, 0.0, 0.0]))
    return torch.as_tensor(rgb, dtype=torch.float32, device=device).clamp(0, 1)[..., None, None]


def _numbers(values: Sequence[float] | Sequence[tuple[float, ...]], device: torch.device) -> Tensor:
    """One number per picture as (n, 1, 1, 1); of tuples, one such tensor per place, stacked in front."""
    return torch.tensor(values, dtype=torch.float32, device=device).movedim(0, -1)[..., None, None, None]
