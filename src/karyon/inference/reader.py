"""Read tiles ahead of the network, in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np

from karyon.inference.ordered import map_in_order
from karyon.io.slides import PatchedSlide, Slide
from karyon.tiles.grid import Grid, read_window
from karyon.tiles.layout import TileLayout


def read_tiles(
    open_again: Callable[[], Slide],
    grid: Grid,
    layout: TileLayout,
    tiles: np.ndarray,
    threads: int,
    ahead: int,
) -> Iterator[tuple[np.ndarray, float]]:
    """The tiles with their halo, in order, each with how much of it could not be decoded.

    Every thread has a handle of its own. What cannot be decoded is white, as glass is
    (:class:`~karyon.io.slides.PatchedSlide`).

    Args:
        open_again: Opens the slide.
        grid: The model grid.
        layout: The tiles.
        tiles: ``(n, 2)`` or more columns: row and column of each tile.
        threads: Reader threads.
        ahead: Tiles held in memory before the network asks for them.

    Yields:
        RGB, uint8, ``(window, window, 3)``, and the share of the slide's area that this tile lost.
    """
    local = threading.local()
    handles: list[Slide] = []

    def read(tile: np.ndarray) -> tuple[np.ndarray, float]:
        if not hasattr(local, "slide"):
            local.slide = PatchedSlide(open_again(), limit=1.0)
            handles.append(local.slide)
        lost = local.slide.lost
        row, column = (int(value) for value in tile)
        x, y = column * layout.core - layout.halo, row * layout.core - layout.halo
        image = read_window(local.slide, grid, x, y, layout.window, layout.window)
        return image, local.slide.lost - lost

    reads = map_in_order(read, tiles[:, :2], threads, ahead)
    try:
        yield from reads
    finally:
        reads.close()
        for slide in handles:
            slide.close()
