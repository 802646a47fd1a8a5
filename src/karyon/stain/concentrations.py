"""Stain concentrations: two-variable non-negative lasso in closed form."""

from __future__ import annotations

import numpy as np
from numba import njit

from karyon.stain.optical_density import density_table

# Sparsity weight lambda of SPCN (Vahadane et al. 2016, section III-A), in optical density.
PENALTY = 0.02


def check_stain_matrix(stain_matrix: np.ndarray) -> None:
    """Refuse a matrix that cannot separate two stains.

    Raises:
        ValueError: Not 3 x 2, not unit columns >= 0, or columns closer than 5 degrees.
    """
    if stain_matrix.shape != (3, 2):
        raise ValueError(f"stain matrix has shape {stain_matrix.shape}; expected (3, 2)")
    if (stain_matrix < 0).any() or not np.allclose(np.linalg.norm(stain_matrix, axis=0), 1, atol=1e-6):
        raise ValueError("stain matrix columns must be non-negative and of unit length")
    if angle_degrees(stain_matrix) < 5:
        raise ValueError(
            "the columns of the stain matrix are closer than 5 degrees: no separation is possible"
        )


def angle_degrees(stain_matrix: np.ndarray) -> float:
    """Angle between the two unit columns of a stain matrix, in degrees."""
    cosine = float(np.clip(stain_matrix[:, 0] @ stain_matrix[:, 1], -1.0, 1.0))
    return float(np.degrees(np.arccos(cosine)))


def concentrations(rgb: np.ndarray, stain_matrix: np.ndarray, i0: np.ndarray) -> np.ndarray:
    """Concentrations of both stains in every pixel.

    Minimises ``0.5 * ||v - W c||^2 + lambda * sum(c)`` over ``c >= 0`` for every pixel on its own,
    where ``v`` is its optical density; ``spams.lasso(mode=2, pos=True)`` iterates towards the same
    (Vahadane et al. 2016, eq. 5). With ``g = w1.w2 >= 0`` and ``b = W'v - lambda`` the minimum is the
    unconstrained one where that is non-negative, else it lies on an axis.

    Args:
        rgb: uint8, ``(..., 3)``.
        stain_matrix: ``W``, ``(3, 2)``, unit columns.
        i0: Intensity of the light source, ``(3,)``.

    Returns:
        float32, ``(..., 2)``, columns as in ``stain_matrix``.

    Raises:
        ValueError: See :func:`check_stain_matrix`.
    """
    check_stain_matrix(stain_matrix)
    flat = np.ascontiguousarray(rgb).reshape(-1, 3)
    result = solve(flat, *unconstrained(np.asarray(stain_matrix, dtype=np.float64), i0))
    return result.reshape(*rgb.shape[:-1], 2)


def unconstrained(stains: np.ndarray, i0: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """What each channel's intensity adds to the unconstrained minimum, and ``g``.

    Optical density depends on the intensity alone and the minimum is linear in it, so it is a sum of
    three table entries. A third of the constant term stands in each.

    Returns:
        float32, ``(3, 256, 2)``, and the cosine of the angle between the stains.
    """
    gram = float(stains[:, 0] @ stains[:, 1])
    inverse = np.array([[1.0, -gram], [-gram, 1.0]]) / (1.0 - gram * gram)
    density = density_table(i0).astype(np.float64)
    projected = density[..., None] * stains[:, None, :] - PENALTY / 3
    return (projected @ inverse).astype(np.float32), np.float32(gram)


@njit(cache=True, nogil=True, fastmath=False)
def solve(rgb: np.ndarray, table: np.ndarray, gram: np.float32) -> np.ndarray:
    """Where one coordinate of the unconstrained minimum is negative, the other moves along its axis.

    Without a branch: which of the three cases holds changes from pixel to pixel.
    """
    zero = np.float32(0.0)
    out = np.empty((rgb.shape[0], 2), dtype=np.float32)
    for i in range(rgb.shape[0]):
        red, green, blue = rgb[i, 0], rgb[i, 1], rgb[i, 2]
        first = table[0, red, 0] + table[1, green, 0] + table[2, blue, 0]
        second = table[0, red, 1] + table[1, green, 1] + table[2, blue, 1]
        out[i, 0] = max(first + gram * min(second, zero), zero)
        out[i, 1] = max(second + gram * min(first, zero), zero)
    return out
