"""One-to-one pairs of objects by several papers' rules: by hand, brute force and a dense assignment."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from karyon.evaluation import segmentation_matching
from karyon.evaluation.overlap import overlap_of_maps, overlap_of_polygons
from karyon.evaluation.segmentation import InstanceScore, score_instances, score_panoptic
from karyon.evaluation.segmentation_matching import (
    heaviest_pairs,
    match_by_dice,
    match_by_iou,
    match_by_truth_share,
)

ids = st.sampled_from([0, 0, 1, 2, 5, 70_000])
two_maps = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: st.tuples(*[arrays(np.int32, shape, elements=ids)] * 2)
)


def test_joint_rule_asks_for_half_of_the_true_nucleus_not_of_the_union() -> None:
    # Prediction 1 is far larger than the nucleus it holds; 2 covers exactly half of its nucleus.
    truth = np.array([[0, 0, 1, 1, 0, 0, 0, 2, 2]])
    predicted = np.array([[1, 1, 1, 1, 1, 1, 0, 2, 0]])
    overlap = overlap_of_maps(predicted, truth)
    score = score_instances(overlap, match_by_truth_share(overlap))
    assert (score.tp, score.fp, score.fn) == (1, 1, 1)
    assert score_panoptic(overlap).tp == 0


def test_joint_prediction_over_several_nuclei_stands_for_the_one_it_covers_most() -> None:
    truth = np.array([[1, 1, 2, 2, 2, 2, 0], [0, 0, 2, 2, 2, 0, 0]])
    predicted = np.array([[9, 9, 9, 9, 9, 9, 9], [0, 0, 0, 0, 0, 0, 0]])
    overlap = overlap_of_maps(predicted, truth)
    pairs = match_by_truth_share(overlap)
    assert overlap.truth_id[overlap.truth[pairs]].tolist() == [2]  # 4 of 7 px; all 2 of 2 px of the other
    assert score_instances(overlap, pairs) == InstanceScore(1, 0, 1, iou_sum=pytest.approx(4 / 10))


def test_nb_matches_from_a_dice_of_a_fifth_and_takes_the_better_sum() -> None:
    # One of 9 px is a Dice of 2 / 10, a match; one of 10 px is 2 / 11, and none.
    for size, matches in ((9, 1), (10, 0)):
        overlap = overlap_of_maps(np.eye(1, size, dtype=int), np.ones((1, size), int))
        assert len(match_by_dice(overlap)) == matches
    # Prediction 1 is best for both nuclei; but 2 is left for the second only if 1 takes the first.
    truth = np.array([[1, 1, 1, 2, 2, 2, 2, 2]])
    predicted = np.array([[1, 1, 1, 1, 1, 1, 2, 2]])
    overlap = overlap_of_maps(predicted, truth)
    pairs = match_by_dice(overlap)
    assert [overlap.predicted[pairs].tolist(), overlap.truth[pairs].tolist()] == [[0, 1], [0, 1]]


def best_sum(weights: np.ndarray) -> float:
    """Largest sum of entries of which no two share a row or column, by trying each choice."""
    if not len(weights):
        return 0.0
    first, rest = weights[0], weights[1:]
    options = [weight + best_sum(np.delete(rest, k, axis=1)) for k, weight in enumerate(first)]
    return max([best_sum(rest), *options])


@pytest.mark.parametrize("batch", [1, 2000])
@settings(max_examples=100, deadline=None)
@given(maps=two_maps)
def test_heaviest_pairs_have_the_largest_sum_of_all_assignments(
    batch: int, maps: tuple[np.ndarray, np.ndarray]
) -> None:
    overlap = overlap_of_maps(*maps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation_matching, "BATCH_PAIRS", batch)
        pairs = heaviest_pairs(overlap, overlap.iou)
    assert len(np.unique(overlap.predicted[pairs])) == len(np.unique(overlap.truth[pairs])) == len(pairs)
    iou = np.zeros((len(overlap.predicted_id), len(overlap.truth_id)))
    iou[overlap.predicted, overlap.truth] = overlap.iou
    assert overlap.iou[pairs].sum() == pytest.approx(best_sum(iou), abs=1e-9)


def test_one_crowd_of_all_objects_equals_a_dense_assignment() -> None:
    # Two mosaics of 600 cells without background: one component of the graph.
    rng = np.random.default_rng(2)
    pixels = np.argwhere(np.ones((200, 200)))
    mosaics = [
        cKDTree(rng.uniform(0, 200, (600, 2))).query(pixels)[1].reshape(200, 200) + 1 for _ in range(2)
    ]
    overlap = overlap_of_maps(*mosaics)
    iou = np.zeros((600, 600))
    iou[overlap.predicted_id[overlap.predicted] - 1, overlap.truth_id[overlap.truth] - 1] = overlap.iou
    best = iou[linear_sum_assignment(-iou)].sum()
    assert overlap.iou[heaviest_pairs(overlap, overlap.iou)].sum() == pytest.approx(best, rel=1e-12)


def test_polygons_that_overlap_each_other_are_matched_once() -> None:
    # A nucleus predicted twice, with IoU 9 / 10 and 8 / 10.
    predicted = [shapely.box(0, 0, 8, 1), shapely.box(0, 0, 9, 1)]
    overlap = overlap_of_polygons(predicted, [shapely.box(0, 0, 10, 1)])
    for pairs in (match_by_iou(overlap), match_by_truth_share(overlap), match_by_dice(overlap)):
        assert overlap.predicted[pairs].tolist() == [1]


@pytest.mark.parametrize("threshold", [0.49, 1.0, math.nan])
def test_thresholds_without_unique_matches_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"at least 0\.5"):
        match_by_iou(overlap_of_maps(np.eye(2, dtype=int), np.eye(2, dtype=int)), threshold)
