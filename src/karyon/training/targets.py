"""What a network is trained to predict, drawn on the model's grid."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from karyon.tiles.grid import Grid

# The SWITCH paper's share of a nucleus' area that is foreground (section 3.1).
CENTRAL_SHARE = 0.25


def shrunken_mask(instances: np.ndarray, grid: Grid, share: float = CENTRAL_SHARE) -> np.ndarray:
    """Each nucleus shrunk radially about its centroid to its central ``share`` of area.

    A model pixel at ``p`` is foreground of a nucleus with centroid ``c`` where the nucleus contains
    ``c + (p - c) / sqrt(share)`` (SWITCH paper, section 3.1). A nucleus so small that no pixel
    centre is left keeps the pixel nearest to its centroid.

    Args:
        instances: Instance map in level-0 pixels, ``(H, W)``, 0 = background.
        grid: The model grid over the same image.
        share: Share of the area that is kept.

    Returns:
        bool, ``(grid.height, grid.width)``.
    """
    mask = np.zeros((grid.height, grid.width), bool)
    stretch = 1 / np.sqrt(share)
    for label, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        ys, xs = np.nonzero(instances[box] == label)
        centre = np.array([ys.mean() + box[0].start, xs.mean() + box[1].start])
        corner = np.array([box[0].start, box[1].start]) - 0.5  # outer edges of the box's pixels
        first = np.floor(grid.from_level0(centre + (corner - centre) / stretch)).astype(int)
        opposite = np.array([box[0].stop, box[1].stop]) - 0.5
        last = np.ceil(grid.from_level0(centre + (opposite - centre) / stretch)).astype(int)
        rows = np.arange(max(first[0], 0), min(last[0], grid.height - 1) + 1)
        columns = np.arange(max(first[1], 0), min(last[1], grid.width - 1) + 1)
        y = np.rint(centre[0] + (grid.to_level0(rows) - centre[0]) * stretch).astype(int)
        x = np.rint(centre[1] + (grid.to_level0(columns) - centre[1]) * stretch).astype(int)
        y_inside = (y >= 0) & (y < instances.shape[0])
        x_inside = (x >= 0) & (x < instances.shape[1])
        kept = instances[np.ix_(y * y_inside, x * x_inside)] == label
        kept &= y_inside[:, None] & x_inside[None, :]
        if kept.any():
            mask[np.ix_(rows, columns)] |= kept
        else:
            row, column = np.rint(grid.from_level0(centre)).astype(int)
            mask[min(max(row, 0), grid.height - 1), min(max(column, 0), grid.width - 1)] = True
    return mask
