"""MicroNet, the network of MICRONET's section "Network architecture"."""

from __future__ import annotations

import torch
from torch import nn

from karyon.models.initialisation import initialise_he
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """A 'same' convolution with batch norm and ELU."""
    return [
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ELU(inplace=True),
    ]


class ResidualBlock(nn.Module):
    """Convolutions whose result is added to their input; ELU follows.

    Args:
        channels: Of input and output.
        convolutions: Their number.
        dropout: Share of the filters that are dropped after the convolutions in training.
    """

    def __init__(self, channels: int, convolutions: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers = [layer for _ in range(convolutions) for layer in convolution(channels, channels)]
        self.body = nn.Sequential(*layers, nn.Dropout2d(dropout))
        self.activation = nn.ELU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(x + self.body(x))


class UpBlock(nn.Module):
    """Transposed convolution to twice the size, concatenation with the finer features, residual block.

    Args:
        coarse: Channels of the input.
        fine: Channels of the finer features, and of the enlarged ones; the output has both.
        convolutions: Of the residual block.
    """

    def __init__(self, coarse: int, fine: int, convolutions: int) -> None:
        super().__init__()
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(coarse, fine, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(fine),
            nn.ELU(inplace=True),
        )
        self.residual = ResidualBlock(2 * fine, convolutions)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.residual(torch.cat([self.enlarge(x), skip], dim=1))


class OutputTransition(nn.Module):
    """Two convolutions on the finest features and on coarser ones that are enlarged straight to full size.

    Args:
        width: Filters of the input transition; the finest features have twice as many.
        out_channels: Maps.
    """

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.enlarge = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(inputs, 2 * width, factor, stride=factor, bias=False),
                nn.BatchNorm2d(2 * width),
                nn.ELU(inplace=True),
            )
            for inputs, factor in ((4 * width, 4), (8 * width, 8))
        )
        self.convolutions = nn.Sequential(
            *convolution(6 * width, width, size=5), nn.Conv2d(width, out_channels, 1)
        )

    def forward(self, x: torch.Tensor, quarter: torch.Tensor, eighth: torch.Tensor) -> torch.Tensor:
        enlarge_4, enlarge_8 = self.enlarge
        return self.convolutions(torch.cat([x, enlarge_4(quarter), enlarge_8(eighth)], dim=1))


class MicroNet(Network):
    """Residual U-Net with multi-context aggregation, in ten numbered blocks.

    MICRONET (Xing et al. 2019, *Towards pixel-to-pixel deep nucleus detection in microscopy images*, BMC
    Bioinformatics 20:472), section "Network architecture". Block 1 is the input transition, 2 to 5 residual
    blocks after strided convolutions, 6 to 9 residual blocks after transposed convolutions, 10 the output
    transition with the aggregation that feeds it. The text leaves the numbers of filters and of convolutions
    per block to figure 2, which was not at hand: they are those of the first author's later code (``KiNet``),
    as are the scales 1/4 and 1/8 of the aggregation. That code aggregates the upsampling path; the paper
    says "the downsampled outputs", which is done here. Odd sizes are padded once at the input, not at each
    level. Weights start as He's (the paper is silent).

    Size: stride 16, reach 118 px, 12,456,961 parameters (the paper gives no number).

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters of the input transition; they double with every level up to eight times as many.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 32) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(5)]
        depths, dropouts = (1, 2, 2, 2), (0.0, 0.0, 0.5, 0.5)
        self.input = nn.Sequential(*convolution(in_channels, width))
        self.down = nn.ModuleList(
            nn.Sequential(*convolution(fine, coarse, stride=2), ResidualBlock(coarse, depth, dropout))
            for fine, coarse, depth, dropout in zip(widths[:-1], widths[1:], depths, dropouts, strict=True)
        )
        # A block on the way up gives its enlarged input and the skip: twice the filters of its level.
        coarser = [widths[4], *(2 * fine for fine in widths[3:0:-1])]
        self.up = nn.ModuleList(
            UpBlock(coarse, fine, depth)
            for coarse, fine, depth in zip(coarser, widths[3::-1], (2, 2, 1, 1), strict=True)
        )
        self.output = OutputTransition(width, out_channels)
        initialise_he(self)
        self.stride = 16
        path = [self.input, *self.down, *self.up, self.output.convolutions]
        self.reach = measure_reach(path, self.stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        levels = [self.input(x)]
        for block in self.down:
            levels.append(block(levels[-1]))
        _, _, quarter, eighth, x = levels
        for block, skip in zip(self.up, levels[3::-1], strict=True):
            x = block(x, skip)
        return self.output(x, quarter, eighth)

    def blocks(self) -> list[nn.Module]:
        """Blocks 1 to 10 of the paper."""
        return [self.input, *self.down, *self.up, self.output]
