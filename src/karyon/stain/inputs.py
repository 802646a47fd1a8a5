"""What feeds a network: one stain's density (H-C), or normalised colour (CN-H&E)."""

from __future__ import annotations

import numpy as np
import torch

from karyon.stain.concentrations import TorchConcentrations
from karyon.stain.fit import StainFit


class NormalisedColour(torch.nn.Module):
    """CN-H&E: concentrations, rescaled by the ratio of 99th percentiles, times the target's ``W``.

    ``I = exp(-W_t (c * p99_t / p99_s))`` (Vahadane et al. 2016, eq. 6 and 7; METHODS section 1). The
    target is given as numbers; white is 1.
    """

    def __init__(self, fit: StainFit, target_matrix: np.ndarray, target_p99: np.ndarray) -> None:
        """Prepare the constants.

        Args:
            fit: The slide's stains.
            target_matrix: ``(3, 2)``, unit columns, in the order of the fit's.
            target_p99: ``(2,)``.
        """
        super().__init__()
        self.separate = TorchConcentrations(fit.stain_matrix, fit.i0)
        scaled = np.asarray(target_matrix) * (np.asarray(target_p99) / fit.p99)[None, :]
        self.register_buffer("mix", torch.from_numpy(scaled.astype(np.float32)))

    @torch.inference_mode()
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """Normalised colour of a batch.

        Args:
            rgb: uint8, ``(n, h, w, 3)``.

        Returns:
            float32 in (0, 1], ``(n, 3, h, w)``.
        """
        density = torch.einsum("kc,nchw->nkhw", self.mix, self.separate(rgb))
        return torch.exp(-density)


class StainChannel(torch.nn.Module):
    """H-C: one stain's concentration in units of its 99th percentile."""

    def __init__(self, fit: StainFit, channel: str) -> None:
        """Prepare the constants.

        Args:
            fit: The slide's stains.
            channel: Name of the stain that feeds the network.

        Raises:
            ValueError: The slide does not carry that stain.
        """
        super().__init__()
        self.column = fit.column(channel)
        self.scale = 1.0 / float(fit.p99[self.column])
        self.separate = TorchConcentrations(fit.stain_matrix, fit.i0)

    @torch.inference_mode()
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """The chosen concentration of a batch.

        Args:
            rgb: uint8, ``(n, h, w, 3)``.

        Returns:
            float32, ``(n, 1, h, w)``.
        """
        return self.separate(rgb)[:, self.column : self.column + 1] * self.scale
