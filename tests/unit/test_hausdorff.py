"""Hausdorff distances by hand, against all pairs of pixels of masks of the full size, and by laws."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from karyon.evaluation.hausdorff import ObjectHausdorffScore, foreground_distance, score_object_hausdorff
from karyon.io.annotations import read_instances

KUMAR = "kumar30/instances/TCGA-18-5592-01Z-00-DX1.png"
Maps = tuple[np.ndarray, np.ndarray]
ids = st.sampled_from([0, 0, 0, 1, 2, 5, 70_000])
two_maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(*[arrays(np.int32, shape, elements=ids)] * 2)
)


@pytest.fixture(params=["shifted", "thinned out"])
def real_maps(request: pytest.FixtureRequest, real_file: Callable[[str], Path]) -> Maps:
    """A prediction made of the true map, and the true map."""
    truth = read_instances(real_file(KUMAR), "instance_png")[:250, :250]
    predicted = np.roll(truth, (5, -4), (0, 1))
    if request.param == "shifted":
        return predicted, truth
    # A third of the nuclei missed, another third false: they have no partner.
    return np.where(predicted % 3 == 0, 0, predicted), np.where(truth % 3 == 1, 0, truth)


def naive_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Hausdorff distance of two masks from all pairs of their pixels."""
    distance = cdist(np.argwhere(one), np.argwhere(other))
    return max(distance.min(axis=0).max(), distance.min(axis=1).max())


