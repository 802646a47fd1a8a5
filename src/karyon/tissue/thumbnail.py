"""A picture of the whole slide, read in strips."""

from __future__ import annotations

import numpy as np

from karyon.io.slides import Slide
from karyon.tiles.grid import Grid, read_window

# Level pixels held at once, so that a slide without a pyramid needs no more memory than one with.
STRIP_PIXELS = 16_000_000


def read_thumbnail(slide: Slide, mpp: float) -> tuple[np.ndarray, Grid]:
    """The whole slide at ``mpp``, never loading a level whole.

    Args:
        slide: An open slide.
        mpp: Microns per thumbnail pixel, about 8.

    Returns:
        RGB, uint8, ``(h, w, 3)``, and its grid.
    """
    grid = Grid.of_slide(slide.facts, mpp)
    row_pixels = grid.width * grid.ratio**2
    rows = max(1, int(STRIP_PIXELS / row_pixels))
    strips = [
        read_window(slide, grid, 0, y, grid.width, min(rows, grid.height - y))
        for y in range(0, grid.height, rows)
    ]
    return np.concatenate(strips), grid
