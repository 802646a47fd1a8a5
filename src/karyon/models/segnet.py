"""SegNet (Badrinarayanan et al. 2017), one of the networks of SWITCH's section 3.4."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from karyon.models.initialisation import initialise_he
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach
from karyon.models.vgg import VGG16, vgg_widths


def convolutions(widths: list[int]) -> nn.Sequential:
    """3 x 3 convolutions between consecutive widths, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class SegNet(Network):
    """VGG16's convolutions and their mirror image; maxima return to where they were.

    Badrinarayanan, Kendall and Cipolla 2017, *SegNet: a deep convolutional encoder-decoder architecture for
    image segmentation*, IEEE TPAMI 39(12). A decoder puts each pooled maximum back to the place it came from
    (the argmax of the pooling) and leaves 0 elsewhere; nothing is learned there and no features are passed
    across. Batch norm follows every convolution but the last. Weights start as He's, as in the paper.

    Size: stride 32, reach 211 px, 29,434,497 parameters (the paper gives 14.7 M for the encoder).

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters at full size; they double with every level up to eight times as many.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        widths = vgg_widths(width)
        finer = [in_channels, *widths[:-1]]
        self.encoders = nn.ModuleList(
            convolutions([inputs, *[outputs] * count])
            for inputs, outputs, count in zip(finer, widths, VGG16, strict=True)
        )
        mirrored = [
            convolutions([*[inputs] * count, outputs])
            for inputs, outputs, count in list(zip(widths, finer, VGG16, strict=True))[:0:-1]
        ]
        last = [*convolutions([width, width]), nn.Conv2d(width, out_channels, 3, padding=1)]
        self.decoders = nn.ModuleList([*mirrored, nn.Sequential(*last)])
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        initialise_he(self)
        self.stride = 32
        path = [layer for encoder in self.encoders for layer in (encoder, self.pool)]
        path += [layer for decoder in self.decoders for layer in (self.unpool, decoder)]
        self.reach = measure_reach(path, self.stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        places = []
        for encoder in self.encoders:
            x, argmax = self.pool(encoder(x))
            places.append(argmax)
        for decoder in self.decoders:
            x = decoder(self.unpool(x, places.pop()))
        return x

    def blocks(self) -> list[nn.Module]:
        return [*self.encoders, *self.decoders]
