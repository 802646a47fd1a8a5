"""The nucleus-boundary network (Cui et al. 2018)."""

from __future__ import annotations

import torch
from torch import nn

from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach

DROPOUT = 0.2


def convolutions(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3 x 3 'same' convolutions, each with SELU and dropout."""
    layers: list[nn.Module] = []
    for inputs in (channels_in, channels_out):
        layers += [
            nn.Conv2d(inputs, channels_out, 3, padding=1),
            nn.SELU(inplace=True),
            nn.Dropout(DROPOUT),
        ]
    return nn.Sequential(*layers)


class NB(Network):
    """U-Net that normalises itself: SELU, dropout, and no normalisation layers.

    Cui, Zhang, Liu, Xiong and Hu 2018, *A deep learning algorithm for one-step contour aware nuclei
    segmentation of histopathology images*, section II-C1. All convolutions are 3 x 3, so sizes are doubled
    by repeating pixels. Weights start as Glorot's uniform ones, biases as 0. The text gives no numbers of
    filters and sizes; the defaults are U-Net's with half its filters.

    Size: stride 8, reach 52 px, 1,946,561 parameters (the paper gives no number).

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters at full size; they double with every level.
        depth: Number of sizes, full size included.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            convolutions(inputs, outputs)
            for inputs, outputs in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.enlarge = nn.Upsample(scale_factor=2)
        self.up = nn.ModuleList(convolutions(3 * fine, fine) for fine in widths[:-1])
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.stride = 2 ** (depth - 1)
        path: list[nn.Module] = [self.down[0]]
        for block in self.down[1:]:
            path += [self.pool, block]
        for block in reversed(self.up):
            path += [self.enlarge, block]
        self.reach = measure_reach([*path, self.head], self.stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat([skips[level], self.enlarge(x)], dim=1))
        return self.head(x)

    def blocks(self) -> list[nn.Module]:
        return [*self.down, *reversed(self.up), self.head]