def naive_object_hausdorff(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The published definition, an object at a time, on masks of the full size."""

    def one_way(objects: np.ndarray, others: np.ndarray) -> float:
        total = 0.0
        for label in np.unique(objects[objects > 0]):
            mask = objects == label
            hit = others[mask]
            hit = hit[hit > 0]
            if hit.size:
                distance = naive_distance(mask, others == np.argmax(np.bincount(hit)))
            else:
                distance = min(naive_distance(mask, others == k) for k in np.unique(others[others > 0]))
            total += mask.sum() / (objects > 0).sum() * distance
        return total

    return (one_way(predicted, truth) + one_way(truth, predicted)) / 2


@settings(max_examples=300, deadline=None)
@given(maps=two_maps)
def test_object_hausdorff_of_random_maps_equals_loops_over_masks(maps: Maps) -> None:
    assume(maps[0].any() and maps[1].any())
    score = score_object_hausdorff(*maps)
    assert score.object_hausdorff == pytest.approx(naive_object_hausdorff(*maps), abs=1e-9)


def test_object_hausdorff_of_real_maps_equals_loops_over_masks(real_maps: Maps) -> None:
    score = score_object_hausdorff(*real_maps)
    assert score.object_hausdorff == pytest.approx(naive_object_hausdorff(*real_maps), abs=1e-9)


def test_object_without_overlap_goes_to_the_nearest_by_hausdorff_distance_not_by_gap() -> None:
    # Prediction 1 lies 2 px from the end of the long nucleus 1, but nucleus 2, 4 px off, is the nearer set.
    truth = np.zeros((3, 30), int)
    truth[0, 3:25] = 1
    predicted = np.zeros((3, 30), int)
    predicted[0, 1] = 1
    predicted[0, 3:25] = 2
    near, far = score_object_hausdorff(predicted, truth), 23.0
    assert near.predicted_sum == far
    truth[2, 4] = 2
    assert score_object_hausdorff(predicted, truth).predicted_sum == pytest.approx(math.hypot(2, 3))


def test_hole_counts_where_only_the_middle_of_the_other_is_far() -> None:
    # A ring and the full square: the farthest pixel of the square is its middle, which is on no outline.
    full = np.ones((7, 7), int)
    ring = full.copy()
    ring[1:-1, 1:-1] = 0
    assert score_object_hausdorff(full, ring).object_hausdorff == 3


def test_displaced_copies_are_as_far_as_they_were_moved() -> None:
    truth = np.zeros((90, 90), int)
    for number, corner in enumerate([10, 35, 60]):
        truth[corner : corner + 15, corner : corner + 12] = number + 1
    score = score_object_hausdorff(np.roll(truth, (3, 4), (0, 1)), truth, mpp=0.25)
    assert score.object_hausdorff == pytest.approx(5 * 0.25)
    assert score.truth_area == pytest.approx(3 * 15 * 12 * 0.25**2)


def test_large_objects_weigh_more() -> None:
    # 30 px one pixel off, 2 px two pixels off.
    truth = np.zeros((12, 20), int)
    truth[1:11, 1:4], truth[1, 10:12] = 1, 2
    predicted = np.zeros((12, 20), int)
    predicted[2:12, 1:4], predicted[1, 12:14] = 1, 2
    score = score_object_hausdorff(predicted, truth)
    assert score == ObjectHausdorffScore(30 * 1 + 2 * 2, 32, 30 * 1 + 2 * 2, 32, left_out=0)


@settings(max_examples=100, deadline=None)
@given(maps=two_maps)
def test_foreground_distances_equal_all_pairs_of_pixels(maps: Maps) -> None:
    assume(maps[0].any() and maps[1].any())
    distance = cdist(np.argwhere(maps[0]), np.argwhere(maps[1]))
    found = foreground_distance(*maps, mpp=0.5)
    assert found.average == pytest.approx(
        max(distance.min(axis=0).mean(), distance.min(axis=1).mean()) * 0.5, abs=1e-9
    )
    assert found.hausdorff == pytest.approx(0.5 * naive_distance(*maps), abs=1e-9)


def test_foreground_hausdorff_of_real_maps_equals_scikit_image(real_maps: Maps) -> None:
    found = foreground_distance(*real_maps)
    assert found.hausdorff == pytest.approx(hausdorff_distance(real_maps[0] > 0, real_maps[1] > 0), abs=1e-9)
    assert 0 < found.average < found.hausdorff


@settings(max_examples=100, deadline=None)
@given(maps=two_maps)
def test_exchanging_the_sides_changes_nothing(maps: Maps) -> None:
    one, other = score_object_hausdorff(*maps), score_object_hausdorff(*reversed(maps))
    assert one.object_hausdorff == pytest.approx(other.object_hausdorff, abs=1e-12, nan_ok=True)
    found, exchanged = foreground_distance(*maps), foreground_distance(*reversed(maps))
    np.testing.assert_equal((found.hausdorff, found.average), (exchanged.hausdorff, exchanged.average))


@settings(max_examples=50, deadline=None)
@given(maps=two_maps)
def test_identity_has_no_distance(maps: Maps) -> None:
    assume(maps[0].any())
    assert score_object_hausdorff(maps[0], maps[0]).object_hausdorff == 0
    assert foreground_distance(maps[0], maps[0]).hausdorff == 0


def test_names_of_the_objects_do_not_matter(real_maps: Maps) -> None:
    names = np.random.default_rng(0).permutation(10**6)[:2000] + 10**12
    names[0] = 0
    renamed = score_object_hausdorff(names[real_maps[0]], names[real_maps[1]].astype(np.uint64))
    assert renamed.object_hausdorff == pytest.approx(score_object_hausdorff(*real_maps).object_hausdorff)


@pytest.mark.parametrize(
    ("predicted", "truth", "left_out"),
    [([0, 0, 0], [0, 0, 0], 0), ([1, 0, 2], [0, 0, 0], 2), ([0, 0, 0], [0, 7, 7], 1)],
    ids=["both empty", "no truth", "no prediction"],
)
def test_without_objects_on_both_sides_there_is_no_distance(
    predicted: list[int], truth: list[int], left_out: int
) -> None:
    empty = score_object_hausdorff(np.array([predicted]), np.array([truth]))
    assert math.isnan(empty.object_hausdorff)
    assert empty.left_out == left_out
    distance = foreground_distance(np.array([predicted]), np.array([truth]))
    assert math.isnan(distance.hausdorff)
    assert math.isnan(distance.average)


def test_pooled_distance_weighs_all_objects_by_area_and_leaves_out_empty_images() -> None:
    pooled = ObjectHausdorffScore(60, 20, 30, 10, 0) + ObjectHausdorffScore(40, 80, 10, 30, 0)
    pooled += ObjectHausdorffScore(0, 0, 0, 0, 7)
    assert pooled.object_hausdorff == (100 / 100 + 40 / 40) / 2
    assert pooled.left_out == 7


def test_maps_of_different_shape_are_refused() -> None:
    for measure in (foreground_distance, score_object_hausdorff):
        with pytest.raises(ValueError, match=r"predicted has shape \(2, 3\), truth \(3, 2\)"):
            measure(np.zeros((2, 3), int), np.zeros((3, 2), int))
