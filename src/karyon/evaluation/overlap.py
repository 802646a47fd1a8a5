"""How much predicted and true objects overlap: one sparse table, from which all instance figures come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from karyon.io.annotations import make_valid

BAND_ROWS = 1024  # bounds the memory of the runs; results do not depend on it

Sums = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Overlap:
    """Objects of two segmentations, and every pair of them that overlaps.

    An object's *row* is its place in ``predicted_id`` or ``truth_id``. Areas are in pixels for maps and in
    the square of the coordinates' unit for polygons.

    Attributes:
        predicted_id: Ids of the predicted objects, int64, ``(n,)``, increasing.
        truth_id: Ids of the true objects, int64, ``(m,)``, increasing.
        predicted_area: Their areas, float64, ``(n,)``, > 0.
        truth_area: The same of the true objects, ``(m,)``.
        predicted: Row of each pair's predicted object, int64, ``(k,)``; pairs are sorted by it, then by
            ``truth``.
        truth: Row of each pair's true object, int64, ``(k,)``.
        area: Area that the two have in common, float64, ``(k,)``, > 0.
    """

    predicted_id: np.ndarray
    truth_id: np.ndarray
    predicted_area: np.ndarray
    truth_area: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    area: np.ndarray

    @property
    def union(self) -> np.ndarray:
        """Area that either object of a pair covers, float64, ``(k,)``."""
        return self.predicted_area[self.predicted] + self.truth_area[self.truth] - self.area

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union (Jaccard index) of each pair, float64, ``(k,)``, above 0 and up to 1."""
        return self.area / self.union

    @property
    def dice(self) -> np.ndarray:
        """Twice the intersection over the sum of both areas, float64, ``(k,)``, above 0 and up to 1."""
        return 2 * self.area / (self.predicted_area[self.predicted] + self.truth_area[self.truth])

    def select(self, predicted: np.ndarray, truth: np.ndarray) -> Overlap:
        """The table of some of the objects, as if the others did not exist.

        Args:
            predicted: Which predicted objects, bool, ``(n,)``.
            truth: Which true objects, bool, ``(m,)``.
        """
        kept = predicted[self.predicted] & truth[self.truth]
        row, true_row = np.cumsum(predicted) - 1, np.cumsum(truth) - 1
        return Overlap(
            self.predicted_id[predicted],
            self.truth_id[truth],
            self.predicted_area[predicted],
            self.truth_area[truth],
            row[self.predicted[kept]],
            true_row[self.truth[kept]],
            self.area[kept],
        )


