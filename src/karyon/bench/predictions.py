"""Tile predictions of a large slide full of nuclei, drawn instead of predicted."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from numba import njit
from PIL import Image

from karyon.cohort.layout import SlideFiles
from karyon.io.slides import SlideFacts
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout
from karyon.tiles.store import create_array, create_store

# One nucleus in every cell of this many pixels: a million on a map of 40,000 x 40,000.
PITCH_PX = 40
RADII_PX = (3.0, 8.0)
MASK_PX = 16
CORE_PX, HALO_PX = 512, 56
SEED = 0


def write_predictions(files: SlideFiles, side: int, mpp: float) -> None:
    """Tile predictions, facts and a tissue mask that is tissue all over.

    Args:
        files: Where they go.
        side: Of the map in pixels.
        mpp: Of the map's pixels, which are also the slide's.
    """
    facts = SlideFacts(side, side, mpp, "sheet", ((side, side),), 0, 0, "synthetic")
    grid = Grid(side, side, 1.0, 0, 1.0)
    layout = TileLayout.of_grid(grid, CORE_PX, HALO_PX, 8)
    mask_side = -(-side // MASK_PX)
    mask_grid = Grid(mask_side, mask_side, float(MASK_PX), 0, float(MASK_PX))
    files.facts.parent.mkdir(parents=True, exist_ok=True)
    files.facts.write_text(json.dumps({"slide": asdict(facts), "mask_grid": asdict(mask_grid)}))
    Image.new("L", (mask_side, mask_side), 255).save(files.tissue_mask)
    rows, columns = np.divmod(np.arange(layout.rows * layout.columns), layout.columns)
    tiles = np.stack([rows, columns, np.ones(len(rows))], axis=1)
    nuclei = draw_nuclei(side)
    attributes = {"grid": asdict(grid), "layout": asdict(layout), "tiles": tiles.tolist()}
    with create_store(files.tiles, attributes) as store:
        shape = (len(tiles), layout.window, layout.window)
        predictions = create_array(store, "predictions", shape, (1, layout.window, layout.window))
        for number, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            top, left = row * layout.core - layout.halo, column * layout.core - layout.halo
            predictions[number] = paint_window(nuclei, top, left, layout.window, layout.window)


def draw_nuclei(side: int) -> np.ndarray:
    """Row, column and radius of the nucleus of every cell, float32, ``(cells, cells, 3)``."""
    cells = -(-side // PITCH_PX)
    random = np.random.default_rng(SEED)
    nuclei = random.random((cells, cells, 3), dtype=np.float32)
    start = np.arange(cells, dtype=np.float32) * PITCH_PX
    nuclei[..., 0] = nuclei[..., 0] * PITCH_PX + start[:, None]
    nuclei[..., 1] = nuclei[..., 1] * PITCH_PX + start[None, :]
    nuclei[..., 2] = RADII_PX[0] + nuclei[..., 2] * (RADII_PX[1] - RADII_PX[0])
    return nuclei


@njit(cache=True)
def paint_window(nuclei: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A window of the map, uint8: discs whose probability falls from 1 to 0 over two pixels at the rim.

    Outside them is a faint pattern of 0 to 3, so that no chunk is empty and none compresses to nothing.
    """
    out = np.empty((height, width), dtype=np.uint8)
    for i in range(height):
        for j in range(width):
            out[i, j] = ((top + i) * 7 ^ (left + j) * 13) & 3
    cells = nuclei.shape[0]
    reach = 1  # a radius and a rim are less than a cell
    for a in range(max(top // PITCH_PX - reach, 0), min((top + height) // PITCH_PX + reach + 1, cells)):
        for b in range(max(left // PITCH_PX - reach, 0), min((left + width) // PITCH_PX + reach + 1, cells)):
            y, x, radius = nuclei[a, b]
            for i in range(max(int(y - radius) - 2 - top, 0), min(int(y + radius) + 3 - top, height)):
                for j in range(max(int(x - radius) - 2 - left, 0), min(int(x + radius) + 3 - left, width)):
                    distance = np.sqrt((top + i - y) ** 2 + (left + j - x) ** 2)
                    value = int(255 * min(max((radius + 1 - distance) / 2, 0.0), 1.0))
                    out[i, j] = max(out[i, j], value)
    return out
