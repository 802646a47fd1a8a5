"""A cohort of synthetic H&E slides with known nuclei, and its sheet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from karyon.demo.look import draw_look
from karyon.demo.slide import render_slide
from karyon.demo.truth import truth_of_slide, write_truth
from karyon.errors import KaryonError
from karyon.io.atomic import atomic_path

# Below, a nucleus has too few pixels to be seen; above, the optical blur spans tens of pixels.
MPP_MIN, MPP_MAX = 0.1, 1.5
# A smaller slide has no room for a piece of tissue.
MIN_SIDE_PX = 64
SLIDES_PER_PATIENT = 2


def render_cohort(out: Path, slides: int, width: int, height: int, mpp: float, seed: int) -> Path:
    """Render slides, their true nuclei and a cohort sheet. The same arguments give the same bytes.

    Writes ``cohort.tsv``, ``slides/<slide_id>.svs``, ``annotations/<slide_id>.csv`` (points) and
    ``annotations/<slide_id>.geojson`` (outlines). The last slide's mpp is left out of the sheet, as one
    finds it in the wild: it stands in the file.

    Args:
        out: Folder to write to; made if need be.
        slides: Number of slides, at least 1.
        width: Level-0 width of each in pixels.
        height: Level-0 height of each in pixels.
        mpp: Microns per level-0 pixel.
        seed: Seed of the cohort, >= 0.

    Returns:
        Path of the sheet. Paths in it are relative to its folder.

    Raises:
        KaryonError: An argument is out of range.
    """
    _check(slides, width, height, mpp, seed)
    for folder in ("slides", "annotations"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(slides):
        slide_id = f"demo-{index + 1}"
        slide, points = f"slides/{slide_id}.svs", f"annotations/{slide_id}.csv"
        look = draw_look(index, seed, width * mpp, height * mpp)
        render_slide(out / slide, look, mpp, width, height)
        write_truth(
            out / points, (out / points).with_suffix(".geojson"), truth_of_slide(look, mpp, width, height)
        )
        rows.append(
            {
                "slide_id": slide_id,
                "path": slide,
                "mpp": f"{mpp:.8g}" if index < slides - 1 else "",
                "organ": "synthetic",
                "stain": "HE",
                "patient": f"synthetic-{index // SLIDES_PER_PATIENT + 1}",
                "annotations": points,
                "annotation_format": "points_csv",
            }
        )
    sheet = out / "cohort.tsv"
    with atomic_path(sheet) as part:
        pd.DataFrame(rows).to_csv(part, sep="\t", index=False, lineterminator="\n")
    return sheet


def _check(slides: int, width: int, height: int, mpp: float, seed: int) -> None:
    if slides < 1:
        raise KaryonError(f"number of slides is {slides}; expected at least 1.")
    if min(width, height) < MIN_SIDE_PX:
        raise KaryonError(
            f"slide size is {width} x {height} pixels; expected at least {MIN_SIDE_PX} each way."
        )
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise KaryonError(f"mpp is {mpp:g}; expected {MPP_MIN} to {MPP_MAX} microns per pixel.")
    if seed < 0:
        raise KaryonError(f"seed is {seed}; expected 0 or more.")
