"""Hausdorff distances of instance maps: of the foregrounds as CGAN has it, of the objects as JOINT has it.

All are distances between pixel centres, over all pixels of the regions and not their outlines alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from karyon.evaluation.counts import Additive
from karyon.evaluation.overlap import best_pairs, overlap_of_maps

NO_LIMIT = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ForegroundDistance:
    """Distances of one image's two foregrounds, in pixels times ``mpp``; NaN where a foreground is empty.

    They cannot be pooled: average them over images.

    Attributes:
        hausdorff: The largest distance of a foreground pixel of either side to the nearest of the other.
        average: The larger of the two sides' mean distances.
    """

    hausdorff: float
    average: float


@dataclass(frozen=True)
class ObjectHausdorffScore(Additive):
    """Distances of the objects of both sides, each weighted by its object's area; added with ``+``, pooled.

    Attributes:
        predicted_sum: Sum over predicted objects of area times Hausdorff distance to the partner.
        predicted_area: Sum of their areas, in the square of the distances' unit.
        truth_sum: The same over true objects.
        truth_area: Sum of their areas.
        left_out: Number of objects of images whose other side is empty: they have no distance, and are in
            none of the sums.
    """

    predicted_sum: float
    predicted_area: float
    truth_sum: float
    truth_area: float
    left_out: int

    @property
    def object_hausdorff(self) -> float:
        """Mean of both sides' weighted means; NaN unless an image has objects on both sides."""
        if not self.predicted_area:
            return math.nan
        return (self.predicted_sum / self.predicted_area + self.truth_sum / self.truth_area) / 2


class _Objects(NamedTuple):
    """The objects of a map, by rows.

    ``row`` gives every pixel's object, -1 for none. Pixels of object ``i``, y and x, are
    ``pixels[pixel_start[i]:pixel_start[i + 1]]``; those that have a side in common with another object or
    with the background are among ``edges`` likewise. ``box`` has the least y and x and the largest y and x.
    """

    row: np.ndarray
    pixels: np.ndarray
    pixel_start: np.ndarray
    edges: np.ndarray
    edge_start: np.ndarray
    box: np.ndarray


def foreground_distance(predicted: np.ndarray, truth: np.ndarray, mpp: float = 1.0) -> ForegroundDistance:
    """The average Pompeiu-Hausdorff distance of CGAN (section IV-B), in its two readings.

    CGAN prints ``max(p(h, y), p(y, h))`` with ``p = max_a min_b |a - b|`` over the pixels of the two masks:
    that is the Hausdorff distance itself, ``hausdorff``, which one missed nucleus far from others decides
    for a whole image. The name says "average", which may only mean over images; ``average`` takes the mean
    over ``a`` instead of the maximum (the modified Hausdorff distance, Dubuisson and Jain 1994).

    Args:
        predicted: Map or mask, ``(h, w)``, 0 = background.
        truth: The same of the truth, of the same shape.
        mpp: Microns per pixel, for distances in um; 1 leaves them in pixels.

    Raises:
        ValueError: The shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted has shape {predicted.shape}, truth {truth.shape}; expected the same.")
    found, real = predicted != 0, truth != 0
    if not found.any() or not real.any():
        return ForegroundDistance(math.nan, math.nan)
    to_truth, to_predicted = distance_transform_edt(~real)[found], distance_transform_edt(~found)[real]
    return ForegroundDistance(
        hausdorff=float(max(to_truth.max(), to_predicted.max())) * mpp,
        average=float(max(to_truth.mean(), to_predicted.mean())) * mpp,
    )


def score_object_hausdorff(
    predicted: np.ndarray, truth: np.ndarray, mpp: float = 1.0
) -> ObjectHausdorffScore:
    """Object-level Hausdorff distance of the GlaS contest (Sirinukunwattana et al. 2017).

    JOINT reports the object-level "hausdorff distance" and names a source instead of a formula; the words are
    those of this contest. The partner of an object, predicted or true, is the object of the other side with
    which it has the largest area in common, of equals the one with the smaller id; if none overlaps it, the
    one at the smallest Hausdorff distance, wherever that lies. Partners may be shared. The distance is that
    of the two sets of pixels.

    Args:
        predicted: Integer, ``(h, w)``: 0 = background, else the id of the object.
        truth: The same of the truth, of the same shape.
        mpp: Microns per pixel, for distances in um; 1 leaves them in pixels.

    Raises:
        ValueError: As ``overlap_of_maps``.
    """
    overlap = overlap_of_maps(predicted, truth)
    n_predicted, n_truth = len(overlap.predicted_id), len(overlap.truth_id)
    if not n_predicted or not n_truth:
        return ObjectHausdorffScore(0.0, 0.0, 0.0, 0.0, left_out=n_predicted + n_truth)
    found, real = _find_objects(predicted, overlap.predicted_id), _find_objects(truth, overlap.truth_id)
    of_predicted = best_pairs(overlap.predicted, overlap.area)
    of_truth = best_pairs(overlap.truth, overlap.area)
    distance = _distances(found, real, overlap.predicted[of_predicted], overlap.truth[of_predicted])
    true_distance = _distances(real, found, overlap.truth[of_truth], overlap.predicted[of_truth])
    return ObjectHausdorffScore(
        float((overlap.predicted_area * distance).sum()) * mpp**3,
        float(overlap.predicted_area.sum()) * mpp**2,
        float((overlap.truth_area * true_distance).sum()) * mpp**3,
        float(overlap.truth_area.sum()) * mpp**2,
        left_out=0,
    )


def _find_objects(instances: np.ndarray, ids: np.ndarray) -> _Objects:
    row = _rows_of(np.ascontiguousarray(instances, dtype=np.int64), ids)
    pixels, pixel_start = _list_pixels(row, len(ids), False)
    edges, edge_start = _list_pixels(row, len(ids), True)
    least, largest = (bound.reduceat(edges, edge_start[:-1]) for bound in (np.minimum, np.maximum))
    return _Objects(row, pixels, pixel_start, edges, edge_start, np.concatenate([least, largest], axis=1))


def _distances(one: _Objects, other: _Objects, rows: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Distance of every object of ``one`` to its partner; those not in ``rows`` have none and seek it."""
    squared = np.empty(len(one.box), np.int64)
    squared[rows] = _squared_distances(one, other, rows, partners, np.full(len(rows), NO_LIMIT))
    alone = np.setdiff1d(np.arange(len(one.box)), rows)
    if len(alone):
        squared[alone] = _nearest_distances(one, other, alone)
    return np.sqrt(squared)


