"""Detection figures and the match table, against hand-worked values."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
import pytest

from karyon.evaluation.detection import DetectionScore, Side, match_table, score_detection
from karyon.evaluation.matching import Matches, match_points


def pairs(distances: list[float]) -> Matches:
    rows = np.arange(len(distances))
    return Matches(rows, rows, np.array(distances, dtype=np.float64))


def test_counts_give_the_textbook_figures() -> None:
    # 6 of 8 detections are right, 6 of 10 nuclei found: P 3/4, R 3/5, F1 their harmonic mean 2/3.
    score = score_detection(pairs([1.0] * 6), n_predicted=8, n_truth=10)
    assert (score.tp, score.fp, score.fn) == (6, 2, 4)
    assert score.precision == pytest.approx(3 / 4)
    assert score.recall == pytest.approx(3 / 5)
    assert score.f1 == pytest.approx(statistics.harmonic_mean([3 / 4, 3 / 5]))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (DetectionScore(0, 0, 0), (math.nan, math.nan, math.nan)),
        (DetectionScore(0, 3, 0), (0.0, math.nan, 0.0)),
        (DetectionScore(0, 0, 3), (math.nan, 0.0, 0.0)),
        (DetectionScore(0, 2, 3), (0.0, 0.0, 0.0)),
    ],
    ids=["nothing", "no truth", "no prediction", "no match"],
)
def test_figures_without_a_denominator_are_nan(score: DetectionScore, expected: tuple[float, ...]) -> None:
    np.testing.assert_equal((score.precision, score.recall, score.f1), expected)
    assert math.isnan(score.distance_mean)
    assert math.isnan(score.distance_sd)


def test_distances_are_scaled_to_microns() -> None:
    score = score_detection(pairs([2.0, 4.0, 6.0, 12.0]), 4, 4, mpp=0.25)
    assert score.distance_mean == pytest.approx(statistics.mean([0.5, 1, 1.5, 3]))
    assert score.distance_sd == pytest.approx(statistics.pstdev([0.5, 1, 1.5, 3]))


def test_equal_distances_have_no_spread() -> None:
    assert score_detection(pairs([0.1] * 7), 7, 7).distance_sd == pytest.approx(0, abs=1e-8)


def test_pooled_score_equals_the_score_of_all_pairs_together() -> None:
    one, other = [0.5, 3.0], [1.0, 1.5, 2.5]
    pooled = score_detection(pairs(one), 4, 3) + score_detection(pairs(other), 3, 9)
    together = score_detection(pairs(one + other), 7, 12)
    assert (pooled.tp, pooled.fp, pooled.fn) == (together.tp, together.fp, together.fn) == (5, 2, 7)
    assert pooled.distance_mean == pytest.approx(statistics.mean(one + other))
    assert pooled.distance_sd == pytest.approx(statistics.pstdev(one + other))


def test_an_image_without_nuclei_does_not_move_the_pool() -> None:
    score = score_detection(pairs([1.0, 2.0]), 3, 4)
    assert score + DetectionScore(0, 0, 0) == score


def test_more_matches_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match="3 matches of 2 predicted"):
        score_detection(pairs([1.0, 1.0, 1.0]), 2, 5)


def test_match_table_lists_every_point_once() -> None:
    predicted = np.array([[50.0, 50.0], [10.0, 10.0], [30.0, 30.0]])
    truth = np.array([[90.0, 90.0], [30.0, 34.0], [10.0, 13.0]])
    matches = match_points(predicted, truth, 16)
    table = match_table(
        Side(predicted, np.array([7, 8, 9]), ["a", "b", ""]),
        Side(truth, np.array([5, 0, 2]), ["c", "", "d"]),
        matches,
        mpp=0.25,
    )
    expected = pd.DataFrame(
        {
            "kind": ["TP", "TP", "FP", "FN"],
            "x": [10.0, 30.0, 50.0, 90.0],
            "y": [10.0, 30.0, 50.0, 90.0],
            "truth_x": [10.0, 30.0, np.nan, 90.0],
            "truth_y": [13.0, 34.0, np.nan, 90.0],
            "distance_um": [0.75, 1.0, np.nan, np.nan],
            "nucleus_id": pd.array([8, 9, 7, None], dtype="Int64"),
            "annotation_id": pd.array([2, 0, None, 5], dtype="Int64"),
            "class_name": ["b", "", "a", ""],
            "truth_class": ["d", "", "", "c"],
        }
    )
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


@pytest.mark.parametrize(("n_predicted", "n_truth"), [(0, 0), (2, 0), (0, 2)])
def test_match_table_of_an_empty_side_keeps_its_types(n_predicted: int, n_truth: int) -> None:
    predicted, truth = np.ones((n_predicted, 2)), np.ones((n_truth, 2))
    matches = match_points(predicted, truth, 1)
    table = match_table(
        Side(predicted, np.arange(n_predicted), [""] * n_predicted),
        Side(truth, np.arange(n_truth), [""] * n_truth),
        matches,
        mpp=0.5,
    )
    assert table["kind"].tolist() == ["FP"] * n_predicted + ["FN"] * n_truth
    assert table[["x", "y", "truth_x", "truth_y", "distance_um"]].dtypes.unique().tolist() == [np.float64]
    assert table[["nucleus_id", "annotation_id"]].dtypes.unique().tolist() == [pd.Int64Dtype()]
