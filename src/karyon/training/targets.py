"""What a network is trained to predict, drawn on the model's grid from level-0 geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import shapely
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from karyon.io.annotations.instances import instance_points
from karyon.tiles.grid import Grid

# In level-0 pixels, pixel centres at integers. An instance map: integers, (H, W), 0 = background. Outlines: a
# valid polygon or multipolygon of each nucleus. Centres: floats, x and y, (n, 2).
Annotation: TypeAlias = np.ndarray | Sequence[BaseGeometry]

# SWITCH's share of a nucleus' area that is foreground (section 3.1).
CENTRAL_SHARE = 0.25
# A nucleus of which only the centre is known: the median of kumar30's 16,942 nuclei is 5.1 um.
DIAMETER_UM = 5.0
# MICRONET (eq. 1 and implementation details): alpha, d = 15 px at 40x, and the factor for training.
DECAY, REACH_UM, PEAK = 3.0, 3.75, 5.0
# Added to a pixel's centre, in model pixels: a centre on an edge belongs to what is right of it or below,
# whatever rounding makes of it. At twice a map's mpp all centres are corners of its pixels, and a whole mask
# then lies half a level-0 pixel up and left of the outlines'.
NUDGE = 1e-6


def shrunken_mask(
    annotation: Annotation,
    grid: Grid,
    mpp: float,
    share: float = CENTRAL_SHARE,
    diameter_um: float = DIAMETER_UM,
) -> np.ndarray:
    """Each nucleus shrunk radially about its centroid to its central ``share`` of area (SWITCH, section 3.1).

    A model pixel at ``p`` is foreground of a nucleus with centroid ``c`` where the nucleus contains
    ``c + (p - c) / sqrt(share)``. A nucleus so small that no pixel centre is left keeps the pixel nearest to
    its centroid.

    Args:
        annotation: Instance map, outlines or centres.
        grid: The model grid over the same image.
        mpp: Microns per level-0 pixel.
        share: Share of the area that is kept, above 0 and up to 1.
        diameter_um: For data that have centres alone: each stands for a disc of this diameter, which is then
            shrunk like any nucleus.

    Returns:
        0 or 1, float32, ``(grid.height, grid.width)``.

    Raises:
        ValueError: The annotation is none of the three, an outline is not valid, a centre is not finite, or
            an argument is out of its range.
    """
    _check_positive(mpp=mpp, share=share, diameter_um=diameter_um)
    if share > 1:
        raise ValueError(f"share is {share}; expected up to 1.")
    shapes = _shapes(annotation, diameter_um / mpp / 2)
    kept_length = np.sqrt(share)
    centre = np.tile(shapes.centres, 2)
    owner, row, column = _pixels_within(grid, centre + (shapes.bounds - centre) * kept_length)
    position = grid.to_level0(np.stack([column, row], axis=1) + NUDGE)
    about = shapes.centres[owner]
    kept = shapes.contains(owner, about + (position - about) / kept_length)
    mask = np.zeros((grid.height, grid.width), np.float32)
    mask[row[kept], column[kept]] = 1
    missed = np.bincount(owner[kept], minlength=len(shapes.centres)) == 0
    nearest = np.floor(grid.from_level0(shapes.centres[missed]) + 0.5 + NUDGE).astype(np.int64)
    inside = np.clip(nearest, 0, [grid.width - 1, grid.height - 1])
    inside = inside[(np.abs(nearest - inside) <= 1).all(axis=1)]  # the others lie beyond the image
    mask[inside[:, 1], inside[:, 0]] = 1
    return mask


def full_mask(annotation: Annotation, grid: Grid, mpp: float, diameter_um: float = DIAMETER_UM) -> np.ndarray:
    """Every pixel whose centre lies in a nucleus; :func:`shrunken_mask` that keeps the whole area.

    Args:
        annotation: Instance map, outlines or centres.
        grid: The model grid over the same image.
        mpp: Microns per level-0 pixel.
        diameter_um: For data that have centres alone: each stands for a disc of this diameter.

    Returns:
        0 or 1, float32, ``(grid.height, grid.width)``.

    Raises:
        ValueError: As in :func:`shrunken_mask`.
    """
    return shrunken_mask(annotation, grid, mpp, share=1.0, diameter_um=diameter_um)


def proximity_map(
    annotation: Annotation,
    grid: Grid,
    mpp: float,
    reach_um: float = REACH_UM,
    decay: float = DECAY,
    peak: float = PEAK,
) -> np.ndarray:
    """How near each pixel's centre is to the nearest centroid (MICRONET, eq. 1).

    With ``D`` that distance, ``peak * (e^(decay (1 - D / reach)) - 1) / (e^decay - 1)`` up to ``reach``, and
    0 beyond. Where two nuclei are near, the nearer one decides.

    Args:
        annotation: Instance map, outlines or centres.
        grid: The model grid over the same image.
        mpp: Microns per level-0 pixel.
        reach_um: The paper's d, 15 px at 40x.
        decay: The paper's alpha, above 0.
        peak: Value at a centroid: the factor by which the paper scales the map for training.

    Returns:
        float32, ``(grid.height, grid.width)``, 0 to ``peak``.

    Raises:
        ValueError: As in :func:`shrunken_mask`.
    """
    _check_positive(mpp=mpp, reach_um=reach_um, decay=decay, peak=peak)
    centres = _shapes(annotation, 0.0).centres
    reach = reach_um / mpp
    owner, row, column = _pixels_within(grid, np.hstack([centres - reach, centres + reach]))
    position = grid.to_level0(np.stack([column, row], axis=1).astype(np.float64))
    distance = np.full((grid.height, grid.width), reach)
    np.minimum.at(distance, (row, column), np.hypot(*(position - centres[owner]).T))
    return (peak * np.expm1(decay * (1 - distance / reach)) / np.expm1(decay)).astype(np.float32)


TARGETS: dict[str, Callable[..., np.ndarray]] = {
    "shrunken_mask": shrunken_mask,
    "full_mask": full_mask,
    "proximity_map": proximity_map,
}


@dataclass(frozen=True)
class _Shapes:
    """Nuclei of any annotation, in level-0 pixels.

    Attributes:
        centres: x and y of the centroids, float64, ``(n, 2)``.
        bounds: Left, top, right and bottom, float64, ``(n, 4)``.
        contains: Of rows ``(k,)`` and positions ``(k, 2)``: whether that nucleus contains that position.
    """

    centres: np.ndarray
    bounds: np.ndarray
    contains: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _shapes(annotation: Annotation, radius: float) -> _Shapes:
    """Centres become discs of ``radius`` level-0 pixels."""
    if not isinstance(annotation, np.ndarray):
        return _shapes_of_outlines(annotation)
    if annotation.ndim == 2 and np.issubdtype(annotation.dtype, np.integer):
        return _shapes_of_map(annotation)
    if annotation.ndim == 2 and annotation.shape[1] == 2 and np.issubdtype(annotation.dtype, np.floating):
        return _shapes_of_centres(annotation.astype(np.float64), radius)
    raise ValueError(
        f"the annotation is {annotation.dtype} of shape {annotation.shape}; expected an instance map (whole "
        "numbers, two dimensions), centres (floats, n x 2) or a sequence of polygons."
    )


def _shapes_of_map(instances: np.ndarray) -> _Shapes:
    labels, boxes = [], []
    for label, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is not None:
            labels.append(label)
            boxes.append((box[1].start, box[0].start, box[1].stop, box[0].stop))
    label_of = np.array(labels, np.int64)
    height, width = instances.shape

    def contains(owner: np.ndarray, position: np.ndarray) -> np.ndarray:
        x, y = np.floor(position + 0.5).astype(np.int64).T
        within: np.ndarray = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return within & (instances[y * within, x * within] == label_of[owner])

    return _Shapes(instance_points(instances), np.array(boxes, np.float64).reshape(-1, 4) - 0.5, contains)


def _shapes_of_outlines(polygons: Sequence[BaseGeometry]) -> _Shapes:
    outlines = np.empty(len(polygons), dtype=object)
    outlines[:] = polygons
    wrong = np.flatnonzero(~(shapely.is_valid(outlines) & (shapely.area(outlines) > 0)))
    if wrong.size:
        raise ValueError(
            f"polygon {wrong[0]} is not valid or has no area; repair it with shapely.make_valid, or leave it "
            "out."
        )
    shapely.prepare(outlines)

    def contains(owner: np.ndarray, position: np.ndarray) -> np.ndarray:
        within: np.ndarray = shapely.contains_xy(outlines[owner], *position.T)
        return within

    centres = shapely.get_coordinates(shapely.centroid(outlines))
    return _Shapes(centres, shapely.bounds(outlines).reshape(-1, 4), contains)


def _shapes_of_centres(centres: np.ndarray, radius: float) -> _Shapes:
    if not np.isfinite(centres).all():
        wrong = np.flatnonzero(~np.isfinite(centres).all(axis=1))[0]
        raise ValueError(f"centre {wrong} is at {centres[wrong].tolist()}; expected finite numbers.")

    def contains(owner: np.ndarray, position: np.ndarray) -> np.ndarray:
        within: np.ndarray = np.hypot(*(position - centres[owner]).T) <= radius
        return within

    return _Shapes(centres, np.hstack([centres - radius, centres + radius]), contains)


def _pixels_within(grid: Grid, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Model pixels of every box, at least those whose centre lies in it.

    Args:
        grid: The model grid.
        bounds: Left, top, right and bottom in level-0 pixels, ``(n, 4)``.

    Returns:
        Row of the box, and row and column of the pixel, int64, ``(k,)`` each; box by box.
    """
    end = np.array([grid.width, grid.height])
    first = np.clip(np.floor(grid.from_level0(bounds[:, :2])).astype(np.int64), 0, end)
    beyond = np.clip(np.ceil(grid.from_level0(bounds[:, 2:])).astype(np.int64) + 1, first, end)
    across, down = (beyond - first).T
    count = across * down
    owner = np.repeat(np.arange(len(bounds)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    down_by, across_by = np.divmod(place, across[owner])
    return owner, first[owner, 1] + down_by, first[owner, 0] + across_by


def _check_positive(**arguments: float) -> None:
    for name, value in arguments.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; expected a finite number above 0.")
