"""Every figure of one prediction against its truth: of points, of classes and of areas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from shapely.geometry.base import BaseGeometry

from karyon.evaluation.areas import Areas, DrawnAreas, PaintedAreas, restrict_areas
from karyon.evaluation.classes import (
    UNLABELLED,
    class_accuracy,
    class_confusion,
    score_detection_first,
    score_strict,
)
from karyon.evaluation.curve import DetectionCurve, detection_curve
from karyon.evaluation.detection import DetectionScore, Side, match_table, score_detection
from karyon.evaluation.hausdorff import (
    ForegroundDistance,
    ObjectHausdorffScore,
    foreground_distance,
    score_object_hausdorff,
)
from karyon.evaluation.matching import match_points
from karyon.evaluation.overlap import Overlap, overlap_of_maps
from karyon.evaluation.region import Region, Restricted, restrict
from karyon.evaluation.segmentation import (
    AggregatedJaccard,
    DiceScore,
    InstanceScore,
    ObjectDiceScore,
    score_aji,
    score_aji_plus,
    score_dice,
    score_instances,
    score_object_dice,
    sweep_iou,
)
from karyon.evaluation.segmentation_errors import SegmentationErrors, count_errors
from karyon.evaluation.segmentation_matching import match_by_truth_share

# Class of a detection without one, where others have one.
NO_CLASS = "(none)"


@dataclass(frozen=True)
class Nuclei:
    """One side of a comparison. Both sides are in the same pixels, pixel centres at integers.

    Attributes:
        points: Centroids, x and y, float64, ``(n, 2)``.
        class_name: Class of each, ``None`` where it has none.
        nucleus_id: Number of each by which its file knows it, int64, ``(n,)``.
        confidence: Of each, float64, ``(n,)``; ``None`` where the file has none.
        instances: The map that they come from, int32, ``(h, w)``, 0 = background; ``None`` without one.
        outlines: Valid areas, in the order of the points; ``None`` without them.
    """

    points: np.ndarray
    class_name: tuple[str | None, ...]
    nucleus_id: np.ndarray
    confidence: np.ndarray | None = None
    instances: np.ndarray | None = None
    outlines: tuple[BaseGeometry, ...] | None = None


@dataclass(frozen=True)
class ClassScores:
    """Figures of each class.

    Attributes:
        names: The classes of either side, sorted; last ``NO_CLASS`` if a detection has none.
        strict: One score per class, each class matched on its own.
        detection_first: One score per class from pairs that were matched without classes.
        confusion: As from ``class_confusion``.
    """

    names: tuple[str, ...]
    strict: tuple[DetectionScore, ...]
    detection_first: tuple[DetectionScore, ...]
    confusion: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of pairs whose classes agree; NaN without a pair."""
        return class_accuracy(self.confusion)


@dataclass(frozen=True)
class PointScores:
    """Figures of the points at one radius.

    Attributes:
        counted: Detections and annotations that count, and their pairs.
        detection: Counts and distances.
        curve: Counts at every confidence; ``None`` where detections have none.
        classes: ``None`` where no class occurs on both sides.
    """

    counted: Restricted
    detection: DetectionScore
    curve: DetectionCurve | None
    classes: ClassScores | None


@dataclass(frozen=True)
class AreaScores:
    """Figures of the areas.

    Attributes:
        n_predicted: Number of predicted objects.
        n_truth: Number of true objects.
        dice: Of the two foregrounds.
        object_dice: Of objects, weighted by area.
        aji: Aggregated Jaccard index.
        aji_plus: The same with one-to-one pairs.
        sweep: Scores above each IoU of ``IOU_SWEEP``; the first is panoptic quality's.
        truth_share: Score of JOINT's matches.
        errors: NB's kinds of errors.
        foreground: Distances of the foregrounds of two maps; ``None`` with outlines or a region.
        object_hausdorff: Distances of the objects of two maps; ``None`` likewise.
    """

    n_predicted: int
    n_truth: int
    dice: DiceScore
    object_dice: ObjectDiceScore
    aji: AggregatedJaccard
    aji_plus: AggregatedJaccard
    sweep: tuple[InstanceScore, ...]
    truth_share: InstanceScore
    errors: SegmentationErrors
    foreground: ForegroundDistance | None
    object_hausdorff: ObjectHausdorffScore | None


def score_points(
    predicted: Nuclei, truth: Nuclei, radius: float, mpp: float = 1.0, region: Region | None = None
) -> PointScores:
    """Match the centroids and count.

    Args:
        predicted: Detections.
        truth: Annotations, in the same pixels.
        radius: Largest distance of a pair in pixels, inclusive, > 0.
        mpp: Microns per pixel, for distances in um; 1 leaves them in pixels.
        region: What lies outside does not count, by the rule of ``restrict``, which goes by all points. The
            curve and the strict classes, which match anew, see only the points that count by it; with all
            detections, the curve's last point has the same counts as ``detection``.

    Raises:
        ValueError: A coordinate or confidence is not finite, or the radius is not above 0.
    """
    counted = _count(predicted, truth, radius, region)
    found, real = predicted.points[counted.predicted], truth.points[counted.truth]
    curve = None
    if predicted.confidence is not None:
        curve = detection_curve(found, predicted.confidence[counted.predicted], real, radius)
    shared = set(predicted.class_name) & set(truth.class_name) - {None}
    return PointScores(
        counted,
        score_detection(counted.matches, len(found), len(real), mpp),
        curve,
        score_classes(predicted, truth, counted, radius, mpp) if shared else None,
    )


