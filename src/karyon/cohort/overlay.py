"""A picture of a slide with its nuclei: the whole, and two fields at full resolution."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from karyon.cohort.field import (
    CAPTION_PX,
    FIELD_UM,
    Field,
    draw_field,
    field_grid,
    read_points,
    with_caption,
)
from karyon.cohort.layout import SlideFiles
from karyon.cohort.plan import SlideRow
from karyon.cohort.stages.tissue import TissueFiles, open_planned
from karyon.io.slides import PatchedSlide, Slide
from karyon.tissue.thumbnail import read_thumbnail

PANEL_PX = 640
GAP_PX = 8
TISSUE_COLOUR = (0, 0, 0)


def draw_overlay(row: SlideRow, files: SlideFiles) -> Image.Image:
    """The slide with its tissue outlined, the densest field, and a typical one, side by side.

    Matches are shown where they are; else the nuclei, in the colours of their classes if they have any.

    Args:
        row: The slide's row of the plan.
        files: Where its files lie; nuclei must be there.
    """
    tissue = TissueFiles.read(files)
    points, marks = read_points(files)
    fields = _fields(points, tissue.facts.width, tissue.facts.height, FIELD_UM / tissue.facts.mpp)
    with PatchedSlide(open_planned(row), limit=1.0) as slide:
        panels = [_whole(slide, files, tissue)]
        grid = field_grid(slide.facts, PANEL_PX)
        for title, x, y in fields:
            left, top = (int(np.rint(grid.from_level0(np.array(value)))) for value in (x, y))
            field = Field(grid, left, top, PANEL_PX)
            panels.append(draw_field(slide, field, points, title, marks, files.nuclei))
    width = sum(panel.width for panel in panels) + GAP_PX * (len(panels) - 1)
    sheet = Image.new("RGB", (width, PANEL_PX + CAPTION_PX), "white")
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + GAP_PX
    return sheet


def _fields(points: pd.DataFrame, width: int, height: int, side: float) -> list[tuple[str, float, float]]:
    """Title and level-0 corner of the densest cell of a coarse grid, and of the median one."""
    if points.empty:
        return []
    columns, rows = max(1, int(width // side)), max(1, int(height // side))
    column = np.clip((points["x"] // side).astype(int), 0, columns - 1)
    row = np.clip((points["y"] // side).astype(int), 0, rows - 1)
    counts = np.bincount(row * columns + column, minlength=rows * columns)
    busy = np.flatnonzero(counts)
    ranked = busy[np.argsort(counts[busy], kind="stable")]
    chosen = {"densest field": ranked[-1]}
    if len(ranked) > 1:
        chosen["typical field"] = ranked[(len(ranked) - 1) // 2]
    return [(title, (cell % columns) * side, (cell // columns) * side) for title, cell in chosen.items()]


def _whole(slide: Slide, files: SlideFiles, tissue: TissueFiles) -> Image.Image:
    thumbnail = Image.open(files.thumbnail).convert("RGB")
    longest = max(thumbnail.size)
    if longest < PANEL_PX // 2:  # a small image: its thumbnail would be a blur
        thumbnail = Image.fromarray(
            read_thumbnail(slide, tissue.mask_grid.scale * slide.facts.mpp * longest / PANEL_PX)[0]
        )
    factor = PANEL_PX / max(thumbnail.size)
    size = (max(1, round(thumbnail.width * factor)), max(1, round(thumbnail.height * factor)))
    picture = np.asarray(thumbnail.resize(size, Image.Resampling.BILINEAR)).copy()
    mask = np.asarray(Image.fromarray(tissue.mask).resize(size, Image.Resampling.NEAREST))
    picture[mask & ~ndimage.binary_erosion(mask, iterations=2, border_value=1)] = TISSUE_COLOUR
    return with_caption(Image.fromarray(picture), PANEL_PX, files.slide_id)
