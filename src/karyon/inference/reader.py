"""Read tiles ahead of the network, in several threads."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from karyon.errors import SlideError
from karyon.io.slides import Slide
from karyon.tiles.grid import Grid, read_window
from karyon.tiles.layout import TileLayout

logger = logging.getLogger("karyon")


def read_tiles(
    open_again: Callable[[], Slide],
    grid: Grid,
    layout: TileLayout,
    tiles: np.ndarray,
    threads: int,
    ahead: int,
) -> Iterator[np.ndarray | None]:
    """The tiles with their halo, in order.

    Every thread has a handle of its own. A tile that cannot be decoded is tried once more on a fresh
    handle (OpenSlide refuses all reads after one that failed), and then given as ``None``.

    Args:
        open_again: Opens the slide.
        grid: The model grid.
        layout: The tiles.
        tiles: ``(n, 2)``: row and column of each tile.
        threads: Reader threads.
        ahead: Tiles held in memory before the network asks for them.

    Yields:
        RGB, uint8, ``(window, window, 3)``, or ``None`` where the tile is missing.
    """
    local = threading.local()
    handles: list[Slide] = []

    def read(row: int, column: int) -> np.ndarray | None:
        if not hasattr(local, "slide"):
            local.slide = open_again()
            handles.append(local.slide)
        x, y = column * layout.core - layout.halo, row * layout.core - layout.halo
        for attempt in (1, 2):
            try:
                return read_window(local.slide, grid, x, y, layout.window, layout.window)
            except SlideError as error:
                logger.warning("tile at row %d, column %d, attempt %d: %s", row, column, attempt, error)
                local.slide.reopen()
        return None

    pending: deque[Future[np.ndarray | None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as pool:
        try:
            for row, column in tiles[:, :2].astype(int):
                pending.append(pool.submit(read, int(row), int(column)))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            pool.shutdown()
            for slide in handles:
                slide.close()
