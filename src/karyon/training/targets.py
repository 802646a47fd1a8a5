"""What a network is trained to predict, drawn on the model's grid from level-0 geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from karyon.tiles.grid import Grid
from karyon.training.class_maps import BOUNDARY_PX, as_class_sets, classes_contour
from karyon.training.instance_maps import DIAMETER_UM, NUDGE, check_positive, depths, instance_map
from karyon.training.shapes import Annotation, pixels_within, read_shapes

# SWITCH's share of a nucleus' area that is foreground (section 3.1).
CENTRAL_SHARE = 0.25
# MICRONET (eq. 1 and implementation details): alpha, d = 15 px at 40x, and the factor for training.
DECAY, REACH_UM, PEAK = 3.0, 3.75, 5.0


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
    check_positive(mpp=mpp, share=share, diameter_um=diameter_um)
    if share > 1:
        raise ValueError(f"share is {share}; expected up to 1.")
    shapes = read_shapes(annotation, diameter_um / mpp / 2)
    kept_length = np.sqrt(share)
    centre = np.tile(shapes.centres, 2)
    mask = np.zeros((grid.height, grid.width), np.float32)
    missed = np.ones(len(shapes.centres), bool)
    for owner, row, column in pixels_within(grid, centre + (shapes.bounds - centre) * kept_length):
        position = grid.to_level0(np.stack([column, row], axis=1) + NUDGE)
        about = shapes.centres[owner]
        kept = shapes.contains(owner, about + (position - about) / kept_length)
        mask[row[kept], column[kept]] = 1
        missed[owner[kept]] = False
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
    check_positive(mpp=mpp, reach_um=reach_um, decay=decay, peak=peak)
    centres = read_shapes(annotation, 0.0).centres
    reach = reach_um / mpp
    distance = np.full((grid.height, grid.width), reach)
    for owner, row, column in pixels_within(grid, np.hstack([centres - reach, centres + reach])):
        position = grid.to_level0(np.stack([column, row], axis=1).astype(np.float64))
        np.minimum.at(distance, (row, column), np.hypot(*(position - centres[owner]).T))
    return (peak * np.expm1(decay * (1 - distance / reach)) / np.expm1(decay)).astype(np.float32)


def nucleus_distance(
    annotation: Annotation, grid: Grid, mpp: float, diameter_um: float = DIAMETER_UM
) -> np.ndarray:
    """Whole nuclei, and in each the distance to its outline over the largest such distance.

    The distance of a pixel is to the nearest pixel that is not of its nucleus, so it falls to a pixel's width
    where two nuclei touch. Beyond the image nothing is known: its border is no outline.

    Args:
        annotation: Instance map, outlines or centres.
        grid: The model grid over the same image.
        mpp: Microns per level-0 pixel.
        diameter_um: For data that have centres alone: each stands for a disc of this diameter.

    Returns:
        0 to 1, float32, ``(2, grid.height, grid.width)``: nucleus and distance.

    Raises:
        ValueError: As in :func:`shrunken_mask`.
    """
    instances = instance_map(annotation, grid, mpp, diameter_um)
    distance = np.zeros(instances.shape, np.float32)
    for box, own, depth in depths(instances):
        distance[box][own] = depth / depth.max()
    return np.stack([(instances > 0).astype(np.float32), distance])


def inside_boundary(
    annotation: Annotation,
    grid: Grid,
    mpp: float,
    boundary_px: float = BOUNDARY_PX,
    diameter_um: float = DIAMETER_UM,
) -> np.ndarray:
    """Inside, boundary and background (NB, section II-C): the boundary is a nucleus' rim.

    A pixel of a nucleus is boundary where a pixel that is not of this nucleus lies within ``boundary_px``,
    centre to centre. Beyond the image nothing is known: its border is no outline.

    Args:
        annotation: Instance map, outlines or centres.
        grid: The model grid over the same image.
        mpp: Microns per level-0 pixel.
        boundary_px: Width of the rim in model pixels.
        diameter_um: For data that have centres alone: each stands for a disc of this diameter.

    Returns:
        0 or 1, one of them 1, float32, ``(3, grid.height, grid.width)``.

    Raises:
        ValueError: As in :func:`shrunken_mask`.
    """
    check_positive(boundary_px=boundary_px)
    instances = instance_map(annotation, grid, mpp, diameter_um)
    boundary = np.zeros(instances.shape, bool)
    for box, own, depth in depths(instances):
        boundary[box][own] = depth <= boundary_px
    inside = (instances > 0) & ~boundary
    return np.stack([inside, boundary, instances == 0]).astype(np.float32)


def as_masks(interpolated: torch.Tensor) -> torch.Tensor:
    """Each map 0 or 1 again."""
    return (interpolated > 0.5).float()


def as_they_are(interpolated: torch.Tensor) -> torch.Tensor:
    """Maps whose values in between mean something."""
    return interpolated


def as_mask_and_distance(interpolated: torch.Tensor) -> torch.Tensor:
    """The nucleus 0 or 1 again, the distance as it is; ``(n, 2, h, w)``."""
    return torch.cat([as_masks(interpolated[:, :1]), interpolated[:, 1:]], dim=1)


def as_inside_boundary(interpolated: torch.Tensor) -> torch.Tensor:
    """One class for each pixel again, by the rules of NB's section II-C2.

    Where the boundary is above 0.5 it is boundary, else inside where anything of the inside is there, else
    background. (The third rule prints 1 for the background of pixels that are one of the others.)

    Args:
        interpolated: Inside, boundary and background, ``(n, 3, h, w)``.

    Returns:
        0 or 1, one of them 1, of the same shape.
    """
    boundary = interpolated[:, 1] > 0.5
    inside = (interpolated[:, 0] > 0) & ~boundary
    return torch.stack([inside, boundary, ~(inside | boundary)], dim=1).float()


@dataclass(frozen=True)
class Target:
    """A kind of target.

    Attributes:
        draw: From an annotation, a grid and microns per level-0 pixel: float32, ``(h, w)``, or ``(k, h, w)``
            for several maps. Its other arguments are an experiment's ``target_arguments``.
        maps: What each map shows: a model card's ``maps``.
        settle: What makes a target of crops that were interpolated, ``(n, k, h, w)``.
        decodings: Ways of reading nuclei from such maps.
        by_class: Whether ``inside`` stands for a map of each class: ``draw`` then takes ``classes`` and
            ``class_of``.
    """

    draw: Callable[..., np.ndarray]
    maps: tuple[str, ...] = ("centre",)
    settle: Callable[[torch.Tensor], torch.Tensor] = as_masks
    decodings: tuple[str, ...] = ("components", "peaks")
    by_class: bool = False

    def names(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The maps, with the insides of these classes in place of ``inside``."""
        insides = [f"inside:{name}" for name in classes] or ["inside"]
        return tuple(name for kind in self.maps for name in (insides if kind == "inside" else [kind]))


TARGETS = {
    "shrunken_mask": Target(shrunken_mask),
    "full_mask": Target(full_mask),
    "proximity_map": Target(proximity_map, settle=as_they_are),
    "nucleus_distance": Target(
        nucleus_distance, ("nucleus", "distance"), as_mask_and_distance, ("watershed",)
    ),
    "inside_boundary": Target(
        inside_boundary, ("inside", "boundary", "background"), as_inside_boundary, ("dilation",)
    ),
    "classes_contour": Target(
        classes_contour, ("background", "inside", "contour"), as_class_sets, ("dilation",), by_class=True
    ),
}
