"""Nuclei by a watershed of the distance map, from markers, within what is nucleus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from karyon.models.card import Decoding
from karyon.nuclei.decode import map_level
from karyon.nuclei.labels import MapStack, drop_small
from karyon.nuclei.runs import find_runs, join_runs, paint_runs
from karyon.nuclei.whole import Box


class Watershed:
    """The decoding ``watershed``.

    Args:
        maps: uint8, ``(c, h, w)``, among them ``nucleus`` and ``distance``.
        decoding: The rule.
        names: Of the maps.
        mpp: Microns per map pixel.
    """

    def __init__(self, maps: MapStack, decoding: Decoding, names: Sequence[str], mpp: float) -> None:
        self._maps = maps
        self._nucleus, self._distance = names.index("nucleus"), names.index("distance")
        self._level = map_level(decoding.threshold)
        self._marker_level = map_level(decoding.marker_threshold)
        self._min_area = decoding.min_area_um2 / mpp**2 - 1e-9

    def foreground(self, box: Box) -> np.ndarray:
        """What is nucleus, uint8: ``nucleus`` at least the threshold."""
        return (np.asarray(self._maps[self._nucleus, *box.slices]) >= self._level).astype(np.uint8)

    def split(self, box: Box, foreground: np.ndarray) -> np.ndarray:
        """Nuclei of whole components of the foreground: int32, 0 background, 1 to n.

        Args:
            box: Where they lie.
            foreground: These components, uint8, of the box's shape.
        """
        distance = np.asarray(self._maps[self._distance, *box.slices]) * foreground
        labels = np.zeros(box.shape, np.int32)
        count = _label(distance, self._marker_level, labels, 0)
        flood(labels, foreground, distance)
        _label(foreground * (labels == 0), 1, labels, count)  # no marker reaches these
        drop_small(labels, self._min_area)
        return labels


def _label(values: np.ndarray, threshold: int, labels: np.ndarray, start: int) -> int:
    """Write components of ``values >= threshold`` into ``labels`` from ``start + 1`` on; gives the last."""
    runs = find_runs(values, threshold)
    component, count = join_runs(runs)
    paint_runs(runs, component + start + 1, labels)
    return start + count


@njit(cache=True, nogil=True)
def flood(labels: np.ndarray, foreground: np.ndarray, height: np.ndarray) -> None:
    """Flood the foreground from its labels, downhill, in place.

    The highest pixel of the shore is next, of equal ones that which was reached first, markers in reading
    order; it gives its label to its neighbours by a side that have none: the order of
    ``skimage.segmentation.watershed(-height, labels, mask=foreground)``, which leaves open the order of
    markers of equal height. Heights are bytes, so that a queue for each does what its heap does.

    Args:
        labels: int32, ``(h, w)``, of fewer than 2**31 pixels; 0 where there is no marker.
        foreground: uint8, 0 or 1.
        height: uint8.
    """
    rows, columns = labels.shape
    first = np.zeros(257, np.int64)
    for y in range(rows):
        for x in range(columns):
            if foreground[y, x]:
                first[256 - height[y, x]] += 1  # queue 0 is that of height 255
    first = np.cumsum(first)
    queue = np.empty(first[256], np.int32)
    head, tail = first[:256].copy(), first[:256].copy()
    for y in range(rows):
        for x in range(columns):
            if labels[y, x]:
                level = 255 - height[y, x]
                queue[tail[level]] = y * columns + x
                tail[level] += 1
    now = 0
    while now < 256:
        if head[now] == tail[now]:
            now += 1
            continue
        y, x = divmod(queue[head[now]], columns)
        head[now] += 1
        label = labels[y, x]
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
            v, u = y + dy, x + dx
            if v < 0 or u < 0 or v == rows or u == columns or labels[v, u] or not foreground[v, u]:
                continue
            labels[v, u] = label
            level = 255 - height[v, u]
            queue[tail[level]] = v * columns + u
            tail[level] += 1
            now = min(now, level)
