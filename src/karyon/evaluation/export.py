"""The match table for QuPath, in three colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import shapely

from karyon.io.slides import SlideFacts
from karyon.nuclei.export import Detection, write_detections

# Name and colour of each kind; told apart with any colour vision, and as in the report's pictures.
KINDS = {
    "TP": ("True positive", (0, 245, 160)),
    "FP": ("False positive", (255, 200, 0)),
    "FN": ("False negative", (0, 90, 255)),
}


def write_matches_geojson(path: Path, table: pd.DataFrame, facts: SlideFacts) -> None:
    """QuPath detections as a gzipped GeoJSON FeatureCollection: found, false and missed, each in its colour.

    Args:
        path: ``*.geojson.gz``; QuPath opens it as it is.
        table: From ``match_table``; a missed nucleus is drawn where it is annotated.
        facts: The slide.
    """
    write_detections(path, _detections(table), (facts.bounds_x, facts.bounds_y))


def _detections(table: pd.DataFrame) -> Iterator[Detection]:
    columns = table[["x", "y", "kind", "distance_um", "nucleus_id", "annotation_id"]]
    for x, y, kind, distance, nucleus, annotation in columns.itertuples(index=False, name=None):
        name, colour = KINDS[kind]
        measured = {"distance um": distance} if kind == "TP" else {}
        yield Detection(
            shapely.Point(x, y), str(annotation if kind == "FN" else nucleus), name, colour, measured
        )
