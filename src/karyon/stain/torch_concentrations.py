"""Stain concentrations of batches, on any device.

Apart from :mod:`karyon.stain.concentrations`, so that jobs without a network do not import torch.
"""

from __future__ import annotations

import numpy as np
import torch

from karyon.stain.concentrations import check_stain_matrix, solve, unconstrained


class TorchConcentrations(torch.nn.Module):
    """:func:`karyon.stain.concentrations.concentrations` for batches, on the device they lie on."""

    table: torch.Tensor

    def __init__(self, stain_matrix: np.ndarray, i0: np.ndarray) -> None:
        """Prepare the constants.

        Args:
            stain_matrix: ``W``, ``(3, 2)``, unit columns.
            i0: Intensity of the light source, ``(3,)``.
        """
        super().__init__()
        check_stain_matrix(stain_matrix)
        table, self.gram = unconstrained(np.asarray(stain_matrix, dtype=np.float64), i0)
        self.register_buffer("table", torch.from_numpy(table))

    @torch.inference_mode()
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """Concentrations of a batch.

        Args:
            rgb: uint8, ``(n, h, w, 3)``.

        Returns:
            float32, ``(n, 2, h, w)``.
        """
        if rgb.device.type != "cpu":
            return self.on_device(rgb)
        # Pixel by pixel this is 25 times faster than operation by operation.
        flat = solve(rgb.contiguous().numpy().reshape(-1, 3), self.table.numpy(), self.gram)
        return torch.from_numpy(flat).view(*rgb.shape[:-1], 2).movedim(-1, 1)

    @torch.inference_mode()
    def on_device(self, rgb: torch.Tensor) -> torch.Tensor:
        """:meth:`forward` in torch's operations."""
        red, green, blue = (self.table[k][rgb[..., k].int()] for k in range(3))
        first, second = (red + green + blue).unbind(dim=-1)
        gram = float(self.gram)
        out_first = (first + gram * second.clamp(max=0)).clamp(min=0)
        out_second = (second + gram * first.clamp(max=0)).clamp(min=0)
        return torch.stack([out_first, out_second], dim=1)
