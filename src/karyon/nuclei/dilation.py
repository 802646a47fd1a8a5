"""Nuclei by growing their insides back (NB and JOINT papers)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit

from karyon.models.card import Decoding
from karyon.nuclei.decode import map_level
from karyon.nuclei.labels import MapStack, drop_small
from karyon.nuclei.runs import ROW, START, STOP, find_runs, join_runs, paint_runs
from karyon.nuclei.whole import Box


class Dilation:
    """The decoding ``dilation``.

    Args:
        maps: uint8, ``(c, h, w)``, among them those of insides.
        decoding: The rule.
        names: Of the maps; those of insides are ``inside`` and ``inside:<class>``.
        mpp: Microns per map pixel.
    """

    def __init__(self, maps: MapStack, decoding: Decoding, names: Sequence[str], mpp: float) -> None:
        self._maps = maps
        self._insides = [number for number, name in enumerate(names) if name.split(":")[0] == "inside"]
        self._level = map_level(decoding.threshold)
        self._radius = decoding.dilation_um / mpp
        self._min_area = decoding.min_area_um2 / mpp**2 - 1e-9

    def foreground(self, box: Box) -> np.ndarray:
        """What insides may grow to, uint8: a square round each of their pixels.

        Insides that can meet lie in one component of it; some that can not do so, too.
        """
        reach = math.ceil(self._radius)
        around = box.grown(reach, self._maps.shape[1:])
        runs = find_runs(self._inside(around), 1)
        runs[:, ROW] += around.top - box.top
        runs[:, [START, STOP]] += around.left - box.left
        grown = np.zeros(box.shape, np.uint8)
        _paint_around(runs, reach, grown)
        return grown

    def _inside(self, box: Box) -> np.ndarray:
        total = np.zeros(box.shape, np.uint16)
        for number in self._insides:
            total += np.asarray(self._maps[number, *box.slices])
        return (total >= self._level).astype(np.uint8)

    def split(self, box: Box, foreground: np.ndarray) -> np.ndarray:
        """Nuclei of whole components of the foreground: int32, 0 background, 1 to n.

        Args:
            box: Where they lie.
            foreground: These components, uint8, of the box's shape.
        """
        runs = find_runs(self._inside(box) * foreground, 1)
        component, _ = join_runs(runs)
        labels = np.zeros(box.shape, np.int32)
        paint_runs(runs, component + 1, labels)
        drop_small(labels, self._min_area)
        return grow(labels, foreground, self._radius)


@njit(cache=True, nogil=True)
def _paint_around(runs: np.ndarray, reach: int, canvas: np.ndarray) -> None:
    """Set what is within ``reach`` of the runs, along both axes; runs may lie outside of the canvas."""
    height, width = canvas.shape
    for run in range(len(runs)):
        left, right = max(runs[run, START] - reach, 0), min(runs[run, STOP] + reach, width)
        for y in range(max(runs[run, ROW] - reach, 0), min(runs[run, ROW] + reach + 1, height)):
            canvas[y, left:right] = 1


def grow(labels: np.ndarray, foreground: np.ndarray, radius: float) -> np.ndarray:
    """Labels grown by ``radius`` pixels, each pixel to the nearest, without merging.

    As ``skimage.segmentation.expand_labels``, ties included, but at a cost that follows the outlines: of
    equally near pixels that with the smallest x, then y, counts.

    Args:
        labels: int32, ``(h, w)``.
        foreground: uint8; nothing outside it is within reach.
        radius: In pixels.
    """
    reach = math.ceil(radius)
    dx, dy = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    square = dx**2 + dy**2
    order = np.lexsort((dy.ravel(), dx.ravel(), square.ravel()))
    near = order[square.ravel()[order] <= radius**2 + 1e-6]
    return _take_nearest(labels, foreground, dx.ravel()[near], dy.ravel()[near])


@njit(cache=True, nogil=True)
def _take_nearest(labels: np.ndarray, foreground: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """The first label that is not 0 among the pixels at these offsets, nearest first."""
    height, width = labels.shape
    grown = labels.copy()
    for y in range(height):
        for x in range(width):
            if labels[y, x] or not foreground[y, x]:
                continue
            for step in range(len(dx)):
                v, u = y + dy[step], x + dx[step]
                if 0 <= v < height and 0 <= u < width and labels[v, u]:
                    grown[y, x] = labels[v, u]
                    break
    return grown
