"""Nuclei for other tools: CSV, QuPath GeoJSON, and the thresholded map as a pyramidal TIFF."""

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
import tifffile

from karyon.io.atomic import atomic_path
from karyon.io.slides import SlideFacts
from karyon.nuclei.components import Map2D
from karyon.tiles.grid import Grid

ROWS_AT_ONCE = 10_000
TIFF_TILE = 512


@contextmanager
def _gzip_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """A gzip file without time or name inside, so that equal content gives equal bytes."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as text,
    ):
        yield text


def write_csv(path: Path, table: pa.Table) -> None:
    """The nuclei table as gzipped CSV."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
    ):
        pa_csv.write_csv(table.cast(pa.schema([(f.name, _plain(f.type)) for f in table.schema])), packed)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


class Detection(NamedTuple):
    """A point object of QuPath.

    Attributes:
        x: Level-0 pixels.
        y: Level-0 pixels.
        name: What QuPath lists it as.
        classification: Name of its class.
        colour: Of the class, red, green and blue, 0 to 255.
        measurements: By name.
    """

    x: float
    y: float
    name: str
    classification: str
    colour: tuple[int, int, int]
    measurements: dict[str, float]


def write_geojson(path: Path, table: pa.Table, facts: SlideFacts) -> None:
    """QuPath detections of the nuclei table as a gzipped GeoJSON FeatureCollection.

    Args:
        path: ``*.geojson.gz``; QuPath opens it as it is.
        table: The nuclei table.
        facts: The slide.
    """
    write_detections(path, _nuclei(table), facts)


def _nuclei(table: pa.Table) -> Iterator[Detection]:
    columns = table.select(["nucleus_id", "x", "y", "probability"])
    for batch in columns.to_batches(max_chunksize=ROWS_AT_ONCE):
        for nucleus, x, y, probability in zip(*(column.to_pylist() for column in batch), strict=True):
            yield Detection(x, y, str(nucleus), "Nucleus", (0, 160, 60), {"probability": probability})


def write_detections(path: Path, detections: Iterable[Detection], facts: SlideFacts) -> None:
    """Point objects as a gzipped GeoJSON FeatureCollection, written as they come.

    QuPath shows the scanned area only, so its origin is the slide's bounds, and it puts pixel
    corners, not centres, at integers: hence the shift by the bounds and half a pixel.

    Args:
        path: ``*.geojson.gz``.
        detections: In any order.
        facts: The slide.
    """
    with _gzip_text(path) as text:
        text.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for x, y, name, classification, colour, measurements in detections:
            point = [round(x - facts.bounds_x + 0.5, 3), round(y - facts.bounds_y + 0.5, 3)]
            feature = {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": point},
                "properties": {
                    "objectType": "detection",
                    "name": name,
                    "classification": {"name": classification, "color": list(colour)},
                    "measurements": {key: round(value, 4) for key, value in measurements.items()},
                },
            }
            text.write(separator + json.dumps(feature))
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
