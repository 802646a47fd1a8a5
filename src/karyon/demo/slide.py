"""Render one synthetic slide: its pixels as a function of position, and its file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from karyon.demo.architecture import architecture_at
from karyon.demo.cells import cell_borders, paint_cells
from karyon.demo.exposure import beer_lambert, blur_taps, expose
from karyon.demo.look import Look
from karyon.demo.noise import Field, field_seed
from karyon.demo.nuclei import CELL_UM, REACH_UM, nuclei_of_cell
from karyon.demo.pyramid import TILE, write_pyramid
from karyon.demo.texture import PLAN, paint_tissue
from karyon.io.atomic import atomic_path

# Blocks this wide keep the working arrays in the processor's cache.
BLOCK_WIDTH = 1024
# The plan of the tissue is smooth over this length.
PLAN_STEP_UM = 4.0


class SlideRenderer:
    """Pixels of a slide as a function of position; the size and order of the blocks asked for do not matter.

    Args:
        look: The slide.
        mpp: Microns per level-0 pixel.
    """

    def __init__(self, look: Look, mpp: float) -> None:
        self.look = look
        self.mpp = mpp
        self._step = max(1, round(PLAN_STEP_UM / mpp))
        self._taps = blur_taps(look.blur_um / mpp)
        self._cells: dict[tuple[int, int], np.ndarray] = {}

    def strips(self, width: int, height: int, strip_height: int) -> Iterator[np.ndarray]:
        """All pixels from top to bottom, uint8, ``(strip_height or less, width, 3)`` at a time."""
        for top in range(0, height, strip_height):
            self._forget_above(top)
            rows = min(strip_height, height - top)
            strip = np.empty((rows, width, 3), dtype=np.uint8)
            for left in range(0, width, BLOCK_WIDTH):
                columns = min(BLOCK_WIDTH, width - left)
                strip[:, left : left + columns] = self.block(left, top, columns, rows)
            yield strip

    def block(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """The pixels of a box in level-0 pixels, uint8, ``(height, width, 3)``."""
        look, border = self.look, len(self._taps) - 1
        first_x, first_y = left - border, top - border
        columns, rows = width + 2 * border, height + 2 * border
        plan = self._plan(first_x, first_y, columns, rows)
        cells = self._cells_reaching(first_x, first_y, columns, rows)
        borders = cell_borders(rows, columns, first_x, first_y, self.mpp, cells)
        seed = field_seed(look.seed, Field.TEXTURE)
        factors = (look.hematoxylin, look.eosin)
        densities = paint_tissue(borders, first_x, first_y, self.mpp, plan, self._step, factors, seed)
        paint_cells(densities, first_x, first_y, self.mpp, cells, look.eosin, seed)
        light = beer_lambert(densities, look.stains, look.i0)
        return expose(light, left, top, self._taps, look.sensor_noise, field_seed(look.seed, Field.SENSOR))

    def _plan(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        step = self._step
        columns = np.arange(left // step, (left + width - 1) // step + 2) * step * self.mpp
        rows = np.arange(top // step, (top + height - 1) // step + 2) * step * self.mpp
        x, y = np.meshgrid(columns, rows)
        plan = architecture_at(self.look, x.ravel(), y.ravel()).stack(PLAN)
        return plan.reshape(len(PLAN), len(rows), len(columns))

    def _cells_reaching(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Cells whose box touches the block, sorted from bottom to top."""
        x0, x1 = left * self.mpp - REACH_UM, (left + width) * self.mpp + REACH_UM
        y0, y1 = top * self.mpp - REACH_UM, (top + height) * self.mpp + REACH_UM
        parts = [
            self._layout(column, row)
            for row in range(int(y0 // CELL_UM), int(y1 // CELL_UM) + 1)
            for column in range(int(x0 // CELL_UM), int(x1 // CELL_UM) + 1)
        ]
        cells = np.concatenate(parts)
        cells = cells[(cells["x"] > x0) & (cells["x"] < x1) & (cells["y"] > y0) & (cells["y"] < y1)]
        return cells[np.lexsort((cells["x"], cells["y"], cells["rank"]))]

    def _layout(self, column: int, row: int) -> np.ndarray:
        key = column, row
        if key not in self._cells:
            self._cells[key] = nuclei_of_cell(self.look, column, row, 0.0)
        return self._cells[key]

    def _forget_above(self, top: int) -> None:
        """Strips run downwards: cells of the layout that end above are not needed again."""
        first = int((top * self.mpp - 2 * REACH_UM) // CELL_UM)
        self._cells = {key: cells for key, cells in self._cells.items() if key[1] >= first}


def render_slide(path: Path, look: Look, mpp: float, width: int, height: int) -> None:
    """Render a slide to a pyramidal TIFF; the file is whole or absent.

    Args:
        path: File to write, ``.svs`` or ``.tiff``.
        look: The slide.
        mpp: Microns per level-0 pixel.
        width: Level-0 width in pixels.
        height: Level-0 height in pixels.
    """
    strips = SlideRenderer(look, mpp).strips(width, height, TILE)
    progress = tqdm(strips, total=math.ceil(height / TILE), desc=path.stem, unit="row", disable=None)
    with atomic_path(path) as part:
        write_pyramid(part, progress, width, height, mpp)
