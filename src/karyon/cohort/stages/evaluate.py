"""Stage `evaluate`: nuclei against annotations, where a slide has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from karyon.cohort.plan import SlideRow
from karyon.cohort.segmentation import area_figures, area_sums
from karyon.cohort.shard import DONE, NO_TISSUE, NOT_ANNOTATED, SlideTask, StageResult
from karyon.cohort.stages.tissue import TissueFiles
from karyon.errors import SlideError
from karyon.evaluation.areas import read_areas, restrict_areas
from karyon.evaluation.curve import detection_curve
from karyon.evaluation.detection import DetectionScore, Side, match_table, score_detection
from karyon.evaluation.export import write_matches_geojson
from karyon.evaluation.matching import match_points
from karyon.evaluation.region import Region, Restricted, read_region, restrict
from karyon.io.annotations import INSTANCE_FORMATS, OUTLINE_FORMATS, Annotations, read_points
from karyon.io.atomic import atomic_path
from karyon.io.slides import SlideFacts

# Of the nuclei table; not every model gives classes.
COLUMNS = ["nucleus_id", "x", "y", "probability", "class_name"]
# Bounds the memory of the polygons; results do not depend on it.
OUTLINES_AT_ONCE = 8192


@dataclass(frozen=True)
class _Sides:
    """What is compared on a slide.

    ``nuclei`` is the table of the slide's nuclei, ``found`` their points; the last two tell which points of
    either side lie in the slide's region of interest, which is None where all of the slide was annotated.
    """

    nuclei: pd.DataFrame
    found: np.ndarray
    truth: Annotations
    found_inside: np.ndarray
    truth_inside: np.ndarray
    region: Region | None = None


def evaluate_slide(task: SlideTask) -> StageResult:
    """Match a slide's nuclei to its annotations at every radius; score outlines where both sides have them.

    A slide without tissue has no nuclei, so all of its annotations are missed.

    Settings: ``radii_um`` and ``geojson`` of the configuration's ``evaluate``; ``outlines``, whether the
    model draws them. Match table and curve are of the first radius.
    """
    if not task.row.annotations:
        return StageResult(status=NOT_ANNOTATED)
    facts = TissueFiles.read(task.files).facts
    sides = _read(task, facts)
    figures: dict[str, float | int] = {"annotated": int(sides.truth_inside.sum())}
    outputs: tuple[Path, ...] = ()
    for number, radius in enumerate(task.settings["radii_um"]):
        matches = match_points(sides.found, sides.truth.points, radius / facts.mpp)
        counted = restrict(matches, sides.found_inside, sides.truth_inside)
        score = score_detection(counted.matches, len(counted.predicted), len(counted.truth), facts.mpp)
        figures |= _figures(score, f"{radius:g}um")
        if number == 0:
            precision, outputs = _write(task, facts, sides, counted, radius / facts.mpp)
            figures["average_precision"] = precision
    areas, warning = _score_areas(task, facts, sides) if task.settings["outlines"] else ({}, "")
    return StageResult(NO_TISSUE if task.blank else DONE, warning, figures | areas, outputs)


def _read(task: SlideTask, facts: SlideFacts) -> _Sides:
    row, size = task.row, (facts.width, facts.height)
    truth = read_points(Path(row.annotations), row.annotation_format, size, _scale(row, facts))
    nuclei = pd.DataFrame({name: [] for name in COLUMNS})
    if not task.blank:
        given = [name for name in COLUMNS if name in pq.read_schema(task.files.nuclei).names]
        nuclei = pq.read_table(task.files.nuclei, columns=given).to_pandas().reindex(columns=COLUMNS)
    found = nuclei[["x", "y"]].to_numpy(np.float64)
    if not row.region:
        return _Sides(nuclei, found, truth, np.ones(len(found), bool), np.ones(len(truth.points), bool))
    region = read_region(Path(row.region), row.region_format, size)
    return _Sides(nuclei, found, truth, region.inside(found), region.inside(truth.points), region)


def _scale(row: SlideRow, facts: SlideFacts) -> float:
    """Level-0 pixels per pixel of the annotations."""
    return row.annotation_mpp / facts.mpp if row.annotation_mpp else 1.0


def _score_areas(task: SlideTask, facts: SlideFacts, sides: _Sides) -> tuple[dict[str, float], str]:
    """Figures of outlines against annotated areas, none where the annotations are points.

    Returns:
        The figures, and what a user should know where areas cannot be scored.
    """
    row, size = task.row, (facts.width, facts.height)
    if row.annotation_format not in (*INSTANCE_FORMATS, *OUTLINE_FORMATS):
        return {}, ""
    try:
        areas = read_areas(Path(row.annotations), row.annotation_format, size, _scale(row, facts))
    except SlideError as error:  # the same file's points could be read
        return {}, f"areas are not scored: {error}"
    overlap = areas.overlap(() if task.blank else _outlines(task.files.nuclei))
    if sides.region is not None:
        inside = sides.found_inside[overlap.predicted_id]
        overlap = restrict_areas(overlap, inside, sides.region.inside(areas.centroids()))
    sums = area_sums(overlap, facts.mpp)
    return sums | area_figures(sums), ""


def _outlines(path: Path) -> Iterator[np.ndarray]:
    """The polygons of a table of nuclei, some thousands at a time, in the order of the rows."""
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(OUTLINES_AT_ONCE, columns=["geometry"]):
            yield shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False))


def _figures(score: DetectionScore, radius: str) -> dict[str, float | int]:
    return {
        f"tp_{radius}": score.tp,
        f"fp_{radius}": score.fp,
        f"fn_{radius}": score.fn,
        f"distance_sum_{radius}": score.distance_sum,
        f"distance_square_sum_{radius}": score.distance_square_sum,
        f"precision_{radius}": score.precision,
        f"recall_{radius}": score.recall,
        f"f1_{radius}": score.f1,
        f"distance_mean_um_{radius}": score.distance_mean,
    }


def _write(
    task: SlideTask, facts: SlideFacts, sides: _Sides, counted: Restricted, radius_px: float
) -> tuple[float, tuple[Path, ...]]:
    """Write match table and curve; returns the average precision and the files."""
    files, nuclei = task.files, sides.nuclei.iloc[counted.predicted]
    found, truth = sides.found[counted.predicted], sides.truth.points[counted.truth]
    classes = nuclei["class_name"].astype("string").fillna("").to_numpy(object)
    true_classes = np.array([name or "" for name in sides.truth.class_name], object)[counted.truth]
    table = match_table(
        Side(found, nuclei["nucleus_id"].to_numpy(), classes),
        Side(truth, counted.truth, true_classes),
        counted.matches,
        facts.mpp,
    )
    curve = detection_curve(found, nuclei["probability"].to_numpy(np.float64), truth, radius_px)
    outputs = [files.matches, files.curve]
    for path, frame in zip(outputs, (table, curve.table()), strict=True):
        frame.insert(0, "slide_id", task.row.slide_id)
        with atomic_path(path) as temporary:
            pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), temporary, compression="zstd")
    if task.settings["geojson"]:
        write_matches_geojson(files.matches_geojson, table, facts)
        outputs.append(files.matches_geojson)
    return curve.average_precision, tuple(outputs)
