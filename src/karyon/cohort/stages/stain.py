"""Stage `stain`: the slide's stain matrix."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from karyon.cohort.layout import SlideFiles
from karyon.cohort.shard import SlideTask, StageResult
from karyon.cohort.stages.tissue import TissueFiles, open_planned
from karyon.io.atomic import atomic_path
from karyon.io.slides import PatchedSlide
from karyon.stain.fit import StainFit
from karyon.stain.sample import separate_slide


def fit_slide(task: SlideTask) -> StageResult:
    """Fit the stains of a slide (SPCN; `docs/methods.md`, Stain separation).

    Settings: ``sample_pixels`` of the configuration's ``stain``.
    """
    files = task.files
    tissue = TissueFiles.read(files)
    thumbnail = np.asarray(Image.open(files.thumbnail))
    # White is not fitted, so the patches that can be decoded decide, however few.
    with PatchedSlide(open_planned(task.row), limit=1.0) as slide:
        fit = separate_slide(slide, tissue.mask, thumbnail, task.row.stain, task.settings["sample_pixels"])
    with atomic_path(files.stain) as temporary:
        temporary.write_text(json.dumps(fit.to_json(), indent=1))
    matrix = fit.stain_matrix
    return StageResult(
        warning=f"stain fit replaced by {fit.source}: {fit.reason}" if fit.reason else "",
        facts={
            "stain_source": fit.source,
            "stain_angle": round(fit.angle, 3),
            "stain_residual": round(fit.residual, 5),
            "stain_pixels": fit.pixels,
            "stain_matrix": [float(value) for value in matrix.T.ravel()],
            "stain_p99": [float(value) for value in fit.p99],
            "stain_i0": [float(value) for value in fit.i0],
        },
        outputs=(files.stain,),
    )


def read_fit(files: SlideFiles) -> StainFit:
    """The slide's fit, as the stage left it."""
    return StainFit.from_json(json.loads(files.stain.read_text()))
