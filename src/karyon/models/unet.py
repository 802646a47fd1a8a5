"""U-Net (Ronneberger et al. 2015), the network of the SWITCH paper's section 3.4, with batch norm."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from karyon.models.network import Network


def double_convolution(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3 x 3 'same' convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for inputs in (channels_in, channels_out):
        layers += [
            nn.Conv2d(inputs, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(Network):
    """Encoder and decoder with concatenated skips.

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters at full size; they double with every level.
        depth: Number of sizes, full size included.
        fold: Side of the squares of pixels that enter as channels and leave as pixels again. With 2 the
            network reads and draws twice as finely as it computes, at hardly more cost.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, width: int = 16, depth: int = 4, fold: int = 1
    ) -> None:
        super().__init__()
        self.fold = fold
        in_channels, out_channels = in_channels * fold**2, out_channels * fold**2
        widths = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            double_convolution(inputs, outputs)
            for inputs, outputs in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.merge = nn.ModuleList(double_convolution(2 * fine, fine) for fine in widths[:-1])
        self.head = nn.Conv2d(width, out_channels, 1)
        self.stride = fold * 2 ** (depth - 1)
        # A pixel sees two 3 x 3 convolutions at every size on the way down and up, and up to one
        # pooling cell of each size; and all pixels that were folded with those.
        reach = sum(2 * 2**k for k in range(depth)) + sum(2 * 2**k + 2**k for k in range(depth - 1))
        self.reach = fold * reach + fold - 1

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.pixel_unshuffle(x, self.fold)
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat([skips[level], self.up[level](x)], dim=1))
        return functional.pixel_shuffle(self.head(x), self.fold)

    def blocks(self) -> list[nn.Module]:
        up = [nn.ModuleList(pair) for pair in zip(self.up, self.merge, strict=True)]
        return [*self.down, *reversed(up), self.head]
