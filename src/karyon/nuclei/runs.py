"""Connected components of one block, by its rows' runs of pixels (run-based two-scan labelling)."""

from __future__ import annotations

import numpy as np
from numba import njit

# Columns of the table of runs.
ROW, START, STOP, PEAK = range(4)
# Columns of the table of extents.
TOP, LEFT, BOTTOM, RIGHT, FIRST = range(5)


def label_block(values: np.ndarray, threshold: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Label and measure pixels ``>= threshold`` that touch by a side.

    A run is the pixels of a row between two that are below the threshold. Pixels are read once; joining
    and measuring then take one step a run, of which there are hundreds of times fewer (run-based
    two-scan labelling: He, Chao and Suzuki 2008).

    Args:
        values: uint8, ``(h, w)``.
        threshold: 1 to 255.

    Returns:
        int64, ``(4, n)``: sum of x, sum of y, area and peak of every component; and, int64, the component
        of each pixel of the first row, last row, first column and last column, -1 where there is none.
    """
    runs = find_runs(np.ascontiguousarray(values), threshold)
    component, count = join_runs(runs)
    return _measure(runs, component, count), _borders(runs, component, *values.shape)


@njit(cache=True, nogil=True)
def find_runs(values: np.ndarray, threshold: int) -> np.ndarray:
    """Every run of pixels ``>= threshold``, in reading order: int32, ``(n, 4)``.

    Args:
        values: uint8, ``(h, w)``, contiguous.
        threshold: 1 to 255.
    """
    height, width = values.shape
    runs = np.empty((height * ((width + 1) // 2), 4), np.int32)  # pages that stay untouched cost nothing
    count = 0
    for y in range(height):
        x = 0
        while x < width:
            if values[y, x] < threshold:
                x += 1
                continue
            runs[count, ROW], runs[count, START], peak = y, x, np.uint8(0)
            while x < width and values[y, x] >= threshold:
                peak = max(peak, values[y, x])
                x += 1
            runs[count, STOP], runs[count, PEAK] = x, peak
            count += 1
    return runs[:count].copy()


@njit(cache=True, nogil=True)
def join_runs(runs: np.ndarray) -> tuple[np.ndarray, int]:
    """Component of every run, and their number, by union-find over runs that touch the row above.

    Components are numbered from 0 by their first run.
    """
    parent = np.arange(len(runs))
    above = 0
    for here in range(len(runs)):
        row, start, stop = runs[here, ROW], runs[here, START], runs[here, STOP]
        while runs[above, ROW] < row - 1 or (runs[above, ROW] == row - 1 and runs[above, STOP] <= start):
            above += 1
        other = above
        while runs[other, ROW] == row - 1 and runs[other, START] < stop:
            one, two = _root(parent, here), _root(parent, other)
            parent[max(one, two)] = min(one, two)
            other += 1
    count = 0
    for here in range(len(runs)):  # a root comes before all that point to it
        if parent[here] == here:
            parent[here] = count
            count += 1
        else:
            parent[here] = parent[parent[here]]
    return parent, count


@njit(cache=True, nogil=True)
def _root(parent: np.ndarray, run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@njit(cache=True, nogil=True)
def _measure(runs: np.ndarray, component: np.ndarray, count: int) -> np.ndarray:
    sums = np.zeros((4, count), np.int64)
    for run in range(len(runs)):
        found, start, stop = component[run], np.int64(runs[run, START]), np.int64(runs[run, STOP])
        sums[0, found] += (start + stop - 1) * (stop - start) // 2
        sums[1, found] += runs[run, ROW] * (stop - start)
        sums[2, found] += stop - start
        sums[3, found] = max(sums[3, found], runs[run, PEAK])
    return sums


@njit(cache=True, nogil=True)
def _borders(runs: np.ndarray, component: np.ndarray, height: int, width: int) -> tuple[np.ndarray, ...]:
    first_row, last_row = np.full(width, -1), np.full(width, -1)
    first_column, last_column = np.full(height, -1), np.full(height, -1)
    for run in range(len(runs)):
        row, start, stop = runs[run, ROW], runs[run, START], runs[run, STOP]
        if row == 0:
            first_row[start:stop] = component[run]
        if row == height - 1:
            last_row[start:stop] = component[run]
        if start == 0:
            first_column[row] = component[run]
        if stop == width:
            last_column[row] = component[run]
    return first_row, last_row, first_column, last_column


@njit(cache=True, nogil=True)
def find_extents(runs: np.ndarray, component: np.ndarray, count: int) -> np.ndarray:
    """Box of every component, and the column of its first pixel: int64, ``(count, 5)``."""
    extents = np.full((count, 5), -1)
    for run in range(len(runs)):
        extent, start, stop = extents[component[run]], runs[run, START], runs[run, STOP]
        if extent[TOP] < 0:
            extent[TOP], extent[LEFT], extent[FIRST] = runs[run, ROW], start, start
        extent[LEFT], extent[RIGHT] = min(extent[LEFT], start), max(extent[RIGHT], stop)
        extent[BOTTOM] = runs[run, ROW] + 1
    return extents


@njit(cache=True, nogil=True)
def paint_runs(runs: np.ndarray, numbers: np.ndarray, canvas: np.ndarray) -> None:
    """Write each run's number into its pixels of ``canvas``."""
    for run in range(len(runs)):
        canvas[runs[run, ROW], runs[run, START] : runs[run, STOP]] = numbers[run]
