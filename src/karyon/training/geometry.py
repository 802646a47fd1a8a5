"""Random places, turns, sizes and bends of training crops: one map from crop to image for pixels and points.

All of it happens in one interpolation, straight from the image. Kornia (0.9.0) does not fit: its
augmentations want images of one size, interpolate once for each step and draw from the process' own
generator, and its elastic transform leaves points where they were (its issue 4420).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from karyon.training.augmentation import Augmentation

# Control points of the bend along each side of a crop.
CONTROLS = 6
# Bicubic interpolation overshoots its control points: its weights' sizes add up to 11/8 at most on each axis.
OVERSHOOT = 1.9
# Of the fixed point that inverts the bend; a step multiplies the error by the bend's slope, mostly below 0.2.
INVERSION_STEPS = 20


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of ``n`` square crops lie in their images; x first, pixel centres at integers.

    Pixel ``p`` of crop ``k`` is at ``centre[k] + linear[k] @ (p - middle) + bend[k](p)`` of its image, where
    ``middle`` is the middle of the crop.

    Attributes:
        side: Width and height of the crops in pixels.
        centre: Image position of the middle of each crop, float64, ``(n, 2)``.
        linear: Turn, reflection and size, float64, ``(n, 2, 2)``; its determinant is 1 / size^2, negative
            where reflected.
        controls: Displacement in image pixels at ``CONTROLS`` x ``CONTROLS`` points that span the crop, rows
            downwards, float64, ``(n, 2, CONTROLS, CONTROLS)``; between them it is bicubic.
    """

    side: int
    centre: torch.Tensor
    linear: torch.Tensor
    controls: torch.Tensor

    def __len__(self) -> int:
        return len(self.centre)

    @property
    def size(self) -> torch.Tensor:
        """How many times larger things are in the crop than in the image, ``(n,)``."""
        (a, b), (c, d) = self.linear.permute(1, 2, 0)
        return (a * d - b * c).abs().rsqrt()

    def sources(self) -> torch.Tensor:
        """Image position of every crop pixel, float64, ``(n, 2, side, side)``: a plane of x and one of y."""
        # The bend and all that is linear are one product of small matrices, rows x terms x columns.
        axis = torch.arange(self.side, dtype=torch.float64) - self._middle
        along = torch.cat([_spread(self.side), axis[:, None], torch.ones_like(axis)[:, None]], dim=1)
        terms = self.controls.new_zeros(len(self), 2, CONTROLS + 2, CONTROLS + 2)
        terms[:, :, :CONTROLS, :CONTROLS] = self.controls
        terms[:, :, CONTROLS + 1, CONTROLS] = self.linear[:, :, 0]
        terms[:, :, CONTROLS, CONTROLS + 1] = self.linear[:, :, 1]
        terms[:, :, CONTROLS + 1, CONTROLS + 1] = self.centre
        return along @ terms @ along.T

    def to_crop(self, k: int, points: np.ndarray) -> np.ndarray:
        """Where points of an image lie in its crop: the inverse of the map of pixels.

        Args:
            k: Which crop.
            points: Image positions, ``(m, 2)``.

        Returns:
            Crop positions, float64, ``(m, 2)``. Beyond the crop the bend goes on as at its border.
        """
        spread = _spread(self.side)
        field = spread @ self.controls[k : k + 1] @ spread.T
        away = torch.from_numpy(np.asarray(points, dtype=np.float64)) - self.centre[k]
        back = torch.linalg.inv(self.linear[k]).T
        offset = away @ back
        for _ in range(INVERSION_STEPS):
            where = (offset / max(self._middle, 1.0))[None, None]
            bend = functional.grid_sample(field, where, padding_mode="border", align_corners=True)
            offset = (away - bend[0, :, 0].T) @ back
        return (offset + self._middle).numpy()

    @property
    def _middle(self) -> float:
        return (self.side - 1) / 2


