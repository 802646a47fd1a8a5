"""The table of nuclei that have outlines, in GeoParquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from karyon.io.atomic import atomic_path
from karyon.io.slides import SlideFacts
from karyon.models.card import ModelCard
from karyon.nuclei.polygons import join_outlines
from karyon.nuclei.shapes import Shapes, class_names
from karyon.nuclei.table import SCHEMA, common_columns, origin_metadata
from karyon.tiles.grid import Grid

# Nuclei of a field stand together, and a row group holds a few fields: a query of a region reads little else.
FIELD_UM, ROWS_AT_ONCE = 1000.0, 8192
# What is measured of a shape, and the power of the pixel's microns in its unit.
POWERS = {
    "area": 2,
    "perimeter": 1,
    "major": 1,
    "minor": 1,
    "eccentricity": 0,
    "solidity": 0,
    "orientation": 0,
    "circularity": 0,
}
UNITS = {2: "_um2", 1: "_um", 0: ""}
CLASS_NAME = pa.dictionary(pa.int32(), pa.string())
CORNERS = ("xmin", "ymin", "xmax", "ymax")
BBOX = pa.struct([(corner, pa.float64()) for corner in CORNERS])
# https://geoparquet.org/releases/v1.1.0/
GEOPARQUET = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": None,  # a slide's pixels are nowhere on Earth
            "orientation": "counterclockwise",
            "covering": {"bbox": {corner: ["bbox", corner] for corner in CORNERS}},
        }
    },
}


def outline_schema(stains: Sequence[str], classes: Sequence[str]) -> pa.Schema:
    """The columns of nuclei with outlines, as in ``docs/outputs.md``.

    Args:
        stains: Names of the two stains whose densities were measured.
        classes: That the model tells apart, if any.
    """
    measured = [name + UNITS[power] for name, power in POWERS.items()] + _staining_columns(stains)
    voted = [("class_id", pa.int32()), ("class_name", CLASS_NAME), ("class_probability", pa.float32())]
    return pa.schema(
        [
            *SCHEMA,
            *((name, pa.float32()) for name in measured),
            *(voted if classes else []),
            ("geometry", pa.binary()),
            ("bbox", BBOX),
        ]
    )


def _staining_columns(stains: Sequence[str]) -> list[str]:
    """In the order of :attr:`karyon.nuclei.shapes.Shapes.staining`."""
    return [
        f"{stain}{where}_{figure}" for where in ("", "_ring") for stain in stains for figure in ("mean", "sd")
    ]


def write_outlines(
    path: Path,
    slide_id: str,
    shapes: Sequence[Shapes],
    grid: Grid,
    facts: SlideFacts,
    card: ModelCard,
    stains: Sequence[str],
    fingerprint: str,
) -> int:
    """Write the table; the same nuclei give the same bytes, however they are parted into windows.

    Rows are ordered by fields of a square millimetre, from left to right and then down, within a field by y,
    then x. A polygon takes several hundred bytes in its final form, which it gets row group by row group.

    Args:
        path: ``*.parquet``.
        slide_id: From the sheet.
        shapes: The nuclei of every window.
        grid: The model grid.
        facts: The slide.
        card: The model, which names the classes.
        stains: Names of the two stains whose densities were measured, in their order.
        fingerprint: Of all that the nuclei depend on.

    Returns:
        How many nuclei.
    """
    classes = class_names(card.maps)
    metadata = origin_metadata(facts, card, fingerprint) | {"geo": json.dumps(GEOPARQUET)}
    schema = outline_schema(stains, classes).with_metadata(metadata)
    windows, rows = _spatial_order(shapes, grid, facts.mpp)
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, use_dictionary=["slide_id", "class_name"], compression="zstd"
        ) as writer,
    ):
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            nuclei = _take(shapes, windows[some], rows[some])
            columns = common_columns(
                slide_id, start + 1, nuclei.shape["x"], nuclei.shape["y"], nuclei.probability, grid, facts
            )
            columns |= _measured(nuclei, stains, grid.scale * facts.mpp)
            columns |= _classes(nuclei, classes) if classes else {}
            columns |= _geometry(nuclei, grid.scale)
            writer.write_table(pa.table(columns, schema=schema))
    return len(rows)


def _spatial_order(shapes: Sequence[Shapes], grid: Grid, mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """Window and place in it of every nucleus, row by row of the table."""
    sizes = [len(window.shape) for window in shapes]
    x, y, area = (
        np.concatenate([[], *(window.shape[name] for window in shapes)]) for name in ("x", "y", "area")
    )
    column, row = (grid.to_level0(position) * mpp // FIELD_UM for position in (x, y))
    order = np.lexsort((area, x, y, column, row))  # the area parts those with one centroid
    windows = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.concatenate([np.arange(0), *(np.arange(size) for size in sizes)])
    return windows[order], rows[order]


def _take(shapes: Sequence[Shapes], windows: np.ndarray, rows: np.ndarray) -> Shapes:
    """Nuclei by window and place, in their order."""
    order = np.argsort(windows, kind="stable")
    back = np.argsort(order)
    parts = [(shapes[window], rows[order][windows[order] == window]) for window in np.unique(windows)]
    arrays = {
        field.name: np.concatenate([getattr(window, field.name)[chosen] for window, chosen in parts])[back]
        for field in fields(Shapes)
        if field.name != "outlines"
    }
    outlines = join_outlines([window.outlines.select(chosen) for window, chosen in parts]).select(back)
    return Shapes(**arrays, outlines=outlines)


def _measured(nuclei: Shapes, stains: Sequence[str], pixel_um: float) -> dict[str, pa.Array]:
    figures = {name + UNITS[power]: nuclei.shape[name] * pixel_um**power for name, power in POWERS.items()}
    staining = nuclei.staining.reshape(len(nuclei.staining), -1)
    figures |= dict(zip(_staining_columns(stains), staining.T, strict=True))
    return {
        name: pa.array(values.astype(np.float32), from_pandas=True)  # what is not a number is left empty
        for name, values in figures.items()
    }


def _classes(nuclei: Shapes, classes: Sequence[str]) -> dict[str, pa.Array | np.ndarray]:
    return {
        "class_id": nuclei.class_id,
        "class_name": pa.DictionaryArray.from_arrays(pa.array(nuclei.class_id - 1), pa.array(classes)),
        "class_probability": nuclei.class_probability.astype(np.float32),
    }


def _geometry(nuclei: Shapes, scale: float) -> dict[str, pa.Array]:
    polygons = nuclei.outlines.polygons(scale)
    boxes = shapely.bounds(polygons)
    return {
        "geometry": pa.array(shapely.to_wkb(polygons), pa.binary()),
        "bbox": pa.StructArray.from_arrays([pa.array(corner) for corner in boxes.T], fields=list(BBOX)),
    }
