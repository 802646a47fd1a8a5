"""FRCN (Xie et al. 2018), MICRONET's strongest baseline and the second network of its experiments."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from karyon.models.initialisation import initialise_he
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach

RESIDUAL_SCALE, DROPOUT = 0.3, 0.5


class ResidualBlock(nn.Module):
    """ELU, 3 x 3 convolution, dropout, ELU, 3 x 3 convolution, scaled by 0.3 and added to the input.

    Args:
        inputs: Channels of the input; a 1 x 1 convolution adapts the shortcut if they are not ``outputs``.
        outputs: Channels of the output.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ELU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Dropout2d(DROPOUT),
            nn.ELU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + RESIDUAL_SCALE * self.body(x)


class FRCN(Network):
    """Fully residual network: residual blocks on five sizes, features concatenated on the way up.

    Xie, Xing, Shi, Kong, Su and Yang 2018, *Efficient and robust cell detection: a structured regression
    approach*, Medical Image Analysis 44. The article itself was not at hand: block and filter numbers are
    those of a public re-implementation that cites it, and may differ from it in detail. There, average
    pooling halves and repetition of pixels doubles the size; there is no batch norm and no ImageNet encoder.
    Dropout 0.5 is our choice. Weights start as He's.

    Size: stride 16, reach 124 px, 6,466,689 parameters (MICRONET gives no number).

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters at full size; they double with every level up to eight times as many.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 32) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(5)]
        down = [nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), ResidualBlock(width, width))]
        for fine, coarse in pairwise(widths):
            halve = [nn.Conv2d(fine, coarse, 3, padding=1), nn.AvgPool2d(2)]
            down.append(nn.Sequential(*halve, ResidualBlock(coarse, coarse)))
        self.down = nn.ModuleList(down)
        self.doubling = nn.Upsample(scale_factor=2, mode="nearest")
        self.up = nn.ModuleList(
            ResidualBlock(coarse + fine, fine)
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)
        initialise_he(self)
        self.stride = 16
        path = [*self.down, *(layer for block in self.up for layer in (self.doubling, block)), self.head]
        self.reach = measure_reach(path, self.stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = block(torch.cat([self.doubling(x), skips.pop()], dim=1))
        return self.head(x)

    def blocks(self) -> list[nn.Module]:
        return [*self.down, *self.up, self.head]
