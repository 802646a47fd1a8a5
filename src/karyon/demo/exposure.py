"""From stain densities to the picture: Beer-Lambert mixing, optical blur, sensor noise."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from karyon.demo.noise import lattice_hash

_BYTE = np.uint64(0xFF)
# The sum of four uniform bytes has the variance 4 * (256**2 - 1) / 12.
_NOISE_MEAN, _NOISE_DEVIATION = 4 * 127.5, math.sqrt(4 * (256**2 - 1) / 12)
_EIGHT = np.uint64(8)


@njit(cache=True)
def beer_lambert(densities: np.ndarray, stains: np.ndarray, i0: np.ndarray) -> np.ndarray:
    """Intensity of light behind stained tissue, ``I = I0 * exp(-W c)`` (Ruifrok and Johnston 2001, eq. 1).

    Args:
        densities: Densities c of the k stains, float32, ``(h, w, k)``.
        stains: Unit optical density vectors W of the stains as columns, float64, ``(3, k)``.
        i0: Intensity of the bare glass, float64, ``(3,)``.

    Returns:
        Intensities, float32, ``(h, w, 3)``.
    """
    height, width, count = densities.shape
    result = np.empty((height, width, 3), dtype=np.float32)
    for i in range(height):
        for j in range(width):
            for channel in range(3):
                optical_density = 0.0
                for stain in range(count):
                    optical_density += stains[channel, stain] * densities[i, j, stain]
                result[i, j, channel] = i0[channel] * math.exp(-optical_density)
    return result


def blur_taps(sigma_px: float) -> np.ndarray:
    """Half of a normalised Gaussian kernel: weights at distance 0, 1, ..., out to three standard deviations.

    Args:
        sigma_px: Standard deviation in pixels, > 0.

    Returns:
        float32, ``(radius + 1,)``, with ``taps[0] + 2 * taps[1:].sum() == 1``.
    """
    distance = np.arange(max(1, math.ceil(3 * sigma_px)) + 1)
    taps = np.exp(-0.5 * (distance / sigma_px) ** 2)
    return (taps / (2 * taps.sum() - taps[0])).astype(np.float32)


@njit(cache=True)
def expose(
    light: np.ndarray, left: int, top: int, taps: np.ndarray, deviation: float, seed: np.uint64
) -> np.ndarray:
    """Blur, add noise and round to 8 bits.

    Args:
        light: Intensities, float32, ``(h, w, 3)``, with a border of ``len(taps) - 1`` pixels on all sides.
        left: Level-0 column of the first pixel inside that border.
        top: Level-0 row of the same pixel.
        taps: From :func:`blur_taps`.
        deviation: Standard deviation of the noise in grey levels.
        seed: Seed of the noise.

    Returns:
        uint8, ``(h - 2 * border, w - 2 * border, 3)``.
    """
    border = taps.size - 1
    height, width = light.shape[0] - 2 * border, light.shape[1] - 2 * border
    rows = np.empty((height, light.shape[1], 3), dtype=np.float32)
    for i in range(height):
        for j in range(light.shape[1]):
            for channel in range(3):
                value = taps[0] * light[i + border, j, channel]
                for d in range(1, border + 1):
                    value += taps[d] * (light[i + border - d, j, channel] + light[i + border + d, j, channel])
                rows[i, j, channel] = value
    result = np.empty((height, width, 3), dtype=np.uint8)
    for i in range(height):
        for j in range(width):
            bits = lattice_hash(left + j, top + i, seed)
            for channel in range(3):
                value = taps[0] * rows[i, j + border, channel]
                for d in range(1, border + 1):
                    value += taps[d] * (rows[i, j + border - d, channel] + rows[i, j + border + d, channel])
                value += deviation * _gaussian(bits, channel)
                result[i, j, channel] = np.uint8(min(max(value + 0.5, 0.0), 255.0))
    return result


@njit(cache=True)
def _gaussian(bits: np.uint64, channel: int) -> float:
    """Nearly normal number from 64 random bits: two bytes common to all channels, two of its own."""
    total = (bits & _BYTE) + ((bits >> _EIGHT) & _BYTE)
    own = bits >> np.uint64(16 * (channel + 1))
    total += (own & _BYTE) + ((own >> _EIGHT) & _BYTE)
    return (float(total) - _NOISE_MEAN) / _NOISE_DEVIATION
