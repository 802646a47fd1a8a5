"""Stain concentrations: two-variable non-negative lasso in closed form."""

from __future__ import annotations

import numpy as np
import torch
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
    result = _solve(flat, density_table(i0), np.asarray(stain_matrix, dtype=np.float32), np.float32(PENALTY))
    return result.reshape(*rgb.shape[:-1], 2)


@njit(cache=True, fastmath=False)
def _solve(rgb: np.ndarray, table: np.ndarray, stains: np.ndarray, penalty: np.float32) -> np.ndarray:
    gram = np.float32(0.0)
    for k in range(3):
        gram += stains[k, 0] * stains[k, 1]
    scale = np.float32(1.0) / (np.float32(1.0) - gram * gram)
    zero = np.float32(0.0)
    out = np.empty((rgb.shape[0], 2), dtype=np.float32)
    for i in range(rgb.shape[0]):
        first, second = -penalty, -penalty
        for k in range(3):
            density = table[k, rgb[i, k]]
            first += stains[k, 0] * density
            second += stains[k, 1] * density
        both_first = (first - gram * second) * scale
        both_second = (second - gram * first) * scale
        if both_first < 0:
            out[i, 0], out[i, 1] = zero, max(second, zero)
        elif both_second < 0:
            out[i, 0], out[i, 1] = max(first, zero), zero
        else:
            out[i, 0], out[i, 1] = both_first, both_second
    return out


class TorchConcentrations(torch.nn.Module):
    """:func:`concentrations` on a device, for batches: the same mathematics in torch."""

    table: torch.Tensor
    stains: torch.Tensor

    def __init__(self, stain_matrix: np.ndarray, i0: np.ndarray) -> None:
        """Prepare the constants.

        Args:
            stain_matrix: ``W``, ``(3, 2)``, unit columns.
            i0: Intensity of the light source, ``(3,)``.
        """
        super().__init__()
        check_stain_matrix(stain_matrix)
        self.register_buffer("table", torch.from_numpy(density_table(i0)))
        self.register_buffer("stains", torch.from_numpy(np.asarray(stain_matrix, dtype=np.float32)))

    @torch.inference_mode()
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """Concentrations of a batch.

        Args:
            rgb: uint8, ``(n, h, w, 3)``.

        Returns:
            float32, ``(n, 2, h, w)``.
        """
        density = torch.stack([self.table[k][rgb[..., k].int()] for k in range(3)], dim=-1)
        first, second = ((density @ self.stains) - PENALTY).unbind(dim=-1)
        gram = (self.stains[:, 0] * self.stains[:, 1]).sum()
        scale = 1.0 / (1.0 - gram * gram)
        both_first = (first - gram * second) * scale
        both_second = (second - gram * first) * scale
        axis_second, axis_first = both_first < 0, both_second < 0
        out_first = torch.where(axis_second, 0.0, torch.where(axis_first, first.clamp(min=0), both_first))
        out_second = torch.where(axis_second, second.clamp(min=0), torch.where(axis_first, 0.0, both_second))
        return torch.stack([out_first, out_second], dim=1)
