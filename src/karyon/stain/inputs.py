"""What feeds a network: stain densities (H-C, HE-C), normalised colour (CN-H&E), or colour as it is (RGB)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from karyon.stain.channels import INPUT_CHANNELS
from karyon.stain.fit import StainFit
from karyon.stain.torch_concentrations import TorchConcentrations


@dataclass(frozen=True)
class TargetStain:
    """Stains that colours are normalised to.

    Attributes:
        stain_matrix: ``W``, rows red, green, blue, unit columns.
        p99: 99th percentile of each stain's concentration.
    """

    stain_matrix: Sequence[Sequence[float]]
    p99: Sequence[float]


# The element-wise medians over the twelve training images of kumar30 (split TD), columns of unit length.
MEDIAN_STAIN = TargetStain(((0.4908, 0.2514), (0.7647, 0.8241), (0.4175, 0.5076)), (2.48, 1.16))


class Measured(torch.nn.Module):
    """What crops of training images are cut from, and what :func:`network_input` takes.

    For ``RGB`` the light that is missing, ``1 - intensity / 255``, so that glass is near 0 as padding is. For
    all others both stains' concentrations in units of their 99th percentiles.
    """

    def __init__(self, name: str, fit: StainFit | None) -> None:
        """Prepare the constants.

        Args:
            name: A key of ``INPUT_CHANNELS``.
            fit: The slide's stains; ``RGB`` needs none.

        Raises:
            ValueError: No such input, or the stains are missing.
        """
        super().__init__()
        if name not in INPUT_CHANNELS:
            raise ValueError(f"unknown input {name!r}; expected one of {', '.join(INPUT_CHANNELS)}")
        self.separate: TorchConcentrations | None = None
        if name != "RGB":
            if fit is None:
                raise ValueError(f"the input {name} needs the slide's stains")
            self.separate = TorchConcentrations(fit.stain_matrix, fit.i0)
            scale = torch.from_numpy((1 / fit.p99).astype(np.float32))
            self.register_buffer("scale", scale[:, None, None])

    @torch.inference_mode()
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """Measure a batch.

        Args:
            rgb: uint8, ``(n, h, w, 3)``.

        Returns:
            float32, ``(n, 2, h, w)``, or ``(n, 3, h, w)`` for ``RGB``.
        """
        if self.separate is None:
            return 1 - rgb.movedim(-1, 1).float() / 255
        return self.separate(rgb) * self.scale


def network_input(
    measured: torch.Tensor, name: str, column: int = 0, target: TargetStain = MEDIAN_STAIN
) -> torch.Tensor:
    """The network's input, the same in training and on slides.

    - ``H-C``: one stain. ``HE-C``: both, that one first.
    - ``CN-H&E``: ``I = exp(-W_t (c * p99_t / p99_s))`` (Vahadane et al. 2016, eq. 6 and 7;
      `docs/methods.md`, Stain separation); white is 1.
    - ``RGB``: as measured.

    Args:
        measured: What :class:`Measured` gives, perhaps cropped and varied, ``(n, c, h, w)``.
        name: A key of ``INPUT_CHANNELS``.
        column: Which stain marks nuclei; for ``H-C`` and ``HE-C``.
        target: What ``CN-H&E`` normalises to.

    Returns:
        float32, ``(n, INPUT_CHANNELS[name], h, w)``.
    """
    if name == "H-C":
        return measured[:, column : column + 1]
    if name == "HE-C":
        return measured if column == 0 else measured.flip(1)
    if name == "CN-H&E":
        mix = torch.tensor(target.stain_matrix, device=measured.device) * torch.tensor(
            target.p99, device=measured.device
        )
        return torch.exp(-torch.einsum("kc,nchw->nkhw", mix, measured))
    return measured


class SlideInput(torch.nn.Module):
    """From a slide's pixels to the network's input."""

    def __init__(self, name: str, fit: StainFit, channel: str, target: TargetStain = MEDIAN_STAIN) -> None:
        """Prepare the constants.

        Args:
            name: A key of ``INPUT_CHANNELS``.
            fit: The slide's stains.
            channel: Name of the stain that marks nuclei; for ``H-C`` and ``HE-C``.
            target: What ``CN-H&E`` normalises to.

        Raises:
            ValueError: No such input, or the slide does not carry that stain.
        """
        super().__init__()
        self.measured = Measured(name, fit)
        self.name = name
        self.column = fit.column(channel) if name in ("H-C", "HE-C") else 0
        self.target = target

    @torch.inference_mode()
    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """The input of a batch.

        Args:
            rgb: uint8, ``(n, h, w, 3)``.

        Returns:
            float32, ``(n, INPUT_CHANNELS[name], h, w)``.
        """
        return network_input(self.measured(rgb), self.name, self.column, self.target)
