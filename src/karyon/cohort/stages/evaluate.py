"""Stage `evaluate`: nuclei against annotations, where a slide has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from karyon.cohort.shard import NOT_ANNOTATED, SlideTask, StageResult
from karyon.cohort.stages.tissue import TissueFiles
from karyon.evaluation.detection import match_table, score_detection
from karyon.evaluation.matching import match_points
from karyon.io.annotations import read_points
from karyon.io.atomic import atomic_path


def evaluate_slide(task: SlideTask) -> StageResult:
    """Match a slide's nuclei to its annotations at every radius.

    Settings: ``radii_um`` of the configuration's ``evaluate``; the match table is of the first.
    """
    row, files = task.row, task.files
    if not row.annotations:
        return StageResult(status=NOT_ANNOTATED)
    slide = TissueFiles.read(files).facts
    truth = read_points(Path(row.annotations), row.annotation_format, (slide.width, slide.height)).points
    nuclei = pq.read_table(files.nuclei, columns=["nucleus_id", "x", "y"]).to_pandas()
    found = nuclei[["x", "y"]].to_numpy(np.float64)
    facts: dict[str, float | int] = {"annotated": len(truth)}
    for number, radius in enumerate(task.settings["radii_um"]):
        matches = match_points(found, truth, radius / slide.mpp)
        score = score_detection(matches, len(found), len(truth), slide.mpp)
        facts |= {
            f"tp_{radius:g}um": score.tp,
            f"fp_{radius:g}um": score.fp,
            f"fn_{radius:g}um": score.fn,
            f"distance_sum_{radius:g}um": score.distance_sum,
            f"distance_square_sum_{radius:g}um": score.distance_square_sum,
        }
        if number == 0:
            table = match_table(found, truth, matches, nuclei["nucleus_id"].to_numpy(), slide.mpp)
            table.insert(0, "slide_id", row.slide_id)
            with atomic_path(files.matches) as temporary:
                pq.write_table(
                    pa.Table.from_pandas(table, preserve_index=False), temporary, compression="zstd"
                )
    return StageResult(facts=facts, outputs=(files.matches,))
