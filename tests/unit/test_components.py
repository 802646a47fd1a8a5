"""Components by blocks against labelling the whole map at once."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label, regionprops

from karyon.nuclei.components import Components, find_components

THRESHOLD = 90


def random_map(seed: int, height: int, width: int, blur: float) -> np.ndarray:
    """Noise: single pixels without blur, large winding objects with it."""
    noise = np.random.default_rng(seed).random((height, width))
    smooth = ndimage.gaussian_filter(noise, blur) if blur else noise
    spread = max(float(np.ptp(smooth)), 1e-9)
    return np.rint((smooth - smooth.min()) / spread * 180).astype(np.uint8)


def whole_map_reference(values: np.ndarray, threshold: int) -> np.ndarray:
    """``y, x, area, peak`` of every object, sorted in that order of columns."""
    regions = regionprops(label(values >= threshold, connectivity=1), intensity_image=values)
    rows = [
        (*region.coords.mean(axis=0), region.num_pixels, values[tuple(region.coords.T)].max())
        for region in regions
    ]
    return np.array(sorted(rows), dtype=np.float64).reshape(-1, 4)


def as_rows(found: Components) -> np.ndarray:
    return np.stack([found.y, found.x, found.area, found.peak], axis=1)


maps = st.builds(
    random_map,
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.8, 2.0, 5.0]),
)


@settings(deadline=None, max_examples=150)
@given(values=maps, block=st.integers(1, 64))
def test_any_block_size_equals_labelling_the_whole_map(values: np.ndarray, block: int) -> None:
    np.testing.assert_allclose(
        as_rows(find_components(values, THRESHOLD, block)), whole_map_reference(values, THRESHOLD), rtol=1e-12
    )


@settings(deadline=None, max_examples=60)
@given(values=maps, one=st.integers(1, 64), other=st.integers(1, 64))
def test_block_sizes_agree_to_the_last_bit(values: np.ndarray, one: int, other: int) -> None:
    np.testing.assert_array_equal(
        as_rows(find_components(values, THRESHOLD, one)), as_rows(find_components(values, THRESHOLD, other))
    )


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5, 100])
def test_u_shape_whose_arms_meet_only_in_another_block_is_one_object(block: int) -> None:
    values = np.zeros((9, 7), np.uint8)
    values[:, 0] = values[:, 6] = values[8, :] = 100
    values[0, 6] = 250
    found = find_components(values, THRESHOLD, block)
    # 9 + 9 + 5 pixels; x by symmetry; y: (2 * (0 + ... + 8) + 5 * 8) / 23.
    assert as_rows(found).tolist() == [[112 / 23, 3.0, 23.0, 250.0]]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50])
def test_spiral_over_many_blocks_is_one_object(block: int) -> None:
    values = np.zeros((11, 11), np.uint8)
    values[0, :] = values[:, 10] = values[10, :] = values[2:, 0] = 255
    values[2, :9] = values[2:9, 8] = values[8, 2:9] = values[4:9, 2] = values[4, 2:7] = 255
    assert len(find_components(values, THRESHOLD, block).area) == 1


def test_pixels_that_touch_by_a_corner_are_two_objects() -> None:
    values = np.array([[200, 0], [0, 200]], np.uint8)
    for block in (1, 2):
        assert find_components(values, THRESHOLD, block).area.tolist() == [1, 1]


def test_objects_with_one_centroid_keep_their_order_for_every_block_size() -> None:
    # A cup, and hanging into it a bulb whose centroid happens to be the same.
    values = np.zeros((22, 9), np.uint8)
    values[1:, 0] = values[1:, 8] = values[21, :] = 100
    values[:19, 4] = values[15:19, 2:7] = 250
    cup, bulb = np.argwhere(values == 100).mean(axis=0), np.argwhere(values == 250).mean(axis=0)
    np.testing.assert_array_equal(cup, bulb)
    for block in range(1, 23):
        assert find_components(values, THRESHOLD, block).peak.tolist() == [250, 100], block


def test_objects_are_ordered_by_y_then_x() -> None:
    values = np.zeros((8, 8), np.uint8)
    for y, x in [(6, 1), (2, 7), (2, 0), (4, 4)]:
        values[y, x] = 255
    found = find_components(values, THRESHOLD, block=3)
    assert list(zip(found.y, found.x, strict=True)) == [(2, 0), (2, 7), (4, 4), (6, 1)]


def test_threshold_is_inclusive() -> None:
    values = np.array([[89, 90, 89, 91]], np.uint8)
    assert find_components(values, 90).x.tolist() == [1, 3]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (30, 20)])
def test_empty_map_has_no_objects(shape: tuple[int, int]) -> None:
    found = find_components(np.zeros(shape, np.uint8), 1, block=4)
    assert [len(column) for column in (found.x, found.y, found.area, found.peak)] == [0, 0, 0, 0]


def test_zarr_map_gives_the_same_objects_as_an_array() -> None:
    values = random_map(5, 57, 43, 1.0)
    stored = zarr.create_array(store={}, shape=values.shape, chunks=(16, 16), dtype="u1")
    stored[:] = values
    np.testing.assert_array_equal(
        as_rows(find_components(stored, THRESHOLD, 16)), whole_map_reference(values, THRESHOLD)
    )


def test_select_keeps_rows_together() -> None:
    found = find_components(random_map(3, 40, 40, 1.0), THRESHOLD)
    large = found.select(found.area > 3)
    np.testing.assert_array_equal(as_rows(large), as_rows(found)[found.area > 3])
