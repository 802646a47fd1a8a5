"""How nuclei are best read from a network's maps, by validation images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from torch import nn

from karyon.errors import KaryonError
from karyon.evaluation.detection import DetectionScore, score_detection
from karyon.evaluation.matching import match_points
from karyon.io.annotations import instance_points
from karyon.models.card import Decoding, model_folder, read_card
from karyon.nuclei.components import Components
from karyon.nuclei.decode import decode, map_threshold
from karyon.training.data import TrainingImage
from karyon.training.experiment import Experiment
from karyon.training.outline_choice import OutlineScore, choose_outlines, outline_readings
from karyon.training.prediction import predict_maps

Score: TypeAlias = DetectionScore | OutlineScore
# Of components, a probability and um2; of peaks, MICRONET's xi and um.
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(4, 18))
MIN_AREAS_UM2 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
SHARES = tuple(round(0.05 * k, 2) for k in range(1, 20))
DISTANCES_UM = (1.0, 1.5, 2.0, 2.5, 3.0)
PAPER_THRESHOLD, TOLERANCE = 0.35, 0.005
RADIUS_UM = 4.0


def choose_decoding(
    network: nn.Module, images: Sequence[TrainingImage], experiment: Experiment
) -> tuple[Decoding, Score]:
    """The reading of maps with the best pooled F1, decoded and matched as in the slide workflow.

    Outlines have :func:`choose_outlines`, by the images in which they are annotated; where no nucleus has
    one, outlines are read as finds the centres best. For ``components`` the threshold and the smallest area
    are chosen. On a few validation images F1 is flat over most thresholds, and its maximum is chance. So of
    all choices within ``TOLERANCE`` of the best, the threshold nearest to the SWITCH paper's 0.35 is taken,
    with the area that suits it best. For ``peaks`` it is MICRONET's xi with the best F1, and the distance; of
    equal ones the lowest and nearest.

    Args:
        network: What was trained.
        images: Validation images, with at least one nucleus among them; or none, where the experiment names
            a model whose decoding it takes.
        experiment: Says which of them, and what the network takes and gives.

    Returns:
        The choice and its pooled score on the images, without any of nothing.
    """
    if experiment.decoding_of is not None:
        return decoding_of(experiment.decoding_of, experiment), DetectionScore(0, 0, 0)
    if any(image.instances is not None and image.instances.any() for image in images):
        outlined = [image for image in images if image.instances is not None]
        return choose_outlines(network, outlined, experiment)
    totals: dict[Decoding, DetectionScore] = defaultdict(lambda: DetectionScore(0, 0, 0))
    for image in images:
        maps = predict_maps(network, image, experiment)
        readings = _outlines_found if experiment.finds_outlines else _centres_found
        for decoding, found in readings(maps, experiment):
            points = image.grid.to_level0(found)
            matches = match_points(points, image.truth, RADIUS_UM / image.mpp)
            totals[decoding] += score_detection(matches, len(points), len(image.truth), image.mpp)
    best = max(totals, key=lambda decoding: totals[decoding].f1)
    if experiment.decoding == "components":
        enough = totals[best].f1 - TOLERANCE
        close = [decoding for decoding, score in totals.items() if score.f1 >= enough]
        best = min(close, key=lambda one: (abs(one.threshold - PAPER_THRESHOLD), -totals[one].f1))
    return best, totals[best]


def decoding_of(model: str, experiment: Experiment) -> Decoding:
    """The decoding of a model's card.

    Raises:
        KaryonError: There is no such model, or it reads maps in another way than the experiment's.
    """
    decoding = read_card(model_folder(model)).decoding
    if decoding.method != experiment.decoding:
        raise KaryonError(
            f"decoding_of: {model} is read by {decoding.method}, the experiment is by {experiment.decoding}"
        )
    return decoding


def _outlines_found(maps: np.ndarray, experiment: Experiment) -> Iterator[tuple[Decoding, np.ndarray]]:
    """Everything that may be chosen of outlines, and the centroids that it finds in model pixels."""
    for decoding, labels in outline_readings(maps, experiment):
        yield decoding, instance_points(labels)


def _centres_found(maps: np.ndarray, experiment: Experiment) -> Iterator[tuple[Decoding, np.ndarray]]:
    """Everything that may be chosen of centres, and the centres that it finds in model pixels."""
    for decoding, found in _readings(maps[0], experiment):
        yield decoding, np.stack([found.x, found.y], axis=1)


def _readings(values: np.ndarray, experiment: Experiment) -> Iterator[tuple[Decoding, Components]]:
    """Everything that may be chosen, and what it finds in one image's map."""
    maximum = int(values.max())
    if experiment.decoding == "components":
        for threshold in THRESHOLDS:
            decoding = Decoding("components", threshold)
            found = decode(values, decoding, maximum, experiment.mpp)
            for area in MIN_AREAS_UM2:
                large = found.area * experiment.mpp**2 >= area
                yield replace(decoding, min_area_um2=area), found.select(large)
        return
    for distance in DISTANCES_UM:
        decoding = Decoding("peaks", SHARES[0], distance_um=distance)
        # A peak is higher than all that is near, so a higher threshold only takes peaks away.
        found = decode(values, decoding, maximum, experiment.mpp)
        for share in SHARES:
            stricter = replace(decoding, threshold=share)
            yield stricter, found.select(found.peak >= map_threshold(stricter, maximum))
