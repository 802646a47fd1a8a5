"""A slide's way through the stages, outside the workflow but through the same functions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from karyon.cohort.configuration import complete_config
from karyon.cohort.layout import SlideFiles
from karyon.cohort.plan import SlideRow
from karyon.cohort.shard import SlideTask
from karyon.cohort.stages.infer import infer_slide
from karyon.cohort.stages.nuclei import find_nuclei
from karyon.cohort.stages.stain import fit_slide
from karyon.cohort.stages.stitch import stitch_slide
from karyon.cohort.stages.tissue import mask_slide
from karyon.models.card import CENTRE, read_card

STAGES = {
    "tissue": mask_slide,
    "stain": fit_slide,
    "infer": infer_slide,
    "stitch": stitch_slide,
    "nuclei": find_nuclei,
}
# The machine that the goals are stated for.
THREADS = 2


def stage_task(stage: str, slide: Path, model: Path, results: Path) -> SlideTask:
    """What a stage is given of a slide, with the default configuration.

    Args:
        stage: A key of ``STAGES``.
        slide: The slide's file.
        model: The model's folder.
        results: Where the stages write; stands in for ``results/<cohort>``.
    """
    config = complete_config({"cohort": "bench", "sheet": "none"})
    settings: dict[str, Any] = {**config[stage]}
    if stage == "infer":
        settings |= {"channel": config["stain"]["channel"], "model": str(model)}
    if stage == "nuclei":
        settings |= {"decoding": asdict(read_card(model).decoding), "model": str(model)}
    if stage == "evaluate":
        settings |= {"outlines": read_card(model).maps != CENTRE}
    facts = slide.stat() if slide.exists() else None
    row = SlideRow(
        slide_id=slide.stem,
        path=str(slide),
        size=facts.st_size if facts else 0,
        mtime_ns=facts.st_mtime_ns if facts else 0,
        mpp=0.0,
        organ="synthetic",
        stain="HE",
        patient="",
        split="",
        label_quality="",
        annotations="",
        annotation_format="",
        annotation_mpp=0.0,
        annotations_size=0,
        annotations_mtime_ns=0,
        region="",
        region_format="",
        region_size=0,
        region_mtime_ns=0,
    )
    return SlideTask(row, SlideFiles(results, slide.stem), settings, THREADS, 0, "bench")
