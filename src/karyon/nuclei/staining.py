"""Stain densities inside nuclei and in a ring round each."""

from __future__ import annotations

import numpy as np
from numba import njit

from karyon.nuclei.morphology import BOTTOM, LEFT, RIGHT, TOP

RING_UM = 2.0


def ring_px(model_mpp: float) -> int:
    """Width of the ring in model pixels, at least 1.

    Args:
        model_mpp: Microns per model pixel.
    """
    return max(1, round(RING_UM / model_mpp))


def measure_staining(
    labels: np.ndarray, boxes: np.ndarray, densities: np.ndarray, background: np.ndarray
) -> np.ndarray:
    """Mean and standard deviation of both stains' densities.

    The ring is all background within :func:`ring_px` of the nucleus. Rings of neighbours may share pixels.

    Args:
        labels: int32, ``(h, w)``: 0, and each of 1 to n.
        boxes: From :func:`karyon.nuclei.morphology.find_boxes`.
        densities: float32, ``(h + 2r, w + 2r, 2)``: the window with ``r`` pixels more on every side, as many
            as the ring is wide.
        background: bool, ``(h + 2r, w + 2r)``: where no nucleus is, of this window or another.

    Returns:
        float64, ``(n, 2, 2, 2)``: inside or ring, stain, mean or standard deviation; not a number of a ring
        without pixels. They are the same to the last bit in every window that holds the nucleus.
    """
    reach = (background.shape[0] - labels.shape[0]) // 2
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    near = down**2 + across**2 <= reach**2
    disc = np.stack([down[near], across[near]], axis=1)
    sums = _add_up(np.pad(labels, reach), boxes + reach, densities, background, disc)
    with np.errstate(invalid="ignore"):
        mean, square = sums[..., 1] / sums[..., 0], sums[..., 2] / sums[..., 0]
    return np.stack([mean, np.sqrt(np.maximum(square - mean**2, 0))], axis=-1)


@njit(cache=True, nogil=True)
def _add_up(
    padded: np.ndarray, boxes: np.ndarray, densities: np.ndarray, background: np.ndarray, disc: np.ndarray
) -> np.ndarray:
    """Number of pixels, sum and sum of squares: float64, ``(n, 2, 2, 3)``, inside or ring, then stain."""
    sums = np.zeros((len(boxes), 2, 2, 3))
    seen = np.zeros(padded.shape, np.int32)  # the last nucleus whose ring holds the pixel
    for k in range(len(boxes)):
        nucleus = k + 1
        for row in range(boxes[k, TOP], boxes[k, BOTTOM]):
            for column in range(boxes[k, LEFT], boxes[k, RIGHT]):
                if padded[row, column] != nucleus:
                    continue
                _add(sums[k, 0], densities[row, column])
                if (
                    padded[row - 1, column] == nucleus
                    and padded[row + 1, column] == nucleus
                    and padded[row, column - 1] == nucleus
                    and padded[row, column + 1] == nucleus
                ):
                    continue  # what is near to an inner pixel is near to a border pixel as well
                for step in range(len(disc)):
                    there, beside = row + disc[step, 0], column + disc[step, 1]
                    if background[there, beside] and seen[there, beside] != nucleus:
                        seen[there, beside] = nucleus
                        _add(sums[k, 1], densities[there, beside])
    return sums


@njit(cache=True, nogil=True)
def _add(sums: np.ndarray, pixel: np.ndarray) -> None:
    for stain in range(2):
        value = np.float64(pixel[stain])
        sums[stain, 0] += 1
        sums[stain, 1] += value
        sums[stain, 2] += value * value
