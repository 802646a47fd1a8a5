"""Annotated nuclei as shapes, whatever the annotation is, and the model pixels they may cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import shapely
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from karyon.io.annotations.instances import instance_points
from karyon.tiles.grid import Grid

# Bounds the memory of nuclei that are drawn; results do not depend on it.
PIXELS_AT_ONCE = 1 << 18
# In level-0 pixels, pixel centres at integers. An instance map: integers, (H, W), 0 = background. Outlines: a
# valid polygon or multipolygon of each nucleus. Centres: floats, x and y, (n, 2).
Annotation: TypeAlias = np.ndarray | Sequence[BaseGeometry]


@dataclass(frozen=True)
class Shapes:
    """Nuclei of any annotation, in level-0 pixels.

    Attributes:
        centres: x and y of the centroids, float64, ``(n, 2)``.
        bounds: Left, top, right and bottom, float64, ``(n, 4)``.
        contains: Of rows ``(k,)`` and positions ``(k, 2)``: whether that nucleus contains that position.
    """

    centres: np.ndarray
    bounds: np.ndarray
    contains: Callable[[np.ndarray, np.ndarray], np.ndarray]


def read_shapes(annotation: Annotation, radius: float) -> Shapes:
    """The nuclei of an annotation.

    Args:
        annotation: Instance map, outlines or centres.
        radius: Centres become discs of so many level-0 pixels.

    Raises:
        ValueError: The annotation is none of the three, an outline is not valid, or a centre is not finite.
    """
    if not isinstance(annotation, np.ndarray):
        return _shapes_of_outlines(annotation)
    if annotation.ndim == 2 and np.issubdtype(annotation.dtype, np.integer):
        return _shapes_of_map(annotation)
    if annotation.ndim == 2 and annotation.shape[1] == 2 and np.issubdtype(annotation.dtype, np.floating):
        return _shapes_of_centres(annotation.astype(np.float64), radius)
    raise ValueError(
        f"the annotation is {annotation.dtype} of shape {annotation.shape}; expected an instance map (whole "
        "numbers, two dimensions), centres (floats, n x 2) or a sequence of polygons."
    )


def has_areas(annotation: Annotation) -> bool:
    """Whether nuclei have outlines, and not their centres alone."""
    return not (isinstance(annotation, np.ndarray) and np.issubdtype(annotation.dtype, np.floating))


def _shapes_of_map(instances: np.ndarray) -> Shapes:
    labels, boxes = [], []
    for label, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is not None:
            labels.append(label)
            boxes.append((box[1].start, box[0].start, box[1].stop, box[0].stop))
    label_of = np.array(labels, np.int64)
    height, width = instances.shape

    def contains(owner: np.ndarray, position: np.ndarray) -> np.ndarray:
        x, y = np.floor(position + 0.5).astype(np.int64).T
        within: np.ndarray = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return within & (instances[y * within, x * within] == label_of[owner])

    return Shapes(instance_points(instances), np.array(boxes, np.float64).reshape(-1, 4) - 0.5, contains)


def _shapes_of_outlines(polygons: Sequence[BaseGeometry]) -> Shapes:
    outlines = np.empty(len(polygons), dtype=object)
    outlines[:] = polygons
    wrong = np.flatnonzero(~(shapely.is_valid(outlines) & (shapely.area(outlines) > 0)))
    if wrong.size:
        raise ValueError(
            f"polygon {wrong[0]} is not valid or has no area; repair it with shapely.make_valid, or leave it "
            "out."
        )
    shapely.prepare(outlines)

    def contains(owner: np.ndarray, position: np.ndarray) -> np.ndarray:
        within: np.ndarray = shapely.contains_xy(outlines[owner], *position.T)
        return within

    centres = shapely.get_coordinates(shapely.centroid(outlines))
    return Shapes(centres, shapely.bounds(outlines).reshape(-1, 4), contains)


def _shapes_of_centres(centres: np.ndarray, radius: float) -> Shapes:
    if not np.isfinite(centres).all():
        wrong = np.flatnonzero(~np.isfinite(centres).all(axis=1))[0]
        raise ValueError(f"centre {wrong} is at {centres[wrong].tolist()}; expected finite numbers.")

    def contains(owner: np.ndarray, position: np.ndarray) -> np.ndarray:
        within: np.ndarray = np.hypot(*(position - centres[owner]).T) <= radius
        return within

    return Shapes(centres, np.hstack([centres - radius, centres + radius]), contains)


def pixels_within(grid: Grid, bounds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Model pixels of every box, at least those whose centre lies in it.

    Args:
        grid: The model grid.
        bounds: Left, top, right and bottom in level-0 pixels, ``(n, 4)``.

    Yields:
        Row of the box, and row and column of the pixel, int64, ``(k,)`` each; box by box, of some boxes at a
        time: up to ``PIXELS_AT_ONCE`` pixels and those of one box more.
    """
    end = np.array([grid.width, grid.height])
    first = np.clip(np.floor(grid.from_level0(bounds[:, :2])).astype(np.int64), 0, end)
    beyond = np.clip(np.ceil(grid.from_level0(bounds[:, 2:])).astype(np.int64) + 1, first, end)
    across, down = (beyond - first).T
    count = across * down
    parts = np.flatnonzero(np.diff(np.cumsum(count) // PIXELS_AT_ONCE)) + 1
    for boxes in np.split(np.arange(len(bounds)), parts):
        owner = np.repeat(boxes, count[boxes])
        before = np.cumsum(count[boxes]) - count[boxes]
        place = np.arange(len(owner)) - np.repeat(before, count[boxes])
        down_by, across_by = np.divmod(place, across[owner])
        yield owner, first[owner, 1] + down_by, first[owner, 0] + across_by
