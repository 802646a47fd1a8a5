"""Join tile predictions to slide-level maps, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import zarr

from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout
from karyon.tiles.store import Predictions

# A block of the map is at least this wide, and a whole number of tiles.
MIN_BLOCK_PX = 1024
CACHED_TILES = 48

Box = tuple[slice, slice]


def block_side(layout: TileLayout) -> int:
    """Side of the map's blocks in model pixels."""
    return layout.core * max(1, -(-MIN_BLOCK_PX // layout.core))


def assemble(
    predictions: Predictions | zarr.Array | np.ndarray,
    tiles: np.ndarray,
    layout: TileLayout,
    grid: Grid,
    method: str,
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The blocks of the slide-level maps, row by row; blocks without tiles are left out.

    ``halo`` crops each tile to its core. ``weighted`` blends overlapping tiles,
    ``P = sum(W p) / sum(W)`` with ``W = D_e / (D_c + D_e)``, where ``D_e`` is a pixel's distance to
    its tile's edge and ``D_c`` to its centre (NB paper, section II-C.4), the same for all maps. The paper's
    patches of 128 at a stride of 64 are tiles with a core of 64 and a halo of 32.

    Args:
        predictions: uint8, ``(n, window, window)``, or of several maps ``(n, c, window, window)``.
        tiles: ``(n, 2)`` or more columns: row and column of each tile.
        layout: The tiles.
        grid: The model grid.
        method: ``halo`` or ``weighted``.

    Yields:
        Rows, columns and values of a block: uint8, ``(h, w)`` or ``(c, h, w)``.
    """
    index = {(int(row), int(column)): number for number, (row, column) in enumerate(tiles[:, :2])}

    @lru_cache(maxsize=CACHED_TILES)
    def tile(number: int) -> np.ndarray:
        return np.asarray(predictions[number])

    weight = border_weight(layout.window) if method == "weighted" else None
    reach = 0 if weight is None else layout.halo
    side = block_side(layout)
    for top in range(0, grid.height, side):
        for left in range(0, grid.width, side):
            rows = slice(top, min(top + side, grid.height))
            columns = slice(left, min(left + side, grid.width))
            near = [index[key] for key in _tiles_near(layout, rows, columns, reach) if key in index]
            if near:
                parts = _parts(near, tile, tiles, layout, rows, columns, reach)
                shape = (*predictions.shape[1:-2], rows.stop - rows.start, columns.stop - columns.start)
                yield rows, columns, _crop(parts, shape) if weight is None else _blend(parts, shape, weight)


def _tiles_near(layout: TileLayout, rows: slice, columns: slice, reach: int) -> Iterator[tuple[int, int]]:
    for row in range(max((rows.start - reach) // layout.core, 0), (rows.stop - 1 + reach) // layout.core + 1):
        for column in range(
            max((columns.start - reach) // layout.core, 0), (columns.stop - 1 + reach) // layout.core + 1
        ):
            yield row, column


def _parts(  # type: ignore[no-untyped-def]
    near, tile, tiles, layout, rows, columns, reach
) -> Iterator[tuple[np.ndarray, Box, Box]]:
    """The tiles near a block: their values, which part of them is used, and where it lies in the block."""
    side, cut = layout.core + 2 * reach, layout.halo - reach
    for number in near:
        row, column = (int(value) for value in tiles[number][:2])
        y, x = row * layout.core - reach, column * layout.core - reach  # corner of the part that is used
        y0, y1 = max(y, rows.start), min(y + side, rows.stop)
        x0, x1 = max(x, columns.start), min(x + side, columns.stop)
        source = np.s_[y0 - y + cut : y1 - y + cut, x0 - x + cut : x1 - x + cut]
        place = np.s_[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
        yield tile(number), source, place


def _crop(parts: Iterator[tuple[np.ndarray, Box, Box]], shape: tuple[int, ...]) -> np.ndarray:
    """Cores side by side: they meet and do not overlap."""
    block = np.zeros(shape, np.uint8)
    for values, source, place in parts:
        block[..., *place] = values[..., *source]
    return block


def _blend(
    parts: Iterator[tuple[np.ndarray, Box, Box]], shape: tuple[int, ...], weight: np.ndarray
) -> np.ndarray:
    """Weighted mean of overlapping tiles."""
    total, weights = np.zeros(shape, np.float32), np.zeros(shape[-2:], np.float32)
    for values, source, place in parts:
        total[..., *place] += weight[source] * values[..., *source]
        weights[place] += weight[source]
    return np.rint(total / np.maximum(weights, 1e-12)).astype(np.uint8)


def border_weight(side: int) -> np.ndarray:
    """``W = D_e / (D_c + D_e)`` of a square tile: 1 at the centre, towards 0 at the edge.

    Distances are taken from pixel centres, ``D_e`` to the outer side of the border pixels, so that no
    weight is 0.

    Args:
        side: Side of the tile in pixels.

    Returns:
        float32, ``(side, side)``.
    """
    position = np.arange(side, dtype=np.float64)
    to_edge = np.minimum(position, side - 1 - position) + 0.5
    from_centre = position - (side - 1) / 2
    edge = np.minimum(to_edge[:, None], to_edge[None, :])
    centre = np.hypot(from_centre[:, None], from_centre[None, :])
    return (edge / (centre + edge)).astype(np.float32)
