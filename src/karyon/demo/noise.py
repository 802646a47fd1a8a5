"""Seeded noise that is a function of position alone, so that a slide can be rendered block by block.

Every value comes from a hash of integer lattice coordinates and a seed. No state is carried from one block
to the next, and a pixel has the same value whichever block it is rendered in.

Numba caches the compiled code of a module by the date of that module alone, although functions of other
modules are compiled into it. After a change here, delete the ``*.nbi`` files in ``__pycache__``, or those
modules go on with the old noise.
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cache

import numpy as np
from numba import njit

_X_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_Y_FACTOR = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
_TOP_24 = np.uint64(40)

# Gradients of the noise: 16 unit vectors, turned by half a step so that none lies along an axis.
_ANGLES = (np.arange(16) + 0.5) * (2 * np.pi / 16)
_GRADIENT_X, _GRADIENT_Y = np.cos(_ANGLES), np.sin(_ANGLES)
# The largest value of two-dimensional gradient noise is sqrt(1/2).
_FULL_SCALE = math.sqrt(2.0)


class Field(IntEnum):
    """Random fields of a slide; each has a seed of its own."""

    OUTLINE = 0
    OUTLINE_FINE = 1
    EPITHELIUM_RICH = 2
    GLAND = 3  # and the numbers up to 14, one per attribute
    GLAND_EDGE = 15
    LUMEN_EDGE = 16
    FIBRE_ANGLE = 17
    INFILTRATE = 18
    LOOSE = 19
    WARP_X = 20
    WARP_Y = 21
    TEXTURE = 22
    THICKNESS = 23
    PEN = 24
    SENSOR = 25
    NUCLEUS = 26  # and the numbers after it, one per attribute


@cache
def field_seed(slide_seed: int, field: int) -> np.uint64:
    """An independent seed for one random field of one slide.

    Args:
        slide_seed: Seed of the slide, >= 0.
        field: Number of the field, >= 0.
    """
    return np.random.SeedSequence([slide_seed, field]).generate_state(1, np.uint64)[0]


@njit(cache=True)
def lattice_hash(ix: int, iy: int, seed: np.uint64) -> np.uint64:
    """Well mixed 64 bits for a lattice point (multiply and xor-shift, as in the splitmix64 finaliser).

    The column is mixed before the row comes in: with both at once, (x, y) and (-x, -y) would often collide.
    """
    value = np.uint64(ix) * _X_FACTOR + seed
    value = (value ^ (value >> _SHIFT)) * _MIX + np.uint64(iy) * _Y_FACTOR
    value = (value ^ (value >> _SHIFT)) * _MIX
    return value ^ (value >> _SHIFT)


@njit(cache=True)
def uniforms(ix: np.ndarray, iy: np.ndarray, seed: np.uint64) -> np.ndarray:
    """Uniform random numbers at lattice points.

    Args:
        ix: Column of each point, int64, ``(n,)``.
        iy: Row of each point, int64, ``(n,)``.
        seed: From :func:`field_seed`.

    Returns:
        float64 in [0, 1), ``(n,)``.
    """
    result = np.empty(ix.size)
    for i in range(ix.size):
        result[i] = float(lattice_hash(ix[i], iy[i], seed) >> _TOP_24) / 16777216.0
    return result


@njit(cache=True)
def gradient_noise(x: float, y: float, seed: np.uint64) -> float:
    """Gradient noise with period 1 (Perlin, "Improving Noise", SIGGRAPH 2002): about -1 to 1, mean 0.

    The quintic fade makes first and second derivatives continuous, so no lattice shows.
    """
    x_floor, y_floor = math.floor(x), math.floor(y)
    ix, iy = int(x_floor), int(y_floor)
    u, v = x - x_floor, y - y_floor
    corner00 = lattice_hash(ix, iy, seed) & np.uint64(15)
    corner10 = lattice_hash(ix + 1, iy, seed) & np.uint64(15)
    corner01 = lattice_hash(ix, iy + 1, seed) & np.uint64(15)
    corner11 = lattice_hash(ix + 1, iy + 1, seed) & np.uint64(15)
    dot00 = _GRADIENT_X[corner00] * u + _GRADIENT_Y[corner00] * v
    dot10 = _GRADIENT_X[corner10] * (u - 1) + _GRADIENT_Y[corner10] * v
    dot01 = _GRADIENT_X[corner01] * u + _GRADIENT_Y[corner01] * (v - 1)
    dot11 = _GRADIENT_X[corner11] * (u - 1) + _GRADIENT_Y[corner11] * (v - 1)
    fade_u = u * u * u * (u * (u * 6 - 15) + 10)
    fade_v = v * v * v * (v * (v * 6 - 15) + 10)
    upper = dot00 + fade_u * (dot10 - dot00)
    lower = dot01 + fade_u * (dot11 - dot01)
    return _FULL_SCALE * (upper + fade_v * (lower - upper))


@njit(cache=True)
def smooth_step(value: float) -> float:
    """0 below -0.5, 1 above 0.5, smooth between."""
    t = min(max(value + 0.5, 0.0), 1.0)
    return t * t * (3 - 2 * t)


@njit(cache=True)
def noise_at(x: np.ndarray, y: np.ndarray, scale: float, seed: np.uint64) -> np.ndarray:
    """Gradient noise at many points.

    Args:
        x: Horizontal coordinates, float64, ``(n,)``.
        y: Vertical coordinates, float64, ``(n,)``, same unit.
        scale: Period of the noise in that unit.
        seed: From :func:`field_seed`.

    Returns:
        float64, about -1 to 1, ``(n,)``.
    """
    result = np.empty(x.size)
    for i in range(x.size):
        result[i] = gradient_noise(x[i] / scale, y[i] / scale, seed)
    return result
