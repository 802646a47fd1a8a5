"""Precision-recall curves against a matching at every threshold, and hand-worked figures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karyon.evaluation.curve import DetectionCurve, detection_curve, pool_curves
from karyon.evaluation.detection import DetectionScore
from karyon.evaluation.matching import match_points

half = st.integers(0, 16).map(lambda n: n / 2)
tenth = st.integers(0, 10).map(lambda n: n / 10)
detections = st.lists(st.tuples(half, half, tenth), max_size=12).map(
    lambda rows: np.array(rows).reshape(-1, 3)
)
annotations = st.lists(st.tuples(half, half), max_size=9).map(lambda rows: np.array(rows).reshape(-1, 2))
radii = st.integers(1, 12).map(lambda n: n / 2)


def curve(threshold: list[float], detected: list[int], tp: list[int], n_truth: int) -> DetectionCurve:
    return DetectionCurve(np.array(threshold), np.array(detected), np.array(tp), n_truth)


def assert_equals_matching_at_every_threshold(found: np.ndarray, truth: np.ndarray, radius: float) -> None:
    result = detection_curve(found[:, :2], found[:, 2], truth, radius)
    assert result.threshold.tolist() == sorted(set(found[:, 2].tolist()), reverse=True)
    assert result.n_truth == len(truth)
    for threshold, detected, tp in zip(result.threshold, result.detected, result.tp, strict=True):
        kept = found[found[:, 2] >= threshold, :2]
        assert detected == len(kept)
        assert tp == len(match_points(kept, truth, radius).predicted)


@settings(max_examples=200, deadline=None)
@given(found=detections, truth=annotations, radius=radii)
def test_curve_equals_matching_at_every_threshold(
    found: np.ndarray, truth: np.ndarray, radius: float
) -> None:
    assert_equals_matching_at_every_threshold(found, truth, radius)


@pytest.mark.parametrize("side", [1000, 300, 60], ids=["separate", "crowded", "dense"])
def test_curve_of_a_crowd_equals_matching_at_every_threshold(side: float) -> None:
    rng = np.random.default_rng(1)
    found = np.column_stack([rng.uniform(0, side, (400, 2)), rng.integers(0, 50, 400)])
    assert_equals_matching_at_every_threshold(found, rng.uniform(0, side, (300, 2)), 16)


def test_a_later_detection_moves_an_earlier_one_on() -> None:
    # Gate 5 on a line: the first detection, at 4, may take 0 or 8; the second, at -1, only 0.
    result = detection_curve(np.array([[4, 0], [-1, 0]]), np.array([0.9, 0.8]), np.array([[0, 0], [8, 0]]), 5)
    assert result.tp.tolist() == [1, 2]


def test_equal_confidences_are_one_threshold() -> None:
    points = np.array([[0, 0], [100, 0], [200, 0], [300, 0]])
    result = detection_curve(points, np.array([0.5, 0.9, 0.5, 0.5]), points[:2], 1)
    expected = pd.DataFrame(
        {
            "threshold": [0.9, 0.5],
            "tp": [1, 2],
            "fp": [0, 2],
            "fn": [1, 0],
            "precision": [1.0, 0.5],
            "recall": [0.5, 1.0],
            "f1": [2 / 3, 2 / 3],
        }
    )
    pd.testing.assert_frame_equal(result.table(), expected)


@settings(max_examples=50, deadline=None)
@given(found=detections, truth=annotations)
def test_figures_equal_those_of_a_score_of_the_same_counts(found: np.ndarray, truth: np.ndarray) -> None:
    table = detection_curve(found[:, :2], found[:, 2], truth, 2).table()
    for row in table.itertuples():
        score = DetectionScore(row.tp, row.fp, row.fn)
        np.testing.assert_allclose([row.precision, row.recall], [score.precision, score.recall])
        np.testing.assert_allclose(row.f1, score.f1)


def test_average_precision_is_the_area_under_the_interpolated_curve() -> None:
    # Recall 1/4 at precision 1; 2/4 at 2/4, raised to the 3/5 that is reached at recall 3/4; none beyond.
    result = curve([0.9, 0.8, 0.7, 0.6], [1, 4, 5, 9], [1, 2, 3, 3], 4)
    assert result.average_precision == pytest.approx(1 / 4 * 1 + 1 / 4 * 3 / 5 + 1 / 4 * 3 / 5)


def test_best_threshold_has_the_largest_f1() -> None:
    # F1: 2/5, 4/7, 4/8.
    result = curve([0.9, 0.8, 0.7], [1, 3, 4], [1, 2, 2], 4)
    np.testing.assert_allclose(result.f1, [2 / 5, 4 / 7, 4 / 8])
    assert result.best_threshold == 0.8


def test_of_thresholds_that_tie_in_f1_the_highest_is_best() -> None:
    result = curve([0.9, 0.5], [1, 4], [1, 2], 2)
    assert result.f1[0] == result.f1[1]
    assert result.best_threshold == 0.9


@settings(max_examples=100, deadline=None)
@given(images=st.lists(st.tuples(detections, annotations), max_size=4))
def test_pooled_curve_adds_the_matches_of_every_image(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    pooled = pool_curves([detection_curve(found[:, :2], found[:, 2], truth, 2) for found, truth in images])
    confidences = {value for found, _ in images for value in found[:, 2].tolist()}
    assert pooled.threshold.tolist() == sorted(confidences, reverse=True)
    assert pooled.n_truth == sum(len(truth) for _, truth in images)
    for threshold, detected, tp in zip(pooled.threshold, pooled.detected, pooled.tp, strict=True):
        kept = [(found[found[:, 2] >= threshold, :2], truth) for found, truth in images]
        assert detected == sum(len(points) for points, _ in kept)
        assert tp == sum(len(match_points(points, truth, 2).predicted) for points, truth in kept)


def test_no_truth_makes_every_detection_false_and_recall_undefined() -> None:
    result = detection_curve(np.zeros((2, 2)), np.array([0.1, 0.2]), np.empty((0, 2)), 1)
    assert result.tp.tolist() == [0, 0]
    assert result.precision.tolist() == [0, 0]
    assert result.f1.tolist() == [0, 0]
    assert np.isnan(result.recall).all()
    assert math.isnan(result.average_precision)
    assert math.isnan(result.best_threshold)


@pytest.mark.parametrize(("n_truth", "expected"), [(3, 0.0), (0, math.nan)])
def test_no_detection_gives_a_curve_without_thresholds(n_truth: int, expected: float) -> None:
    result = detection_curve(np.empty((0, 2)), np.empty(0), np.zeros((n_truth, 2)), 1)
    assert result.table().shape == (0, 7)
    np.testing.assert_equal(result.average_precision, expected)
    assert math.isnan(result.best_threshold)


@pytest.mark.parametrize(
    ("confidence", "message"),
    [([0.5], r"shape \(1,\); expected \(2,\)"), ([0.5, math.nan], "not finite in row 1")],
)
def test_confidences_that_do_not_fit_are_refused(confidence: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detection_curve(np.zeros((2, 2)), np.array(confidence), np.zeros((1, 2)), 1)
