"""Joining tile predictions to one map, against the map they were cut from and a full-array sum."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from karyon.tiles.assembly import assemble, block_side, border_weight
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout


def layout_of(width: int, height: int, core: int, halo: int) -> tuple[Grid, TileLayout]:
    grid = Grid(width, height, 1.0, 0, 1.0)
    return grid, TileLayout.of_grid(grid, core, halo, stride=16)


def every_tile(layout: TileLayout) -> np.ndarray:
    return np.argwhere(np.ones((layout.rows, layout.columns), bool))


def stored(predictions: np.ndarray) -> zarr.Array:
    return zarr.array(predictions, chunks=(1, *predictions.shape[1:]))


def joined(
    predictions: np.ndarray, tiles: np.ndarray, layout: TileLayout, grid: Grid, method: str
) -> np.ndarray:
    """The whole map, -1 where no block was yielded."""
    whole = np.full((grid.height, grid.width), -1)
    for rows, columns, block in assemble(stored(predictions), tiles, layout, grid, method):
        assert block.dtype == np.uint8
        assert (whole[rows, columns] == -1).all()
        whole[rows, columns] = block
    return whole


@pytest.mark.parametrize("method", ["halo", "weighted"])
@pytest.mark.parametrize(("core", "halo"), [(64, 16), (96, 0), (160, 32), (400, 48), (2048, 16)])
def test_tiles_cut_from_one_map_join_to_that_map(core: int, halo: int, method: str) -> None:
    grid, layout = layout_of(1500, 1130, core, halo)
    source = np.random.default_rng(0).integers(0, 256, (grid.height, grid.width), dtype=np.uint8)
    beyond = layout.core * np.array([layout.rows, layout.columns]) - source.shape
    padded = np.pad(source, [(layout.halo, layout.halo + extra) for extra in beyond])
    tiles = every_tile(layout)
    cut = [padded[y : y + layout.window, x : x + layout.window] for y, x in tiles * layout.core]
    np.testing.assert_array_equal(joined(np.stack(cut), tiles, layout, grid, method), source)


def test_weighted_equals_the_sums_over_the_whole_slide() -> None:
    grid, layout = layout_of(1300, 1200, core=256, halo=48)
    random = np.random.default_rng(1)
    tiles = random.permutation(every_tile(layout))[:17]  # in no order, and some of them missing
    predictions = random.integers(0, 256, (len(tiles), layout.window, layout.window), dtype=np.uint8)
    assert block_side(layout) < grid.width  # several blocks

    position = np.arange(layout.window)
    to_edge = np.minimum(position, position[::-1]) + 0.5
    to_centre = position - position.mean()
    edge = np.minimum.outer(to_edge, to_edge)
    weight = edge / (edge + np.sqrt(np.add.outer(to_centre**2, to_centre**2)))
    weighted = np.zeros((layout.rows * 256 + 96, layout.columns * 256 + 96))
    weights = np.zeros_like(weighted)
    for prediction, (row, column) in zip(predictions, tiles, strict=True):
        window = np.s_[row * 256 : row * 256 + layout.window, column * 256 : column * 256 + layout.window]
        weighted[window] += weight * prediction
        weights[window] += weight
    inside = np.s_[48 : 48 + grid.height, 48 : 48 + grid.width]
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(weighted / weights)[inside]

    found = joined(predictions, tiles, layout, grid, "weighted")
    np.testing.assert_array_less(np.abs(np.maximum(found, 0) - expected), 0.5 + 1e-3)
    assert (expected[found == -1] == 0).all()


@pytest.mark.parametrize("method", ["halo", "weighted"])
def test_each_of_several_maps_is_joined_for_itself(method: str) -> None:
    grid, layout = layout_of(300, 200, core=64, halo=32)  # the NB paper's patches of 128 at a stride of 64
    tiles = every_tile(layout)
    shape = (len(tiles), 3, layout.window, layout.window)
    predictions = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    alone = [joined(predictions[:, number], tiles, layout, grid, method) for number in range(3)]
    ((rows, columns, block),) = assemble(stored(predictions), tiles, layout, grid, method)
    assert (rows, columns) == (slice(0, 200), slice(0, 300))
    np.testing.assert_array_equal(block, alone)


def test_blocks_without_tiles_are_left_out() -> None:
    grid, layout = layout_of(3000, 2500, core=256, halo=16)
    side = block_side(layout)
    assert side == 1024
    predictions = np.full((1, layout.window, layout.window), 9, np.uint8)
    for tile, method, corners in (
        ((1, 1), "halo", [(0, 0)]),
        ((1, 4), "halo", [(0, side)]),  # the first column of the second block
        ((1, 4), "weighted", [(0, 0), (0, side)]),  # its halo reaches back into the first
        ((9, 11), "halo", [(2 * side, 2 * side)]),
    ):
        blocks = list(assemble(stored(predictions), np.array([tile]), layout, grid, method))
        assert [(rows.start, columns.start) for rows, columns, _ in blocks] == corners
    assert list(assemble(stored(predictions), np.empty((0, 2), int), layout, grid, "halo")) == []


def test_core_of_a_missing_tile_is_zero() -> None:
    grid, layout = layout_of(128, 64, core=64, halo=0)
    found = joined(np.full((1, 64, 64), 200, np.uint8), np.array([[0, 1]]), layout, grid, "halo")
    np.testing.assert_array_equal(found, np.repeat([[0] * 64 + [200] * 64], 64, axis=0))


@pytest.mark.parametrize("core", [16, 96, 160, 1024, 2048])
def test_blocks_are_whole_tiles_and_at_least_1024_wide(core: int) -> None:
    side = block_side(TileLayout(core, 0, 100, 100))
    assert side % core == 0
    assert 1024 <= side < 1024 + core


def test_border_weight_of_three_and_four_pixels() -> None:
    # side 3: edges at 0.5, 1.5, 0.5; centre distances 0, 1 and sqrt 2
    side, corner = 0.5 / (0.5 + 1), 0.5 / (0.5 + np.sqrt(2))
    expected = [[corner, side, corner], [side, 1, side], [corner, side, corner]]
    np.testing.assert_allclose(border_weight(3), expected, rtol=1e-6)
    # side 4: the centre lies between the pixels, sqrt(0.5), sqrt(2.5) and sqrt(4.5) away
    inner, side, corner = 1.5 / (1.5 + 0.5**0.5), 0.5 / (0.5 + 2.5**0.5), 0.5 / (0.5 + 4.5**0.5)
    outer = [corner, side, side, corner]
    expected = [outer, [side, inner, inner, side], [side, inner, inner, side], outer]
    np.testing.assert_allclose(border_weight(4), expected, rtol=1e-6)
