"""Nucleus annotations of every supported format in level-0 pixels: as points, outlines or a label map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from karyon.errors import SlideError
from karyon.io.annotations.instances import (
    INSTANCE_FORMATS,
    check_size,
    instance_points,
    read_instances,
)
from karyon.io.annotations.outlines import (
    Outlines,
    make_valid,
    read_geojson,
    read_geojson_outlines,
    read_imagescope,
    read_imagescope_outlines,
)
from karyon.io.annotations.points import PointList, read_csv, read_matlab

__all__ = [
    "ANNOTATION_FORMATS",
    "INSTANCE_FORMATS",
    "OUTLINE_FORMATS",
    "Annotations",
    "Outlines",
    "instance_points",
    "make_valid",
    "read_instances",
    "read_label_map",
    "read_outlines",
    "read_points",
]

_POINT_READERS: dict[str, Callable[[Path], PointList]] = {
    "imagescope_xml": read_imagescope,
    "geojson": read_geojson,
    "points_csv": read_csv,
    "points_mat": read_matlab,
}
_OUTLINE_READERS: dict[str, Callable[[Path], Outlines]] = {
    "imagescope_xml": read_imagescope_outlines,
    "geojson": read_geojson_outlines,
}
ANNOTATION_FORMATS = (*INSTANCE_FORMATS, *_POINT_READERS)
OUTLINE_FORMATS = tuple(_OUTLINE_READERS)

# Outlines may leave the image by a little; a point further out than this belongs to another image or unit.
OUTSIDE_PX = 1.0
# The factor between two mpp is only as good as they are; an instance map's own size says it better.
SCALE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Annotations:
    """Annotated nuclei in the order of the file; those of an instance map in the order of their ids.

    Attributes:
        points: Centroid of each nucleus, x and y in level-0 pixels, float64, ``(n, 2)``.
        class_name: Class of each nucleus as the file names it, ``None`` where it names none.
    """

    points: np.ndarray
    class_name: tuple[str | None, ...]


def read_points(
    path: Path | str, annotation_format: str, size: tuple[int, int] | None, scale: float = 1.0
) -> Annotations:
    """Read the annotated nuclei of a slide, whatever their format.

    Coordinates are taken as the file writes them, 0-based pixels of the whole image, and scaled about the
    image's corner: ``(x + 0.5) * scale - 0.5``, for pixel centres are at integers on both sides.

    Args:
        path: The annotation file.
        annotation_format: One of ``ANNOTATION_FORMATS``.
        size: Width and height of the slide in level-0 pixels; ``None`` leaves the position unchecked.
        scale: Level-0 pixels per pixel of the annotations: their mpp divided by the slide's. An instance map
            of another size than 1 over it is refused, and its own size is what it is scaled by.

    Raises:
        SlideError: The file is missing, malformed, holds a coordinate that is not finite, or does not lie on
            this slide: an instance map of another size, or points outside by more than a pixel.
        ValueError: ``scale`` is not a finite number above 0.
    """
    path = Path(path)
    _check_scale(scale)
    if annotation_format in INSTANCE_FORMATS:
        instances = read_instances(path, annotation_format)
        points = _scaled(instance_points(instances), _map_scale(path, instances.shape, size, scale))
        return Annotations(points, (None,) * len(points))
    if annotation_format not in _POINT_READERS:
        raise SlideError(
            f"{path}: unknown annotation_format {annotation_format!r}; expected one of "
            f"{', '.join(ANNOTATION_FORMATS)}."
        )
    positions, names = _POINT_READERS[annotation_format](path)
    points = _scaled(np.asarray(positions, dtype=np.float64).reshape(-1, 2), scale)
    _check_position(path, points, size)
    return Annotations(points, tuple(names))


def read_outlines(
    path: Path | str, annotation_format: str, size: tuple[int, int] | None, scale: float = 1.0
) -> Outlines:
    """Read the annotated nuclei of a slide as areas in level-0 pixels, with their classes.

    Args:
        path: The annotation file.
        annotation_format: One of ``OUTLINE_FORMATS``.
        size: As in :func:`read_points`; it is the centroids that have to lie on the slide.
        scale: As in :func:`read_points`.

    Raises:
        SlideError: As in :func:`read_points`, or the format or a nucleus has no outline.
        ValueError: ``scale`` is not a finite number above 0.
    """
    path = Path(path)
    _check_scale(scale)
    if annotation_format not in OUTLINE_FORMATS:
        raise SlideError(
            f"{path}: annotation_format is {annotation_format!r}; outlines are needed here, one of "
            f"{', '.join(OUTLINE_FORMATS)}."
        )
    outlines = _OUTLINE_READERS[annotation_format](path)
    areas, holes = (
        tuple(make_valid(shapely.transform(area, lambda vertices: _scaled(vertices, scale))) for area in part)
        for part in (outlines.areas, outlines.holes)
    )
    _check_position(path, shapely.get_coordinates(shapely.centroid(areas)), size)
    return Outlines(areas, outlines.class_name, holes)


def read_label_map(
    path: Path | str, annotation_format: str, size: tuple[int, int], scale: float = 1.0
) -> np.ndarray:
    """Read an instance map onto the slide's level-0 pixels.

    Args:
        path: The annotation file.
        annotation_format: One of ``INSTANCE_FORMATS``.
        size: Width and height of the slide in level-0 pixels.
        scale: As in :func:`read_points`. Each level-0 pixel takes the id of the map's pixel that its centre
            lies in.

    Returns:
        int32, ``(height, width)`` of the slide, ids as in :func:`read_instances`.

    Raises:
        SlideError: As in :func:`read_instances`, or the map is of another size than the slide and ``scale``
            say.
        ValueError: ``scale`` is not a finite number above 0.
    """
    path = Path(path)
    _check_scale(scale)
    instances = read_instances(path, annotation_format)
    across, down = _map_scale(path, instances.shape, size, scale)
    if across == down == 1:
        return instances
    width, height = size
    check_size(path, height, width)
    column = ((np.arange(width) + 0.5) / across).astype(np.int64)
    row = ((np.arange(height) + 0.5) / down).astype(np.int64)
    return instances[np.ix_(row, column)]


def _check_scale(scale: float) -> None:
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale is {scale!r}; expected a finite number above 0.")


def _scaled(points: np.ndarray, scale: float | tuple[float, float]) -> np.ndarray:
    return points if np.all(np.asarray(scale) == 1) else (points + 0.5) * scale - 0.5


def _map_scale(
    path: Path, shape: tuple[int, ...], size: tuple[int, int] | None, scale: float
) -> tuple[float, float]:
    """Level-0 pixels per pixel of an instance map, across and down."""
    if size is None:
        return scale, scale
    height, width = shape
    if scale == 1 and (width, height) != tuple(size):
        raise SlideError(
            f"{path}: the instance map has {width} x {height} pixels, the slide {size[0]} x {size[1]}; "
            "they must be equal. Check that it belongs to this slide and was drawn at level 0, or say in "
            "annotation_mpp at how many microns per pixel it was drawn."
        )
    expected = np.asarray(size) / scale
    if (np.abs(expected - (width, height)) > np.maximum(1.0, SCALE_TOLERANCE * expected)).any():
        raise SlideError(
            f"{path}: the instance map has {width} x {height} pixels; the slide of {size[0]} x {size[1]} has "
            f"{expected[0]:.0f} x {expected[1]:.0f} at the map's microns per pixel. Check that the map "
            "belongs to this slide and covers the whole of it, and correct annotation_mpp."
        )
    return size[0] / width, size[1] / height


def _check_position(path: Path, points: np.ndarray, size: tuple[int, int] | None) -> None:
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise SlideError(
            f"{path}: {bad.size} of {len(points)} annotations have a coordinate that is not finite, the "
            f"first is number {bad[0] + 1} at {_position(points[bad[0]])}; correct or remove them."
        )
    if size is None:
        return
    # Pixel centres are at integers, so the image spans -0.5 to size - 0.5.
    low, high = -0.5 - OUTSIDE_PX, np.asarray(size) - 0.5 + OUTSIDE_PX
    outside = np.flatnonzero(((points < low) | (points > high)).any(axis=1))
    if outside.size:
        raise SlideError(
            f"{path}: {outside.size} of {len(points)} annotations lie outside the slide of {size[0]} x "
            f"{size[1]} pixels, the first is number {outside[0] + 1} at {_position(points[outside[0]])}. "
            "Check that the file belongs to this slide and is in level-0 pixels, not in microns or of "
            "another level; if in pixels of another size, give that in annotation_mpp."
        )


def _position(point: np.ndarray) -> str:
    return f"x {point[0]:g}, y {point[1]:g}"
