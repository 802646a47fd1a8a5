"""How outlines are best read from a network's maps, by validation images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from torch import nn

from karyon.evaluation.overlap import overlap_of_maps
from karyon.evaluation.segmentation import AggregatedJaccard, InstanceScore, score_aji, score_panoptic
from karyon.models.card import Decoding
from karyon.nuclei.instances import label_map
from karyon.nuclei.labels import drop_small
from karyon.training.data import TrainingImage
from karyon.training.experiment import Experiment
from karyon.training.prediction import predict_maps
from karyon.training.targets import BOUNDARY_PX

# Probabilities of a nucleus and values of the distance from which on it is a marker, of ``watershed``.
THRESHOLDS = (0.35, 0.4, 0.45, 0.5, 0.55)
MARKER_THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
# Of the insides, for ``dilation``: NB's (section II-C5), and of JOINT, which is silent on it.
INSIDE_THRESHOLD = 0.5
INSIDE_THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
MIN_AREAS_UM2 = (0.0, 3.0, 6.0, 9.0)


@dataclass(frozen=True)
class OutlineScore:
    """Scores of the outlines in several images.

    Attributes:
        panoptic: Of each image, matched at an IoU above 0.5.
        jaccard: Of each image, the aggregated Jaccard index.
    """

    panoptic: tuple[InstanceScore, ...] = ()
    jaccard: tuple[AggregatedJaccard, ...] = ()

    def __add__(self, other: OutlineScore) -> OutlineScore:
        return OutlineScore(self.panoptic + other.panoptic, self.jaccard + other.jaccard)

    @property
    def f1(self) -> float:
        """Of all nuclei together, matched at an IoU above 0.5."""
        return sum(self.panoptic, InstanceScore(0, 0, 0, 0.0)).f1

    @property
    def aji(self) -> float:
        """Mean of the images' aggregated Jaccard indices; one with nothing to find nor found has none."""
        return float(np.nanmean([score.index for score in self.jaccard]))

    @property
    def panoptic_quality(self) -> float:
        """Mean of the images' panoptic qualities; one with nothing to find nor found has none."""
        return float(np.nanmean([score.panoptic_quality for score in self.panoptic]))


def choose_outlines(
    network: nn.Module, images: Sequence[TrainingImage], experiment: Experiment
) -> tuple[Decoding, OutlineScore]:
    """The reading of maps with the largest sum of mean AJI and mean PQ, on the model's grid.

    For ``watershed`` the thresholds of nuclei and markers and the smallest area are chosen, for ``dilation``
    the threshold and the smallest area, of NB's maps the area alone: the threshold is the paper's. Insides
    grow back by the width of the boundary that the target took away.

    Args:
        network: What was trained.
        images: Validation images, with at least one nucleus among them.
        experiment: Says which of the two, and what the network takes and gives.

    Returns:
        The choice and its score on the images.
    """
    totals: dict[Decoding, OutlineScore] = defaultdict(OutlineScore)
    for image in images:
        assert image.instances is not None  # those of an experiment that finds outlines have them
        maps = predict_maps(network, image, experiment)
        for decoding, labels in outline_readings(maps, experiment):
            overlap = overlap_of_maps(labels, image.instances)
            totals[decoding] += OutlineScore((score_panoptic(overlap),), (score_aji(overlap),))
    best = max(totals, key=lambda decoding: totals[decoding].aji + totals[decoding].panoptic_quality)
    return best, totals[best]


def outline_readings(maps: np.ndarray, experiment: Experiment) -> Iterator[tuple[Decoding, np.ndarray]]:
    """Everything that may be chosen, and the nuclei that it finds in one image's maps, int32, ``(h, w)``."""
    names, mpp = experiment.maps, experiment.mpp
    if experiment.decoding == "dilation":
        boundary = experiment.target_arguments.get("boundary_px", BOUNDARY_PX)
        thresholds = (INSIDE_THRESHOLD,) if "boundary" in names else INSIDE_THRESHOLDS
        for threshold, area in product(thresholds, MIN_AREAS_UM2):
            decoding = Decoding("dilation", threshold, min_area_um2=area, dilation_um=boundary * mpp)
            yield decoding, label_map(maps, decoding, names, mpp)
        return
    for threshold, marker in product(THRESHOLDS, MARKER_THRESHOLDS):
        decoding = Decoding("watershed", threshold, marker_threshold=marker)
        labels = label_map(maps, decoding, names, mpp)
        for area in MIN_AREAS_UM2:  # it is the last step, so from one area to the next more goes
            drop_small(labels, area / mpp**2)
            yield replace(decoding, min_area_um2=area), labels
