"""FCRN-A and FCRN-B (Xie, Noble and Zisserman 2016), baselines of MICRONET."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach


def convolution(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    """A 'same' convolution with batch norm and ReLU."""
    return [
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def doubling() -> nn.Upsample:
    """Bilinear interpolation to twice the size in which pixel areas, not corners, coincide."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


class FCRN(Network):
    """A chain of blocks without connections across.

    Xie, Noble and Zisserman 2016, *Microscopy cell counting and detection with fully convolutional regression
    networks*, Computer Methods in Biomechanics and Biomedical Engineering: Imaging & Visualization 6(3).
    Orthogonal weights, as in the paper; batch norm after every convolution but the last, as in the authors'
    later code (``cell_counting_v2``), "to make the training easier".

    Args:
        chain: The blocks.
        stride: Pixels by which a window can be shifted.
    """

    def __init__(self, chain: list[nn.Sequential], stride: int) -> None:
        super().__init__()
        self.chain = nn.Sequential(*chain)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight)
        self.stride = stride
        self.reach = measure_reach([self.chain], stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.chain(x)

    def blocks(self) -> list[nn.Module]:
        return list(self.chain)


class FCRNA(FCRN):
    """FCRN-A: 3 x 3 convolutions, three poolings, three doublings.

    See :class:`FCRN` for the source. Filters 32, 64, 128, 512, 128, 64, 32.

    Size: stride 8, reach 37 px, 1,366,465 parameters.

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters at full size.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 32) -> None:
        down = [in_channels, width, 2 * width, 4 * width]
        up = [16 * width, 4 * width, 2 * width, width]
        chain = [
            nn.Sequential(*convolution(inputs, outputs, 3), nn.MaxPool2d(2))
            for inputs, outputs in pairwise(down)
        ]
        chain.append(nn.Sequential(*convolution(down[-1], up[0], 3)))
        chain += [
            nn.Sequential(doubling(), *convolution(inputs, outputs, 3)) for inputs, outputs in pairwise(up)
        ]
        chain.append(nn.Sequential(nn.Conv2d(width, out_channels, 3, padding=1)))
        super().__init__(chain, stride=8)


class FCRNB(FCRN):
    """FCRN-B: a pooling after every second convolution only, 5 x 5 convolutions in the second half.

    See :class:`FCRN` for the source. Filters 32, 64, 128, 256 (3 x 3), 256, 256 (5 x 5).

    Size: stride 4, reach 26 px, 3,672,545 parameters.

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters at full size.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 32) -> None:
        chain = [
            nn.Sequential(*convolution(in_channels, width, 3)),
            nn.Sequential(*convolution(width, 2 * width, 3), nn.MaxPool2d(2)),
            nn.Sequential(*convolution(2 * width, 4 * width, 3)),
            nn.Sequential(*convolution(4 * width, 8 * width, 3), nn.MaxPool2d(2)),
            nn.Sequential(*convolution(8 * width, 8 * width, 5)),
            nn.Sequential(doubling(), *convolution(8 * width, 8 * width, 5)),
            nn.Sequential(doubling(), nn.Conv2d(8 * width, out_channels, 5, padding=2)),
        ]
        super().__init__(chain, stride=4)
