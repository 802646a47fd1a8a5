"""Optical density by the Beer-Lambert law."""

from __future__ import annotations

import numpy as np


def density_table(i0: np.ndarray) -> np.ndarray:
    """Optical density of every 8-bit intensity, per channel.

    ``V = ln(I0 / I)`` with the natural logarithm (`docs/methods.md`, Stain separation; Vahadane et
    al. 2016, eq. 1). Intensity 0 counts as 1, and a pixel brighter than ``I0`` has density 0.

    Args:
        i0: Intensity of the light source per channel, ``(3,)``, 1 to 255.

    Returns:
        float32, ``(3, 256)``.
    """
    intensity = np.maximum(np.arange(256, dtype=np.float64), 1.0)
    table = np.log(np.asarray(i0, dtype=np.float64)[:, None] / intensity[None, :])
    return np.maximum(table, 0.0).astype(np.float32)


def optical_density(rgb: np.ndarray, i0: np.ndarray) -> np.ndarray:
    """Optical density of an image.

    Args:
        rgb: uint8, ``(..., 3)``.
        i0: As in :func:`density_table`.

    Returns:
        float32, ``(..., 3)``.
    """
    table = density_table(i0)
    return np.stack([table[channel][rgb[..., channel]] for channel in range(3)], axis=-1)
