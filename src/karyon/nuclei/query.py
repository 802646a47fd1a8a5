"""Reading a nuclei table, whole or within a region, without holding it in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from shapely.geometry.base import BaseGeometry

ROWS_AT_ONCE = 10_000


def read_nuclei(
    path: Path, columns: Sequence[str], region: BaseGeometry | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of a nuclei table, in its order.

    Of a file with outlines a region costs what lies near to it: the row groups are compact, and those whose
    centroids all lie beside the region's box are not read.

    Args:
        path: The table.
        columns: That are wanted.
        region: Area in level-0 pixels; wanted are nuclei whose centroid lies inside or on its edge. ``None``
            for all nuclei.

    Yields:
        Up to ``ROWS_AT_ONCE`` rows, perhaps none.
    """
    with pq.ParquetFile(path) as file:
        groups = list(range(file.num_row_groups))
        if region is None:
            yield from file.iter_batches(ROWS_AT_ONCE, groups, columns)
            return
        shapely.prepare(region)
        needed = list(dict.fromkeys([*columns, "x", "y"]))
        near = [number for number in groups if _meets(file.metadata.row_group(number), region.bounds)]
        for batch in file.iter_batches(ROWS_AT_ONCE, near, needed):
            inside = shapely.intersects_xy(region, batch["x"].to_numpy(), batch["y"].to_numpy())
            yield batch.filter(pa.array(inside)).select(columns)


def _meets(group: pq.RowGroupMetaData, box: tuple[float, float, float, float]) -> bool:
    """Whether the centroids of a row group may lie in a box, by what the file says of its columns."""
    columns = (group.column(number) for number in range(group.num_columns))
    known = {column.path_in_schema: column.statistics for column in columns}
    left, top, right, bottom = box
    return (
        known["x"].min <= right
        and known["x"].max >= left
        and known["y"].min <= bottom
        and known["y"].max >= top
    )
