"""Segmentation figures and Hausdorff distances, against loops over masks of the whole image."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from karyon.bench.measurement import Measurement, fastest
from karyon.bench.predictions import SEED, draw_nuclei
from karyon.evaluation.hausdorff import foreground_distance, score_object_hausdorff
from karyon.evaluation.overlap import overlap_of_maps
from karyon.evaluation.segmentation import score_aji, score_aji_plus, score_dice, score_panoptic

GOAL_MS, GOAL_TIMES, GOAL_HAUSDORFF_TIMES = 20.0, 100.0, 50.0
# Nuclei are drawn closer together and larger than for the map of a slide: 729 on 1000 x 1000, many touching.
CROWDING, GROWTH = 1.08, 1.5
SPREAD_PX = 1.5
MISSING_SHARE = 0.01


def measure_metrics(cache: Path, side: int) -> Iterator[Measurement]:
    """All figures from two instance maps; the peers are loops over objects, as in published code, run once.

    Args:
        cache: Not used: the maps are drawn in memory.
        side: Of the maps in pixels.

    Raises:
        AssertionError: The two do not find the same.
    """
    predicted, truth = draw_maps(side)
    size = f"of {len(np.unique(truth)) - 1:,} nuclei on {side} x {side}"
    milliseconds = fastest(lambda: _segmentation(predicted, truth)) * 1e3
    start = time.perf_counter()
    expected = _segmentation_by_masks(predicted, truth)
    peer = (time.perf_counter() - start) * 1e3
    np.testing.assert_allclose(_segmentation(predicted, truth), expected, rtol=1e-9)
    yield Measurement(
        name="metrics.segmentation",
        value=milliseconds,
        unit=f"ms for Dice, AJI, AJI+ and PQ {size}",
        peer="loops over masks of the whole image",
        peer_value=peer,
        ratio=peer / milliseconds,
        goal=f"<= {GOAL_MS:g} ms, ratio >= {GOAL_TIMES:g}",
        met=milliseconds <= GOAL_MS and peer / milliseconds >= GOAL_TIMES,
    )
    milliseconds = fastest(lambda: _hausdorff(predicted, truth)) * 1e3
    start = time.perf_counter()
    expected = _hausdorff_by_masks(predicted, truth)
    peer = (time.perf_counter() - start) * 1e3
    np.testing.assert_allclose(_hausdorff(predicted, truth), expected, rtol=1e-9)
    yield Measurement(
        name="metrics.hausdorff",
        value=milliseconds,
        unit=f"ms for Hausdorff distances of objects and foreground {size}",
        peer="loops over masks of the whole image, and k-d trees",
        peer_value=peer,
        ratio=peer / milliseconds,
        goal=f"ratio >= {GOAL_HAUSDORFF_TIMES:g}",
        met=peer / milliseconds >= GOAL_HAUSDORFF_TIMES,
    )


def draw_maps(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A predicted and a true instance map, int32: discs, in the prediction moved, resized and renumbered."""
    random = np.random.default_rng(SEED)
    nuclei = draw_nuclei(round(side * CROWDING)).reshape(-1, 3) * (1 / CROWDING, 1 / CROWDING, GROWTH)
    moved = random.permutation(nuclei + random.normal(0, SPREAD_PX, nuclei.shape))
    kept, found = random.random((2, len(nuclei))) >= MISSING_SHARE
    return _paint(moved[found], side), _paint(nuclei[kept], side)


def _paint(nuclei: np.ndarray, side: int) -> np.ndarray:
    """Discs given by row, column and radius; a pixel in several belongs to the one of the nearest centre."""
    pixels = np.indices((side, side)).reshape(2, -1).T
    distance, nearest = cKDTree(nuclei[:, :2]).query(pixels)
    return np.where(distance < nuclei[nearest, 2], nearest + 1, 0).astype(np.int32).reshape(side, side)


def _segmentation(predicted: np.ndarray, truth: np.ndarray) -> list[float]:
    overlap = overlap_of_maps(predicted, truth)
    return [
        score_dice(overlap).dice,
        score_aji(overlap).index,
        score_aji_plus(overlap).index,
        score_panoptic(overlap).panoptic_quality,
    ]


def _segmentation_by_masks(predicted: np.ndarray, truth: np.ndarray) -> list[float]:
    """The same from the mask of every object and of every object that overlaps it."""
    true_ids, ids = np.unique(truth)[1:], np.unique(predicted)[1:]
    common, either = np.zeros((2, len(true_ids), len(ids)))
    for row, true_id in enumerate(true_ids):
        mask = truth == true_id
        for other in np.unique(predicted[mask]):
            if other:
                found = predicted == other
                column = np.searchsorted(ids, other)
                common[row, column] = np.logical_and(mask, found).sum()
                either[row, column] = np.logical_or(mask, found).sum()
    iou = np.divide(common, either, out=np.zeros_like(common), where=either > 0)
    true_areas = np.array([(truth == k).sum() for k in true_ids])
    areas = np.array([(predicted == k).sum() for k in ids])

    def aggregate(rows: np.ndarray, columns: np.ndarray) -> float:
        some = iou[rows, columns] > 0
        rows, columns = rows[some], columns[some]
        alone = np.delete(true_areas, rows).sum() + np.delete(areas, columns).sum()
        return float(common[rows, columns].sum() / (either[rows, columns].sum() + alone))

    matched = iou[iou > 0.5]
    return [
        float(2 * ((predicted > 0) & (truth > 0)).sum() / ((predicted > 0).sum() + (truth > 0).sum())),
        aggregate(np.arange(len(true_ids)), iou.argmax(axis=1)),
        aggregate(*linear_sum_assignment(-iou)),
        float(matched.sum() / (len(true_ids) / 2 + len(ids) / 2)),
    ]


def _hausdorff(predicted: np.ndarray, truth: np.ndarray) -> list[float]:
    foreground = foreground_distance(predicted, truth)
    return [
        score_object_hausdorff(predicted, truth).object_hausdorff,
        foreground.hausdorff,
        foreground.average,
    ]


def _hausdorff_by_masks(predicted: np.ndarray, truth: np.ndarray) -> list[float]:
    """The same from the mask of every object and of its partner, or of every other where it has none."""

    def one_way(objects: np.ndarray, others: np.ndarray) -> float:
        total = 0.0
        for label in np.unique(objects)[1:]:
            mask = objects == label
            overlapping = others[mask]
            overlapping = overlapping[overlapping > 0]
            partners = [np.bincount(overlapping).argmax()] if overlapping.size else np.unique(others)[1:]
            total += mask.sum() * min(_gaps(mask, others == partner)[0] for partner in partners)
        return total / np.count_nonzero(objects)

    objects = (one_way(predicted, truth) + one_way(truth, predicted)) / 2
    return [objects, *_gaps(predicted > 0, truth > 0)]


def _gaps(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Largest distance of two masks' pixels to the nearest of the other, and the larger of the means."""
    pixels, others = np.argwhere(one), np.argwhere(other)
    there, back = cKDTree(others).query(pixels)[0], cKDTree(pixels).query(others)[0]
    return max(there.max(), back.max()), max(there.mean(), back.mean())
