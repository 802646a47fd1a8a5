"""What an annotator with perfect eyes would draw: the visible part of every nucleus, and its centre."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from karyon.demo.architecture import architecture_at
from karyon.demo.look import Look
from karyon.demo.nuclei import CELL_UM, REACH_UM, Kind, nuclei_of_cell, outline_points
from karyon.io.atomic import atomic_path

VERTICES = 24
# A nucleus of which less is seen, because others lie above it or the slide ends, is not in the truth.
MIN_VISIBLE_SHARE = 0.5
# Under more ink than this, a nucleus cannot be seen.
MAX_PEN = 0.25
# Outlines are stored to this many level-0 pixels.
OUTLINE_GRID_PX = 0.1
CLASS_NAMES = {Kind.EPITHELIAL: "Epithelial", Kind.SPINDLE: "Stroma", Kind.LYMPHOCYTE: "Lymphocyte"}


@dataclass(frozen=True)
class Truth:
    """Visible nuclei of a part of a slide, in level-0 pixels (pixel centres at integers).

    Attributes:
        points: Centres of the visible parts, float64, ``(n, 2)``, rounded to 0.01.
        outlines: Their outlines, shapely polygons without holes, ``(n,)``.
        kinds: :class:`~karyon.demo.nuclei.Kind` of each, int64, ``(n,)``.
    """

    points: np.ndarray
    outlines: np.ndarray
    kinds: np.ndarray


def truth_of_slide(look: Look, mpp: float, width: int, height: int) -> Iterator[Truth]:
    """The truth of a slide, cell of the layout by cell, row by row.

    Args:
        look: The slide.
        mpp: Microns per level-0 pixel.
        width: Level-0 width in pixels.
        height: Level-0 height in pixels.
    """
    first = int(-REACH_UM // CELL_UM)
    for row in range(first, int((height * mpp + REACH_UM) // CELL_UM) + 1):
        for column in range(first, int((width * mpp + REACH_UM) // CELL_UM) + 1):
            yield _truth_of_cell(look, mpp, width, height, column, row)


def write_truth(points: Path, outlines: Path, parts: Iterator[Truth]) -> int:
    """Write a points table (columns ``x,y``) and a GeoJSON feature collection, part by part.

    Args:
        points: CSV file to write.
        outlines: GeoJSON file to write; features are QuPath detections with a class, in level-0 pixels.
        parts: From :func:`truth_of_slide`.

    Returns:
        Number of nuclei written.
    """
    count = 0
    with ExitStack() as files:
        parts_of = [files.enter_context(atomic_path(path)) for path in (points, outlines)]
        csv, geojson = (files.enter_context(path.open("w", newline="")) for path in parts_of)
        csv.write("x,y\n")
        geojson.write('{"type":"FeatureCollection","features":[')
        for truth in parts:
            csv.writelines(f"{x:.2f},{y:.2f}\n" for x, y in truth.points.tolist())
            for geometry, kind in zip(shapely.to_geojson(truth.outlines), truth.kinds, strict=True):
                geojson.write(",\n" if count else "\n")
                geojson.write(_feature(geometry, CLASS_NAMES[Kind(kind)]))
                count += 1
        geojson.write("\n]}\n")
    return count


def _feature(geometry: str, class_name: str) -> str:
    properties = f'{{"objectType":"detection","classification":{{"name":"{class_name}"}}}}'
    return f'{{"type":"Feature","geometry":{geometry},"properties":{properties}}}'


def _truth_of_cell(look: Look, mpp: float, width: int, height: int, column: int, row: int) -> Truth:
    cells = nuclei_of_cell(look, column, row, 2 * REACH_UM)
    outlines = shapely.polygons(outline_points(cells, VERTICES) / mpp)
    own = np.flatnonzero(_is_own(cells, column, row) & (cells["kind"] != Kind.RED_CELL))
    visible = _visible_parts(outlines, own)
    slide = shapely.box(0, 0, width - 1, height - 1)
    visible = shapely.intersection(visible, slide)
    visible = _largest_pieces(shapely.set_precision(visible, OUTLINE_GRID_PX))
    seen = shapely.area(visible) >= MIN_VISIBLE_SHARE * shapely.area(outlines[own])
    seen &= architecture_at(look, cells["x"][own], cells["y"][own]).pen <= MAX_PEN if len(own) else True
    visible, kinds = visible[seen], cells["kind"][own][seen]
    centers = shapely.centroid(visible)
    # The centroid of a crescent may lie outside it.
    outside = ~shapely.contains_properly(visible, centers)
    centers[outside] = shapely.point_on_surface(visible[outside])
    points = np.round(shapely.get_coordinates(centers), 2)
    order = np.lexsort((points[:, 0], points[:, 1]))
    return Truth(points[order], visible[order], kinds[order])


def _is_own(cells: np.ndarray, column: int, row: int) -> np.ndarray:
    return (np.floor(cells["x"] / CELL_UM) == column) & (np.floor(cells["y"] / CELL_UM) == row)


def _visible_parts(outlines: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Each own outline less all those above it; ``outlines`` are sorted from bottom to top."""
    visible = outlines[own].copy()
    lower, upper = shapely.STRtree(outlines).query(outlines[own], predicate="intersects")
    above = upper > own[lower]
    lower, upper = lower[above], upper[above]
    order = np.argsort(lower, kind="stable")
    lower, upper = lower[order], upper[order]
    hidden, starts, counts = np.unique(lower, return_index=True, return_counts=True)
    for index, start, count in zip(hidden, starts, counts, strict=True):
        visible[index] = shapely.difference(
            visible[index], shapely.union_all(outlines[upper[start : start + count]])
        )
    return visible


def _largest_pieces(shapes: np.ndarray) -> np.ndarray:
    """The largest polygon of each shape, without holes; an empty polygon where there is none."""
    result = np.full(len(shapes), shapely.Polygon(), dtype=object)
    simple = (shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(shapes)
    result[simple] = shapes[simple]
    for index in np.flatnonzero(~simple):
        parts = shapely.get_parts(shapes[index])
        parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
        if len(parts):
            result[index] = parts[np.argmax(shapely.area(parts))]
    return shapely.polygons(shapely.get_exterior_ring(result))
