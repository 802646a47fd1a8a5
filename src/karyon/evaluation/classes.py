"""Detection figures of each class, by two rules, and the confusion of classes.

*Strict*: each class is matched on its own, as if the others did not exist, so a neighbour of another class
never takes an annotation away. It answers how well nuclei of a class are found, as is asked of mitotic
figures in MIDOG; panoptic quality per class in PanNuke and CoNIC is of this kind.

*Detection first*: nuclei are matched without regard to their class, which is then compared over the pairs. A
pair of different classes is a false detection of the one and a miss of the other. It answers what becomes of
a nucleus that was found: CoNSeP's evaluation (HoVer-Net, Graham et al. 2019), here with all weights 1, and
the class accuracy of JOINT.

Strict true positives are never fewer: the pairs that agree under detection first are within the gate of
their class too.

Partial labels are normal. An annotation without a class (``UNLABELLED``) is a nucleus like any other when it
comes to detection, and counts for no class: it is no miss of any, and a detection paired with it is neither
right nor wrong. Under the strict rule, detections that found none of their own class are paired with these.
"""

from __future__ import annotations

import math

import numpy as np

from karyon.evaluation.detection import DetectionScore, score_detection
from karyon.evaluation.matching import Matches, match_points

# Class of an annotation that has none.
UNLABELLED = -1


def score_strict(
    predicted: np.ndarray,
    truth: np.ndarray,
    predicted_class: np.ndarray,
    true_class: np.ndarray,
    n_classes: int,
    radius: float,
    mpp: float = 1.0,
) -> tuple[DetectionScore, ...]:
    """One score per class, each class matched on its own.

    Args:
        predicted: Detected points, ``(n, 2)``, any unit.
        truth: Annotated points, ``(m, 2)``, in the same unit.
        predicted_class: Of each detection, integer, ``(n,)``, 0 to ``n_classes - 1``.
        true_class: Of each annotation, integer, ``(m,)``, the same or ``UNLABELLED``.
        n_classes: Number of classes, whether or not they occur.
        radius: Largest distance of a pair, inclusive, > 0, in the points' unit.
        mpp: Microns per unit of the points, for distances in um.

    Raises:
        ValueError: A class is out of range or missing, or ``match_points`` refuses the points.
    """
    predicted, truth = np.reshape(predicted, (-1, 2)), np.reshape(truth, (-1, 2))
    predicted_class = _checked(predicted_class, "predicted_class", len(predicted), 0, n_classes)
    true_class = _checked(true_class, "true_class", len(truth), UNLABELLED, n_classes)
    found = []
    alone = np.ones(len(predicted), bool)
    for name in range(n_classes):
        rows = np.flatnonzero(predicted_class == name)
        matches = match_points(predicted[rows], truth[true_class == name], radius)
        alone[rows[matches.predicted]] = False
        found.append(matches)
    excused = match_points(predicted[alone], truth[true_class == UNLABELLED], radius).predicted
    n_excused = np.bincount(predicted_class[alone][excused], minlength=n_classes)
    n_predicted = np.bincount(predicted_class, minlength=n_classes) - n_excused
    return tuple(
        score_detection(found[name], int(n_predicted[name]), int((true_class == name).sum()), mpp)
        for name in range(n_classes)
    )


def score_detection_first(
    matches: Matches,
    predicted_class: np.ndarray,
    true_class: np.ndarray,
    n_classes: int,
    mpp: float = 1.0,
) -> tuple[DetectionScore, ...]:
    """One score per class from pairs that were matched without classes.

    F1 is HoVer-Net's F_c with all weights 1 instead of 2, 2, 1, 1, which makes it the harmonic mean of the
    class's precision and recall.

    Args:
        matches: Pairs from ``match_points`` on all points.
        predicted_class: As for ``score_strict``.
        true_class: As for ``score_strict``.
        n_classes: As for ``score_strict``.
        mpp: As for ``score_strict``.

    Raises:
        ValueError: A class is out of range or missing.
    """
    predicted_class = _checked(predicted_class, "predicted_class", None, 0, n_classes)
    true_class = _checked(true_class, "true_class", None, UNLABELLED, n_classes)
    said, meant = predicted_class[matches.predicted], true_class[matches.truth]
    scores = []
    for name in range(n_classes):
        right = (said == name) & (meant == name)
        excused = (said == name) & (meant == UNLABELLED)
        pairs = Matches(matches.predicted[right], matches.truth[right], matches.distance[right])
        n_predicted = int((predicted_class == name).sum() - excused.sum())
        scores.append(score_detection(pairs, n_predicted, int((true_class == name).sum()), mpp))
    return tuple(scores)


def class_confusion(
    matches: Matches, predicted_class: np.ndarray, true_class: np.ndarray, n_classes: int
) -> np.ndarray:
    """What became of each class; add the matrices of several images to pool them.

    Args:
        matches: Pairs from ``match_points`` on all points, without regard to classes.
        predicted_class: As for ``score_strict``.
        true_class: As for ``score_strict``.
        n_classes: As for ``score_strict``.

    Returns:
        Counts, int64, ``(n_classes + 1, n_classes + 1)``, true class by predicted class. The last row holds
        false detections, the last column misses, the last element 0. Annotations without a class, and
        detections paired with them, are in no element.

    Raises:
        ValueError: A class is out of range or missing.
    """
    predicted_class = _checked(predicted_class, "predicted_class", None, 0, n_classes)
    true_class = _checked(true_class, "true_class", None, UNLABELLED, n_classes)
    pairs = np.stack([true_class[matches.truth], predicted_class[matches.predicted]])
    false = np.delete(predicted_class, matches.predicted)
    missed = np.delete(true_class, matches.truth)
    confusion = np.zeros((n_classes + 1, n_classes + 1), np.int64)
    np.add.at(confusion, tuple(pairs[:, pairs[0] != UNLABELLED]), 1)
    confusion[-1, :-1] = np.bincount(false, minlength=n_classes)
    confusion[:-1, -1] = np.bincount(missed[missed != UNLABELLED], minlength=n_classes)
    return confusion


def class_accuracy(confusion: np.ndarray) -> float:
    """Share of pairs whose classes agree (JOINT, table 2); NaN without a pair.

    Args:
        confusion: From ``class_confusion``, of one image or added up.
    """
    pairs = confusion[:-1, :-1]
    return float(np.trace(pairs) / pairs.sum()) if pairs.any() else math.nan


def _checked(values: np.ndarray, name: str, length: int | None, lowest: int, n_classes: int) -> np.ndarray:
    values = np.asarray(values)
    if values.size == 0:
        values = values.reshape(-1).astype(np.int64)
    if values.ndim != 1 or (length is not None and len(values) != length):
        expected = "n" if length is None else length
        raise ValueError(f"{name} has shape {values.shape}; expected ({expected},).")
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name} is {values.dtype}; expected integers, {UNLABELLED} for none.")
    bad = np.flatnonzero((values < lowest) | (values >= n_classes))
    if bad.size:
        raise ValueError(f"{name} is {values[bad[0]]} in row {bad[0]}; expected {lowest} to {n_classes - 1}.")
    return values
