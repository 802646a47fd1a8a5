"""From tile predictions to the table of nuclei, and labelling against scikit-image."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from skimage.measure import label, regionprops_table

from karyon.bench.chain import STAGES, stage_task
from karyon.bench.material import MODEL_MPP, trivial_model
from karyon.bench.measurement import Measurement
from karyon.bench.predictions import draw_nuclei, paint_window, write_predictions
from karyon.nuclei.components import BLOCK_PX, find_components

# For the whole of a map of 40,000 x 40,000 with a million nuclei, on two cores.
GOAL_SECONDS, GOAL_SIDE = 90.0, 40_000
GOAL_TIMES = 8.0
THRESHOLD = 128
BLOCKS = 4


def measure_postprocess(cache: Path, side: int) -> Iterator[Measurement]:
    """Stitch and nuclei on a map of ``side``, and the labelling of some of its blocks.

    Args:
        cache: Where results lie; the tile predictions are drawn once.
        side: Of the map in pixels.
    """
    slide, model = cache / f"map-{side}.svs", trivial_model(cache)
    tasks = {stage: stage_task(stage, slide, model, cache / "postprocess") for stage in ("stitch", "nuclei")}
    files = tasks["stitch"].files
    if not files.tiles.exists():
        write_predictions(files, side, MODEL_MPP)
    limit = GOAL_SECONDS * (side / GOAL_SIDE) ** 2
    seconds = {}
    for stage, task in tasks.items():
        start = time.perf_counter()
        facts = STAGES[stage](task).facts
        seconds[stage] = time.perf_counter() - start
        yield Measurement(f"postprocess.{stage}", seconds[stage], "s")
    total = sum(seconds.values())
    yield Measurement(
        name="postprocess.whole",
        value=total,
        unit=f"s for {facts['nuclei']:,} nuclei on {side} x {side}",
        goal=f"<= {limit:.3g} s",
        met=total <= limit,
    )
    yield label_blocks(side)


def label_blocks(side: int) -> Measurement:
    """Components and centroids of some blocks of the map, in memory, against scikit-image.

    Raises:
        AssertionError: The two do not find the same.
    """
    height = min(BLOCK_PX, side)
    nuclei = draw_nuclei(side)
    blocks = [
        paint_window(nuclei, 0, left, height, min(height, side - left))
        for left in range(0, min(BLOCKS * height, side), height)
    ]
    find_components(blocks[0], THRESHOLD)  # compiled before it is timed
    start = time.perf_counter()
    ours = [find_components(block, THRESHOLD) for block in blocks]
    middle = time.perf_counter()
    theirs = [_peer(block) for block in blocks]
    end = time.perf_counter()
    for found, expected in zip(ours, theirs, strict=True):
        order = np.lexsort((expected["centroid-1"], expected["centroid-0"]))
        np.testing.assert_allclose(found.y, expected["centroid-0"][order])
        np.testing.assert_array_equal(found.area, expected["area"][order])
    value, peer = middle - start, end - middle
    return Measurement(
        name="postprocess.components",
        value=value,
        unit=f"s for {len(blocks)} blocks of {height} x {height}",
        peer="skimage label + regionprops_table (centroid, area, intensity_max)",
        peer_value=peer,
        ratio=peer / value,
        goal=f"ratio >= {GOAL_TIMES:g}",
        met=peer / value >= GOAL_TIMES,
    )


def _peer(block: np.ndarray) -> dict[str, np.ndarray]:
    labels = label(block >= THRESHOLD, connectivity=1)
    return regionprops_table(labels, block, properties=("centroid", "area", "intensity_max"))
