"""Size and shape of nuclei, as scikit-image's ``regionprops`` defines them, for all of a window at once."""

from __future__ import annotations

import numpy as np
from numba import njit

# Columns of a table of boxes: first and past the last row and column.
TOP, BOTTOM, LEFT, RIGHT = range(4)
SHAPE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "x",
            "y",
            "area",
            "perimeter",
            "major",
            "minor",
            "eccentricity",
            "solidity",
            "orientation",
            "circularity",
        )
    ]
)


@njit(cache=True, nogil=True)
def find_boxes(labels: np.ndarray) -> np.ndarray:
    """The smallest box round every nucleus.

    Args:
        labels: int32, ``(h, w)``: 0, and each of 1 to n.

    Returns:
        int64, ``(n, 4)``: first row, row past the last, first column, column past the last.
    """
    height, width = labels.shape
    boxes = np.empty((labels.max() if labels.size else 0, 4), np.int64)
    boxes[:, TOP], boxes[:, BOTTOM], boxes[:, LEFT], boxes[:, RIGHT] = height, 0, width, 0
    for row in range(height):
        for column in range(width):
            nucleus = labels[row, column]
            if nucleus:
                box = boxes[nucleus - 1]
                box[TOP] = min(box[TOP], row)
                box[BOTTOM] = row + 1
                box[LEFT] = min(box[LEFT], column)
                box[RIGHT] = max(box[RIGHT], column + 1)
    return boxes


def measure_shapes(labels: np.ndarray, boxes: np.ndarray, x: int, y: int) -> np.ndarray:
    """Size and shape of every nucleus, in pixels.

    ``x`` and ``y`` are the centroid. ``major`` and ``minor`` are the axes of the ellipse of equal second
    moments; ``orientation`` is the angle of the major one from the downward direction, counterclockwise on
    the screen, -pi/2 to pi/2. ``solidity`` is the share of the convex hull that the nucleus fills.
    ``perimeter`` joins the centres of border pixels. ``circularity`` is ``4 * pi * area / perimeter**2``: of
    this perimeter it can be above 1, and it is not a number where that is 0, as of a single pixel.

    Args:
        labels: int32, ``(h, w)``: 0, and each of 1 to n.
        boxes: From :func:`find_boxes`.
        x: Left of the window in model pixels.
        y: Top of the window in model pixels.

    Returns:
        Structured array of ``SHAPE``, ``(n,)``. It is the same to the last bit in every window that holds the
        nucleus.
    """
    sums, perimeter, convex_area = _scan(np.pad(labels, 1), boxes)
    area, mean_x, mean_y = sums[:, 0], sums[:, 1] / sums[:, 0], sums[:, 2] / sums[:, 0]
    # The inertia tensor of scikit-image; its eigenvalues are the variances along the axes.
    xx, yy = sums[:, 3] / area - mean_x**2, sums[:, 4] / area - mean_y**2
    xy = sums[:, 5] / area - mean_x * mean_y
    middle, spread = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    major, minor = middle + spread, np.maximum(middle - spread, 0)
    shapes = np.empty(len(boxes), SHAPE)
    # Sums of whole numbers are exact.
    shapes["x"] = (sums[:, 1] + area * (boxes[:, LEFT] + x)) / area
    shapes["y"] = (sums[:, 2] + area * (boxes[:, TOP] + y)) / area
    shapes["area"], shapes["perimeter"] = area, perimeter
    shapes["major"], shapes["minor"] = 4 * np.sqrt(major), 4 * np.sqrt(minor)
    with np.errstate(divide="ignore", invalid="ignore"):
        shapes["eccentricity"] = np.where(major > 0, np.sqrt(1 - minor / major), 0)
        shapes["circularity"] = np.where(perimeter > 0, 4 * np.pi * area / perimeter**2, np.nan)
    shapes["solidity"] = area / convex_area
    shapes["orientation"] = np.where(
        xx == yy, np.where(xy > 0, np.pi / 4, -np.pi / 4), np.arctan2(2 * xy, yy - xx) / 2
    )
    return shapes


