"""Label images: 0 background, 1 to n the nuclei."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numba import njit


class MapStack(Protocol):
    """Several maps of one slide: a numpy or zarr array ``(c, h, w)``, or anything that is sliced like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of maps, height and width."""

    def __getitem__(self, box: tuple[int, slice, slice], /) -> object:
        """The values of a box of one map."""


@njit(cache=True, nogil=True)
def drop_small(labels: np.ndarray, min_area: float) -> None:
    """Clear labels of fewer than ``min_area`` pixels, in place.

    Args:
        labels: int32, ``(h, w)``.
        min_area: In pixels.
    """
    height, width = labels.shape
    area = np.zeros(labels.max() + 1, np.int64)
    for y in range(height):
        for x in range(width):
            area[labels[y, x]] += 1
    area[0] = labels.size
    if area.min() >= min_area:
        return
    for y in range(height):
        for x in range(width):
            if area[labels[y, x]] < min_area:
                labels[y, x] = 0


@njit(cache=True, nogil=True)
def label_extents(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels there are, by their first pixel in reading order, and the box of each.

    Args:
        labels: int32, ``(h, w)``.

    Returns:
        int32, ``(n,)``; and int64, ``(n, 4)``: top, left, bottom, right.
    """
    height, width = labels.shape
    place = np.full(labels.max() + 1, -1)
    order = np.empty(len(place), np.int32)
    boxes = np.empty((len(place), 4), np.int64)
    count = 0
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0:
                continue
            if place[label] < 0:
                place[label], order[count] = count, label
                boxes[count] = (y, x, y + 1, x + 1)
                count += 1
            box = boxes[place[label]]
            box[1], box[2], box[3] = min(box[1], x), y + 1, max(box[3], x + 1)
    return order[:count], boxes[:count]
