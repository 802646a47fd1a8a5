"""Nuclei for other tools: CSV, Parquet, QuPath GeoJSON, and the thresholded map as a pyramidal TIFF."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import shapely
import tifffile
from shapely.geometry.base import BaseGeometry

from karyon.io.atomic import atomic_path
from karyon.nuclei.components import Map2D
from karyon.nuclei.query import read_nuclei
from karyon.tiles.grid import Grid

GEOMETRY_COLUMNS = ("geometry", "bbox")
TIFF_TILE = 512
# Of nuclei without a class, then of the classes in their order (after Okabe and Ito 2008: told apart with any
# colour vision).
COLOURS = (
    (0, 160, 60),
    (213, 94, 0),
    (0, 114, 178),
    (240, 228, 66),
    (204, 121, 167),
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
)


@contextmanager
def _gzip(path: Path) -> Iterator[gzip.GzipFile]:
    """A gzip file without time or name inside, so that equal content gives equal bytes."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as raw,
        # Of text like this level 6 takes half the time of 9 and gives files a few per cent larger.
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        yield packed


def write_csv(path: Path, nuclei: Path, region: BaseGeometry | None = None) -> None:
    """A nuclei table as gzipped CSV, without outlines.

    Args:
        path: ``*.csv.gz``.
        nuclei: The table.
        region: As in :func:`karyon.nuclei.query.read_nuclei`.
    """
    plain = [
        field.with_type(_plain(field.type))
        for field in pq.read_schema(nuclei)
        if field.name not in GEOMETRY_COLUMNS
    ]
    schema = pa.schema(plain)
    with _gzip(path) as packed, pa_csv.CSVWriter(packed, schema) as writer:
        for batch in read_nuclei(nuclei, schema.names, region):
            writer.write(batch.cast(schema))


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def write_parquet(path: Path, nuclei: Path, region: BaseGeometry | None = None) -> None:
    """A nuclei table or the part of it in a region, with all columns and what the file says of its origin.

    Args:
        path: ``*.parquet``.
        nuclei: The table.
        region: As in :func:`karyon.nuclei.query.read_nuclei`.
    """
    schema = pq.read_schema(nuclei)
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, use_dictionary=["slide_id", "class_name"], compression="zstd"
        ) as writer,
    ):
        for batch in read_nuclei(nuclei, schema.names, region):
            writer.write_batch(batch)


class Detection(NamedTuple):
    """A detection object of QuPath.

    Attributes:
        geometry: Point or polygon in level-0 pixels.
        name: What QuPath lists it as.
        classification: Name of its class.
        colour: Of the class, red, green and blue, 0 to 255.
        measurements: By name.
    """

    geometry: BaseGeometry
    name: str
    classification: str
    colour: tuple[int, int, int]
    measurements: dict[str, float]


def write_geojson(path: Path, nuclei: Path, region: BaseGeometry | None = None) -> None:
    """QuPath detections of a nuclei table as a gzipped GeoJSON FeatureCollection.

    Nuclei with outlines are polygons, others points; those with classes have one colour for each.

    Args:
        path: ``*.geojson.gz``; QuPath opens it as it is.
        nuclei: The table.
        region: As in :func:`karyon.nuclei.query.read_nuclei`.
    """
    names = pq.read_schema(nuclei).names
    batches = read_nuclei(nuclei, [name for name in names if name != "bbox"], region)
    write_detections(path, (found for batch in batches for found in _detections(batch)), _origin(nuclei))


def from_qupath(area: BaseGeometry, nuclei: Path) -> BaseGeometry:
    """An area drawn in QuPath, in level-0 pixels; the inverse of what :func:`write_detections` does.

    Args:
        area: As QuPath writes it.
        nuclei: The slide's table of nuclei.
    """
    shift = np.array(_origin(nuclei)) - 0.5
    return shapely.transform(area, lambda corners: corners + shift)


def _origin(nuclei: Path) -> tuple[float, float]:
    said = pq.read_schema(nuclei).metadata
    return float(said[b"bounds_x"]), float(said[b"bounds_y"])