def overlap_of_maps(predicted: np.ndarray, truth: np.ndarray) -> Overlap:
    """The table of two instance maps.

    Args:
        predicted: Integer, ``(h, w)``: 0 = background, else the id of the object. Ids need not be
            consecutive, and pixels of an object need not touch.
        truth: The same of the truth, of the same shape.

    Raises:
        ValueError: The shapes differ, a map does not hold integers, or an id is negative.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted has shape {predicted.shape}, truth {truth.shape}; expected the same.")
    return overlap_of_blocks(
        (predicted[top : top + BAND_ROWS], truth[top : top + BAND_ROWS])
        for top in range(0, len(predicted), BAND_ROWS)
    )


def overlap_of_blocks(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Overlap:
    """The table of two maps that are handed over block by block, equal to that of the whole maps.

    Args:
        blocks: Predicted and true block of the same place, as in ``overlap_of_maps``; every pixel once. An
            id means the same object in every block.

    Raises:
        ValueError: As ``overlap_of_maps``.
    """
    nothing = np.empty(0, np.int64)
    sums = [(nothing, nothing, nothing), *(sum_pairs(*_find_runs(*block)) for block in blocks)]
    predicted, truth, area = sum_pairs(*(np.concatenate(part) for part in zip(*sums, strict=True)))
    predicted_id, predicted_area = _sum_objects(predicted, area)
    truth_id, truth_area = _sum_objects(truth, area)
    both = (predicted > 0) & (truth > 0)
    return Overlap(
        predicted_id,
        truth_id,
        predicted_area,
        truth_area,
        np.searchsorted(predicted_id, predicted[both]),
        np.searchsorted(truth_id, truth[both]),
        area[both],
    )


def overlap_of_polygons(
    predicted: Sequence[BaseGeometry] | np.ndarray, truth: Sequence[BaseGeometry] | np.ndarray
) -> Overlap:
    """The table of two sets of outlines; the id of an object is its place in the sequence.

    Polygons of one side may overlap each other. Figures that add areas then count the common part twice;
    ``part_polygons`` gives it to one of them.

    Args:
        predicted: Shapely polygons or multipolygons, ``(n,)``.
        truth: The same of the truth, ``(m,)``, in the same coordinates.

    Raises:
        ValueError: A polygon is not valid or has no area.
    """
    return overlap_of_batches([predicted], truth)


def overlap_of_batches(
    batches: Iterable[Sequence[BaseGeometry] | np.ndarray], truth: Sequence[BaseGeometry] | np.ndarray
) -> Overlap:
    """The table of :func:`overlap_of_polygons` for predictions of which some are held at a time.

    Args:
        batches: The predicted polygons; a prediction's id is its place among all of them, from 0.
        truth: As there.

    Raises:
        ValueError: As there.
    """
    true_outlines = _checked_polygons(truth, "truth")
    true_area, tree = shapely.area(true_outlines), shapely.STRtree(true_outlines)
    areas, pairs, before = [np.empty(0)], [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))], 0
    for batch in batches:
        outlines = _checked_polygons(batch, "predicted")
        area = shapely.area(outlines)
        row, true_row = tree.query(outlines, predicate="intersects")
        common = shapely.area(shapely.intersection(outlines[row], true_outlines[true_row]))
        # Rounding may leave the common part a hair larger than the smaller of the two.
        common = np.minimum(common, np.minimum(area[row], true_area[true_row]))
        order = np.lexsort((true_row, row))
        order = order[common[order] > 0]
        areas.append(area)
        pairs.append((row[order] + before, true_row[order], common[order]))
        before += len(outlines)
    predicted, true, common = (np.concatenate(part) for part in zip(*pairs, strict=True))
    ids, true_ids = np.arange(before), np.arange(len(true_outlines))
    return Overlap(ids, true_ids, np.concatenate(areas), true_area, predicted, true, common)


def part_polygons(polygons: Sequence[BaseGeometry]) -> np.ndarray:
    """Polygons that do not overlap: what several cover belongs to the first of them.

    So it is when annotations are painted by the script of Kumar et al. 2017, from which published figures
    come.

    Args:
        polygons: Valid shapely polygons or multipolygons, ``(n,)``.

    Returns:
        The same without what one before them covers, object, ``(n,)``; one that is wholly covered is empty.
    """
    parted = np.empty(len(polygons), dtype=object)
    parted[:] = polygons
    drawn = parted.copy()
    first, second = shapely.STRtree(drawn).query(drawn, predicate="intersects")
    later = first < second
    first, second = first[later], second[later]
    crossing = shapely.area(shapely.intersection(drawn[first], drawn[second])) > 0
    first, second = first[crossing], second[crossing]
    order = np.argsort(second, kind="stable")
    rows, starts = np.unique(second[order], return_index=True)
    for row, before in zip(rows, np.split(first[order], starts)[1:], strict=True):
        parted[row] = make_valid(shapely.difference(drawn[row], shapely.union_all(drawn[before])))
    return parted


def best_pairs(rows: np.ndarray, *values: np.ndarray) -> np.ndarray:
    """For every object that is in a pair, the pair with the largest value.

    Args:
        rows: Row of each pair's object, ``(k,)``: ``predicted`` or ``truth`` of an ``Overlap``.
        values: One or more values of each pair, ``(k,)``. A later one decides where all before it tie; of
            pairs that tie in all the first is taken, which is the one with the smaller id on the other side.

    Returns:
        Indices of pairs, int64, one per object, in the order of ``rows``' values.
    """
    order = np.lexsort((*(-value for value in reversed(values)), rows))
    _, first = np.unique(rows[order], return_index=True)
    return order[first]


def sum_pairs(predicted: np.ndarray, truth: np.ndarray, area: np.ndarray) -> Sums:
    """Add up the areas of equal pairs of ids.

    Args:
        predicted: Id of each part's predicted object, integer, ``(k,)``.
        truth: Id of its true object, integer, ``(k,)``.
        area: Of each part, whole numbers, ``(k,)``.

    Returns:
        Each pair of ids once, sorted by ``predicted``, then by ``truth``, and its area, float64.
    """
    row, predicted_id = pd.factorize(predicted, sort=True)
    column, truth_id = pd.factorize(truth, sort=True)
    pair, key = pd.factorize(row * len(truth_id) + column, sort=True)
    total = np.bincount(pair, weights=area, minlength=len(key))  # whole numbers below 2**53: exact
    row, column = np.divmod(key, max(len(truth_id), 1))
    return predicted_id[row], truth_id[column], total


def _find_runs(predicted: np.ndarray, truth: np.ndarray) -> Sums:
    """Runs of pixels along which neither map changes: both ids and length, background alone left out."""
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted has shape {predicted.shape}, truth {truth.shape}; expected the same.")
    for name, block in (("predicted", predicted), ("truth", truth)):
        if not np.issubdtype(block.dtype, np.integer):
            raise ValueError(f"{name} holds {block.dtype}; expected whole numbers, one for each object.")
    first, second = predicted.ravel(), truth.ravel()
    changes = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    start = np.concatenate([np.zeros(min(first.size, 1), np.int64), np.flatnonzero(changes) + 1])
    length = np.diff(start, append=first.size)
    start_ids, start_truth = first[start].astype(np.int64), second[start].astype(np.int64)
    for name, ids in (("predicted", start_ids), ("truth", start_truth)):
        if ids.min(initial=0) < 0:
            raise ValueError(f"{name} holds the id {ids.min()}; expected 0 for background, else above 0.")
    some = (start_ids > 0) | (start_truth > 0)
    return start_ids[some], start_truth[some], length[some]


def _sum_objects(ids: np.ndarray, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every id above 0 once, increasing, and the sum of its areas."""
    objects = ids > 0
    found, row = np.unique(ids[objects], return_inverse=True)
    return found, np.bincount(row, weights=area[objects], minlength=len(found))


def _checked_polygons(polygons: Sequence[BaseGeometry] | np.ndarray, name: str) -> np.ndarray:
    outlines = np.empty(len(polygons), dtype=object)
    outlines[:] = polygons
    for wrong, problem in (
        (~shapely.is_valid(outlines), "is not valid; repair it with shapely.make_valid"),
        (~(shapely.area(outlines) > 0), "has no area; leave it out"),
    ):
        if wrong.any():
            raise ValueError(f"{name} polygon {np.flatnonzero(wrong)[0]} {problem}.")
    return outlines
