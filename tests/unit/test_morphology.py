"""Size and shape against scikit-image, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops_table

from karyon.nuclei.morphology import find_boxes, measure_shapes

NAMES = {
    "x": "centroid-1",
    "y": "centroid-0",
    "area": "area",
    "perimeter": "perimeter",
    "major": "axis_major_length",
    "minor": "axis_minor_length",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
}


def measured(labels: np.ndarray) -> np.ndarray:
    return measure_shapes(labels, find_boxes(labels), 0, 0)


def blobs(seed: int, smoothness: float, connectivity: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((60, 80)), smoothness)
    return label(noise > np.quantile(noise, 0.6), connectivity=connectivity).astype(np.int32)


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("smoothness", [0.4, 0.8, 1.5, 3.0])
def test_figures_are_those_of_scikit_image(smoothness: float, connectivity: int) -> None:
    labels = blobs(4, smoothness, connectivity)
    ours = measured(labels)
    theirs = regionprops_table(
        labels, properties=[*(name.split("-")[0] for name in NAMES.values()), "orientation"]
    )
    assert len(ours) == labels.max() > 3
    for name, theirs_name in NAMES.items():
        np.testing.assert_allclose(ours[name], theirs[theirs_name], rtol=1e-9, atol=1e-6, err_msg=name)
    # Of a line, plus and minus half a turn are one direction.
    turned = np.abs(ours["orientation"] - theirs["orientation"])
    assert np.minimum(turned, np.pi - turned).max() < 1e-6


def test_boxes_hold_the_nuclei() -> None:
    labels = np.zeros((6, 9), np.int32)
    labels[1:4, 2:8], labels[5, 0] = 2, 1
    assert find_boxes(labels).tolist() == [[5, 6, 0, 1], [1, 4, 2, 8]]


def test_circularity_compares_area_and_perimeter() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[1:11, 1:11] = 1
    (square,) = measured(labels)
    assert square["perimeter"] == 36  # through the centres of the border pixels
    assert square["circularity"] == pytest.approx(4 * np.pi * 100 / 36**2)


def test_single_pixel_has_no_circularity() -> None:
    (pixel,) = measured(np.ones((1, 1), np.int32))
    assert (pixel["area"], pixel["solidity"], pixel["major"], pixel["eccentricity"]) == (1, 1, 0, 0)
    assert np.isnan(pixel["circularity"])


def test_window_changes_no_bit() -> None:
    labels = blobs(5, 1.5, 1)
    larger = np.zeros((200, 300), np.int32)
    larger[111:171, 203:283] = labels
    here = measure_shapes(labels, find_boxes(labels), 1203, 2111)
    assert here.tobytes() == measure_shapes(larger, find_boxes(larger), 1000, 2000).tobytes()
