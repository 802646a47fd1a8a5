"""Local maxima of a map, by blocks, equal to those of the whole map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from karyon.nuclei.components import BLOCK_PX, Components, Map2D


def find_peaks(values: Map2D, threshold: int, distance: int, block: int = BLOCK_PX) -> Components:
    """Pixels ``>= threshold`` that are the highest within ``distance``.

    The MICRONET paper suppresses values below ``xi * max(p)`` and takes local maxima
    (`docs/methods.md`, Nuclei). Of equal values the one first in reading order is higher, so a plateau gives
    one peak and the result does not depend on the blocks.

    Args:
        values: uint8 map, ``(H, W)``.
        threshold: 1 to 255.
        distance: Half side of the square neighbourhood, in map pixels, at least 1.
        block: Side of a block in pixels.

    Returns:
        The peaks; their area is 1 pixel.
    """
    height, width = values.shape
    found: list[np.ndarray] = []
    for top in range(0, height, block):
        for left in range(0, width, block):
            y0, x0 = max(top - distance, 0), max(left - distance, 0)
            chunk = np.asarray(values[y0 : top + block + distance, x0 : left + block + distance])
            if chunk.max(initial=0) < threshold:
                continue
            ys, xs = np.nonzero(_is_peak(chunk, threshold, distance, y0, x0, width, height))
            inside = (ys + y0 >= top) & (ys + y0 < top + block) & (xs + x0 >= left) & (xs + x0 < left + block)
            ys, xs = ys[inside], xs[inside]
            found.append(np.stack([xs + x0, ys + y0, chunk[ys, xs].astype(np.int64)]))
    x, y, peak = np.concatenate([*found, np.empty((3, 0), np.int64)], axis=1)
    order = np.lexsort((x, y))
    return Components(
        x[order].astype(np.float64),
        y[order].astype(np.float64),
        np.ones(len(order), np.int64),
        peak[order].astype(np.uint8),
    )


def _is_peak(
    chunk: np.ndarray, threshold: int, distance: int, top: int, left: int, width: int, height: int
) -> np.ndarray:
    """Compare a rank that is unique on the slide: value first, then reading order."""
    position = (np.arange(chunk.shape[0]) + top)[:, None] * width + (np.arange(chunk.shape[1]) + left)[
        None, :
    ]
    rank = chunk.astype(np.int64) * (width * height) + (width * height - 1 - position)
    return (chunk >= threshold) & (
        rank == ndimage.maximum_filter(rank, size=2 * distance + 1, mode="constant")
    )
