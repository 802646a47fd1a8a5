"""Evaluation within a region of interest: which points lie in it, and which errors count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from karyon.errors import SlideError
from karyon.evaluation.matching import Matches
from karyon.io.annotations import INSTANCE_FORMATS, read_instances, read_outlines


@dataclass(frozen=True)
class PolygonRegion:
    """A region drawn as an outline.

    Attributes:
        area: Polygon or MultiPolygon in level-0 pixels, pixel centres at integers, valid.
    """

    area: BaseGeometry

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Which points lie inside or on the edge, holes' edges included.

        Args:
            points: x and y in level-0 pixels, ``(n, 2)``; one that is not finite is outside.

        Returns:
            bool, ``(n,)``.
        """
        x, y = _columns(points)
        shapely.prepare(self.area)  # a second time it does nothing
        within: np.ndarray = shapely.intersects_xy(self.area, x, y)
        return within


@dataclass(frozen=True)
class MaskRegion:
    """A region painted as an image of the whole slide, at any downsample.

    Attributes:
        mask: bool, ``(h, w)``.
        size: Width and height of the slide in level-0 pixels. The mask is stretched to it.

    Raises:
        ValueError: The mask has no pixel, or its sides are not those of the slide divided by one number, up
            to a pixel for rounding.
    """

    mask: np.ndarray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = self.mask.shape
        sides = np.array([width, height])
        # One downsample explains both sides if it rounds (up or down) to each of them.
        least = (np.asarray(self.size) / (sides + 1)).max()
        most = (np.asarray(self.size) / np.maximum(sides - 1, 1e-9)).min()
        if not sides.all() or least >= most:
            raise ValueError(
                f"the mask has {width} x {height} pixels, the slide {self.size[0]} x {self.size[1]}; "
                "expected the same proportions, for the mask has to cover the whole slide."
            )

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Which points lie on a pixel of the mask that is set.

        A pixel owns its left and upper edge, so a point on the edge between two pixels belongs to the right
        or lower one.

        Args:
            points: x and y in level-0 pixels, ``(n, 2)``; one beyond the slide or not finite is outside.

        Returns:
            bool, ``(n,)``.
        """
        x, y = _columns(points)
        height, width = self.mask.shape
        # Level-0 pixel 0 spans -0.5 to 0.5, so the slide begins at -0.5.
        across, down = (x + 0.5) * (width / self.size[0]), (y + 0.5) * (height / self.size[1])
        within = (across >= 0) & (across < width) & (down >= 0) & (down < height)
        row, column = (np.where(within, position, 0).astype(np.int64) for position in (down, across))
        return within & self.mask[row, column]


Region: TypeAlias = PolygonRegion | MaskRegion


def read_region(path: Path | str, region_format: str, size: tuple[int, int], scale: float = 1.0) -> Region:
    """Read a region of interest from an annotation file.

    Args:
        path: The file. Of outlines the region is their union, without what ImageScope marks as negative; of
            an image it is all pixels that are not 0, and the image covers the whole slide at any downsample.
        region_format: ``imagescope_xml``, ``geojson`` or one of ``INSTANCE_FORMATS``.
        size: Width and height of the slide in level-0 pixels.
        scale: Level-0 pixels per unit of the outlines; of an image the size says it.

    Raises:
        SlideError: The file is missing or malformed, an outline lies outside the slide, an image has other
            proportions than the slide, or the region is empty.
    """
    if region_format in INSTANCE_FORMATS:
        mask = read_instances(path, region_format) != 0
        if not mask.any():
            raise SlideError(f"{path}: the region is empty; expected a value other than 0 where it is.")
        try:
            return MaskRegion(mask, size)
        except ValueError as error:
            raise SlideError(f"{path}: {error}") from error
    outlines = read_outlines(path, region_format, size, scale)
    area = shapely.difference(shapely.union_all(outlines.areas), shapely.union_all(outlines.holes))
    if not area.area > 0:
        raise SlideError(f"{path}: the region is empty; expected at least one outline.")
    return PolygonRegion(area)


@dataclass(frozen=True)
class Restricted:
    """What counts within a region: ``score_detection`` of these is the region's score.

    Attributes:
        predicted: Rows of the detections that count, int64, ``(p,)``, increasing.
        truth: Rows of the annotations that count, int64, ``(t,)``, increasing: those inside.
        matches: The pairs that count, by position in ``predicted`` and ``truth`` above.
    """

    predicted: np.ndarray
    truth: np.ndarray
    matches: Matches


def restrict(matches: Matches, predicted_inside: np.ndarray, truth_inside: np.ndarray) -> Restricted:
    """Restrict an evaluation to a region, after matching all points of the slide.

    A nucleus on the border may be annotated one pixel inside and detected one pixel outside. Restricting both
    sides *before* matching would call that a miss (and the reverse a false detection), and each such error is
    one of the border alone. So all points are matched first, and then

    - a pair counts, as a true positive, where its annotation is inside, wherever its detection is;
    - an annotation without a partner counts, as a miss, where it is inside;
    - a detection without a partner counts, as a false positive, where it is inside;
    - a detection inside whose partner is outside does not count: it is right, but of another region.

    Hence true positives and misses add up to the annotations inside, and the counts of regions that tile the
    slide add up to the slide's: each pair, miss and false positive belongs to exactly one region. Exchanging
    the two sides changes only pairs that straddle the border. Where nothing outside is annotated, a nucleus
    annotated just outside cannot excuse a detection just inside, which is then false, as it would be either
    way.

    Args:
        matches: Pairs from ``match_points`` of all detections and annotations.
        predicted_inside: Which detections lie in the region, bool, ``(n,)``.
        truth_inside: Which annotations lie in the region, bool, ``(m,)``.

    Raises:
        ValueError: A pair names a row that one of the two does not have.
    """
    for name, rows, inside in (
        ("predicted", matches.predicted, predicted_inside),
        ("truth", matches.truth, truth_inside),
    ):
        if rows.max(initial=-1) >= len(inside):
            raise ValueError(
                f"a pair has {name} row {rows.max()}, but {name}_inside has {len(inside)} values."
            )
    pairs = truth_inside[matches.truth]
    detected, annotated = matches.predicted[pairs], matches.truth[pairs]
    counts = predicted_inside.copy()
    counts[matches.predicted] = pairs
    predicted, truth = np.flatnonzero(counts), np.flatnonzero(truth_inside)
    return Restricted(
        predicted,
        truth,
        Matches(
            np.searchsorted(predicted, detected),
            np.searchsorted(truth, annotated),
            matches.distance[pairs],
        ),
    )


def _columns(points: np.ndarray) -> np.ndarray:
    return np.asarray(points, dtype=np.float64).reshape(-1, 2).T
