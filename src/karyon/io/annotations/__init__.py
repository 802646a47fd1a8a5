"""Nucleus annotations of every supported format as points in level-0 pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from karyon.errors import SlideError
from karyon.io.annotations.instances import INSTANCE_FORMATS, instance_points, read_instances
from karyon.io.annotations.outlines import read_geojson, read_imagescope
from karyon.io.annotations.points import PointList, read_csv, read_matlab

__all__ = ["ANNOTATION_FORMATS", "Annotations", "instance_points", "read_instances", "read_points"]

_POINT_READERS: dict[str, Callable[[Path], PointList]] = {
    "imagescope_xml": read_imagescope,
    "geojson": read_geojson,
    "points_csv": read_csv,
    "points_mat": read_matlab,
}
ANNOTATION_FORMATS = (*INSTANCE_FORMATS, *_POINT_READERS)

# Outlines may leave the image by a little; a point further out than this belongs to another image or unit.
OUTSIDE_PX = 1.0


@dataclass(frozen=True)
class Annotations:
    """Annotated nuclei in the order of the file; those of an instance map in the order of their ids.

    Attributes:
        points: Centroid of each nucleus, x and y in level-0 pixels, float64, ``(n, 2)``.
        class_name: Class of each nucleus as the file names it, ``None`` where it names none.
    """

    points: np.ndarray
    class_name: tuple[str | None, ...]


def read_points(path: Path | str, annotation_format: str, size: tuple[int, int] | None) -> Annotations:
    """Read the annotated nuclei of a slide, whatever their format.

    Coordinates are taken as the file writes them: 0-based level-0 pixels of the whole image.

    Args:
        path: The annotation file.
        annotation_format: One of ``ANNOTATION_FORMATS``.
        size: Width and height of the slide in level-0 pixels; ``None`` leaves the position unchecked.

    Raises:
        SlideError: The file is missing, malformed, holds a coordinate that is not finite, or does not lie on
            this slide: an instance map of another size, or points outside by more than a pixel.
    """
    path = Path(path)
    if annotation_format in INSTANCE_FORMATS:
        instances = read_instances(path, annotation_format)
        height, width = instances.shape
        if size is not None and (width, height) != tuple(size):
            raise SlideError(
                f"{path}: the instance map has {width} x {height} pixels, the slide {size[0]} x {size[1]}; "
                "they must be equal. Check that it belongs to this slide and was drawn at level 0."
            )
        points = instance_points(instances)
        return Annotations(points, (None,) * len(points))
    if annotation_format not in _POINT_READERS:
        raise SlideError(
            f"{path}: unknown annotation_format {annotation_format!r}; expected one of "
            f"{', '.join(ANNOTATION_FORMATS)}."
        )
    positions, names = _POINT_READERS[annotation_format](path)
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 2)
    _check_position(path, points, size)
    return Annotations(points, tuple(names))


def _check_position(path: Path, points: np.ndarray, size: tuple[int, int] | None) -> None:
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise SlideError(
            f"{path}: {bad.size} of {len(points)} nuclei have a coordinate that is not finite, the first is "
            f"nucleus {bad[0] + 1} at {_position(points[bad[0]])}; correct or remove them."
        )
    if size is None:
        return
    # Pixel centres are at integers, so the image spans -0.5 to size - 0.5.
    low, high = -0.5 - OUTSIDE_PX, np.asarray(size) - 0.5 + OUTSIDE_PX
    outside = np.flatnonzero(((points < low) | (points > high)).any(axis=1))
    if outside.size:
        raise SlideError(
            f"{path}: {outside.size} of {len(points)} nuclei lie outside the slide of {size[0]} x {size[1]} "
            f"pixels, the first is nucleus {outside[0] + 1} at {_position(points[outside[0]])}. Check that "
            "the file belongs to this slide and is in level-0 pixels, not in microns or of another level."
        )


def _position(point: np.ndarray) -> str:
    return f"x {point[0]:g}, y {point[1]:g}"
