"""Outlines of nuclei, along the edges of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numba import njit
from skimage.measure import label

# Corners are whole numbers of quarters of a pixel: a bridge between two pixels that touch by a corner starts
# a quarter before the corner and ends a quarter after it.
QUARTERS = 4
# Steps along an edge, east, north, west and south, so that the next is a turn to the left; and, from the
# corner that they lead to, the pixels ahead to the left and to the right. Rows, then columns.
STEP = np.array([[0, 1], [-1, 0], [0, -1], [1, 0]])
AHEAD_LEFT = np.array([[-1, 0], [-1, -1], [0, -1], [0, 0]])
AHEAD_RIGHT = np.array([[0, 0], [-1, 0], [-1, -1], [0, -1]])


@dataclass(frozen=True)
class Outlines:
    """A polygon of every nucleus: its outline, then one ring for each hole.

    Attributes:
        corners: x and y from the map's top left corner, in quarters of a model pixel, int32, ``(c, 2)``; the
            last of a ring repeats its first. Outlines have the nucleus on their right on the screen, which is
            counterclockwise by the numbers; holes the other way.
        rings: First corner of every ring, and the number of corners, int64, ``(r + 1,)``.
        nuclei: First ring of every nucleus, and the number of rings, int64, ``(n + 1,)``.
    """

    corners: np.ndarray
    rings: np.ndarray
    nuclei: np.ndarray

    def select(self, chosen: np.ndarray) -> Outlines:
        """The nuclei of an index, in its order."""
        rings, nuclei = _gather(self.nuclei, chosen)
        corners, offsets = _gather(self.rings, rings)
        return Outlines(self.corners[corners], offsets, nuclei)

    def polygons(self, scale: float) -> np.ndarray:
        """Shapely polygons in level-0 pixels, whose centres are at integers.

        Args:
            scale: Level-0 pixels per model pixel.
        """
        corners = self.corners * (scale / QUARTERS) - 0.5
        polygons: np.ndarray = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, corners, (self.rings, self.nuclei)
        )
        return polygons


def join_outlines(parts: Sequence[Outlines]) -> Outlines:
    """The nuclei of several, one after the other."""
    corners = np.concatenate([part.corners for part in parts])
    return Outlines(corners, _chain([part.rings for part in parts]), _chain([part.nuclei for part in parts]))


def _chain(offsets: Sequence[np.ndarray]) -> np.ndarray:
    lengths = np.concatenate([np.diff(part) for part in offsets])
    return np.concatenate([[0], np.cumsum(lengths)])


def _gather(offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the members of the chosen groups stand, and the offsets of these groups."""
    lengths = np.diff(offsets)[chosen]
    new = np.concatenate([[0], np.cumsum(lengths)])
    return np.repeat(offsets[chosen] - new[:-1], lengths) + np.arange(new[-1]), new


def trace_outlines(labels: np.ndarray, x: int, y: int) -> Outlines:
    """The outline of every nucleus of a window.

    Outlines follow the edges of pixels, so whoever asks which pixel centres lie inside gets the nucleus back.
    Rings of one nucleus never touch, themselves or another: where two of its pixels touch by a corner only, a
    bridge a third of a pixel wide joins them, and the polygon is valid by the OGC's rules. Of a nucleus in
    pieces that do not touch at all, it is the outline of the largest.

    Args:
        labels: int32, ``(h, w)``: 0, and each of 1 to n.
        x: Left of the window in model pixels.
        y: Top of the window in model pixels.

    Returns:
        Outlines of 1 to n, in this order.
    """
    padded = np.pad(labels, 1)
    corners, ends, owners = _trace(padded)
    ends = np.concatenate([[0], ends])
    outer = _signed_areas(corners, ends) > 0
    pieces = np.bincount(owners[outer], minlength=labels.max(initial=0) + 1)
    if pieces.max(initial=0) > 1:
        return trace_outlines(_largest_pieces(labels, np.flatnonzero(pieces > 1)), x, y)
    # The first ring that a scan meets of a nucleus is its outline, and the order among equals is kept.
    order = np.argsort(owners, kind="stable")
    places, rings = _gather(ends, order)
    nuclei = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(pieces))[1:])])
    shift = np.array([x - 1, y - 1]) * QUARTERS
    return Outlines((corners[places] + shift).astype(np.int32), rings, nuclei)


def _signed_areas(corners: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Twice the area of every ring, above 0 where it is an outline and below where it is a hole."""
    x, y = corners.astype(np.int64).T
    sums = np.concatenate([[0], np.cumsum(x[:-1] * y[1:] - x[1:] * y[:-1])])
    return sums[ends[1:] - 1] - sums[ends[:-1]]


def _largest_pieces(labels: np.ndarray, broken: np.ndarray) -> np.ndarray:
    """A copy in which the ``broken`` nuclei keep their largest piece alone."""
    kept = labels.copy()
    for nucleus in broken:
        rows, columns = np.nonzero(labels == nucleus)
        box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        pieces = label(labels[box] == nucleus, connectivity=2)
        largest = np.bincount(pieces.ravel())[1:].argmax() + 1
        kept[box][(pieces > 0) & (pieces != largest)] = 0
    return kept


@njit(cache=True, nogil=True)
def _trace(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rings of a map with an empty rim: their corners, where each ends, and whose it is."""
    height, width = labels.shape
    corners, used = np.empty((1024, 2), np.int32), 0
    ends, owners, rings = np.empty(64, np.int64), np.empty(64, np.int64), 0
    passed = np.zeros((height, width), np.bool_)  # upper edges of pixels that a ring has followed
    for top in range(1, height - 1):
        for left in range(1, width - 1):
            nucleus = labels[top, left]
            if nucleus == 0 or labels[top - 1, left] == nucleus or passed[top, left]:
                continue
            first, row, column, heading = used, top, left, 0
            while True:
                if heading == 0:
                    passed[row, column] = True
                row, column = row + STEP[heading, 0], column + STEP[heading, 1]
                to_left = labels[row + AHEAD_LEFT[heading, 0], column + AHEAD_LEFT[heading, 1]] == nucleus
                to_right = labels[row + AHEAD_RIGHT[heading, 0], column + AHEAD_RIGHT[heading, 1]] == nucleus
                if to_left or not to_right:  # a corner
                    if used + 3 > len(corners):
                        corners = np.concatenate((corners, np.empty_like(corners)))
                    corner_x, corner_y = QUARTERS * column, QUARTERS * row
                    bridge = np.int64(to_left and not to_right)
                    corners[used, 0] = corner_x - bridge * STEP[heading, 1]
                    corners[used, 1] = corner_y - bridge * STEP[heading, 0]
                    used += 1
                    heading = (heading + 1) % 4 if to_left else (heading + 3) % 4
                    if bridge:
                        corners[used, 0] = corner_x + STEP[heading, 1]
                        corners[used, 1] = corner_y + STEP[heading, 0]
                        used += 1
                if row == top and column == left and heading == 0:
                    break
            corners[used] = corners[first]
            used += 1
            if rings == len(ends):
                ends = np.concatenate((ends, np.empty_like(ends)))
                owners = np.concatenate((owners, np.empty_like(owners)))
            ends[rings], owners[rings], rings = used, nucleus, rings + 1
    return corners[:used].copy(), ends[:rings].copy(), owners[:rings].copy()
