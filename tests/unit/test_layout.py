"""Tiles over the tissue, against exact arithmetic pixel by pixel."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout, mask_window, tissue_tiles


def grid_of(width: int, height: int, scale: Fraction) -> Grid:
    """The grid of a slide of that size in level-0 pixels."""
    return Grid(max(1, int(width / scale)), max(1, int(height / scale)), float(scale), 0, float(scale))


@st.composite
def covered_slides(draw: st.DrawFn) -> tuple[np.ndarray, Fraction, Grid, Grid, TileLayout]:
    """A mask, the model pixels per mask pixel, both grids and the tiles, of one slide."""
    width, height = draw(st.integers(20, 400)), draw(st.integers(20, 400))
    scale = Fraction(draw(st.integers(50, 400)), 100)
    mask_scale = Fraction(draw(st.integers(200, 3200)), 100)
    grid, mask_grid = grid_of(width, height, scale), grid_of(width, height, mask_scale)
    layout = TileLayout.of_grid(grid, draw(st.sampled_from([8, 16, 24, 100])), halo=4, stride=4)
    seed = draw(st.integers(0, 2**16))
    mask = np.random.default_rng(seed).random((mask_grid.height, mask_grid.width)) < draw(st.floats(0, 1))
    return mask, scale / mask_scale, grid, mask_grid, layout


def touched(tile: int, core: int, scale: Fraction, size: int) -> list[int]:
    """Mask pixels that share an area with a tile, along one axis; else the nearest."""
    start, end = tile * core * scale, (tile + 1) * core * scale
    return [k for k in range(size) if k < end and k + 1 > start] or [size - 1]


@settings(deadline=None, max_examples=50)
@given(covered_slides())
def test_tiles_and_shares_equal_brute_force(
    case: tuple[np.ndarray, Fraction, Grid, Grid, TileLayout],
) -> None:
    mask, scale, grid, mask_grid, layout = case
    expected = []
    for row in range(layout.rows):
        for column in range(layout.columns):
            rows = touched(row, layout.core, scale, mask.shape[0])
            share = mask[np.ix_(rows, touched(column, layout.core, scale, mask.shape[1]))].mean()
            if share > 0:
                expected.append((row, column, share))
    found = tissue_tiles(mask, mask_grid, grid, layout)
    np.testing.assert_allclose(found, np.array(expected).reshape(-1, 3), atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(covered_slides())
def test_every_model_pixel_of_tissue_lies_in_a_tile(
    case: tuple[np.ndarray, Fraction, Grid, Grid, TileLayout],
) -> None:
    mask, _, grid, mask_grid, layout = case
    tissue = mask_window(mask, mask_grid, grid, slice(0, grid.width), slice(0, grid.height))
    tiles = {(int(row), int(column)) for row, column, _ in tissue_tiles(mask, mask_grid, grid, layout)}
    assert {(y // layout.core, x // layout.core) for y, x in np.argwhere(tissue)} <= tiles


@settings(deadline=None, max_examples=50)
@given(covered_slides())
def test_mask_on_model_pixels_is_the_mask_pixel_under_their_centre(
    case: tuple[np.ndarray, Fraction, Grid, Grid, TileLayout],
) -> None:
    mask, scale, grid, mask_grid, _ = case
    rows = [min(int((y + Fraction(1, 2)) * scale), mask.shape[0] - 1) for y in range(grid.height)]
    columns = [min(int((x + Fraction(1, 2)) * scale), mask.shape[1] - 1) for x in range(grid.width)]
    expected = mask[np.ix_(rows, columns)]
    y0, x0 = grid.height // 3, grid.width // 4
    window = mask_window(mask, mask_grid, grid, slice(x0, grid.width), slice(y0, grid.height))
    # Where a centre falls on the border of two mask pixels, rounding may take either.
    border = [(y + Fraction(1, 2)) * scale % 1 == 0 for y in range(y0, grid.height)]
    border_x = [(x + Fraction(1, 2)) * scale % 1 == 0 for x in range(x0, grid.width)]
    doubtful = np.logical_or.outer(border, border_x)
    assert (doubtful | (window == expected[y0:, x0:])).all()


def test_tiles_of_a_hand_drawn_mask() -> None:
    # Mask pixels of 4 x 4 model pixels under tiles of 8: each tile covers 2 x 2 of them.
    mask = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], bool)
    grid = Grid(20, 8, 1.0, 0, 1.0)
    layout = TileLayout.of_grid(grid, core=8, halo=2, stride=4)
    assert (layout.rows, layout.columns, layout.halo, layout.window) == (1, 3, 4, 16)
    tiles = tissue_tiles(mask, Grid(5, 2, 4.0, 0, 4.0), grid, layout)
    np.testing.assert_array_equal(tiles, [[0, 0, 0.25], [0, 2, 0.5]])


def test_empty_mask_has_no_tiles() -> None:
    grid = Grid(20, 8, 1.0, 0, 1.0)
    layout = TileLayout.of_grid(grid, core=8, halo=0, stride=4)
    assert tissue_tiles(np.zeros((2, 5), bool), Grid(5, 2, 4.0, 0, 4.0), grid, layout).shape == (0, 3)


@pytest.mark.parametrize(("width", "height", "core"), [(100, 60, 112), (112, 60, 112), (1, 1, 16)])
def test_slide_smaller_than_a_tile_gets_one_that_just_holds_it(width: int, height: int, core: int) -> None:
    layout = TileLayout.of_grid(Grid(width, height, 1.0, 0, 1.0), core=1024, halo=20, stride=16)
    assert (layout.core, layout.rows, layout.columns) == (core, 1, 1)
    assert layout.window == core + 2 * 32
