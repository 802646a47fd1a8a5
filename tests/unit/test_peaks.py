"""Local maxima by blocks against brute force and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import peak_local_max

from karyon.nuclei.peaks import find_peaks


def brute_force(values: np.ndarray, threshold: int, distance: int) -> list[tuple[int, int, int]]:
    """``y, x, value`` of every pixel that no pixel of its neighbourhood outranks."""
    height, width = values.shape
    peaks = []
    for y, x in np.ndindex(height, width):
        near = [
            (v, u)
            for v in range(max(y - distance, 0), min(y + distance, height - 1) + 1)
            for u in range(max(x - distance, 0), min(x + distance, width - 1) + 1)
        ]
        outranked = any(
            values[place] > values[y, x] or (values[place] == values[y, x] and place < (y, x))
            for place in near
        )
        if values[y, x] >= threshold and not outranked:
            peaks.append((y, x, int(values[y, x])))
    return peaks


def plateaus(seed: int, height: int, width: int, levels: int) -> np.ndarray:
    """Few levels in 2 x 2 cells, so that plateaus of many shapes come about."""
    cells = np.random.default_rng(seed).integers(0, levels, (-(-height // 2), -(-width // 2)))
    return np.kron(cells * (255 // levels), np.ones((2, 2)))[:height, :width].astype(np.uint8)


@settings(deadline=None, max_examples=80)
@given(
    values=st.builds(
        plateaus,
        st.integers(0, 2**32 - 1),
        st.integers(1, 14),
        st.integers(1, 14),
        st.sampled_from([2, 4, 30]),
    ),
    threshold=st.sampled_from([1, 60, 130]),
    distance=st.integers(1, 4),
    block=st.integers(1, 16),
)
def test_peaks_equal_brute_force_for_any_block_size(
    values: np.ndarray, threshold: int, distance: int, block: int
) -> None:
    found = find_peaks(values, threshold, distance, block)
    rows = list(zip(found.y.astype(int), found.x.astype(int), found.peak.astype(int), strict=True))
    assert rows == brute_force(values, threshold, distance)


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_peaks_equal_scikit_image_where_no_two_values_are_equal(distance: int) -> None:
    values = np.random.default_rng(8).permutation(255).reshape(15, 17).astype(np.uint8)
    expected = peak_local_max(values, min_distance=distance, threshold_abs=79, exclude_border=False)
    found = find_peaks(values, 80, distance, block=6)
    assert np.stack([found.y, found.x], axis=1).tolist() == sorted(expected.tolist())


@pytest.mark.parametrize("distance", [1, 2, 4])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_plateau_no_wider_than_the_distance_gives_one_peak(distance: int, block: int) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[7 : 8 + distance, 6 : 7 + distance] = 140
    found = find_peaks(values, 100, distance, block)
    assert (found.y.tolist(), found.x.tolist(), found.area.tolist()) == ([7], [6], [1])


def test_map_without_a_value_over_the_threshold_has_no_peaks() -> None:
    assert len(find_peaks(np.full((30, 30), 99, np.uint8), 100, 3, block=8).x) == 0
