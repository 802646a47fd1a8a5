"""Two files that are to be compared, of any known format, read into the pixels of the second."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from shapely.geometry.base import BaseGeometry

from karyon.errors import KaryonError, SlideError
from karyon.evaluation.pair import Nuclei
from karyon.evaluation.region import Region, read_region
from karyon.io.annotations import (
    ANNOTATION_FORMATS,
    INSTANCE_FORMATS,
    OUTLINE_FORMATS,
    instance_points,
    make_valid,
    read_instances,
    read_label_map,
    read_outlines,
    read_points,
)

NUCLEI_FORMAT = "nuclei_parquet"
FILE_FORMATS = (NUCLEI_FORMAT, *ANNOTATION_FORMATS)
NUCLEI_COLUMNS = ("nucleus_id", "x", "y", "probability")
MORE_COLUMNS = ("class_name", "geometry")  # not every model gives them
_BY_SUFFIX = {
    ".parquet": (NUCLEI_FORMAT,),
    ".xml": ("imagescope_xml",),
    ".geojson": ("geojson",),
    ".csv": ("points_csv",),
    ".png": ("instance_png",),
    ".tif": ("instance_tiff",),
    ".tiff": ("instance_tiff",),
    ".npy": ("instance_npy",),
    ".mat": ("instance_mat", "points_mat"),
}
# Outlines of a region are checked against the slide's size; this one lets all pass where none is known.
NO_SIZE = (2**31, 2**31)


def choose_format(path: Path, named: str | None, option: str) -> str:
    """The format of a file: the one that the user named, else the only one of its extension.

    Args:
        path: The file; ``.gz`` at its end is passed over.
        named: What the user said; ``None`` for nothing.
        option: The option that says it, for messages.

    Raises:
        KaryonError: The name is not known, or nothing was said and the extension leaves a choice.
    """
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    possible = _BY_SUFFIX.get(suffix, FILE_FORMATS)
    if named is None and len(possible) == 1:
        return possible[0]
    if named is None:
        raise KaryonError(
            f"{path}: the extension does not say the format; give {option}, one of {', '.join(possible)}."
        )
    if named not in FILE_FORMATS:
        raise KaryonError(f"{option} is {named!r}; expected one of {', '.join(FILE_FORMATS)}.")
    return named


def read_pair(
    predicted: tuple[Path, str],
    truth: tuple[Path, str],
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    areas: bool = True,
) -> tuple[Nuclei, Nuclei]:
    """Read prediction and truth into the truth's pixels.

    Args:
        predicted: File and format, one of ``FILE_FORMATS``.
        truth: The same of the truth.
        scale: Pixels of the truth per pixel of the prediction, > 0. A map is laid onto a true map by taking,
            for each pixel, the id at its centre; its points keep their exact positions.
        shift: Pixels of the truth to add to the prediction's x and y, after scaling.
        areas: Whether areas are to be compared; if not, the prediction comes without map and outlines.

    Raises:
        KaryonError: A file cannot be read; or, of areas, two maps are of different sizes or are to be
            shifted, or the prediction is a map and the truth outlines.
    """
    real = _read_nuclei(*truth, 1.0, None)
    true_map = real.instances if areas else None
    try:
        found = _read_nuclei(*predicted, scale, None if true_map is None else true_map.shape[::-1])
    except SlideError as error:
        if scale == 1 or true_map is None:
            raise
        raise KaryonError(f"laid over {truth[0]} at {scale:g} of its pixels each, {error}") from error
    if areas:
        _check_areas(predicted, found, truth, real, shift)
    else:
        found = replace(found, instances=None, outlines=None)
    return _shifted(found, shift), real


def nuclei_mpp(path: Path) -> float | None:
    """Microns per pixel that a nuclei table names in its metadata; ``None`` where it names none.

    Raises:
        KaryonError: The file cannot be read.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
        return float(metadata[b"mpp"]) if b"mpp" in metadata else None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from error


def read_region_file(path: Path, size: tuple[int, int] | None) -> Region:
    """Read a region of interest in the truth's pixels.

    Args:
        path: Outlines, or an image of the whole picture at any downsample, by its extension.
        size: Width and height of the picture; ``None`` if unknown.

    Raises:
        KaryonError: The file cannot be read, or is an image although the picture's size is unknown.
    """
    region_format = choose_format(path, None, "a file with another extension")
    if region_format in INSTANCE_FORMATS and size is None:
        raise KaryonError(
            f"{path}: how large a pixel of this region is can only be told where TRUTH is an instance map; "
            "give the region as outlines (.geojson or .xml) in TRUTH's pixels."
        )
    return read_region(path, region_format, size or NO_SIZE)


