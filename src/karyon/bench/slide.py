"""A whole slide, stage by stage: where the seconds go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from karyon.bench.chain import STAGES, stage_task
from karyon.bench.material import synthetic_slide, trivial_model
from karyon.bench.measurement import Measurement
from karyon.bench.network import bare_network
from karyon.bench.pipeline import MODEL
from karyon.cohort.stages.tissue import TissueFiles
from karyon.models.card import model_folder

MAX_REST = 0.15


def measure_slide(cache: Path, side: int) -> Iterator[Measurement]:
    """Seconds per gigapixel of tissue, with the shipped model and with one that costs next to nothing.

    Args:
        cache: Where slides and results lie.
        side: Of the slide in level-0 pixels.
    """
    slide = synthetic_slide(cache, side)
    for model in (model_folder(MODEL), trivial_model(cache)):
        yield from _measure_model(slide, model, cache / "slide" / model.name)


def _measure_model(slide: Path, model: Path, results: Path) -> Iterator[Measurement]:
    tasks = {stage: stage_task(stage, slide, model, results) for stage in STAGES}
    seconds = {}
    for stage, task in tasks.items():
        start = time.perf_counter()
        STAGES[stage](task)
        seconds[stage] = time.perf_counter() - start
    network, _ = bare_network(tasks["infer"])
    tissue = TissueFiles.read(tasks["tissue"].files)
    gigapixels = float(tissue.mask.sum()) * tissue.mask_grid.scale**2 / 1e9
    whole = sum(seconds.values())
    unit = f"s per gigapixel of tissue ({gigapixels:.3g} measured)"
    for stage, spent in {**seconds, "network": network, "whole": whole}.items():
        yield Measurement(
            name=f"slide.{model.name}.{stage}",
            value=spent / gigapixels,
            unit=unit,
            peer="the whole chain",
            peer_value=whole / gigapixels,
            ratio=spent / whole,
        )
    rest = 1 - network / whole
    asked = model.name == MODEL
    yield Measurement(
        name=f"slide.{model.name}.rest",
        value=rest,
        unit="share of all that is not the bare network",
        goal=f"<= {MAX_REST:.2f}" if asked else "",
        met=rest <= MAX_REST if asked else None,
    )
