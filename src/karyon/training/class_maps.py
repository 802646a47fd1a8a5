"""JOINT's target: the insides of each class, contours, and what is not known."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage

from karyon.tiles.grid import Grid
from karyon.training.instance_maps import check_positive, depths, instance_map
from karyon.training.shapes import Annotation, has_areas

# Pixels of a nucleus within this of its outline are its boundary (NB, section II-C).
BOUNDARY_PX = 2.0
# Of a nucleus of which only the centre is known: within the one it is inside, beyond the other it has ended.
# Of kumar30's nuclei 72 % reach 1.5 um from their centroid on all sides, and 93 % nowhere over 6 um.
HEART_UM, REACH_UM = 1.5, 6.0
# A heart stands for all of its nucleus: of one of 7.3 um in diameter it is a sixth.
HEART_WEIGHT = 6.0
# JOINT, eq. 2: w0, and sigma = 5 px at 40x.
W0, SIGMA_UM = 10.0, 1.25
# The weight is followed so far, where it is 1 + 4e-6 w0.
FAR_SIGMAS = 5.0


def classes_contour(
    annotation: Annotation,
    grid: Grid,
    mpp: float,
    classes: int = 0,
    class_of: np.ndarray | None = None,
    boundary_px: float = BOUNDARY_PX,
    heart_um: float = HEART_UM,
    reach_um: float = REACH_UM,
    heart_weight: float = HEART_WEIGHT,
    w0: float = W0,
    sigma_um: float = SIGMA_UM,
) -> np.ndarray:
    """Which of background, inside of a class and contour each pixel may be, and how much it counts (JOINT).

    Of a nucleus with an outline, pixels within ``boundary_px`` of a pixel that is not of it are contour and
    the others inside: of its class or, where that is not known, of any. A nucleus that is known by its centre
    is inside up to ``heart_um``. From there to ``reach_um`` a pixel may be background, contour or inside of
    that nucleus' class, and the rest is background; where nuclei are near, the nearest centre decides.

    The last map is JOINT's eq. 2, ``1 + w0 exp(-(d1 + d2)^2 / (2 sigma^2))`` with the distances to the two
    nearest nuclei: 0 in a nucleus, and centres stand for discs of 5 um. About a centre it is multiplied by
    ``heart_weight``: little else is known of such a nucleus, and all of its class.

    Args:
        annotation: Instance map, outlines or centres.
        grid: The model grid over the same image.
        mpp: Microns per level-0 pixel.
        classes: Number of classes; 0 does not tell nuclei apart.
        class_of: Class of each nucleus in the annotation's order, from 0, -1 where it is not known,
            ``(n,)``; ``None`` if none is.
        boundary_px: Width of the contour in model pixels.
        heart_um: What is inside about a centre.
        reach_um: Where a nucleus has ended about a centre.
        heart_weight: How much more pixels count that are inside about a centre.
        w0: Weight between nuclei that touch, at least 0.
        sigma_um: How fast it falls with their distance.

    Returns:
        float32, ``(2 + classes + 1, grid.height, grid.width)``, of one ``inside`` without classes:
        background, insides and contour, 0 or 1 and at least one of them 1; then the weight, at least 1.

    Raises:
        ValueError: The annotation is none of the three, an outline is not valid, a centre is not finite, or
            an argument is out of its range.
    """
    check_positive(boundary_px=boundary_px, heart_um=heart_um, reach_um=reach_um, sigma_um=sigma_um)
    check_positive(heart_weight=heart_weight)
    if not 0 <= w0 < math.inf:
        raise ValueError(f"w0 is {w0}; expected a finite number of at least 0.")
    if reach_um < heart_um:
        raise ValueError(f"reach_um is {reach_um}; expected heart_um, {heart_um}, or more.")
    nuclei = instance_map(annotation, grid, mpp)
    if has_areas(annotation):
        contour = np.zeros(nuclei.shape, bool)
        for box, own, depth in depths(nuclei):
            contour[box][own] = depth <= boundary_px
        background, owner, factor = nuclei == 0, np.where(contour, 0, nuclei), np.ones(nuclei.shape)
    else:
        owner = instance_map(annotation, grid, mpp, diameter_um=2 * reach_um)
        background = instance_map(annotation, grid, mpp, diameter_um=2 * heart_um) == 0
        contour, factor = background & (owner > 0), np.where(background, 1, heart_weight)
    inside = _may_be(classes, class_of, int(owner.max(initial=0)))[owner].transpose(2, 0, 1)
    near = _sum_of_two_nearest(nuclei, FAR_SIGMAS * sigma_um / (grid.scale * mpp)) * grid.scale * mpp
    weight = factor * (1 + w0 * np.exp(-(near**2) / (2 * sigma_um**2)))
    return np.stack([background, *inside, contour, weight]).astype(np.float32)


def _may_be(classes: int, class_of: np.ndarray | None, nuclei: int) -> np.ndarray:
    """Which classes a nucleus may be of, bool, ``(n + 1, classes or 1)``; row 0 is of no nucleus."""
    table = np.ones((nuclei + 1, max(classes, 1)), bool)
    table[0] = False
    if classes and class_of is not None and nuclei:
        known = np.flatnonzero(class_of[:nuclei] >= 0)
        table[known + 1] = np.arange(classes) == class_of[known, None]
    return table


def _sum_of_two_nearest(nuclei: np.ndarray, reach: float) -> np.ndarray:
    """Distances to the nearest nucleus and the next one added up, in pixels; infinite beyond ``reach``."""
    first, second = np.full((2, *nuclei.shape), np.inf)
    margin = math.ceil(reach)
    for label, found in enumerate(ndimage.find_objects(nuclei), start=1):
        if found is None:  # others lie over it
            continue
        box = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in found)
        distance = ndimage.distance_transform_edt(nuclei[box] != label)
        second[box] = np.minimum(second[box], np.maximum(first[box], distance))
        first[box] = np.minimum(first[box], distance)
    total: np.ndarray = first + second
    return np.where(total <= reach, total, np.inf)


def as_class_sets(interpolated: torch.Tensor) -> torch.Tensor:
    """What each pixel of interpolated crops may be, 0 or 1 again, and its weight.

    A pixel may be what more than half of it may be. Where that is nothing, for three or more things meet, it
    may be any of them. Beyond the image lies glass, which is background.

    Args:
        interpolated: Background, insides, contour and weight, ``(n, k + 1, h, w)``.
    """
    sets, weight = interpolated[:, :-1], interpolated[:, -1:]
    most = sets > 0.5
    allowed = torch.where(most.any(dim=1, keepdim=True), most, sets > 0)
    allowed[:, 0] |= ~allowed.any(dim=1)
    return torch.cat([allowed.to(weight.dtype), weight.clamp(min=1)], dim=1)
