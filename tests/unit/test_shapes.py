"""What is measured of nuclei in windows: staining, probability and class, against loops over masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

from karyon.nuclei.morphology import find_boxes
from karyon.nuclei.shapes import Shapes, measure_window
from karyon.nuclei.staining import measure_staining, ring_px

JOINT = ("background", "inside:tumour", "inside:stroma", "contour")
REACH = 4


def scene(height: int, width: int, margin: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels; and, with a margin in which nuclei go on, densities and where there is no nucleus."""
    random = np.random.default_rng(9)
    noise = ndimage.gaussian_filter(random.random((height + 2 * margin, width + 2 * margin)), 2)
    mask = noise > np.quantile(noise, 0.7)
    labels = label(mask[margin:-margin, margin:-margin], connectivity=1).astype(np.int32)
    return labels, random.random((*mask.shape, 2), dtype=np.float32), ~mask


def cut(array: np.ndarray, reach: int, margin: int = 20) -> np.ndarray:
    inset = margin - reach
    return array[inset : array.shape[0] - inset, inset : array.shape[1] - inset]


@pytest.mark.parametrize("reach", [1, REACH])
def test_densities_inside_and_in_the_ring_are_those_of_masks(reach: int) -> None:
    labels, densities, background = scene(50, 70)
    densities, background = cut(densities, reach), cut(background, reach)
    found = measure_staining(labels, find_boxes(labels), densities, background)
    for nucleus in range(1, labels.max() + 1):
        inside = np.pad(labels == nucleus, reach)
        ring = (ndimage.distance_transform_edt(~inside) <= reach) & background
        for pixels, figures in zip((inside, ring), found[nucleus - 1], strict=True):
            expected = [
                densities[pixels].mean(axis=0, dtype=float),
                densities[pixels].std(axis=0, dtype=float),
            ]
            np.testing.assert_allclose(figures.T, expected, rtol=1e-7, atol=1e-9)


def test_ring_without_background_has_no_density() -> None:
    labels = np.ones((3, 3), np.int32)
    found = measure_staining(
        labels, find_boxes(labels), np.ones((5, 5, 2), np.float32), np.zeros((5, 5), bool)
    )
    assert found[0, 0].tolist() == [[1, 0], [1, 0]]
    assert np.isnan(found[0, 1]).all()


def test_ring_is_two_microns_wide_and_at_least_a_pixel() -> None:
    assert [ring_px(mpp) for mpp in (0.25, 0.5, 1.0, 8.0)] == [8, 4, 2, 1]


def measure(labels: np.ndarray, maps: np.ndarray, names: tuple[str, ...]) -> Shapes:
    shape = tuple(side + 2 for side in labels.shape)
    densities, background = np.zeros((*shape, 2), np.float32), np.ones(shape, bool)
    return measure_window(labels, 0, 0, maps, names, densities, background)


def test_probability_is_the_mean_of_what_is_nucleus() -> None:
    labels = np.array([[1, 1, 0, 2]], np.int32)
    maps = np.array([[[255, 204, 255, 51]], [[7, 7, 7, 7]]], np.uint8)
    np.testing.assert_allclose(measure(labels, maps, ("nucleus", "distance")).probability, [0.9, 0.2])
    insides = np.array([[[0, 0, 0, 0]], [[102, 51, 0, 200]], [[51, 51, 0, 100]], [[9, 9, 9, 9]]], np.uint8)
    found = measure(labels, insides, JOINT).probability
    np.testing.assert_allclose(found, [0.5, 1.0])  # 200 + 100 are rounding's 255 at most


def test_class_is_that_of_most_pixels() -> None:
    labels = np.array([[1, 1, 1, 1, 0, 2, 2, 3]], np.int32)
    maps = np.zeros((4, 1, 8), np.uint8)
    maps[1] = [[10, 90, 30, 0, 99, 50, 50, 0]]
    maps[2] = [[20, 80, 40, 0, 0, 50, 60, 0]]
    found = measure(labels, maps, JOINT)
    # 1: stroma twice, tumour once, one pixel without. 2: of equal values, and of equal votes, the first.
    assert found.class_id.tolist() == [2, 1, 1]
    np.testing.assert_allclose(found.class_probability, [0.5, 0.5, 0])


def test_model_without_classes_votes_for_none() -> None:
    found = measure(
        np.ones((2, 2), np.int32), np.full((3, 2, 2), 80, np.uint8), ("inside", "boundary", "background")
    )
    assert found.class_id.tolist() == [0]
    assert np.isnan(found.class_probability).all()


def test_figures_do_not_depend_on_the_window() -> None:
    labels, densities, background = scene(60, 90)
    maps = np.random.default_rng(1).integers(0, 120, (4, 60, 90), dtype=np.uint8)
    whole = measure_window(labels, 0, 0, maps, JOINT, cut(densities, REACH), cut(background, REACH))
    nucleus = labels.max() // 2
    rows, columns = np.nonzero(labels == nucleus)
    y0, y1, x0, x1 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    alone = (labels[y0:y1, x0:x1] == nucleus).astype(np.int32)
    box = np.s_[y0 : y1 + 2 * REACH, x0 : x1 + 2 * REACH]
    part = measure_window(
        alone,
        x0,
        y0,
        maps[:, y0:y1, x0:x1],
        JOINT,
        cut(densities, REACH)[box],
        cut(background, REACH)[box],
    )
    for name in ("shape", "probability", "staining", "class_id", "class_probability"):
        np.testing.assert_array_equal(getattr(whole, name)[nucleus - 1], getattr(part, name)[0], err_msg=name)