def _nearest_distances(one: _Objects, other: _Objects, rows: np.ndarray) -> np.ndarray:
    """Squared distance of some objects to the object of ``other`` that is nearest by Hausdorff distance.

    Two sets are at least as far apart as any side of one's bounding box is from that side of the other's. So
    only objects whose box is, in the four numbers' Chebyshev distance, within the distance of the
    object with the nearest box can be nearer.
    """
    boxes = cKDTree(other.box)
    guess = boxes.query(one.box[rows], p=np.inf)[1]
    limit = _squared_distances(one, other, rows, guess, np.full(len(rows), NO_LIMIT))
    near = boxes.query_ball_point(one.box[rows], np.sqrt(limit) * (1 + 1e-9), p=np.inf)
    size = np.array([len(candidates) for candidates in near])
    tried = _squared_distances(
        one, other, np.repeat(rows, size), np.concatenate(near).astype(np.int64), np.repeat(limit, size)
    )
    return np.minimum.reduceat(tried, np.cumsum(size) - size)


@njit(cache=True, nogil=True)
def _rows_of(instances: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Place in ``ids`` of every pixel's id, -1 for background; int32, ``(h, w)``."""
    height, width = instances.shape
    rows = np.empty((height, width), np.int32)
    last, row = 0, -1
    for y in range(height):
        for x in range(width):
            if instances[y, x] != last:
                last = instances[y, x]
                row = np.searchsorted(ids, last) if last else -1
            rows[y, x] = row
    return rows


@njit(cache=True, nogil=True)
def _is_edge(row: np.ndarray, y: int, x: int) -> bool:
    here = row[y, x]
    height, width = row.shape
    if y == 0 or x == 0 or y == height - 1 or x == width - 1:
        return True
    return row[y - 1, x] != here or row[y + 1, x] != here or row[y, x - 1] != here or row[y, x + 1] != here


@njit(cache=True, nogil=True)
def _list_pixels(row: np.ndarray, count: int, edges_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, y and x, by object, int32 ``(k, 2)``, and where each object's begin, ``(count + 1,)``."""
    height, width = row.shape
    start = np.zeros(count + 1, np.int64)
    for y in range(height):
        for x in range(width):
            if row[y, x] >= 0 and (not edges_only or _is_edge(row, y, x)):
                start[row[y, x] + 1] += 1
    start = np.cumsum(start)
    place = start.copy()
    pixels = np.empty((start[-1], 2), np.int32)
    for y in range(height):
        for x in range(width):
            if row[y, x] >= 0 and (not edges_only or _is_edge(row, y, x)):
                pixels[place[row[y, x]]] = y, x
                place[row[y, x]] += 1
    return pixels, start


@njit(cache=True, nogil=True)
def _squared_distances(
    one: _Objects, other: _Objects, first: np.ndarray, second: np.ndarray, limit: np.ndarray
) -> np.ndarray:
    """Squared Hausdorff distance of pairs of objects, int64; where above ``limit``, a number above it."""
    squared = np.empty(len(first), np.int64)
    for pair in range(len(first)):
        i, j = first[pair], second[pair]
        there = _farthest(one, other, i, j, 0, limit[pair])
        squared[pair] = _farthest(other, one, j, i, there, limit[pair])
    return squared


@njit(cache=True, nogil=True)
def _farthest(one: _Objects, other: _Objects, i: int, j: int, least: int, limit: int) -> int:
    """Squared distance to object ``j`` of the pixel of object ``i`` farthest from it, at least ``least``.

    The pixel of ``j`` nearest to one outside it is on its edge. A pixel that has any edge pixel within the
    largest distance so far cannot be the farthest, so its search ends there (early break, Taha and Hanbury
    2015); and its neighbour's search begins there.
    """
    begin, end = other.edge_start[j], other.edge_start[j + 1]
    near = begin
    for k in range(one.pixel_start[i], one.pixel_start[i + 1]):
        y, x = one.pixels[k]
        if other.row[y, x] == j:
            continue
        best = NO_LIMIT
        edge = near
        for _ in range(end - begin):
            squared = (other.edges[edge, 0] - y) ** 2 + (other.edges[edge, 1] - x) ** 2
            if squared < best:
                best, near = squared, edge
                if best <= least:
                    break
            edge += 1
            if edge == end:
                edge = begin
        least = max(least, best)
        if least > limit:
            break
    return least