def _check_areas(
    predicted: tuple[Path, str],
    found: Nuclei,
    truth: tuple[Path, str],
    real: Nuclei,
    shift: tuple[float, float],
) -> None:
    if found.instances is not None and real.instances is not None:
        (height, width), (true_height, true_width) = found.instances.shape, real.instances.shape
        if (height, width) != (true_height, true_width):
            raise KaryonError(
                f"{predicted[0]} has {width} x {height} pixels, {truth[0]} {true_width} x {true_height}; two "
                "instance maps must be of one image and of one size. If they were drawn at different "
                "resolutions, give --mpp for TRUTH and --pred-mpp for PRED."
            )
        if any(shift):
            raise KaryonError(
                f"{predicted[0]}: two instance maps cannot be shifted; leave --pred-shift out, or give "
                "--points-only."
            )
    if found.instances is not None and real.outlines is not None:
        raise KaryonError(
            f"{predicted[0]} is an instance map and {truth[0]} holds outlines; areas are compared between "
            "two maps, or of outlines with either. Give PRED as outlines too, or --points-only to compare "
            "centroids."
        )


def _read_nuclei(path: Path, file_format: str, scale: float, size: tuple[int, ...] | None) -> Nuclei:
    """Read one side; ``size`` is width and height of the map that a map is to be laid over."""
    if file_format == NUCLEI_FORMAT:
        return _read_table(path, scale)
    if file_format in INSTANCE_FORMATS:
        return _read_map(path, file_format, scale, size)
    if file_format in OUTLINE_FORMATS:
        try:
            outlines = read_outlines(path, file_format, None, scale)
        except SlideError:
            pass  # the file holds points, or it is wrong and reading points says how
        else:
            centres = shapely.get_coordinates(shapely.centroid(outlines.areas))
            return _numbered(centres, outlines.class_name, outlines=outlines.areas)
    annotations = read_points(path, file_format, None, scale)
    return _numbered(annotations.points, annotations.class_name)


def _read_map(path: Path, file_format: str, scale: float, size: tuple[int, ...] | None) -> Nuclei:
    instances = read_instances(path, file_format)
    if scale == 1:
        points = instance_points(instances)
    elif size is None:
        points = read_points(path, file_format, None, scale).points
    else:
        width, height = size
        points = read_points(path, file_format, (width, height), scale).points
        instances = read_label_map(path, file_format, (width, height), scale)
    return _numbered(points, (None,) * len(points), instances=instances)


def _read_table(path: Path, scale: float) -> Nuclei:
    try:
        given = [name for name in (*NUCLEI_COLUMNS, *MORE_COLUMNS) if name in pq.read_schema(path).names]
        missing = [name for name in NUCLEI_COLUMNS if name not in given]
        if missing:
            raise KaryonError(
                f"{path}: no column {', '.join(missing)}; expected a nuclei table as karyon writes it."
            )
        table = pq.read_table(path, columns=given).to_pandas()
        numbers = table[list(NUCLEI_COLUMNS)].to_numpy(np.float64)
        areas = shapely.from_wkb(table["geometry"].to_numpy()) if "geometry" in table else None
    except (OSError, pa.ArrowException, ValueError, TypeError, shapely.errors.ShapelyError) as error:
        raise _unreadable(path, error) from error
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row, column = bad[0]
        raise KaryonError(f"{path}, row {row}: {NUCLEI_COLUMNS[column]} is {numbers[row, column]}.")
    named = table["class_name"] if "class_name" in table else [None] * len(table)
    return Nuclei(
        _scaled(numbers[:, 1:3], scale),
        tuple(name if isinstance(name, str) and name else None for name in named),
        table["nucleus_id"].to_numpy(np.int64),
        numbers[:, 3],
        outlines=None if areas is None else _moved(areas, lambda vertices: _scaled(vertices, scale)),
    )


def _scaled(points: np.ndarray, scale: float) -> np.ndarray:
    """Points in the truth's pixels; where these are the file's own, not a bit of them changes."""
    return points if scale == 1 else (points + 0.5) * scale - 0.5


def _shifted(nuclei: Nuclei, shift: tuple[float, float]) -> Nuclei:
    outlines = nuclei.outlines
    if outlines is not None and any(shift):
        outlines = _moved(outlines, lambda vertices: vertices + shift)
    return replace(nuclei, points=nuclei.points + shift, outlines=outlines)


def _moved(
    areas: Iterable[BaseGeometry], move: Callable[[np.ndarray], np.ndarray]
) -> tuple[BaseGeometry, ...]:
    return tuple(make_valid(shapely.transform(area, move)) for area in areas)


def _numbered(
    points: np.ndarray,
    class_name: tuple[str | None, ...],
    instances: np.ndarray | None = None,
    outlines: tuple[BaseGeometry, ...] | None = None,
) -> Nuclei:
    """Nuclei that are known by their place in the file, from 0."""
    return Nuclei(points, class_name, np.arange(len(points)), None, instances, outlines)


def _unreadable(path: Path, error: Exception) -> KaryonError:
    return KaryonError(f"{path}: not a Parquet file that can be read ({error}); write it again.")
