"""Connected components of a mask, each of them whole and once, by blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as graph_components

from karyon.errors import SlideError
from karyon.nuclei.runs import (
    BOTTOM,
    FIRST,
    LEFT,
    RIGHT,
    ROW,
    STOP,
    TOP,
    find_extents,
    find_runs,
    join_runs,
    paint_runs,
)

# A block is read with this share of its side round it; what is no larger is whole in some block's window.
MARGIN = 1 / 16
# Pixels of the largest box: 8 x 8 mm at 0.5 microns per pixel, and some 3 GB of memory.
LARGEST_BOX = 2**28


class Box(NamedTuple):
    """A part of the map."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, by: int, shape: tuple[int, ...]) -> Box:
        """With so much more on each side, within a map of ``shape``."""
        return Box(
            max(self.top - by, 0),
            max(self.left - by, 0),
            min(self.bottom + by, shape[0]),
            min(self.right + by, shape[1]),
        )


Mask = Callable[[Box], np.ndarray]


def whole_components(mask: Mask, shape: tuple[int, int], block: int) -> Iterator[tuple[Box, np.ndarray]]:
    """Components of pixels that touch by a side, in boxes that hold them whole.

    Each block is read with a margin. A component that ends within that window is whole there, and belongs
    to the first block for which this holds, which its extent tells. The pieces of components that cross the
    borders of blocks are joined as a graph; a component that ends within no window is in the end read in a
    box of its own.

    Args:
        mask: Gives a box of the mask as uint8, 0 or 1, contiguous; the same value for a pixel in every box.
        shape: Height and width of the map.
        block: Side of a block in pixels; memory grows with it and with the largest component's box.

    Yields:
        A box, and the mask in it, uint8, of the components that are given with it: first the windows
        of the blocks, row by row, then the components that fit into none.

    Raises:
        SlideError: A component is too wide to be held.
    """
    height, width = shape
    margin = round(block * MARGIN)
    pieces = _Pieces(width)
    for top in range(0, height, block):
        pieces.begin_row(min(block, height - top))
        for left in range(0, width, block):
            core = Box(top, left, min(top + block, height), min(left + block, width))
            window = core.grown(margin, shape)
            runs = find_runs(mask(window), 1)
            component, count = join_runs(runs)
            extents = find_extents(runs, component, count)
            extents += np.array([*window[:2], *window[:2], window.left])
            home = _first_window(extents, shape, block, margin)
            chosen = (home == (top, left)).all(axis=1)  # no piece that goes on beyond the window
            if chosen.any():
                yield window, _paint(runs, chosen[component], window.shape, np.uint8)
            pieces.add(core, window, _paint(runs, component + 1, window.shape, np.int32), extents)
    extents = pieces.joined()
    for extent in extents[(_first_window(extents, shape, block, margin) < 0).any(axis=1)]:
        box = Box(*extent[: RIGHT + 1].tolist())
        if box.shape[0] * box.shape[1] > LARGEST_BOX:
            raise SlideError(
                f"nuclei that touch each other cover {box.shape[1]} x {box.shape[0]} pixels of the map "
                "without a gap: raise nuclei.threshold, or look whether the model fits this slide"
            )
        runs = find_runs(mask(box), 1)
        component, _ = join_runs(runs)
        stops = runs[runs[:, ROW] == 0, STOP]  # the first pixel is in one of the runs of the box's first row
        chosen = component == component[np.searchsorted(stops, extent[FIRST] - box.left, side="right")]
        yield box, _paint(runs, chosen, box.shape, np.uint8)


def _paint(runs: np.ndarray, numbers: np.ndarray, shape: tuple[int, int], kind: type) -> np.ndarray:
    canvas: np.ndarray = np.zeros(shape, kind)
    paint_runs(runs, numbers.astype(kind), canvas)
    return canvas


def _first_window(extents: np.ndarray, shape: tuple[int, int], block: int, margin: int) -> np.ndarray:
    """Top and left of the first block, along each axis, within whose window they end: -1 where none is."""
    starts, stops, size = extents[:, [TOP, LEFT]], extents[:, [BOTTOM, RIGHT]], np.array(shape)
    # The first window that goes beyond the stop, or to the end of the map; it may begin too late.
    number = np.maximum(np.minimum((stops - margin) // block, -((margin - size) // block) - 1), 0)
    begin = number * block - margin
    return np.where((begin < starts) | (begin <= 0), number * block, -1)


class _Pieces:
    """Pieces of the components that cross borders of blocks, and which of them are one.

    Args:
        width: Of the map.
    """

    def __init__(self, width: int) -> None:
        self._above = np.full(width, -1)  # piece of each pixel in the row over this row of blocks
        self._beside = np.empty(0, np.int64)  # the same, left of this block
        self._extents = [np.empty((0, 5), np.int64)]
        self._edges = [np.empty((2, 0), np.int64)]
        self._count = 0

    def begin_row(self, height: int) -> None:
        """Go to the next row of blocks, of so many pixels."""
        self._beside = np.full(height, -1)

    def add(self, core: Box, window: Box, numbers: np.ndarray, extents: np.ndarray) -> None:
        """Add the pieces of a block.

        Args:
            core: The block.
            window: What was read.
            numbers: int32, of the window's shape: 1 + the component of each pixel, 0 where there is none.
            extents: Of these components.
        """
        inner = numbers[core.top - window.top :, core.left - window.left :][: core.shape[0], : core.shape[1]]
        borders = inner[0], inner[-1], inner[:, 0], inner[:, -1]
        here = np.unique(np.concatenate(borders))
        here = here[here > 0]
        to_piece = np.full(len(extents) + 1, -1)
        to_piece[here] = self._count + np.arange(len(here))
        first_row, last_row, first_column, last_column = (to_piece[border] for border in borders)
        columns = core.slices[1]
        self._edges += [_touching(self._above[columns], first_row), _touching(self._beside, first_column)]
        self._extents.append(extents[here - 1])
        self._above[columns], self._beside = last_row, last_column
        self._count += len(here)

    def joined(self) -> np.ndarray:
        """Extents of the components, ``(n, 5)``."""
        edges, extents = np.concatenate(self._edges, axis=1), np.concatenate(self._extents)
        shape = (self._count, self._count)
        graph = coo_array((np.ones(edges.shape[1], dtype=bool), (edges[0], edges[1])), shape=shape)
        _, whole = graph_components(graph, directed=False)
        # Of each component's pieces that with the first pixel is first.
        order = np.lexsort((extents[:, FIRST], extents[:, TOP], whole))
        extents = extents[order]
        _, first = np.unique(whole[order], return_index=True)
        joined = extents[first]
        if len(first):
            joined[:, LEFT] = np.minimum.reduceat(extents[:, LEFT], first)
            joined[:, [BOTTOM, RIGHT]] = np.maximum.reduceat(extents[:, [BOTTOM, RIGHT]], first)
        return joined


def _touching(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    both = (one >= 0) & (other >= 0)
    return np.stack([one[both], other[both]])