def _detections(batch: pa.RecordBatch) -> Iterator[Detection]:
    columns = {name: batch[name].to_pylist() for name in batch.schema.names}
    x, y = columns.pop("x"), columns.pop("y")
    ids = columns.pop("nucleus_id")
    geometry = shapely.from_wkb(columns.pop("geometry")) if "geometry" in columns else shapely.points(x, y)
    classes = columns.pop("class_name", ["Nucleus"] * len(ids))
    colours = columns.pop("class_id", [0] * len(ids))
    for name in ("slide_id", "x_um", "y_um"):
        del columns[name]
    for row, (shape, nucleus, name, colour) in enumerate(zip(geometry, ids, classes, colours, strict=True)):
        measured = {key: values[row] for key, values in columns.items() if values[row] is not None}
        yield Detection(shape, str(nucleus), name, COLOURS[colour % len(COLOURS)], measured)


def write_detections(path: Path, detections: Iterable[Detection], origin: tuple[float, float]) -> None:
    """QuPath objects as a gzipped GeoJSON FeatureCollection, written as they come.

    QuPath shows the scanned area only, so its origin is the slide's bounds, and it puts pixel
    corners, not centres, at integers: hence the shift by the bounds and half a pixel.

    Args:
        path: ``*.geojson.gz``.
        detections: In any order.
        origin: The slide's bounds: left and top, level-0 pixels.
    """
    shift = 0.5 - np.array(origin)
    with _gzip(path) as packed, io.TextIOWrapper(packed, encoding="utf-8") as text:
        text.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for geometry, name, classification, colour, measurements in detections:
            properties = {
                "objectType": "detection",
                "name": name,
                "classification": {"name": classification, "color": list(colour)},
                "measurements": {key: round(value, 4) for key, value in measurements.items()},
            }
            shifted = shapely.transform(geometry, lambda corners: np.round(corners + shift, 3))
            text.write(
                f'{separator}{{"type": "Feature", "geometry": {shapely.to_geojson(shifted)}, '
                f'"properties": {json.dumps(properties)}}}'
            )
            separator = ",\n"
        text.write("\n]}\n")


def write_mask(path: Path, values: Map2D, threshold: int, grid: Grid, mpp: float) -> None:
    """The thresholded map as a tiled pyramidal TIFF on the model grid, 255 = nucleus.

    Every level is read from the map by rows of tiles, so memory does not grow with the slide.

    Args:
        path: ``*.tif``.
        values: uint8 map.
        threshold: 1 to 255.
        grid: The map's grid.
        mpp: Microns per level-0 pixel.
    """
    levels = max(1, int(np.ceil(np.log2(max(grid.width, grid.height) / TIFF_TILE))) + 1)
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True) as writer:
        for level in range(levels):
            step = 2**level
            height, width = -(-grid.height // step), -(-grid.width // step)
            pixels_per_cm = 10_000 / (mpp * grid.scale * step)
            writer.write(
                _mask_tiles(values, threshold, step, height, width),
                shape=(height, width),
                dtype=np.uint8,
                tile=(TIFF_TILE, TIFF_TILE),
                compression="deflate",
                photometric="minisblack",
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,  # a directory of its own: OpenSlide sees no SubIFDs
                metadata=None,
                software="karyon",
            )


def _mask_tiles(values: Map2D, threshold: int, step: int, height: int, width: int) -> Iterator[np.ndarray]:
    for top in range(0, height, TIFF_TILE):
        for left in range(0, width, TIFF_TILE):
            # The map does the striding: a tile of the coarsest level spans the whole slide.
            rows, columns = (slice(start * step, (start + TIFF_TILE) * step, step) for start in (top, left))
            block = np.asarray(values[rows, columns])
            tile = np.zeros((TIFF_TILE, TIFF_TILE), np.uint8)
            tile[: block.shape[0], : block.shape[1]] = np.where(block >= threshold, 255, 0)
            yield tile
