"""U-Net on ResNet34: the network of the JOINT paper's section 2.2."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import nn

from karyon.models.gcn import convolution
from karyon.models.initialisation import initialise_he
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach
from karyon.models.unet import double_convolution

# Residual blocks at 1/4, 1/8, 1/16 and 1/32 of the size (He et al. 2016, table 1).
RESNET34 = (3, 4, 6, 3)


class BasicBlock(nn.Module):
    """ResNet's block of two 3 x 3 convolutions (He et al. 2016, figure 5).

    Args:
        inputs: Channels of the input.
        filters: Channels of the output.
        stride: Of the first convolution.
    """

    def __init__(self, inputs: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(inputs, filters, 3, stride),
            nn.ReLU(inplace=True),
            *convolution(filters, filters, 3),
        )
        same = stride == 1 and inputs == filters
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(inputs, filters, 1))
        self.stride = stride
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # As a 1 x 1 convolution with a stride, whose gradient damages memory where channels are fewer than
        # 16, in float32 and channels-last order (torch 2.13 on CPUs: "double free or corruption").
        thinned = x[..., :: self.stride, :: self.stride]
        return self.activation(self.shortcut(thinned) + self.body(x))


class ResNet34UNet(Network):
    """U-Net whose encoder is ResNet34 without its classifier, for weights from ImageNet.

    Qu et al. 2019, *Joint segmentation and fine-grained classification of nuclei in histopathology images*,
    ISBI, section 2.2. The numbers of filters on the way up are those of the authors' published code: a
    transposed convolution halves them, the encoder's features of that size are joined, and two 3 x 3
    convolutions follow; the last transposed convolution goes from half the size to the maps. Batch norm
    comes before ReLU here, and nothing drops out.
    :func:`karyon.models.encoder_weights.load_encoder` loads the encoder; the others start with He's weights.

    Size: stride 32, reach 540 px, 24,392,097 parameters (JOINT gives no number). **The reach is large**: take
    tiles of 2,048 px.

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters of the first convolution, even; torchvision's files have 64.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(*convolution(in_channels, width, 7, 2), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(inputs, filters, 1 if level == 0 else 2),
                *(BasicBlock(filters, filters) for _ in range(count - 1)),
            )
            for level, ((inputs, filters), count) in enumerate(zip(pairwise(widths), RESNET34, strict=True))
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, coarse // 2, 2, stride=2) for coarse in widths[:0:-1]
        )
        self.merge = nn.ModuleList(
            double_convolution(coarse // 2 + fine, fine) for fine, coarse in reversed([*pairwise(widths)])
        )
        self.head = nn.ConvTranspose2d(width, out_channels, 2, stride=2)
        initialise_he(self)
        self.stride = 32
        bodies = [block.body for stage in self.stages for block in stage]  # type: ignore[attr-defined]
        decoder = [layer for pair in zip(self.up, self.merge, strict=True) for layer in pair]
        self.reach = measure_reach([self.stem, self.pool, *bodies, *decoder, self.head], self.stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        skips = [self.stem(x)]
        x = self.pool(skips[0])
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        x = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skips.pop()], dim=1))
        return self.head(x)

    def blocks(self) -> list[nn.Module]:
        up = [nn.ModuleList(pair) for pair in zip(self.up, self.merge, strict=True)]
        return [self.stem, *self.stages, *up, self.head]

    def imagenet_layers(self) -> dict[str, nn.Module]:
        """The convolutions and batch norms of ResNet34."""
        named: dict[str, nn.Module] = {"conv1": self.stem[0], "bn1": self.stem[1]}
        for level, stage in enumerate(self.stages, start=1):
            for number, block in enumerate(cast(nn.Sequential, stage)):
                assert isinstance(block, BasicBlock)
                place = f"layer{level}.{number}"
                conv1, bn1, _, conv2, bn2 = block.body
                named |= {f"{place}.conv1": conv1, f"{place}.bn1": bn1}
                named |= {f"{place}.conv2": conv2, f"{place}.bn2": bn2}
                if isinstance(block.shortcut, nn.Sequential):
                    named |= {f"{place}.downsample.{k}": layer for k, layer in enumerate(block.shortcut)}
        return named
