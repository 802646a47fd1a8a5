"""Detection figures from matched points: precision, recall, F1, distance, and the table behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from karyon.evaluation.matching import Matches


@dataclass(frozen=True)
class DetectionScore:
    """Counts of one image or, added with ``+``, of several pooled.

    A figure whose denominator is 0 is NaN, not 0 or 1: an image without nuclei and without detections says
    nothing about either. Pooling adds counts, so such an image does not move the pooled figures.

    Attributes:
        tp: Detections matched to an annotation.
        fp: Detections matched to none.
        fn: Annotations matched to none.
        distance_sum: Sum of the matched pairs' distances, in the unit given to ``score_detection``.
        distance_square_sum: Sum of their squares.
    """

    tp: int
    fp: int
    fn: int
    distance_sum: float = 0.0
    distance_square_sum: float = 0.0

    def __add__(self, other: DetectionScore) -> DetectionScore:
        return DetectionScore(
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.distance_sum + other.distance_sum,
            self.distance_square_sum + other.distance_square_sum,
        )

    @property
    def precision(self) -> float:
        """``tp / (tp + fp)``; NaN without detections."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """``tp / (tp + fn)``; NaN without annotations."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """``2 tp / (2 tp + fp + fn)``; 0 where either side alone is empty, NaN where both are."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def distance_mean(self) -> float:
        """Mean distance of the matched pairs; NaN without any."""
        return _ratio(self.distance_sum, self.tp)

    @property
    def distance_sd(self) -> float:
        """Standard deviation of the distances over all matched pairs (divisor ``tp``); NaN without any."""
        variance = _ratio(self.distance_square_sum, self.tp) - self.distance_mean**2
        return math.sqrt(max(variance, 0.0)) if self.tp else math.nan


def score_detection(matches: Matches, n_predicted: int, n_truth: int, mpp: float = 1.0) -> DetectionScore:
    """Count true and false positives and misses.

    Args:
        matches: Pairs from ``match_points``.
        n_predicted: Number of detections that were matched from.
        n_truth: Number of annotations that were matched from.
        mpp: Microns per unit of the points, for distances in um that can be pooled over slides; 1 leaves
            them in the points' own unit.

    Raises:
        ValueError: There are more pairs than points.
    """
    tp = len(matches.predicted)
    if tp > min(n_predicted, n_truth):
        raise ValueError(f"{tp} matches of {n_predicted} predicted and {n_truth} true points.")
    distance = matches.distance * mpp
    return DetectionScore(
        tp, n_predicted - tp, n_truth - tp, float(distance.sum()), float((distance**2).sum())
    )


def match_table(
    predicted: np.ndarray,
    truth: np.ndarray,
    matches: Matches,
    nucleus_id: np.ndarray,
    annotation_id: np.ndarray,
    mpp: float,
) -> pd.DataFrame:
    """One row per matched pair, false detection and missed annotation.

    Args:
        predicted: Detected points in level-0 pixels, ``(n, 2)``.
        truth: Annotated points in level-0 pixels, ``(m, 2)``.
        matches: Pairs of the two, distances in level-0 pixels.
        nucleus_id: Id of each detection in the nuclei table, integer, ``(n,)``.
        annotation_id: Place of each annotation in its file, integer, ``(m,)``.
        mpp: Microns per level-0 pixel.

    Returns:
        Columns ``kind`` (``TP``, ``FP``, ``FN``), ``x`` and ``y`` (the detection, for ``FN`` the annotation),
        ``truth_x`` and ``truth_y`` (NaN for ``FP``), ``distance_um`` (NaN but for ``TP``), ``nucleus_id``
        (missing for ``FN``) and ``annotation_id`` (missing for ``FP``), the last two Int64.
        First all ``TP``, then ``FP``, then ``FN``; the first two in the order of ``predicted``, the last of
        ``truth``.
    """
    predicted = np.asarray(predicted, np.float64).reshape(-1, 2)
    truth = np.asarray(truth, np.float64).reshape(-1, 2)
    alone = np.setdiff1d(np.arange(len(predicted)), matches.predicted)
    missed = np.setdiff1d(np.arange(len(truth)), matches.truth)
    tp, fp, fn = len(matches.predicted), len(alone), len(missed)
    detected = np.concatenate([matches.predicted, alone])
    annotated = np.concatenate([matches.truth, missed])
    position = np.concatenate([predicted[detected], truth[missed]])
    nothing = np.full((fp, 2), np.nan)
    true_position = np.concatenate([truth[matches.truth], nothing, truth[missed]])
    distance = np.concatenate([matches.distance * mpp, np.full(fp + fn, np.nan)])
    ids = pd.array(np.asarray(nucleus_id, np.int64)[detected], dtype="Int64")
    nucleus = pd.Series(ids, dtype="Int64").reindex(range(tp + fp + fn))
    where_true = np.r_[0:tp, tp + fp : tp + fp + fn]
    places = pd.array(np.asarray(annotation_id, np.int64)[annotated], dtype="Int64")
    annotation = pd.Series(places, index=where_true, dtype="Int64").reindex(range(tp + fp + fn))
    return pd.DataFrame(
        {
            "kind": np.repeat(["TP", "FP", "FN"], [tp, fp, fn]),
            "x": position[:, 0],
            "y": position[:, 1],
            "truth_x": true_position[:, 0],
            "truth_y": true_position[:, 1],
            "distance_um": distance,
            "nucleus_id": nucleus,
            "annotation_id": annotation,
        }
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
