"""Figures per class and the confusion of classes, against hand-worked values and laws."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karyon.evaluation.classes import (
    UNLABELLED,
    class_accuracy,
    class_confusion,
    score_detection_first,
    score_strict,
)
from karyon.evaluation.detection import DetectionScore, score_detection
from karyon.evaluation.matching import match_points

half = st.integers(0, 16).map(lambda n: n / 2)


def classed(lowest: int) -> st.SearchStrategy[np.ndarray]:
    point = st.tuples(half, half, st.integers(lowest, 2))
    return st.lists(point, max_size=10).map(lambda rows: np.array(rows, float).reshape(-1, 3))


def both_rules(
    found: np.ndarray, truth: np.ndarray, radius: float
) -> tuple[tuple[DetectionScore, ...], tuple[DetectionScore, ...]]:
    said, meant = found[:, 2].astype(int), truth[:, 2].astype(int)
    matches = match_points(found[:, :2], truth[:, :2], radius)
    strict = score_strict(found[:, :2], truth[:, :2], said, meant, 3, radius)
    return strict, score_detection_first(matches, said, meant, 3)


def counts(scores: tuple[DetectionScore, ...]) -> list[tuple[int, int, int]]:
    return [(score.tp, score.fp, score.fn) for score in scores]


def test_a_neighbour_of_another_class_steals_a_match_from_detection_first_only() -> None:
    # Gate 5. The annotation of class 0 has a detection of class 1 at 1 and one of its own class at 3.
    found, truth = np.array([[1.0, 0, 1], [3, 0, 0]]), np.array([[0.0, 0, 0]])
    strict, first = both_rules(found, truth, 5)
    assert counts(strict) == [(1, 0, 0), (0, 1, 0), (0, 0, 0)]
    assert counts(first) == [(0, 1, 1), (0, 1, 0), (0, 0, 0)]
    assert (strict[0].distance_mean, strict[0].f1) == (3, 1)


def test_a_pair_of_different_classes_is_false_for_one_and_missed_for_the_other() -> None:
    strict, first = both_rules(np.array([[0.0, 0, 1]]), np.array([[1.0, 0, 0]]), 5)
    assert counts(strict) == counts(first) == [(0, 0, 1), (0, 1, 0), (0, 0, 0)]


def test_figures_of_each_class_are_those_of_the_hand_worked_image() -> None:
    # Ten pixels apart, gate 5. True by said class: 0-0, 0-0, 0-1, 1-1, a false 1, a missed 2.
    found = np.array([[0.0, 0, 0], [10, 1, 0], [20, 2, 1], [30, 4, 1], [90, 0, 1]])
    truth = np.array([[0.0, 0, 0], [10, 0, 0], [20, 0, 0], [30, 0, 1], [60, 0, 2]])
    matches = match_points(found[:, :2], truth[:, :2], 5)
    said, meant = found[:, 2].astype(int), truth[:, 2].astype(int)
    scores = score_detection_first(matches, said, meant, 3, mpp=0.5)
    assert counts(scores) == [(2, 0, 1), (1, 2, 0), (0, 0, 1)]
    assert scores[0].f1 == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert (scores[0].distance_mean, scores[1].distance_mean) == (0.25, 2)
    confusion = class_confusion(matches, said, meant, 3)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert class_accuracy(confusion) == 3 / 4


def test_annotations_without_a_class_match_but_count_for_none() -> None:
    # One with a detection of class 0 on it, one missed, and a false detection of class 0.
    found = np.array([[0.0, 0, 0], [50, 0, 0]])
    truth = np.array([[1.0, 0, UNLABELLED], [90, 0, UNLABELLED]])
    strict, first = both_rules(found, truth, 5)
    assert counts(strict) == counts(first) == [(0, 1, 0), (0, 0, 0), (0, 0, 0)]
    matches = match_points(found[:, :2], truth[:, :2], 5)
    confusion = class_confusion(matches, np.array([0, 0]), np.array([UNLABELLED, UNLABELLED]), 1)
    assert confusion.tolist() == [[0, 0], [1, 0]]
    assert score_detection(matches, 2, 2) == DetectionScore(1, 1, 1, 1, 1)


def test_strict_prefers_an_annotation_of_the_class_to_one_without() -> None:
    found, truth = np.array([[0.0, 0, 0]]), np.array([[0.0, 0, UNLABELLED], [4, 0, 0]])
    strict, first = both_rules(found, truth, 5)
    assert counts(strict)[0] == (1, 0, 0)
    assert counts(first)[0] == (0, 0, 1)


@settings(max_examples=150, deadline=None)
@given(found=classed(0), truth=classed(0))
def test_strict_true_positives_are_never_fewer(found: np.ndarray, truth: np.ndarray) -> None:
    strict, first = both_rules(found, truth, 3)
    for one, other in zip(strict, first, strict=True):
        assert one.tp >= other.tp
        assert (one.tp + one.fp, one.tp + one.fn) == (other.tp + other.fp, other.tp + other.fn)


@settings(max_examples=150, deadline=None)
@given(found=classed(0), truth=classed(UNLABELLED))
def test_counts_are_sums_of_the_confusion_matrix(found: np.ndarray, truth: np.ndarray) -> None:
    said, meant = found[:, 2].astype(int), truth[:, 2].astype(int)
    matches = match_points(found[:, :2], truth[:, :2], 3)
    confusion = class_confusion(matches, said, meant, 3)
    diagonal = np.diag(confusion)
    expected = np.stack(
        [diagonal, confusion.sum(axis=0) - diagonal, confusion.sum(axis=1) - diagonal], axis=1
    )
    assert counts(score_detection_first(matches, said, meant, 3)) == [tuple(row) for row in expected[:3]]
    pairs = Counter(zip(meant[matches.truth].tolist(), said[matches.predicted].tolist(), strict=True))
    assert all(confusion[key] == pairs[key] for key in np.ndindex(3, 3))


@settings(max_examples=100, deadline=None)
@given(found=classed(0), truth=classed(0))
def test_with_one_class_both_rules_are_plain_detection(found: np.ndarray, truth: np.ndarray) -> None:
    found[:, 2], truth[:, 2] = 1, 1
    plain = score_detection(match_points(found[:, :2], truth[:, :2], 3), len(found), len(truth))
    strict, first = both_rules(found, truth, 3)
    assert strict[1] == first[1] == plain


@pytest.mark.parametrize(("n_predicted", "n_truth"), [(0, 0), (2, 0), (0, 2)])
def test_an_empty_side_leaves_the_other_false_or_missed(n_predicted: int, n_truth: int) -> None:
    strict, first = both_rules(np.ones((n_predicted, 3)), np.ones((n_truth, 3)), 1)
    assert counts(strict) == counts(first) == [(0, 0, 0), (0, n_predicted, n_truth), (0, 0, 0)]
    assert math.isnan(class_accuracy(np.diag([0, 0, 5])))


@pytest.mark.parametrize(
    ("said", "meant", "message"),
    [
        ([0, UNLABELLED], [0], "predicted_class is -1 in row 1; expected 0 to 2"),
        ([0, 1], [3], "true_class is 3 in row 0; expected -1 to 2"),
        ([0], [0], r"predicted_class has shape \(1,\); expected \(2,\)"),
        ([0.0, 1.0], [0], "predicted_class is float64"),
    ],
)
def test_classes_that_do_not_fit_are_refused(said: list[float], meant: list[int], message: str) -> None:
    points = np.array([[0.0, 0], [9, 9]])
    with pytest.raises(ValueError, match=message):
        score_strict(points, points[:1], np.array(said), np.array(meant), 3, 1)
