"""Instances by blocks, against the whole image at once and against scikit-image."""

from __future__ import annotations

import heapq
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import expand_labels, watershed

from karyon.errors import SlideError
from karyon.models.card import Decoding
from karyon.nuclei import whole
from karyon.nuclei.instances import decode_instances, label_map

WATERSHED = Decoding("watershed", 0.5, min_area_um2=1.5, marker_threshold=0.6)
DILATION = Decoding("dilation", 0.5, min_area_um2=1.0, dilation_um=1.2)
MPP = 0.5


def in_reading_order(labels: np.ndarray) -> np.ndarray:
    """Renumbered by first pixel."""
    found, first = np.unique(labels, return_index=True)
    order = np.argsort(first[found > 0])
    number = np.zeros(labels.max() + 1, int)
    number[found[found > 0][order]] = np.arange(1, len(order) + 1)
    return number[labels]


def without_small(labels: np.ndarray, decoding: Decoding) -> np.ndarray:
    small = np.bincount(labels.ravel()) * MPP**2 < decoding.min_area_um2
    return np.where(small[labels], 0, labels)


def flood(height: np.ndarray, markers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Watershed as a textbook has it: a heap, highest first, then first come."""
    labels = markers.copy()
    heap = [(-int(height[y, x]), age, y, x) for age, (y, x) in enumerate(np.argwhere(markers))]
    heapq.heapify(heap)
    age = len(heap)
    while heap:
        _, _, y, x = heapq.heappop(heap)
        for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if 0 <= v < len(mask) and 0 <= u < mask.shape[1] and mask[v, u] and not labels[v, u]:
                labels[v, u] = labels[y, x]
                heapq.heappush(heap, (-int(height[v, u]), age, v, u))
                age += 1
    return labels


def whole_watershed(maps: np.ndarray, decoding: Decoding, library: bool = False) -> np.ndarray:
    """What ``watershed`` says, on the whole image."""
    nucleus, distance = maps
    mask = nucleus / 255 >= decoding.threshold
    markers = label(mask & (distance / 255 >= decoding.marker_threshold), connectivity=1)
    parts = label(mask, connectivity=1)
    unmarked = parts * ~np.isin(parts, parts[markers > 0])
    markers = np.where(unmarked > 0, unmarked + markers.max(), markers)
    if library:
        labels = watershed(-distance.astype(float), markers, mask=mask)
    else:
        labels = flood(distance, markers, mask)
    return in_reading_order(without_small(labels, decoding))


def whole_dilation(insides: np.ndarray, decoding: Decoding) -> np.ndarray:
    """What ``dilation`` says, on the whole image, with scikit-image."""
    kept = without_small(
        label(insides.sum(0, dtype=int) / 255 >= decoding.threshold, connectivity=1), decoding
    )
    return in_reading_order(expand_labels(kept, decoding.dilation_um / MPP))


def pasted(maps, decoding: Decoding, names: tuple[str, ...], block: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """All windows in one image; fails where one holds what it must not."""
    labels, count = np.zeros(maps.shape[1:], int), 0
    for window in decode_instances(maps, decoding, names, MPP, block):
        assert window.labels.dtype == np.int32
        height, width = window.labels.shape
        here = window.labels > 0
        numbers = np.unique(window.labels[here])
        assert numbers.tolist() == list(range(1, len(numbers) + 1)) != []
        place = labels[window.y : window.y + height, window.x : window.x + width]
        assert place.shape == window.labels.shape
        assert not place[here].any()
        place[here] = window.labels[here] + count
        count += len(numbers)
    return in_reading_order(labels)


def smooth(random: np.random.Generator, shape: tuple[int, ...], blur: float) -> np.ndarray:
    """Noise from 0 to 255; blobs with ``blur``."""
    noise = random.random(shape)
    noise = ndimage.gaussian_filter(noise, (0, blur, blur)) if blur else noise
    noise -= noise.min()
    return np.rint(noise / max(noise.max(), 1e-9) * 255).astype(np.uint8)


@st.composite
def stacks(draw: st.DrawFn) -> np.ndarray:
    """Two maps of one size, from noise to a few objects that wind through the whole, some with plateaus."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (2, draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    step = draw(st.sampled_from([1, 16, 48]))
    return smooth(random, shape, draw(st.sampled_from([0.0, 0.8, 1.5, 3.0]))) // step * step


NUCLEUS = ("nucleus", "distance")
INSIDES = ("inside:tumour", "inside:stroma")


@settings(deadline=None, max_examples=100)
@given(maps=stacks(), block=st.integers(1, 64))
def test_blocks_do_not_show_in_a_watershed(maps: np.ndarray, block: int) -> None:
    found = pasted(maps, WATERSHED, NUCLEUS, block)
    np.testing.assert_array_equal(found, whole_watershed(maps, WATERSHED))
    np.testing.assert_array_equal(found, label_map(maps, WATERSHED, NUCLEUS, MPP))


@settings(deadline=None, max_examples=100)
@given(maps=stacks(), block=st.integers(1, 64), dilation_um=st.sampled_from([0.0, 0.5, 0.9, 1.5]))
def test_blocks_do_not_show_in_a_dilation(maps: np.ndarray, block: int, dilation_um: float) -> None:
    rule, insides = replace(DILATION, dilation_um=dilation_um), maps // 2
    found = pasted(insides, rule, INSIDES, block)
    np.testing.assert_array_equal(found, whole_dilation(insides, rule))
    np.testing.assert_array_equal(found, label_map(insides, rule, INSIDES, MPP))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0, 1), marker=st.floats(0, 1))
