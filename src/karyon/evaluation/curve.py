"""Precision and recall at every threshold of confidence, in one pass, and the threshold of best F1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numba import njit

from karyon.evaluation.matching import gate_graph


@dataclass(frozen=True)
class DetectionCurve:
    """Counts of one image or, pooled, of several, with the detections of at least each threshold.

    Figures without a denominator are NaN as in ``DetectionScore``: recall without truth. A curve without
    detections has no thresholds.

    Attributes:
        threshold: Every confidence that occurs, float64, ``(k,)``, falling.
        detected: Detections of at least that confidence, int64, ``(k,)``.
        tp: True positives among them, int64, ``(k,)``: as many as ``match_points`` finds there.
        n_truth: Number of annotations.
    """

    threshold: np.ndarray
    detected: np.ndarray
    tp: np.ndarray
    n_truth: int

    @property
    def precision(self) -> np.ndarray:
        """``tp / detected``, float64, ``(k,)``."""
        return self.tp / self.detected

    @property
    def recall(self) -> np.ndarray:
        """``tp / n_truth``, float64, ``(k,)``; NaN without truth."""
        return self.tp / self.n_truth if self.n_truth else np.full(len(self.tp), np.nan)

    @property
    def f1(self) -> np.ndarray:
        """``2 tp / (detected + n_truth)``, float64, ``(k,)``."""
        return 2 * self.tp / (self.detected + self.n_truth)

    @property
    def average_precision(self) -> float:
        """Area under the interpolated curve, over all its points, as in PASCAL VOC since 2010.

        The precision at a recall is the best of any threshold that reaches this recall or more; beyond the
        largest recall reached it is 0. NaN without truth, 0 with truth and no detection.
        """
        if not self.n_truth:
            return math.nan
        best_from_here = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.diff(self.recall, prepend=0.0) @ best_from_here)

    @property
    def best_threshold(self) -> float:
        """The threshold of largest F1, of several the highest; NaN where no threshold has a true positive.

        On the pooled curve of the validation images this is how MICRONET sets xi and how a threshold such as
        SWITCH's 0.35 is found.
        """
        return float(self.threshold[np.argmax(self.f1)]) if self.tp.any() else math.nan

    def table(self) -> pd.DataFrame:
        """One row per threshold: ``threshold, tp, fp, fn, precision, recall, f1``."""
        return pd.DataFrame(
            {
                "threshold": self.threshold,
                "tp": self.tp,
                "fp": self.detected - self.tp,
                "fn": self.n_truth - self.tp,
                "precision": self.precision,
                "recall": self.recall,
                "f1": self.f1,
            }
        )


def detection_curve(
    predicted: np.ndarray, confidence: np.ndarray, truth: np.ndarray, radius: float
) -> DetectionCurve:
    """Match at every threshold at once.

    Detections enter in falling order of confidence. The sets of detections that can all be matched at the
    same time form a matroid (Edmonds and Fulkerson 1965), so one that finds no augmenting path when it
    enters will never find one, and the number that did is the size of the largest matching at that point.

    The curve thins out one given set of detections. For local maxima that is what another threshold would
    find. Nuclei from components of a thresholded map are another matter: the curve starts at the threshold
    of that map, and a map cut at a higher one has other components (they shrink and fall apart), so its
    nuclei are not a subset of these.

    Args:
        predicted: Detected points, ``(n, 2)``, any unit.
        confidence: Of each detection, ``(n,)``, any scale; equal values are one threshold. For MICRONET's xi,
            the value divided by the image's or slide's largest.
        truth: Annotated points, ``(m, 2)``, in the same unit.
        radius: Largest distance of a pair, inclusive, > 0, in the same unit.

    Raises:
        ValueError: A confidence is not finite, there is not one for each detection, or ``match_points`` would
            refuse the rest.
    """
    gate = gate_graph(predicted, truth, radius)
    confidence = np.asarray(confidence, np.float64)
    if confidence.shape != gate.predicted.shape:
        raise ValueError(f"confidence has shape {confidence.shape}; expected ({len(gate.predicted)},).")
    if not np.isfinite(confidence).all():
        raise ValueError(f"confidence is not finite in row {np.flatnonzero(~np.isfinite(confidence))[0]}.")
    confidence = confidence[gate.predicted]
    order = np.argsort(-confidence, kind="stable")
    tp = np.cumsum(_enter(gate.start, gate.column, len(gate.truth), order))
    falling = confidence[order]
    last_of_tie = np.flatnonzero(np.append(np.diff(falling) < 0, True)[: len(order)])
    return DetectionCurve(falling[last_of_tie], last_of_tie + 1, tp[last_of_tie], len(gate.truth))


def pool_curves(curves: Sequence[DetectionCurve]) -> DetectionCurve:
    """The curve of several images together: counts added at every threshold that any of them has."""
    nothing = np.empty(0)
    threshold, index = np.unique(
        np.concatenate([nothing, *(-curve.threshold for curve in curves)]), return_inverse=True
    )

    def added(counts: list[np.ndarray]) -> np.ndarray:
        steps = np.concatenate([nothing, *(np.diff(count, prepend=0) for count in counts)])
        return np.cumsum(np.bincount(index, steps, len(threshold))).astype(np.int64)

    return DetectionCurve(
        -threshold,
        added([curve.detected for curve in curves]),
        added([curve.tp for curve in curves]),
        sum(curve.n_truth for curve in curves),
    )


@njit(cache=True, nogil=True)
def _enter(start: np.ndarray, column: np.ndarray, n_columns: int, order: np.ndarray) -> np.ndarray:
    """Let rows of the gate graph enter one after the other; 1 for each that could be matched, else 0."""
    n_rows = len(order)
    gained = np.zeros(n_rows, np.int64)
    taken = np.full(n_rows, -1)  # column of each row
    owner = np.full(n_columns, -1)  # row of each column
    via = np.empty(n_columns, np.int64)  # row from which a column was reached
    seen = np.full(n_columns, -1)  # turn at which it was last reached, n_rows for never again
    queue = np.empty(n_rows, np.int64)
    for turn in range(n_rows):
        queue[0] = order[turn]
        head, tail, end = 0, 1, -1
        while head < tail and end < 0:
            row = queue[head]
            head += 1
            for pair in range(start[row], start[row + 1]):
                there = column[pair]
                if seen[there] >= turn:
                    continue
                seen[there], via[there] = turn, row
                if owner[there] < 0:
                    end = there
                    break
                queue[tail] = owner[there]
                tail += 1
        if end < 0:
            # No path out of the columns reached: no later search needs to enter them.
            for row in queue[1:tail]:
                seen[taken[row]] = n_rows
            continue
        gained[turn] = 1
        while end >= 0:
            row = via[end]
            owner[end], taken[row], end = row, end, taken[row]
    return gained
