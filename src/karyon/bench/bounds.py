"""What the machine can do at best, for the bounds in ``docs/design.md``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from karyon.bench.chain import THREADS
from karyon.bench.material import MODEL_MPP, synthetic_slide
from karyon.bench.measurement import Measurement, fastest
from karyon.bench.predictions import CORE_PX, HALO_PX, draw_nuclei, paint_window
from karyon.inference.reader import read_tiles
from karyon.io.slides import open_slide
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout
from karyon.tiles.store import create_array, create_store, open_store

MATRIX_SIDE = 2048
STORED_TILES = 64


def measure_bounds(cache: Path, side: int) -> Iterator[Measurement]:
    """Decoding on one thread and on two, arithmetic, and the stores' compression.

    Args:
        cache: Where the slide and the store lie.
        side: Of the slide in level-0 pixels.
    """
    yield from _decoding(synthetic_slide(cache, side))
    yield _arithmetic()
    yield from _compression(cache / "bounds.zarr.zip")


def _decoding(slide: Path) -> Iterator[Measurement]:
    with open_slide(slide) as handle:
        grid = Grid.of_slide(handle.facts, MODEL_MPP)
    layout = TileLayout.of_grid(grid, CORE_PX, HALO_PX, 8)
    tiles = np.argwhere(np.ones((layout.rows, layout.columns), bool))

    def rate(threads: int) -> float:
        images = partial(read_tiles, partial(open_slide, slide), grid, layout, tiles, threads, 2 * threads)
        return len(tiles) * layout.window**2 / fastest(lambda: sum(1 for _ in images())) / 1e6

    one, several = rate(1), rate(THREADS)
    yield Measurement("bounds.decode", one, "Mpx/s of tiles with their halo, one thread")
    yield Measurement(
        "bounds.decode_threads", several, f"Mpx/s, {THREADS} threads", "one thread", one, several / one
    )


def _arithmetic() -> Measurement:
    torch.set_num_threads(THREADS)
    one, other = torch.rand(2, MATRIX_SIDE, MATRIX_SIDE).unbind()
    seconds = fastest(lambda: one @ other)
    rate = 2 * MATRIX_SIDE**3 / seconds / 1e9
    return Measurement("bounds.arithmetic", rate, f"GFLOP/s of a float32 matrix product, {THREADS} threads")


def _compression(path: Path) -> Iterator[Measurement]:
    window = CORE_PX + 2 * HALO_PX
    nuclei = draw_nuclei(STORED_TILES * window)
    tiles = [paint_window(nuclei, 0, number * window, window, window) for number in range(STORED_TILES)]
    megabytes = STORED_TILES * window**2 / 1e6

    def write() -> None:
        with create_store(path, {}) as store:
            array = create_array(store, "tiles", (len(tiles), window, window), (1, window, window))
            for number, tile in enumerate(tiles):
                array[number] = tile

    def read() -> None:
        with open_store(path) as store:
            for number in range(len(tiles)):
                store["tiles"][number]  # type: ignore[index]

    yield Measurement("bounds.store_write", megabytes / fastest(write), "MB/s of uint8 map, tile by tile")
    yield Measurement("bounds.store_read", megabytes / fastest(read), "MB/s of uint8 map, tile by tile")
