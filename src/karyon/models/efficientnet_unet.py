"""U-Net on EfficientNet-Lite0: an encoder with weights from ImageNet that a CPU can afford."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from karyon.models.initialisation import initialise_he
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach
from karyon.models.unet import double_convolution

STEM = 32
# Expansion, filters, kernel, stride of the first block and number of blocks (Tan and Le 2019, table 1), down
# to 1/16 of the size. Stages at 1/32 would double the reach, and a nucleus is smaller than their pixels.
STAGES = ((1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 2, 3), (6, 112, 5, 1, 3))
# Of the batch norms behind the published weights.
EPSILON = 1e-3


def _normalised(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=EPSILON),
    ]


class InvertedBottleneck(nn.Module):
    """Widen by a 1 x 1 convolution, filter each channel by itself, narrow (Sandler et al. 2018, figure 3b).

    Args:
        inputs: Channels of the input.
        filters: Channels of the output.
        expansion: How many times as many channels there are in between; with 1 nothing is widened.
        kernel: Side of the filter of each channel, odd.
        stride: Of that filter.
    """

    def __init__(self, inputs: int, filters: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        between = expansion * inputs
        self.expand = nn.Sequential()
        if expansion > 1:
            self.expand = nn.Sequential(*_normalised(inputs, between, 1), nn.ReLU6(inplace=True))
        self.filter = nn.Sequential(
            *_normalised(between, between, kernel, stride, groups=between), nn.ReLU6(inplace=True)
        )
        self.project = nn.Sequential(*_normalised(between, filters, 1))
        self.adds = stride == 1 and inputs == filters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.filter(self.expand(x)))
        return x + y if self.adds else y

    def imagenet_layers(self) -> dict[str, nn.Module]:
        """Convolutions and batch norms by their names in the published weights."""
        named: dict[str, nn.Module] = {}
        if len(self.expand) > 0:
            named |= {"_expand_conv": self.expand[0], "_bn0": self.expand[1]}
        named |= {"_depthwise_conv": self.filter[0], "_bn1": self.filter[1]}
        return named | {"_project_conv": self.project[0], "_bn2": self.project[1]}


class EfficientNetUNet(Network):
    """U-Net whose encoder is EfficientNet-Lite0 down to 1/16 of the size.

    Tan and Le 2019, *EfficientNet: rethinking model scaling for convolutional neural networks*, ICML, without
    squeeze and excitation and with ReLU6, which is what the Lite variants are. The encoder halves the size at
    once, and the maps are drawn at half the size too, four pixels side by side as channels, as
    :class:`karyon.models.unet.UNet` does with ``fold``: 2.
    :func:`karyon.models.encoder_weights.load_encoder` loads the encoder; the rest starts with He's weights.
    Strided convolutions are padded on both sides, where the published weights were trained with more on the
    right and below: the same features, a pixel further left at each of those sizes.

    Size: stride 16, reach 212 px, 1,033,292 parameters.

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters of the decoder at half the size; they double with every level. The encoder has the
            published width.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_normalised(in_channels, STEM, 3, 2), nn.ReLU6(inplace=True))
        stages, inputs = [], STEM
        for expansion, filters, kernel, stride, count in STAGES:
            first = InvertedBottleneck(inputs, filters, expansion, kernel, stride)
            others = [InvertedBottleneck(filters, filters, expansion, kernel, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *others))
            inputs = filters
        # The last two stages are both at 1/16 of the size.
        self.stages = nn.ModuleList([*stages[:3], nn.Sequential(*stages[3], *stages[4])])
        skips = [filters for _, filters, *_ in STAGES[:3]]
        widths = [width, 2 * width, 4 * width, inputs]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.merge = nn.ModuleList(
            double_convolution(fine + skip, fine) for fine, skip in zip(widths, skips, strict=False)
        )
        self.head = nn.Conv2d(width, 4 * out_channels, 1)
        initialise_he(self)
        self.stride = 16
        bodies = [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]
        decoder = [layer for pair in zip(self.up[::-1], self.merge[::-1], strict=True) for layer in pair]
        shuffle = nn.Upsample(scale_factor=2, mode="nearest")
        self.reach = measure_reach([self.stem, *bodies, *decoder, shuffle], self.stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        x = features.pop()
        for up, merge in zip(self.up[::-1], self.merge[::-1], strict=True):
            x = merge(torch.cat([features.pop(), up(x)], dim=1))
        return functional.pixel_shuffle(self.head(x), 2)

    def blocks(self) -> list[nn.Module]:
        up = [nn.ModuleList(pair) for pair in zip(self.up, self.merge, strict=True)]
        return [self.stem, *self.stages, *reversed(up), self.head]

    def imagenet_layers(self) -> dict[str, nn.Module]:
        """The convolutions and batch norms of EfficientNet-Lite0, as in ``efficientnet_lite_pytorch``."""
        named: dict[str, nn.Module] = {"_conv_stem": self.stem[0], "_bn0": self.stem[1]}
        blocks = [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]
        for number, block in enumerate(blocks):
            named |= {f"_blocks.{number}.{name}": part for name, part in block.imagenet_layers().items()}
        return named
