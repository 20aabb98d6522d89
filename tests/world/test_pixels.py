"""Plain operations on pixels and masks, beside what they mean written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from og2.world.palette import srgb_to_lab
from og2.world.pixels import box_mean, components, dilate, fill_holes, local_maximum, medians, quantile

masks = st.builds(
    lambda seed, height, width, share: np.random.default_rng(seed).random((height, width)) < share,
    st.integers(0, 2**32 - 1),
    st.integers(1, 14),
    st.integers(1, 14),
    st.floats(0.0, 1.0),
)


def _reached(mask: np.ndarray, start: tuple[int, int], diagonal: bool) -> np.ndarray:
    """The part of a mask that a walk from one of its pixels reaches."""
    found, left = np.zeros_like(mask), [start]
    while left:
        y, x = left.pop()
        inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
        if inside and mask[y, x] and not found[y, x]:
            found[y, x] = True
            steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if diagonal or dy * dx == 0]
            left += [(y + dy, x + dx) for dy, dx in steps]
    return found


@settings(deadline=None, max_examples=60)
@given(masks, st.booleans(), st.integers(1, 6))
def test_parts_are_what_a_walk_reaches_the_largest_first(
    mask: np.ndarray, diagonal: bool, smallest: int
) -> None:
    expected: list[np.ndarray] = []
    for y, x in np.argwhere(mask):
        if not any(part[y, x] for part in expected):
            expected.append(_reached(mask, (int(y), int(x)), diagonal))
    expected = sorted((p for p in expected if p.sum() >= smallest), key=lambda part: -int(part.sum()))
    found = components(mask, diagonal, smallest)
    assert len(found) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@settings(deadline=None, max_examples=60)
@given(masks)
def test_a_hole_is_what_no_walk_from_outside_reaches(mask: np.ndarray) -> None:
    outside = _reached(np.pad(~mask, 1, constant_values=True), (0, 0), diagonal=False)
    assert np.array_equal(fill_holes(mask), ~outside[1:-1, 1:-1])


@settings(deadline=None, max_examples=60)
@given(masks, st.sampled_from((0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 5.3)))
def test_a_grown_mask_is_every_pixel_within_the_radius(mask: np.ndarray, radius: float) -> None:
    ys, xs = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]]
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        expected |= (ys - y) ** 2 + (xs - x) ** 2 <= radius**2
    assert np.array_equal(dilate(mask, radius), expected)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 15))
def test_windows_are_cut_off_at_the_rim(seed: int, height: int, width: int, reach: int) -> None:
    values = np.random.default_rng(seed).random((height, width, 3))
    means, largest = box_mean(values, reach), local_maximum(values, reach)
    for y in range(height):
        for x in range(width):
            window = values[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            assert means[y, x] == pytest.approx(window.mean(axis=(0, 1)))
            assert np.array_equal(largest[y, x], window.max(axis=(0, 1)))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.0, 1.0))
def test_quantiles_and_medians_are_those_of_numpy(seed: int, number: int, share: float) -> None:
    values = np.random.default_rng(seed).normal(size=(number, 3))
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)), abs=1e-12)
    assert medians(values) == pytest.approx(np.median(values, axis=0), abs=1e-12)


def test_bytes_have_the_colours_of_their_values() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1)
    np.testing.assert_allclose(srgb_to_lab(grid), srgb_to_lab(grid / 255.0), atol=1e-9)
