"""What kind of errors a segmentation makes: the four rates of NB beside precision, recall and F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karyon.evaluation.counts import Additive, Rates, ratio
from karyon.evaluation.overlap import Overlap
from karyon.evaluation.segmentation_matching import match_by_dice

# An object lies in a region if more than this share of its area does.
INSIDE_SHARE = 0.5


@dataclass(frozen=True)
class SegmentationErrors(Rates, Additive):
    """Counts of one image or, added with ``+``, of several pooled.

    A rate whose denominator is 0 is NaN.

    Attributes:
        tp: Matched pairs.
        missed: MD, true nuclei that were not found.
        under_segmented: US, true nuclei without a match that lie in matched predictions.
        false: FD, predictions where no nucleus is.
        over_segmented: OS, predictions without a match that lie in matched true nuclei.
        dice_sum: Sum of the matched pairs' Dice coefficients.
    """

    tp: int
    missed: int
    under_segmented: int
    false: int
    over_segmented: int
    dice_sum: float

    @property
    def fn(self) -> int:
        """True nuclei without a match, ``missed + under_segmented``."""
        return self.missed + self.under_segmented

    @property
    def fp(self) -> int:
        """Predictions without a match, ``false + over_segmented``."""
        return self.false + self.over_segmented

    @property
    def dice(self) -> float:
        """Mean Dice coefficient of the matched pairs (NB, equation 5); NaN without any."""
        return ratio(self.dice_sum, self.tp)

    @property
    def missed_rate(self) -> float:
        """MDR, ``MD / (FN + TP)``: share of the true nuclei that were not found."""
        return ratio(self.missed, self.tp + self.fn)

    @property
    def false_rate(self) -> float:
        """FDR, ``FD / (TP + FP)``: share of the predictions where no nucleus is."""
        return ratio(self.false, self.tp + self.fp)

    @property
    def under_segmentation_rate(self) -> float:
        """USR, ``US / (FN + TP - MD)``: of the true nuclei in matched predictions, the share merged."""
        return ratio(self.under_segmented, self.tp + self.under_segmented)

    @property
    def over_segmentation_rate(self) -> float:
        """OSR, ``OS / (FP + TP - FD)``: of the predictions on true nuclei, the share in excess by splitting.

        The paper prints ``FP + TP + FD``, but what it describes there, the number of segmented nuclei in the
        region of the matched true ones, is the count with the minus.
        """
        return ratio(self.over_segmented, self.tp + self.over_segmented)


def count_errors(overlap: Overlap) -> SegmentationErrors:
    """Split misses and false positives into their two kinds each (NB, section III-A, equation 4).

    NB divides the true nuclei without a match into missing detections ("nuclei is predicted as cytoplasm")
    and under-segmentation ("multiple ground truth nuclei are detected as one nucleus, hence only one" is
    matched), and the predictions without a match into false detections ("cytoplasm is detected as nuclei")
    and over-segmentation (one nucleus "is segmented into several"). Its denominators count nuclei "in the
    region of TP".

    It does not say when a nucleus is in that region. Here it is if more than half of its area lies in
    matched predictions, and a prediction is if more than half of its area lies in matched true nuclei. So a
    nucleus in a prediction that is so large that it matches nothing counts as missed, and the prediction as
    false.
    """
    pairs = match_by_dice(overlap)
    truth_matched = np.zeros(len(overlap.truth_id), bool)
    predicted_matched = np.zeros(len(overlap.predicted_id), bool)
    truth_matched[overlap.truth[pairs]] = True
    predicted_matched[overlap.predicted[pairs]] = True
    merged = _lies_in(overlap.truth, overlap.truth_area, overlap.area * predicted_matched[overlap.predicted])
    split = _lies_in(overlap.predicted, overlap.predicted_area, overlap.area * truth_matched[overlap.truth])
    return SegmentationErrors(
        tp=len(pairs),
        missed=int((~truth_matched & ~merged).sum()),
        under_segmented=int((~truth_matched & merged).sum()),
        false=int((~predicted_matched & ~split).sum()),
        over_segmented=int((~predicted_matched & split).sum()),
        dice_sum=float(overlap.dice[pairs].sum()),
    )


def _lies_in(rows: np.ndarray, areas: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Whether the pairs' areas ``inside`` make up more than half of each object, bool, ``(n,)``."""
    return np.bincount(rows, weights=inside, minlength=len(areas)) > INSIDE_SHARE * areas