def test_watershed_without_ties_is_that_of_scikit_image(seed: int, threshold: float, marker: float) -> None:
    random = np.random.default_rng(seed)
    distance = random.permutation(256).astype(np.uint8).reshape(16, 16)  # every height once
    maps = np.stack([random.integers(0, 256, (16, 16), dtype=np.uint8), distance])
    rule = Decoding("watershed", max(threshold, 1e-6), marker_threshold=max(marker, 1e-6))
    expected = whole_watershed(maps, rule, library=True)
    np.testing.assert_array_equal(label_map(maps, rule, NUCLEUS, MPP), expected)


def test_nuclei_that_touch_over_half_the_slide_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "LARGEST_BOX", 3000)
    maps = np.full((2, 60, 51), 255, np.uint8)
    with pytest.raises(SlideError, match=r"51 x 60 pixels .* raise nuclei\.threshold"):
        list(decode_instances(maps, WATERSHED, NUCLEUS, MPP, block_px=20))
    maps[:, 30] = 0  # 30 x 51 and 29 x 51 pixels
    assert len({window.y for window in decode_instances(maps, WATERSHED, NUCLEUS, MPP, block_px=20)}) == 2


def test_a_zarr_array_gives_the_same_nuclei(tmp_path: Path) -> None:
    maps = smooth(np.random.default_rng(3), (2, 90, 110), 2.0)
    stored = zarr.create_array(tmp_path / "maps.zarr", shape=maps.shape, chunks=(1, 32, 32), dtype="u1")
    stored[:] = maps
    for rule, names in ((WATERSHED, NUCLEUS), (DILATION, ("inside", "background"))):
        one = pasted(stored, rule, names, 40)
        assert one.max() > 10
        np.testing.assert_array_equal(one, label_map(maps, rule, names, MPP))


def test_markers_split_and_what_has_none_stays_one() -> None:
    nucleus = np.array([[0, 200, 200, 200, 200, 200, 0, 0, 130, 130]], np.uint8)
    distance = np.array([[255, 60, 255, 90, 255, 70, 0, 0, 20, 90]], np.uint8)
    rule = Decoding("watershed", 0.5, marker_threshold=0.9)
    # The pixel of 90 lies between two markers: the left one comes first in reading order.
    expected = [[0, 1, 1, 1, 2, 2, 0, 0, 3, 3]]
    assert label_map(np.stack([nucleus, distance]), rule, NUCLEUS, MPP).tolist() == expected
    small = replace(rule, min_area_um2=0.75)  # 3 pixels
    assert label_map(np.stack([nucleus, distance]), small, NUCLEUS, MPP).tolist() == [[0, 1, 1, 1, *[0] * 6]]


def test_insides_of_all_classes_grow_back_without_merging_and_small_ones_do_not() -> None:
    tumour = np.array([[0, 0, 90, 200, 0, 0, 0, 200, 200, 0, 0, 0, 0, 200, 0]], np.uint8)
    stroma = np.array([[0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]], np.uint8)
    rule = Decoding("dilation", 0.5, min_area_um2=0.5, dilation_um=1.0)  # 2 pixels each
    expected = [[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0, 0, 0]]
    assert label_map(np.stack([tumour, stroma]), rule, INSIDES, MPP).tolist() == expected


def test_pixels_that_touch_by_a_corner_are_two_nuclei() -> None:
    maps = np.array([[[200, 0], [0, 200]]] * 2, np.uint8)
    assert label_map(maps, Decoding("watershed", 0.5), NUCLEUS, MPP).tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (30, 20)])
def test_an_empty_map_has_no_window(shape: tuple[int, int]) -> None:
    for rule, names in ((WATERSHED, NUCLEUS), (DILATION, INSIDES)):
        assert list(decode_instances(np.zeros((2, *shape), np.uint8), rule, names, MPP, 8)) == []


def test_a_wide_foreground_comes_in_windows_of_about_a_block() -> None:
    maps = smooth(np.random.default_rng(4), (2, 200, 200), 2.0)
    maps[0] = 255
    windows = list(decode_instances(maps, WATERSHED, NUCLEUS, MPP, block_px=50))
    assert len(windows) == 16
    nuclei = [box for window in windows for box in ndimage.find_objects(window.labels)]
    largest = max(max(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in nuclei)
    assert max(max(window.labels.shape) for window in windows) <= 50 + largest < 200
