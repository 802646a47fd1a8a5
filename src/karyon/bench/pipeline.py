"""Stage `infer` with all it does, against the bare network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from karyon.bench.chain import STAGES, stage_task
from karyon.bench.material import synthetic_slide
from karyon.bench.measurement import Measurement
from karyon.bench.network import bare_network
from karyon.models.card import model_folder

GOAL_SHARE = 0.90
MODEL = "switch_unet"


def measure_pipeline(cache: Path, side: int) -> Iterator[Measurement]:
    """Megapixels a second of the shipped model, reading and writing included and not.

    Args:
        cache: Where slides and results lie.
        side: Of the slide in level-0 pixels.
    """
    slide, model = synthetic_slide(cache, side), model_folder(MODEL)
    for stage in ("tissue", "stain"):
        STAGES[stage](stage_task(stage, slide, model, cache / "pipeline"))
    task = stage_task("infer", slide, model, cache / "pipeline")
    # The network before and after, for a machine's speed drifts.
    before, pixels = bare_network(task)
    start = time.perf_counter()
    STAGES["infer"](task)
    seconds = time.perf_counter() - start
    after, _ = bare_network(task)
    share = (before + after) / 2 / seconds
    yield Measurement(
        name="pipeline.infer",
        value=pixels / seconds / 1e6,
        unit="Mpx/s through the network, halos included",
        peer="the bare network on the same tiles",
        peer_value=pixels / ((before + after) / 2) / 1e6,
        ratio=share,
        goal=f"ratio >= {GOAL_SHARE:.2f}",
        met=share >= GOAL_SHARE,
    )
