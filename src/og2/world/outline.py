"""Which shape an outline has: its radius as a function of the angle, compared with ideal figures.

Part of the scorer. The figures are families written here from what the words mean (a star has five points, a
cross four equal arms, with a range of proportions), turned to every angle and softened by several amounts of
blur; the renderer's proportions are not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from og2.world.pixels import FloatArray

NUM_ANGLES = 72
_FINER = 4
_SOFTENING = (0.0, 0.07, 0.14)
MAX_RESIDUAL = 0.07
MIN_MARGIN = 0.018


@dataclass(frozen=True)
class Outline:
    """The best figure for an outline: name or None (and the reason), residual, margin to the runner-up."""

    shape: str | None
    residual: float
    margin: float
    reason: str


def radial_profile(coverage: FloatArray, center: tuple[float, float]) -> FloatArray:
    """Distance from the center to the outermost half-covered point in NUM_ANGLES directions.

    Shapes: coverage (H, W) in [0, 1] -> (NUM_ANGLES,).   Units: pixels; center is (x, y) with pixel centres
    at .0.
    """
    height, width = coverage.shape
    reach = math.hypot(height, width)
    radii = np.arange(0.0, reach, 0.5)
    angles = np.arange(NUM_ANGLES) * (2.0 * math.pi / NUM_ANGLES)
    xs = center[0] + np.cos(angles)[:, None] * radii
    ys = center[1] + np.sin(angles)[:, None] * radii
    values = _bilinear(np.pad(coverage, 1), xs + 1.0, ys + 1.0)
    last = values.shape[1] - 1 - np.argmax(values[:, ::-1] >= 0.5, axis=1)
    found = values[np.arange(NUM_ANGLES), last] >= 0.5
    inner = values[np.arange(NUM_ANGLES), last]
    outer = values[np.arange(NUM_ANGLES), np.minimum(last + 1, values.shape[1] - 1)]
    step = np.where(inner > outer, (inner - 0.5) / np.maximum(inner - outer, 1e-6), 0.0)
    return np.where(found, (last + np.clip(step, 0.0, 1.0)) * 0.5, 0.0)


def name_outline(profile: FloatArray) -> Outline:
    """The figure whose outline this is, ring excluded; unknown when none fits or two fit equally well."""
    mean = float(profile.mean())
    if mean <= 0.0:
        return Outline(None, 1.0, 0.0, "no outline")
    spectrum = np.fft.rfft(profile / mean)
    names, spectra, energies = _figures()
    # Padding the spectrum reads the correlation between the sampled angles too: spikes of a star are narrow.
    finer = np.fft.irfft(np.conj(spectra) * spectrum, n=_FINER * NUM_ANGLES, axis=1)
    correlation = _FINER * finer.max(axis=1)
    energy = float(np.sum((profile / mean) ** 2))
    residuals = np.sqrt(np.maximum(energies + energy - 2.0 * correlation, 0.0) / NUM_ANGLES)
    best: dict[str, float] = {}
    for name, residual in zip(names, residuals.tolist(), strict=True):
        best[name] = min(residual, best.get(name, 1.0))
    (shape, first), (_, second) = sorted(best.items(), key=lambda item: item[1])[:2]
    margin = second - first
    if first > MAX_RESIDUAL:
        return Outline(None, first, margin, f"no known shape (closest {shape}, residual {first:.3f})")
    if margin < MIN_MARGIN:
        return Outline(None, first, margin, f"between two shapes (closest {shape}, margin {margin:.3f})")
    return Outline(shape, first, margin, "")


@lru_cache(maxsize=1)
def _figures() -> tuple[tuple[str, ...], np.ndarray, FloatArray]:
    """Names, spectra (K, NUM_ANGLES // 2 + 1) and energies (K,) of all ideal outlines, mean radius 1."""
    families: list[tuple[str, FloatArray]] = [("circle", np.ones(NUM_ANGLES))]
    families += [("circle", _polygon_profile(_ellipse(aspect))) for aspect in (1.06, 1.12)]
    families += [("square", _polygon_profile(_rectangle(aspect))) for aspect in (1.0, 1.07, 1.14)]
    families += [("triangle", _polygon_profile(_triangle(height))) for height in (0.93, 1.0, 1.07)]
    families += [("star", _polygon_profile(_star(inner))) for inner in (0.38, 0.42, 0.46, 0.5, 0.55)]
    families += [("cross", _polygon_profile(_cross(arm))) for arm in (0.26, 0.3, 0.34, 0.38, 0.44)]
    order = np.arange(NUM_ANGLES // 2 + 1)
    names: list[str] = []
    spectra: list[np.ndarray] = []
    for name, profile in families:
        spectrum = np.fft.rfft(profile)
        for amount in _SOFTENING:
            soft = spectrum * np.exp(-0.5 * (order * amount) ** 2)
            names.append(name)
            spectra.append(soft / (soft[0].real / NUM_ANGLES))
    profiles = np.fft.irfft(np.array(spectra), n=NUM_ANGLES, axis=1)
    return tuple(names), np.array(spectra), np.sum(profiles**2, axis=1)


def _polygon_profile(corners: FloatArray) -> FloatArray:
    """Radial profile, from the centroid, of a polygon that is star-shaped around it."""
    following = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]
    centroid = ((corners + following) * cross[:, None]).sum(axis=0) / (3.0 * cross.sum())
    start = corners - centroid
    edge = following - corners
    angles = np.arange(NUM_ANGLES) * (2.0 * math.pi / NUM_ANGLES) + 1e-4
    ray = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    denominator = ray[:, None, 0] * edge[None, :, 1] - ray[:, None, 1] * edge[None, :, 0]
    denominator = np.where(np.abs(denominator) < 1e-9, 1e-9, denominator)
    distance = (start[None, :, 0] * edge[None, :, 1] - start[None, :, 1] * edge[None, :, 0]) / denominator
    along = (start[None, :, 0] * ray[:, None, 1] - start[None, :, 1] * ray[:, None, 0]) / denominator
    hit = (distance > 0) & (along >= -1e-9) & (along <= 1 + 1e-9)
    return np.where(hit, distance, 0.0).max(axis=1)


def _ellipse(aspect: float) -> FloatArray:
    angles = np.arange(180) * (math.pi / 90)
    return np.stack([aspect * np.cos(angles), np.sin(angles)], axis=1)


def _rectangle(aspect: float) -> FloatArray:
    return np.array([[-aspect, -1.0], [aspect, -1.0], [aspect, 1.0], [-aspect, 1.0]])


def _triangle(height: float) -> FloatArray:
    return np.array([[0.0, -1.5 * height], [math.sqrt(3) / 2, 0.0], [-math.sqrt(3) / 2, 0.0]])


def _star(inner: float) -> FloatArray:
    angles = np.arange(10) * (math.pi / 5)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, inner)
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _cross(arm: float) -> FloatArray:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    corners = [(x, y) for x, y in quarter]
    for _ in range(3):
        corners += [(-y, x) for x, y in corners[-3:]]
    return np.array(corners)


def _bilinear(image: FloatArray, xs: FloatArray, ys: FloatArray) -> FloatArray:
    height, width = image.shape
    inside = (xs >= 0) & (xs <= width - 1) & (ys >= 0) & (ys <= height - 1)
    xs, ys = np.clip(xs, 0, width - 1.001), np.clip(ys, 0, height - 1.001)
    left, top = xs.astype(np.int64), ys.astype(np.int64)
    fx, fy = xs - left, ys - top
    upper = image[top, left] * (1 - fx) + image[top, left + 1] * fx
    lower = image[top + 1, left] * (1 - fx) + image[top + 1, left + 1] * fx
    return np.where(inside, upper * (1 - fy) + lower * fy, 0.0)
