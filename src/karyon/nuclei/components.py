"""Connected components of a thresholded map, by blocks, equal to labelling the whole map at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as graph_components

from karyon.nuclei.runs import label_block

BLOCK_PX = 2048


class Map2D(Protocol):
    """A numpy or zarr array, or anything that is sliced like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width."""

    def __getitem__(self, box: tuple[slice, slice], /) -> object:
        """The values of a box."""


@dataclass(frozen=True)
class Components:
    """Objects of a map, ordered by ``y`` then ``x`` of their centroids (then area and peak).

    Attributes:
        x: Centroid in map pixels, float64.
        y: Centroid in map pixels, float64.
        area: Pixels, int64.
        peak: Largest map value inside, uint8.
    """

    x: np.ndarray
    y: np.ndarray
    area: np.ndarray
    peak: np.ndarray

    def select(self, chosen: np.ndarray) -> Components:
        """The objects that a boolean mask or an index chooses."""
        return Components(self.x[chosen], self.y[chosen], self.area[chosen], self.peak[chosen])


def find_components(values: Map2D, threshold: int, block: int = BLOCK_PX) -> Components:
    """Label pixels ``>= threshold`` that touch by a side, and measure the objects.

    Each block is labelled on its own; pixels that touch across a border become edges of a graph, and
    the components of that graph are the objects. Sums are whole numbers, so the result is the same
    to the last bit for every block size.

    Args:
        values: uint8 map, ``(H, W)``.
        threshold: 1 to 255.
        block: Side of a block in pixels; memory grows with it, results do not.

    Returns:
        The objects (SWITCH paper, section 3.4: threshold, components, centroids).
    """
    height, width = values.shape
    pieces = [np.empty((4, 0), np.int64)]  # rows: sum of x, sum of y, area, peak of every piece
    edges: list[np.ndarray] = []
    count = 0
    above = np.full(width, -1, dtype=np.int64)  # piece of each pixel in the row over this band
    for top in range(0, height, block):
        beside = np.full(min(block, height - top), -1, dtype=np.int64)  # the same, left of this block
        for left in range(0, width, block):
            chunk = np.asarray(values[top : top + block, left : left + block])
            found, borders = label_block(chunk, threshold)
            found[0] += left * found[2]
            found[1] += top * found[2]
            pieces.append(found)
            first_row, last_row, first_column, last_column = (
                np.where(border >= 0, border + count, -1) for border in borders
            )
            columns = slice(left, left + chunk.shape[1])
            edges += [_touching(above[columns], first_row), _touching(beside, first_column)]
            above[columns], beside = last_row, last_column
            count += found.shape[1]
    return _merge(np.concatenate(pieces, axis=1), np.concatenate(edges, axis=1), count)


def _touching(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    both = (one >= 0) & (other >= 0)
    return np.stack([one[both], other[both]])


def _merge(pieces: np.ndarray, edges: np.ndarray, count: int) -> Components:
    graph = coo_array((np.ones(edges.shape[1], dtype=bool), (edges[0], edges[1])), shape=(count, count))
    number, whole = graph_components(graph, directed=False)
    # Sums of whole numbers below 2**53: float64 is exact.
    sum_x, sum_y, area = (np.bincount(whole, weights=row, minlength=number) for row in pieces[:3])
    peak = np.zeros(number)
    np.maximum.at(peak, whole, pieces[3])
    x, y = sum_x / np.maximum(area, 1), sum_y / np.maximum(area, 1)
    order = np.lexsort((peak, area, x, y))  # the last two only part objects with the same centroid
    return Components(x[order], y[order], area[order].astype(np.int64), peak[order].astype(np.uint8))