def draw_geometry(
    extents: Sequence[tuple[int, int]], side: int, settings: Augmentation, generator: torch.Generator
) -> Geometry:
    """Any place, angle and reflection, a size within its range, and a bend, for each crop.

    The middle of a crop lies in the image, everywhere alike.

    Args:
        extents: Height and width of each crop's image.
        side: Side of the crops in pixels.
        settings: Amounts.
        generator: Source of all randomness.
    """
    count = len(extents)
    uniform = torch.rand(5, count, generator=generator, dtype=torch.float64)
    low, high = (math.log(value) for value in settings.scale)
    size = torch.exp(low + (high - low) * uniform[0])
    angle = 2 * math.pi * uniform[1]
    mirror = torch.where(uniform[2] < 0.5, -1.0, 1.0)
    across = torch.stack([mirror * torch.cos(angle), torch.sin(angle)], dim=-1)
    down = torch.stack([-mirror * torch.sin(angle), torch.cos(angle)], dim=-1)
    bend = torch.randn(count, 2, CONTROLS, CONTROLS, generator=generator, dtype=torch.float64)
    corner = torch.tensor(extents, dtype=torch.float64).flip(1) - 1
    return Geometry(
        side=side,
        centre=uniform[3:].T * corner,
        linear=torch.stack([across, down], dim=-1) / size[:, None, None],
        controls=bend * settings.elastic_px,
    )


def cut_crops(images: Sequence[Sequence[torch.Tensor]], geometry: Geometry) -> list[torch.Tensor]:
    """Cut the crops from their images, several layers of each together; outside of an image all is 0.

    Where a crop shrinks its image, the image is first averaged over blocks of 1 / size pixels, rounded, as a
    coarser scan would.

    Args:
        images: For each crop its layers, float32, each ``(c, h, w)`` with its own ``c`` and common ``h`` and
            ``w``; on any device.
        geometry: Of as many crops.

    Returns:
        For each layer ``(n, c, side, side)``, bilinearly interpolated.
    """
    side, sources = geometry.side, geometry.sources()
    factors = (1 / geometry.size).round().clamp(min=1).int().tolist()
    # Filled crop by crop: small blocks that come and go cost no new pages of memory.
    crops = [layer.new_empty(len(geometry), len(layer), side, side) for layer in images[0]]
    for k, (layers, factor) in enumerate(zip(images, factors, strict=True)):
        height, width = layers[0].shape[1:]
        left, top, right, bottom = _window(geometry, k, height, width, factor)
        windows = [_averaged(layer[None, :, top:bottom, left:right], factor) for layer in layers]
        where = _normalised(sources[k], (left, top), factor, windows[0].shape[-2:]).to(layers[0])[None]
        for crop, window in zip(crops, windows, strict=True):
            crop[k] = functional.grid_sample(window, where, align_corners=False)[0]
    return crops


def _window(geometry: Geometry, k: int, height: int, width: int, factor: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what a crop sees of its image, a block more on each side; not empty."""
    bend = OVERSHOOT * geometry.controls[k].abs().amax(dim=(1, 2))
    reach = geometry.linear[k].abs().sum(dim=1) * geometry.side / 2 + bend + factor + 1
    low = (geometry.centre[k] - reach).floor().long().tolist()
    high = (geometry.centre[k] + reach).ceil().long().tolist()
    # Whole blocks from the image's corner, so that all crops of an image average the same pixels.
    left, top = (
        min(max(start, 0), extent - 1) // factor * factor
        for start, extent in zip(low, (width, height), strict=True)
    )
    return left, top, min(max(high[0], left + 1), width), min(max(high[1], top + 1), height)


def _averaged(window: torch.Tensor, factor: int) -> torch.Tensor:
    """Means over blocks of ``factor`` pixels; the last blocks are filled up with 0."""
    if factor == 1:
        return window
    height, width = window.shape[-2:]
    return functional.avg_pool2d(functional.pad(window, (0, -width % factor, 0, -height % factor)), factor)


def _normalised(
    position: torch.Tensor, corner: Sequence[int], factor: int, extent: Sequence[int]
) -> torch.Tensor:
    """Image positions as ``grid_sample`` wants them, ``(h, w, 2)``: -1 and 1 are a window's edges.

    Args:
        position: x and y, ``(2, h, w)``.
        corner: Left and top of the window in image pixels.
        factor: Image pixels along one of the window's.
        extent: Height and width of the window in its own pixels.
    """
    # One multiplication and one sum: (position - corner + 0.5) / factor counts pixels from the window's edge.
    scale = 2 / (factor * torch.tensor([extent[1], extent[0]], dtype=torch.float64))
    shift = scale * (0.5 - torch.tensor(corner, dtype=torch.float64)) - 1
    return torch.addcmul(shift[:, None, None], position, scale[:, None, None]).permute(1, 2, 0)


def _spread(side: int) -> torch.Tensor:
    """Weight of each control point along a side, bicubic, float64, ``(side, CONTROLS)``."""
    unit = torch.eye(CONTROLS, dtype=torch.float64)[None, None]
    return functional.interpolate(unit, (side, CONTROLS), mode="bicubic", align_corners=True)[0, 0]
