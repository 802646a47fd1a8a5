"""Outlines of predicted nuclei against true ones that were painted or drawn, without an image of the former.

Predictions come in batches, so that a slide's million is never held as polygons at once. Against a painted
map, areas are numbers of its pixels, a pixel being a polygon's if its centre is, as in the figures that are
published of such maps; against drawn outlines they are the areas of the polygons' intersections, exact and
without any image, however large the slide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import shapely
from numba import njit
from shapely.geometry.base import BaseGeometry

from karyon.evaluation.overlap import (
    BAND_ROWS,
    Overlap,
    Sums,
    best_pairs,
    overlap_of_batches,
    part_polygons,
    sum_pairs,
)
from karyon.io.annotations import INSTANCE_FORMATS, instance_points, read_label_map, read_outlines


@dataclass(frozen=True)
class PaintedAreas:
    """True nuclei as an instance map.

    Attributes:
        instances: int32, ``(h, w)``, 0 = background.
    """

    instances: np.ndarray

    def centroids(self) -> np.ndarray:
        """Positions of the nuclei, x and y, in the order of the ids, float64, ``(m, 2)``."""
        return instance_points(self.instances)

    def overlap(self, batches: Iterable[np.ndarray]) -> Overlap:
        """The table of predicted outlines and these nuclei, in pixels.

        Args:
            batches: Valid shapely polygons or multipolygons in the map's pixels, pixel centres at integers.
                A prediction's id is its place among all of them, from 0; one without a pixel is left out.
        """
        sums, before = [(np.empty(0, np.int64),) * 3], 0
        for batch in batches:
            place, truth, area = _paint(batch, self.instances)
            sums.append((place + before, truth, area))
            before += len(batch)
        place, truth, area = sum_pairs(*(np.concatenate(part) for part in zip(*sums, strict=True)))
        predicted_id, row = np.unique(place, return_inverse=True)
        sizes = _sizes(self.instances)
        truth_id, common = np.flatnonzero(sizes), truth > 0
        return Overlap(
            predicted_id,
            truth_id,
            np.bincount(row, area, len(predicted_id)),
            sizes[truth_id].astype(np.float64),
            row[common],
            np.searchsorted(truth_id, truth[common]),
            area[common],
        )


@dataclass(frozen=True)
class DrawnAreas:
    """True nuclei as outlines.

    Attributes:
        outlines: Valid polygons or multipolygons that do not overlap each other, object, ``(m,)``.
    """

    outlines: np.ndarray

    @classmethod
    def of(cls, outlines: Sequence[BaseGeometry]) -> DrawnAreas:
        """Of outlines that may overlap: what several cover belongs to the first; those without a rest go.

        Args:
            outlines: Valid shapely polygons or multipolygons.
        """
        parted = part_polygons(outlines)
        return cls(parted[shapely.area(parted) > 0])

    def centroids(self) -> np.ndarray:
        """Positions of the nuclei, x and y, float64, ``(m, 2)``."""
        return shapely.get_coordinates(shapely.centroid(self.outlines))

    def overlap(self, batches: Iterable[np.ndarray]) -> Overlap:
        """The table of predicted outlines and these nuclei, in the square of their coordinates' unit.

        Args:
            batches: As for :meth:`PaintedAreas.overlap`.
        """
        return overlap_of_batches(batches, self.outlines)


Areas: TypeAlias = PaintedAreas | DrawnAreas


def read_areas(path: Path, annotation_format: str, size: tuple[int, int], scale: float) -> Areas:
    """Read the annotated nuclei of a slide as areas in level-0 pixels.

    What several outlines cover belongs to the first of them.

    Args:
        path: The annotation file.
        annotation_format: One of ``INSTANCE_FORMATS`` or ``OUTLINE_FORMATS``.
        size: Width and height of the slide in level-0 pixels.
        scale: Level-0 pixels per pixel of the annotations.

    Raises:
        SlideError: The file is missing, malformed or of another slide, or a nucleus in it has no outline.
    """
    if annotation_format in INSTANCE_FORMATS:
        return PaintedAreas(read_label_map(path, annotation_format, size, scale))
    return DrawnAreas.of(read_outlines(path, annotation_format, size, scale).areas)


def restrict_areas(overlap: Overlap, predicted_inside: np.ndarray, truth_inside: np.ndarray) -> Overlap:
    """Restrict an evaluation of areas to a region, nucleus by nucleus: none is cut at the border.

    As with points (:func:`karyon.evaluation.region.restrict`) a true nucleus says where it counts, and so
    does a prediction that has none: here the true nucleus that most of a prediction's overlap is with.

    Args:
        overlap: The table of all nuclei of the slide.
        predicted_inside: Which predictions have their centroid in the region, bool, ``(n,)``.
        truth_inside: The same of the true nuclei, ``(m,)``.
    """
    best = best_pairs(overlap.predicted, overlap.area)
    counts = predicted_inside.copy()
    counts[overlap.predicted[best]] = truth_inside[overlap.truth[best]]
    return overlap.select(counts, truth_inside)


def _sizes(instances: np.ndarray) -> np.ndarray:
    """Number of pixels of every id, 0 for the background's."""
    sizes = np.zeros(int(instances.max(initial=0)) + 1, np.int64)
    for top in range(0, len(instances), BAND_ROWS):
        sizes += np.bincount(instances[top : top + BAND_ROWS].ravel(), minlength=len(sizes))
    sizes[0] = 0
    return sizes


def _paint(polygons: np.ndarray, instances: np.ndarray) -> Sums:
    """Place of each polygon, every id that it covers, 0 among them, and how many pixels of it."""
    parts, owners = shapely.get_parts(polygons, return_index=True)
    if not len(parts):
        return (np.empty(0, np.int64),) * 3
    _, corners, (rings, outlines) = shapely.to_ragged_array(parts)
    part, truth, length = _scan(corners, rings, outlines, instances).T
    return sum_pairs(owners[part], truth, length)


@njit(cache=True, nogil=True)
def _scan(corners: np.ndarray, rings: np.ndarray, outlines: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Runs of pixels in polygons, along which the map does not change: polygon, id and length.

    A pixel on an edge belongs to the polygon on its right, on a level edge to the one below.
    """
    height, width = instances.shape
    runs, used = np.empty((1024, 3), np.int64), 0
    for polygon in range(len(outlines) - 1):
        first, last = rings[outlines[polygon]], rings[outlines[polygon + 1]]
        crossings = np.empty(last - first)
        top = max(0, int(np.ceil(corners[first:last, 1].min())))
        bottom = min(height, int(np.ceil(corners[first:last, 1].max())))
        for y in range(top, bottom):
            number = 0
            for ring in range(outlines[polygon], outlines[polygon + 1]):
                for corner in range(rings[ring], rings[ring + 1] - 1):
                    (x, above), (next_x, below) = corners[corner], corners[corner + 1]
                    if (above <= y) != (below <= y):
                        crossings[number] = x + (y - above) * (next_x - x) / (below - above)
                        number += 1
            crossings[:number].sort()
            for pair in range(0, number, 2):
                column = max(0, int(np.ceil(crossings[pair])))
                right = min(width, int(np.ceil(crossings[pair + 1])))
                while column < right:
                    start, truth = column, instances[y, column]
                    while column < right and instances[y, column] == truth:
                        column += 1
                    if used == len(runs):
                        runs = np.concatenate((runs, np.empty_like(runs)))
                    runs[used, 0], runs[used, 1], runs[used, 2] = polygon, truth, column - start
                    used += 1
    return runs[:used].copy()