def matches_of_files(predicted: Nuclei, truth: Nuclei, counted: Restricted, mpp: float) -> pd.DataFrame:
    """One row per pair, false detection and miss that counts.

    Args:
        predicted: Detections.
        truth: Annotations, in the same pixels.
        counted: From ``score_points``.
        mpp: Microns per pixel.

    Returns:
        Columns of ``match_table``, both ids as their files know them, then ``class_name`` of the detection
        and ``truth_class`` of the annotation, '' where there is none.
    """
    found, real = _side(predicted, counted.predicted), _side(truth, counted.truth)
    return match_table(found, real, counted.matches, mpp)


def _side(nuclei: Nuclei, rows: np.ndarray) -> Side:
    names = np.array([name or "" for name in nuclei.class_name], object)
    return Side(nuclei.points[rows], nuclei.nucleus_id[rows], names[rows])


def score_areas(
    predicted: Nuclei, truth: Nuclei, mpp: float = 1.0, region: Region | None = None
) -> AreaScores | None:
    """Figures of two instance maps, or of outlines against outlines or a true map.

    What several outlines of a side cover belongs to the first of them.

    Args:
        predicted: Prediction.
        truth: Truth, in the same pixels.
        mpp: Microns per pixel, for distances in um; 1 leaves them in pixels.
        region: Nuclei outside do not count, by the rule of ``restrict_areas``; then there are no distances.

    Returns:
        The figures; ``None`` if a side has neither, or only the truth has outlines.

    Raises:
        ValueError: Two maps differ in shape, or an outline is not valid.
    """
    found, real = _areas(predicted), _areas(truth)
    if isinstance(found, DrawnAreas) and real is not None:
        overlap = real.overlap([found.outlines])
    elif isinstance(found, PaintedAreas) and isinstance(real, PaintedAreas):
        overlap = overlap_of_maps(found.instances, real.instances)
        if region is None:
            return _score_overlap(
                overlap,
                foreground_distance(found.instances, real.instances, mpp),
                score_object_hausdorff(found.instances, real.instances, mpp),
            )
    else:
        return None
    if region is not None:
        inside = region.inside(found.centroids())
        if isinstance(found, DrawnAreas):
            inside = inside[overlap.predicted_id]
        overlap = restrict_areas(overlap, inside, region.inside(real.centroids()))
    return _score_overlap(overlap)


def _areas(nuclei: Nuclei) -> Areas | None:
    if nuclei.instances is not None:
        return PaintedAreas(nuclei.instances)
    return None if nuclei.outlines is None else DrawnAreas.of(nuclei.outlines)


def _count(predicted: Nuclei, truth: Nuclei, radius: float, region: Region | None) -> Restricted:
    matches = match_points(predicted.points, truth.points, radius)
    if region is None:
        return Restricted(np.arange(len(predicted.points)), np.arange(len(truth.points)), matches)
    return restrict(matches, region.inside(predicted.points), region.inside(truth.points))


def score_classes(
    predicted: Nuclei, truth: Nuclei, counted: Restricted, radius: float, mpp: float = 1.0
) -> ClassScores:
    """Figures of each class of either side, whether or not it occurs on the other.

    Args:
        predicted: Detections.
        truth: Annotations, in the same pixels.
        counted: Detections and annotations that count, and their pairs. Classes are those of the whole files,
            so that a region does not change which are listed.
        radius: Largest distance of a pair in pixels, inclusive, > 0.
        mpp: Microns per pixel, for distances in um; 1 leaves them in pixels.
    """
    names = sorted({name for side in (predicted, truth) for name in side.class_name if name is not None})
    code: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    true_class = np.array([code.get(name, UNLABELLED) for name in truth.class_name])[counted.truth]
    if None in predicted.class_name:
        code[None] = len(names)
        names.append(NO_CLASS)
    predicted_class = np.array([code[name] for name in predicted.class_name])[counted.predicted]
    found, real = predicted.points[counted.predicted], truth.points[counted.truth]
    matches, size = counted.matches, len(names)
    return ClassScores(
        tuple(names),
        score_strict(found, real, predicted_class, true_class, size, radius, mpp),
        score_detection_first(matches, predicted_class, true_class, size, mpp),
        class_confusion(matches, predicted_class, true_class, size),
    )


def _score_overlap(
    overlap: Overlap,
    foreground: ForegroundDistance | None = None,
    object_hausdorff: ObjectHausdorffScore | None = None,
) -> AreaScores:
    return AreaScores(
        len(overlap.predicted_id),
        len(overlap.truth_id),
        score_dice(overlap),
        score_object_dice(overlap),
        score_aji(overlap),
        score_aji_plus(overlap),
        sweep_iou(overlap),
        score_instances(overlap, match_by_truth_share(overlap)),
        count_errors(overlap),
        foreground,
        object_hausdorff,
    )