@njit(cache=True, nogil=True)
def _scan(padded: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of 1, x, y, xx, yy, xy from each box's corner, ``(n, 6)``; perimeters; areas of convex hulls."""
    number = len(boxes)
    sums, perimeter = np.zeros((number, 6)), np.zeros(number)
    convex_area = np.zeros(number, np.int64)
    for k in range(number):
        nucleus, (top, bottom, left, right) = k + 1, boxes[k]
        most = np.full((2, bottom - top), -1)  # each row's last pixel, from the left and from the right
        for row in range(top, bottom):
            for column in range(left, right):
                if padded[row + 1, column + 1] != nucleus:
                    continue
                x, y = float(column - left), float(row - top)
                sums[k, 0] += 1
                sums[k, 1] += x
                sums[k, 2] += y
                sums[k, 3] += x * x
                sums[k, 4] += y * y
                sums[k, 5] += x * y
                most[0, row - top] = max(most[0, row - top], column - left)
                most[1, row - top] = max(most[1, row - top], right - 1 - column)
                if _is_border(padded, row + 1, column + 1):
                    perimeter[k] += _border_length(padded, row + 1, column + 1)
        convex_area[k] = _convex_area(most, right - left)
    return sums, perimeter, convex_area


@njit(cache=True, nogil=True)
def _is_border(padded: np.ndarray, row: int, column: int) -> bool:
    nucleus = padded[row, column]
    return (
        padded[row - 1, column] != nucleus
        or padded[row + 1, column] != nucleus
        or padded[row, column - 1] != nucleus
        or padded[row, column + 1] != nucleus
    )


@njit(cache=True, nogil=True)
def _border_length(padded: np.ndarray, row: int, column: int) -> float:
    """What a border pixel adds to the perimeter, by how many border pixels touch it (Benkrid et al. 2000)."""
    nucleus = padded[row, column]
    sides, corners = 0, 0
    for down in range(-1, 2):
        for across in range(-1, 2):
            there, beside = row + down, column + across
            if (down or across) and padded[there, beside] == nucleus and _is_border(padded, there, beside):
                if down and across:
                    corners += 1
                else:
                    sides += 1
    if sides in (2, 3) and corners <= 2:
        return 1.0
    if (sides == 0 and corners == 2) or (sides == 1 and corners == 3):
        return np.sqrt(2.0)
    if sides == 1 and corners in (1, 2):
        return (1 + np.sqrt(2.0)) / 2
    return 0.0


@njit(cache=True, nogil=True)
def _convex_area(most: np.ndarray, width: int) -> int:
    """Pixels whose centre lies in the convex hull of the middles of all pixels' sides, or on its edge.

    In half pixels all of these are whole numbers, and so is what is compared.

    Args:
        most: Each row's last pixel to the right, counted from the box's left side, and to the left, counted
            from its right side, ``(2, rows)``; -1 where the row is empty.
        width: Of the box.
    """
    rows = most.shape[1]
    reach = np.zeros((2, rows), np.int64)
    for side in range(2):
        heights, values = np.empty(2 * rows + 1, np.int64), np.empty(2 * rows + 1, np.int64)
        used = 0
        for height in range(-1, 2 * rows):
            row = height // 2
            if height % 2 == 0:
                value = 2 * most[side, row] + 1
            else:
                above = most[side, row] if row >= 0 else -1
                value = 2 * max(above, most[side, row + 1] if row + 1 < rows else -1)
            if value < 0:
                continue
            # The hull's corners: one that lies on or within the line between its neighbours is none.
            while used > 1 and (values[used - 1] - values[used - 2]) * (height - heights[used - 2]) <= (
                value - values[used - 2]
            ) * (heights[used - 1] - heights[used - 2]):
                used -= 1
            heights[used], values[used], used = height, value, used + 1
        corner = 0
        for row in range(rows):
            while heights[corner + 1] < 2 * row:
                corner += 1
            run = heights[corner + 1] - heights[corner]
            rise = (values[corner + 1] - values[corner]) * (2 * row - heights[corner])
            reach[side, row] = (values[corner] * run + rise) // (2 * run)
    # From the left and from the right, a row's pixels are counted twice where both reach.
    return np.sum(reach[0] + reach[1] - width + 2)
