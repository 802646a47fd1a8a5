"""A cohort as a scanner of lower magnification would have it, to see what a model loses there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm import tqdm

from karyon.errors import SheetError
from karyon.io.sheet_writer import write_sheet
from karyon.io.sheets import read_sheet
from karyon.io.slides import open_slide
from karyon.tiles.grid import SNAP, Grid, read_window

# A PNG is written from memory; a field of this many pixels takes 1.2 GB of it.
MAX_PIXELS = 400_000_000


def downsample_cohort(sheet: Path, mpp: float, folder: Path) -> pd.DataFrame:
    """Write every image of a sheet at a coarser resolution, and a sheet of these.

    Pixels are antialiased bilinear averages, as the workflow resamples. Annotations stay as they are; the new
    sheet says in ``annotation_mpp`` what pixels they are drawn in.

    Args:
        sheet: A cohort sheet of images small enough to be held, such as annotated fields.
        mpp: Microns per pixel of the new images.
        folder: Gets ``images/<slide_id>.png`` and ``cohort.tsv``.

    Returns:
        The new sheet.

    Raises:
        SheetError: The sheet has mistakes; or an image is too large, finer than ``mpp`` already, or annotated
            in a region alone.
        SlideError: An image cannot be read.
    """
    rows = read_sheet(sheet)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    written = [
        _downsample(row, mpp, images) for _, row in tqdm(rows.iterrows(), total=len(rows), disable=None)
    ]
    frame = pd.DataFrame(written)
    write_sheet(frame, folder / "cohort.tsv")
    return frame


def _downsample(row: pd.Series, mpp: float, folder: Path) -> pd.Series:
    """Write one image; returns its row in the new sheet."""
    where = f"slide {row['slide_id']}"
    if row["region"]:
        raise SheetError(
            f"{where}: only its region is annotated, which has pixels of the old image; cut it out"
        )
    with open_slide(row["path"], row["mpp"]) as slide:
        facts = slide.facts
        if mpp < facts.mpp * (1 - SNAP):
            raise SheetError(f"{where}: has {facts.mpp:.4g} microns per pixel, coarser than {mpp:g} already")
        grid = Grid.of_slide(facts, mpp)
        if grid.width * grid.height > MAX_PIXELS:
            raise SheetError(
                f"{where}: {grid.width} x {grid.height} pixels; give fields of up to {MAX_PIXELS:,}"
            )
        pixels = read_window(slide, grid, 0, 0, grid.width, grid.height)
    path = folder / f"{row['slide_id']}.png"
    Image.fromarray(pixels).save(path)
    changed = row.copy()
    changed["path"], changed["mpp"] = str(path.resolve()), facts.mpp * grid.scale
    if row["annotations"] and not row["annotation_mpp"] > 0:
        changed["annotation_mpp"] = facts.mpp
    return changed
