"""A picture of a slide with its nuclei: the whole, and two fields at full resolution."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from karyon.cohort.layout import SlideFiles
from karyon.cohort.plan import SlideRow
from karyon.cohort.stages.tissue import TissueFiles, open_planned
from karyon.io.slides import PatchedSlide, Slide
from karyon.tiles.grid import Grid, read_window
from karyon.tissue.thumbnail import read_thumbnail

PANEL_PX = 640
FIELD_UM = 200.0
RING_UM = 3.0
COLOURS = {"nucleus": (0, 220, 60), "TP": (0, 220, 60), "FP": (255, 140, 0), "FN": (30, 110, 255)}
LEGEND = {"nucleus": "nuclei", "TP": "matched", "FP": "unmatched (orange)", "FN": "missed (blue)"}
TISSUE_COLOUR = (0, 0, 0)


def draw_overlay(row: SlideRow, files: SlideFiles) -> Image.Image:
    """The slide with its tissue outlined, the densest field, and a typical one, side by side.

    Args:
        row: The slide's row of the plan.
        files: Where its files lie; nuclei must be there, matches are used where they are.
    """
    tissue = TissueFiles.read(files)
    points = _points(files)
    fields = _fields(points, tissue.facts.width, tissue.facts.height, FIELD_UM / tissue.facts.mpp)
    with PatchedSlide(open_planned(row), limit=1.0) as slide:
        panels = [_whole(slide, files, tissue)]
        for title, x, y in fields:
            grid = Grid.of_slide(slide.facts, FIELD_UM / PANEL_PX)
            left, top = (int(np.rint(grid.from_level0(np.array(value)))) for value in (x, y))
            rgb = read_window(slide, grid, left, top, PANEL_PX, PANEL_PX)
            panels.append(_field(rgb, grid, (left, top), points, title, slide.facts.mpp))
    sheet = Image.new(
        "RGB", (sum(panel.width for panel in panels) + 8 * (len(panels) - 1), PANEL_PX), "white"
    )
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + 8
    return sheet


def _points(files: SlideFiles) -> pd.DataFrame:
    if files.matches.is_file():
        return pd.read_parquet(files.matches, columns=["x", "y", "kind"])
    return pd.read_parquet(files.nuclei, columns=["x", "y"]).assign(kind="nucleus")


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
    canvas = Image.new("RGB", (size[0], PANEL_PX), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    _write(ImageDraw.Draw(canvas), (6, PANEL_PX - 22), f"{files.slide_id}")
    return canvas


def _field(
    rgb: np.ndarray, grid: Grid, corner: tuple[int, int], points: pd.DataFrame, title: str, mpp: float
) -> Image.Image:
    picture = Image.fromarray(rgb)
    draw = ImageDraw.Draw(picture)
    pixel_um = mpp * grid.scale
    radius = RING_UM / pixel_um
    x = grid.from_level0(points["x"].to_numpy()) - corner[0]
    y = grid.from_level0(points["y"].to_numpy()) - corner[1]
    near = (x > -radius) & (x < PANEL_PX + radius) & (y > -radius) & (y < PANEL_PX + radius)
    for px, py, kind in zip(x[near], y[near], points["kind"].to_numpy()[near], strict=True):
        draw.ellipse((px - radius, py - radius, px + radius, py + radius), outline=COLOURS[kind], width=2)
    bar = 50 / pixel_um
    draw.rectangle((PANEL_PX - 12 - bar, PANEL_PX - 16, PANEL_PX - 12, PANEL_PX - 11), fill="black")
    _write(draw, (PANEL_PX - 12 - bar, PANEL_PX - 34), "50 um")
    counts = ", ".join(
        f"{number} {LEGEND[kind]}" for kind, number in Counter(map(str, points["kind"][near])).items()
    )
    _write(draw, (6, 4), f"{title}: {counts}")
    return picture


def _write(draw: ImageDraw.ImageDraw, position: tuple[float, float], text: str) -> None:
    draw.text(
        position, text, fill="black", font=ImageFont.load_default(14), stroke_width=2, stroke_fill="white"
    )
