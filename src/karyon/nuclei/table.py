"""The nuclei table: one row per nucleus, in Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from karyon import __version__
from karyon.io.atomic import atomic_path
from karyon.io.slides import SlideFacts
from karyon.models.card import ModelCard
from karyon.nuclei.components import Components
from karyon.tiles.grid import Grid

# Rows that are encoded at once: the writer needs several times their size.
ROWS_AT_ONCE = 65_536
SCHEMA = pa.schema(
    [
        ("slide_id", pa.dictionary(pa.int32(), pa.string())),
        ("nucleus_id", pa.int64()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("x_um", pa.float64()),
        ("y_um", pa.float64()),
        ("probability", pa.float32()),
    ]
)


def nuclei_table(slide_id: str, found: Components, grid: Grid, facts: SlideFacts) -> pa.Table:
    """The table of a slide, ordered by y then x, so that ids follow position.

    Args:
        slide_id: From the sheet.
        found: Objects in model pixels.
        grid: The model grid.
        facts: The slide.

    Returns:
        Columns as in ``docs/outputs.md``.
    """
    probability = (found.peak / np.float32(255)).astype(np.float32)
    return pa.table(common_columns(slide_id, 1, found.x, found.y, probability, grid, facts), schema=SCHEMA)


def common_columns(
    slide_id: str,
    first_id: int,
    x: np.ndarray,
    y: np.ndarray,
    probability: np.ndarray,
    grid: Grid,
    facts: SlideFacts,
) -> dict[str, pa.Array | np.ndarray]:
    """The columns of ``SCHEMA``, which nuclei have with and without outlines.

    Args:
        slide_id: From the sheet.
        first_id: Of the first row; the others follow.
        x: Centroids in model pixels, ``(n,)``.
        y: As ``x``.
        probability: 0 to 1, ``(n,)``.
        grid: The model grid.
        facts: The slide.
    """
    number, x, y = len(x), grid.to_level0(x), grid.to_level0(y)
    return {
        "slide_id": pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(number, np.int32)), pa.array([slide_id])
        ),
        "nucleus_id": np.arange(first_id, first_id + number),
        "x": x,
        "y": y,
        "x_um": x * facts.mpp,
        "y_um": y * facts.mpp,
        "probability": probability,
    }


def write_nuclei(path: Path, table: pa.Table, facts: SlideFacts, card: ModelCard, fingerprint: str) -> None:
    """Write the table with what it came from in the file's metadata; same input, same bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(origin_metadata(facts, card, fingerprint)),
            temporary,
            row_group_size=ROWS_AT_ONCE,
            use_dictionary=["slide_id"],  # positions do not repeat
            compression="zstd",
        )


def origin_metadata(facts: SlideFacts, card: ModelCard, fingerprint: str) -> dict[str, str]:
    """What a file of nuclei says of where it came from."""
    return {
        "karyon_version": __version__,
        "model": card.name,
        "model_sha256": card.sha256,
        "mpp": repr(facts.mpp),
        "bounds_x": str(facts.bounds_x),
        "bounds_y": str(facts.bounds_y),
        "fingerprint": fingerprint,
    }
