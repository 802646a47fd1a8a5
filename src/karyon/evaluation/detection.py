"""Detection figures from matched points: precision, recall, F1, distance, and the table behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from karyon.evaluation.counts import Additive, Rates, ratio
from karyon.evaluation.matching import Matches


@dataclass(frozen=True)
class DetectionScore(Rates, Additive):
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

    @property
    def distance_mean(self) -> float:
        """Mean distance of the matched pairs; NaN without any."""
        return ratio(self.distance_sum, self.tp)

    @property
    def distance_sd(self) -> float:
        """Standard deviation of the distances over all matched pairs (divisor ``tp``); NaN without any."""
        variance = ratio(self.distance_square_sum, self.tp) - self.distance_mean**2
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


class Side(NamedTuple):
    """The points of one side of a comparison, for the match table.

    Attributes:
        points: In level-0 pixels, ``(n, 2)``.
        ids: Integer, ``(n,)``: of detections the ``nucleus_id``, of annotations the place in their file.
        class_name: Name of each point's class, '' where it has none, ``(n,)``.
    """

    points: np.ndarray
    ids: np.ndarray
    class_name: Sequence[str] | np.ndarray


def match_table(predicted: Side, truth: Side, matches: Matches, mpp: float) -> pd.DataFrame:
    """One row per matched pair, false detection and missed annotation.

    Args:
        predicted: The detections.
        truth: The annotations.
        matches: Pairs of the two, distances in level-0 pixels.
        mpp: Microns per level-0 pixel.

    Returns:
        Columns ``kind`` (``TP``, ``FP``, ``FN``), ``x`` and ``y`` (the detection, for ``FN`` the annotation),
        ``truth_x`` and ``truth_y`` (NaN for ``FP``), ``distance_um`` (NaN but for ``TP``), ``nucleus_id``
        (missing for ``FN``) and ``annotation_id`` (missing for ``FP``), both Int64, ``class_name`` of the
        detection and ``truth_class`` of the annotation ('' where there is none).
        First all ``TP``, then ``FP``, then ``FN``; the first two in the order of ``predicted``, the last of
        ``truth``.
    """
    alone = np.setdiff1d(np.arange(len(predicted.ids)), matches.predicted)
    missed = np.setdiff1d(np.arange(len(truth.ids)), matches.truth)
    tp, fp, fn = len(matches.predicted), len(alone), len(missed)
    rows = np.arange(tp + fp + fn)
    found = _columns(predicted, np.concatenate([matches.predicted, alone]), rows[: tp + fp], rows)
    real = _columns(
        truth, np.concatenate([matches.truth, missed]), np.delete(rows, np.s_[tp : tp + fp]), rows
    )
    return pd.DataFrame(
        {
            "kind": np.repeat(["TP", "FP", "FN"], [tp, fp, fn]),
            "x": found["x"].fillna(real["x"]),
            "y": found["y"].fillna(real["y"]),
            "truth_x": real["x"],
            "truth_y": real["y"],
            "distance_um": np.concatenate([matches.distance * mpp, np.full(fp + fn, np.nan)]),
            "nucleus_id": found["id"],
            "annotation_id": real["id"],
            "class_name": found["class"].fillna(""),
            "truth_class": real["class"].fillna(""),
        }
    )


def _columns(side: Side, which: np.ndarray, at: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """Points ``which`` of a side in the rows ``at``; the other rows are missing."""
    x, y = np.asarray(side.points, np.float64).reshape(-1, 2)[which].T
    present = pd.DataFrame(
        {
            "x": x,
            "y": y,
            "id": pd.array(np.asarray(side.ids, np.int64)[which], dtype="Int64"),
            "class": pd.Series(np.asarray(side.class_name, object)[which], dtype=str, index=at),
        },
        index=at,
    )
    return present.reindex(rows)
