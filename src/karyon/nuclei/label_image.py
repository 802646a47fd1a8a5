"""Nuclei with outlines as a label image: a pyramidal OME-TIFF, painted and written by bands of the slide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import tifffile
from numba import njit
from shapely.geometry.base import BaseGeometry

from karyon.errors import KaryonError
from karyon.io.atomic import atomic_path
from karyon.io.slides import SlideFacts
from karyon.nuclei.query import ROWS_AT_ONCE

TILE = 512


def write_label_image(
    path: Path, nuclei: Path, facts: SlideFacts, region: BaseGeometry | None = None
) -> None:
    """An image of the whole slide at level 0 whose pixels are ``nucleus_id``, 0 between nuclei.

    Every level takes each second pixel of the one before in both directions, so that no ids are mixed. A band
    of ``TILE`` rows is in memory at a time, and some thousand nuclei.

    Args:
        path: ``*.ome.tif``.
        nuclei: A table with outlines.
        facts: The slide.
        region: As in :func:`karyon.nuclei.query.read_nuclei`.

    Raises:
        KaryonError: The nuclei have no outlines.
    """
    if "geometry" not in pq.read_schema(nuclei).names:
        raise KaryonError(f"{nuclei}: centres without outlines; labels need a model of outlines")
    levels = 1 + max(0, math.ceil(math.log2(max(facts.width, facts.height) / TILE)))
    pixel = {"PhysicalSizeX": facts.mpp, "PhysicalSizeXUnit": "µm"}
    pixel |= {"PhysicalSizeY": facts.mpp, "PhysicalSizeYUnit": "µm"}
    with (
        atomic_path(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as writer,
    ):
        for level in range(levels):
            step = 2**level
            shape = (-(-facts.height // step), -(-facts.width // step))
            writer.write(
                _tiles(nuclei, region, step, shape),
                shape=shape,
                dtype=np.uint32,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="minisblack",
                subifds=None if level else levels - 1,
                subfiletype=1 if level else 0,
                metadata=None if level else {"axes": "YX", **pixel},
                software="karyon",
            )


def _tiles(
    nuclei: Path, region: BaseGeometry | None, step: int, shape: tuple[int, int]
) -> Iterator[np.ndarray]:
    """The tiles of a level, row by row."""
    height, width = shape
    for top in range(0, height, TILE):
        band = np.zeros((TILE, -(-width // TILE) * TILE), np.uint32)
        for batch in _read_rows(nuclei, region, top * step, (top + TILE) * step):
            ids = batch["nucleus_id"].to_numpy().astype(np.uint32)
            _paint(*_rings(batch), ids, step, top, band[: height - top, :width])
        for left in range(0, width, TILE):
            yield band[:, left : left + TILE].copy()


def _read_rows(
    nuclei: Path, region: BaseGeometry | None, first: float, last: float
) -> Iterator[pa.RecordBatch]:
    """Nuclei with a part between two rows of the slide; other row groups than theirs are not read.

    Their boxes say so: how far one of them goes from its centroid, a fold for instance, is not asked of all.
    """
    left, top, right, bottom = (-math.inf, -math.inf, math.inf, math.inf) if region is None else region.bounds
    with pq.ParquetFile(nuclei) as file:
        groups = []
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            columns = [group.column(place) for place in range(group.num_columns)]
            known = {column.path_in_schema: column.statistics for column in columns}
            down = known["bbox.ymin"].min <= last and known["bbox.ymax"].max >= first
            down &= known["y"].min <= bottom and known["y"].max >= top
            if down and known["x"].min <= right and known["x"].max >= left:
                groups.append(number)
        for batch in file.iter_batches(ROWS_AT_ONCE, groups, ["nucleus_id", "x", "y", "geometry", "bbox"]):
            corners = dict(zip(batch["bbox"].type.names, batch["bbox"].flatten(), strict=True))
            wanted = (corners["ymin"].to_numpy() <= last) & (corners["ymax"].to_numpy() >= first)
            if region is not None:
                wanted &= shapely.intersects_xy(region, batch["x"].to_numpy(), batch["y"].to_numpy())
            yield batch.filter(pa.array(wanted))


def _rings(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of all rings, the first corner of every ring, the first ring of every nucleus; and how many."""
    polygons = shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False))
    if len(polygons) == 0:
        return np.empty((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64)
    _, corners, (rings, nuclei) = shapely.to_ragged_array(polygons)
    return corners, rings, nuclei


@njit(cache=True, nogil=True)
def _paint(
    corners: np.ndarray,
    rings: np.ndarray,
    nuclei: np.ndarray,
    ids: np.ndarray,
    step: int,
    top: int,
    canvas: np.ndarray,
) -> None:
    """Give the pixels in a polygon, but not those in its holes, its id; the canvas begins at row ``top``."""
    height, width = canvas.shape
    for nucleus in range(len(ids)):
        first, last = rings[nuclei[nucleus]], rings[nuclei[nucleus + 1]]
        crossings = np.empty(last - first)
        lowest, highest = corners[first:last, 1].min(), corners[first:last, 1].max()
        for row in range(
            max(math.ceil(lowest / step), top), min(math.floor(highest / step) + 1, top + height)
        ):
            y, found = row * step, 0
            for ring in range(nuclei[nucleus], nuclei[nucleus + 1]):
                for corner in range(rings[ring], rings[ring + 1] - 1):
                    x0, y0 = corners[corner]
                    x1, y1 = corners[corner + 1]
                    if (y0 <= y) != (y1 <= y):
                        crossings[found] = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
                        found += 1
            crossings[:found].sort()
            for pair in range(0, found, 2):
                left = max(math.ceil(crossings[pair] / step), 0)
                right = min(math.ceil(crossings[pair + 1] / step), width)
                canvas[row - top, left:right] = ids[nucleus]
