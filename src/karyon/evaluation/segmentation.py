"""Segmentation figures from the overlap table: Dice, object Dice, AJI, AJI+, panoptic quality, F1.

Every score holds the sums that its figure is the quotient of. Added with ``+``, scores of several images
give the pooled (micro) figure, in which a large or crowded image weighs more; the mean of the figures over
images (macro) is what most papers print. An image without any object adds nothing to a pool, and its own
figures are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karyon.evaluation.counts import Additive, Rates, ratio
from karyon.evaluation.overlap import Overlap, best_pairs
from karyon.evaluation.segmentation_matching import heaviest_pairs, match_by_iou

IOU_SWEEP = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True)
class DiceScore(Additive):
    """Foreground against foreground.

    Attributes:
        intersection: Area in the foreground of both.
        total: Sum of both foregrounds' areas.
    """

    intersection: float
    total: float

    @property
    def dice(self) -> float:
        """``2 |P and T| / (|P| + |T|)``; 0 where one side alone is empty, NaN where both are."""
        return ratio(2 * self.intersection, self.total)


@dataclass(frozen=True)
class ObjectDiceScore(Additive):
    """Dice coefficients of the objects of both sides, each weighted by its object's area.

    Attributes:
        predicted_sum: Sum over predicted objects of area times Dice with the partner.
        predicted_area: Sum of their areas.
        truth_sum: The same over true objects.
        truth_area: Sum of their areas.
    """

    predicted_sum: float
    predicted_area: float
    truth_sum: float
    truth_area: float

    @property
    def object_dice(self) -> float:
        """Mean of both sides' weighted means; 0 where one side alone is empty, NaN where both are."""
        if not self.predicted_area or not self.truth_area:
            return ratio(0.0, self.predicted_area + self.truth_area)
        return (self.predicted_sum / self.predicted_area + self.truth_sum / self.truth_area) / 2


@dataclass(frozen=True)
class AggregatedJaccard(Additive):
    """An aggregated Jaccard index, AJI or AJI+.

    Attributes:
        intersection: Sum of the paired objects' common areas.
        union: Sum of their unions and of the areas of all objects without a partner.
    """

    intersection: float
    union: float

    @property
    def index(self) -> float:
        """``intersection / union``; 0 where one side alone is empty, NaN where both are."""
        return ratio(self.intersection, self.union)


@dataclass(frozen=True)
class InstanceScore(Rates, Additive):
    """Counts of one-to-one matched objects, and how well the matched ones overlap.

    ``f1``, ``mean_iou`` and ``panoptic_quality`` are DQ, SQ and PQ if the objects were matched at an IoU
    above 0.5.

    Attributes:
        tp: Predicted objects matched to a true one.
        fp: Predicted objects matched to none.
        fn: True objects matched to none.
        iou_sum: Sum of the matched pairs' intersections over unions.
    """

    tp: int
    fp: int
    fn: int
    iou_sum: float

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union of the matched pairs, SQ; NaN without any."""
        return ratio(self.iou_sum, self.tp)

    @property
    def panoptic_quality(self) -> float:
        """``iou_sum / (tp + fp / 2 + fn / 2)``, PQ; 0 without a match, NaN where both sides are empty."""
        return ratio(2 * self.iou_sum, 2 * self.tp + self.fp + self.fn)


def score_dice(overlap: Overlap) -> DiceScore:
    """Dice coefficient of the two foregrounds (Dice 1945), in pixels or, from polygons, in areas.

    Objects of a side must not overlap each other, or their common area counts twice.
    """
    return DiceScore(
        float(overlap.area.sum()), float(overlap.predicted_area.sum() + overlap.truth_area.sum())
    )


def score_object_dice(overlap: Overlap) -> ObjectDiceScore:
    """Object-level Dice index of the GlaS contest (Sirinukunwattana et al. 2017), used by JOINT.

    The partner of an object, predicted or true, is the object of the other side with which it has the
    largest area in common, of equals the one with the smaller id. Partners may be shared. Without a partner
    the Dice is 0.
    """
    dice = overlap.dice

    def weighted_sum(rows: np.ndarray, areas: np.ndarray) -> float:
        best = best_pairs(rows, overlap.area)
        return float((areas[rows[best]] * dice[best]).sum())

    return ObjectDiceScore(
        weighted_sum(overlap.predicted, overlap.predicted_area),
        float(overlap.predicted_area.sum()),
        weighted_sum(overlap.truth, overlap.truth_area),
        float(overlap.truth_area.sum()),
    )


def score_aji(overlap: Overlap) -> AggregatedJaccard:
    """Aggregated Jaccard index (Kumar et al. 2017, algorithm 1), the one that CGAN reports.

    Each true object takes the prediction of the largest Jaccard index with it; a prediction is marked as
    used but not taken away, so several true objects may take it, and it enters the union each time. A true
    object that nothing overlaps adds its area to the union, and so does every prediction that none has
    taken.

    Published code varies. The authors' first script took a used prediction away, so that the result hung on
    the order, and charged a true object without overlap with the prediction of id 1; their script of July
    2018 does as the paper, and so do we and the HoVer-Net repository. Of equal indices the one with the
    larger common area is taken (as HoVer-Net's 1e-6 in the denominator has it), then the one with the
    smaller id.
    """
    return _aggregate(overlap, best_pairs(overlap.truth, overlap.iou, overlap.area))


def score_aji_plus(overlap: Overlap) -> AggregatedJaccard:
    """AJI+ (Graham et al. 2019, HoVer-Net, and its repository): the pairing is one-to-one.

    Pairs are the assignment with the largest sum of Jaccard indices, among objects that overlap. Every object
    without a partner, predicted or true, adds its area to the union. Between assignments of an equal sum the
    choice is arbitrary but always the same.
    """
    return _aggregate(overlap, heaviest_pairs(overlap, overlap.iou))


def score_instances(overlap: Overlap, pairs: np.ndarray) -> InstanceScore:
    """Count true and false positives and misses.

    Args:
        overlap: The table.
        pairs: One-to-one, indices of the table's pairs, from one of the ``match_by_...`` functions.
    """
    tp = len(pairs)
    n_predicted, n_truth = len(overlap.predicted_id), len(overlap.truth_id)
    return InstanceScore(tp, n_predicted - tp, n_truth - tp, float(overlap.iou[pairs].sum()))


def score_panoptic(overlap: Overlap) -> InstanceScore:
    """Panoptic quality of one class, matched at an IoU above 0.5 (Kirillov et al. 2019, section 4.2)."""
    return score_instances(overlap, match_by_iou(overlap))


def sweep_iou(overlap: Overlap) -> tuple[InstanceScore, ...]:
    """Scores with matches above each IoU of ``IOU_SWEEP``: 0.5, 0.55 to 0.95."""
    return tuple(score_instances(overlap, match_by_iou(overlap, threshold)) for threshold in IOU_SWEEP)


def _aggregate(overlap: Overlap, pairs: np.ndarray) -> AggregatedJaccard:
    """Intersection and union of some pairs, with the areas of the objects that are in none of them."""
    alone, missed = np.ones(len(overlap.predicted_id), bool), np.ones(len(overlap.truth_id), bool)
    alone[overlap.predicted[pairs]] = False
    missed[overlap.truth[pairs]] = False
    union = (
        overlap.union[pairs].sum() + overlap.predicted_area[alone].sum() + overlap.truth_area[missed].sum()
    )
    return AggregatedJaccard(float(overlap.area[pairs].sum()), float(union))
