"""Which tiles cover the tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karyon.tiles.grid import Grid


@dataclass(frozen=True)
class TileLayout:
    """Square tiles on a slide's model grid: cores that meet, each read with a halo round it.

    Cores start at multiples of ``core`` from the slide's corner, so a network's pooling cells fall on
    the same model pixels in every tile and for every tile size.

    Attributes:
        core: Side of a tile without halo, in model pixels.
        halo: Model pixels added on each side.
        rows: Tiles down.
        columns: Tiles across.
    """

    core: int
    halo: int
    rows: int
    columns: int

    @classmethod
    def of_grid(cls, grid: Grid, core: int, halo: int, stride: int) -> TileLayout:
        """The layout over a grid; a slide smaller than a tile gets a smaller tile.

        Args:
            grid: The model grid.
            core: Wanted side in model pixels, a multiple of ``stride``.
            halo: Wanted halo; rounded up to a multiple of ``stride``.
            stride: Of the network.
        """
        longest = max(grid.width, grid.height)
        core = min(core, longest + -longest % stride)
        return cls(core, halo + -halo % stride, -(-grid.height // core), -(-grid.width // core))

    @property
    def window(self) -> int:
        """Side of a tile with its halo."""
        return self.core + 2 * self.halo


def tissue_tiles(mask: np.ndarray, mask_grid: Grid, grid: Grid, layout: TileLayout) -> np.ndarray:
    """The tiles whose core touches tissue, row by row.

    Args:
        mask: Tissue mask, bool, ``(h, w)``.
        mask_grid: Its grid.
        grid: The model grid of the same slide.
        layout: The tiles.

    Returns:
        float64, ``(n, 3)``: row, column, and share of the core's mask pixels that are tissue.
    """
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int64)
    total[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    scale = grid.scale / mask_grid.scale
    y0, y1 = _spans(layout.rows, layout.core, scale, mask.shape[0])
    x0, x1 = _spans(layout.columns, layout.core, scale, mask.shape[1])
    tissue = total[np.ix_(y1, x1)] - total[np.ix_(y0, x1)] - total[np.ix_(y1, x0)] + total[np.ix_(y0, x0)]
    share = tissue / ((y1 - y0)[:, None] * (x1 - x0)[None, :])
    row, column = np.nonzero(tissue)
    return np.stack([row, column, share[row, column]], axis=1)


def _spans(count: int, core: int, scale: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and past-the-last mask pixel that each tile touches along one axis, rounding errors aside."""
    edges = np.arange(count + 1) * core * scale
    first = np.clip(np.floor(edges[:-1] + 1e-9).astype(int), 0, size - 1)
    last = np.clip(np.ceil(edges[1:] - 1e-9).astype(int), first + 1, size)
    return first, last


def mask_window(mask: np.ndarray, mask_grid: Grid, grid: Grid, x: slice, y: slice) -> np.ndarray:
    """The tissue mask on a window of the model grid, nearest neighbour.

    Args:
        mask: Tissue mask, bool, ``(h, w)``.
        mask_grid: Its grid.
        grid: The model grid of the same slide.
        x: Columns of the window, in model pixels.
        y: Rows of the window, in model pixels.

    Returns:
        bool, of the window's shape.
    """
    scale = grid.scale / mask_grid.scale
    rows = np.minimum(((np.arange(y.start, y.stop) + 0.5) * scale).astype(int), mask.shape[0] - 1)
    columns = np.minimum(((np.arange(x.start, x.stop) + 0.5) * scale).astype(int), mask.shape[1] - 1)
    # Columns first and on the few rows there are, then whole rows: copying these is fastest.
    first = rows[0]
    return mask[first : rows[-1] + 1].take(columns, axis=1)[rows - first]
