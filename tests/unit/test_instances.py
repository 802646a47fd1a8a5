"""Instances by blocks, against the whole image at once and against scikit-image."""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import expand_labels, watershed

from karyon.models.card import Decoding
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
    """Two maps of one size, from noise to a few objects that wind through the whole."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (2, draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    return smooth(random, shape, draw(st.sampled_from([0.0, 0.8, 1.5, 3.0])))


NUCLEUS = ("nucleus", "distance")
INSIDES = ("inside:tumour", "inside:stroma")


@settings(deadline=None, max_examples=60)
@given(maps=stacks(), block=st.integers(1, 64))
def test_blocks_do_not_show_in_a_watershed(maps: np.ndarray, block: int) -> None:
    found = pasted(maps, WATERSHED, NUCLEUS, block)
    np.testing.assert_array_equal(found, whole_watershed(maps, WATERSHED))
    np.testing.assert_array_equal(found, label_map(maps, WATERSHED, NUCLEUS, MPP))


@settings(deadline=None, max_examples=60)
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
