"""Stage `evaluate` on a slide with a million nuclei and as many annotations, within a region."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from karyon.bench.chain import stage_task
from karyon.bench.matching import AREA_PX, draw_points
from karyon.bench.measurement import Measurement
from karyon.bench.memory import process_peak_mb
from karyon.bench.pipeline import MODEL
from karyon.cohort.shard import SlideTask
from karyon.cohort.stages.evaluate import evaluate_slide
from karyon.io.slides import SlideFacts
from karyon.models.card import model_folder
from karyon.tiles.grid import Grid

MAX_SECONDS, MAX_MB = 60.0, 2000.0
MPP, MASK_DOWNSAMPLE = 0.25, 16


def measure_evaluation(cache: Path, side: int) -> Iterator[Measurement]:
    """Time and peak memory of the stage: three radii, match table and curve, a painted region of interest.

    Args:
        cache: Where its files lie.
        side: Number of nuclei, and of annotations.
    """
    task = _drawn_task(cache / "evaluation", side)
    start = time.perf_counter()
    evaluate_slide(task)
    seconds = time.perf_counter() - start
    peak = process_peak_mb(evaluate_slide, task)
    what = f"for {side:,} nuclei, {side:,} annotations and a region"
    goal = f"value <= {MAX_SECONDS:g}"
    yield Measurement("evaluation.time", seconds, f"s {what}", goal=goal, met=seconds <= MAX_SECONDS)
    yield Measurement("evaluation.memory", peak, f"MB {what}", goal=f"value < {MAX_MB:g}", met=peak < MAX_MB)


def _drawn_task(folder: Path, count: int) -> SlideTask:
    """What the stages before would have left, and annotation and region as a user would give them."""
    slide = folder / f"drawn-{count}.svs"  # never opened
    task = stage_task("evaluate", slide, model_folder(MODEL), folder)
    found, truth = draw_points(count)
    length = int(np.ceil(np.sqrt(count * AREA_PX)))
    for path in (task.files.facts, task.files.nuclei):
        path.parent.mkdir(parents=True, exist_ok=True)
    facts = SlideFacts(length, length, MPP, "sheet", ((length, length),), 0, 0, "drawn")
    grid = Grid.of_slide(facts, MPP * MASK_DOWNSAMPLE)
    task.files.facts.write_text(json.dumps({"slide": asdict(facts), "mask_grid": asdict(grid)}))
    disc = _disc(grid.width)
    Image.fromarray(disc).save(task.files.tissue_mask)
    points, region = folder / "annotations.csv", folder / "region.png"
    Image.fromarray(disc).save(region)
    with points.open("w", newline="") as stream:
        csv.writer(stream).writerows([("x", "y"), *truth.clip(0, length - 1).tolist()])
    found = found.clip(0, length - 1)
    confidence = np.random.default_rng(1).integers(90, 256, count) / np.float32(255)
    columns = {"nucleus_id": np.arange(count), "x": found[:, 0], "y": found[:, 1], "probability": confidence}
    pq.write_table(pa.table(columns), task.files.nuclei)
    row = replace(
        task.row,
        annotations=str(points),
        annotation_format="points_csv",
        region=str(region),
        region_format="instance_png",
    )
    return replace(task, row=row)


def _disc(width: int) -> np.ndarray:
    """255 within a circle that touches the sides, uint8, ``(width, width)``."""
    offset = np.arange(width) - (width - 1) / 2
    return np.where(np.hypot(*np.meshgrid(offset, offset)) <= width / 2, 255, 0).astype(np.uint8)
