"""GCN (Peng et al. 2017), one of the networks of SWITCH's section 3.4."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from karyon.errors import KaryonError
from karyon.models.initialisation import bilinear_upsampling, initialise_he
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach

RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
KERNEL = 15


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A 'same' convolution with batch norm."""
    return [
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Bottleneck(nn.Module):
    """ResNet's block of 1 x 1, 3 x 3 and 1 x 1 convolutions (He et al. 2016, figure 5).

    Args:
        inputs: Channels of the input.
        filters: Of the 3 x 3 convolution; the output has four times as many.
        stride: Of the 3 x 3 convolution.
    """

    def __init__(self, inputs: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(inputs, filters, 1),
            nn.ReLU(inplace=True),
            *convolution(filters, filters, 3, stride),
            nn.ReLU(inplace=True),
            *convolution(filters, 4 * filters, 1),
        )
        same = stride == 1 and inputs == 4 * filters
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(inputs, 4 * filters, 1, stride))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.shortcut(x) + self.body(x))


class GlobalConvolution(nn.Module):
    """A large kernel as the sum of two separable ones, k x 1 then 1 x k and the other way round.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: k, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        tall = {"kernel_size": (kernel, 1), "padding": (kernel // 2, 0)}
        wide = {"kernel_size": (1, kernel), "padding": (0, kernel // 2)}
        self.tall_first = nn.Sequential(
            nn.Conv2d(inputs, outputs, **tall),  # type: ignore[arg-type]
            nn.Conv2d(outputs, outputs, **wide),  # type: ignore[arg-type]
        )
        self.wide_first = nn.Sequential(
            nn.Conv2d(inputs, outputs, **wide),  # type: ignore[arg-type]
            nn.Conv2d(outputs, outputs, **tall),  # type: ignore[arg-type]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tall_first(x) + self.wide_first(x)


class BoundaryRefinement(nn.Module):
    """Two 3 x 3 convolutions with a ReLU between, added to the input.

    Args:
        channels: Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class GCN(Network):
    """ResNet whose features at four sizes become score maps by large kernels, refined and added up.

    Peng, Zhang, Yu, Luo and Sun 2017, *Large kernel matters: improve semantic segmentation by global
    convolutional network*, CVPR, figure 2 and section 3: k = 15, boundary refinement after each large kernel
    and each sum, transposed convolutions between the sizes. The paper has as many score maps as classes,
    21; with one output that would leave one number per pixel at every size, so there are 21 here too (in
    proportion at other widths) and a 1 x 1 convolution makes the outputs of them. Weights start as He's,
    upsampling as bilinear interpolation, refinements as none: nine of them would triple the variance each.

    Size: stride 32, reach 1137 px, 60,717,114 parameters (SWITCH gives no number). **The reach is
    huge**: a tile of 1024 px needs a halo larger than itself. With depth 50 it is 625 px.

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters of ResNet's first convolution.
        depth: Layers of the ResNet: 50, 101 or 152 (the paper's).

    Raises:
        KaryonError: Another depth.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, width: int = 64, depth: int = 152
    ) -> None:
        if depth not in RESNETS:
            raise KaryonError(f"gcn: depth is {depth}; expected one of {', '.join(map(str, RESNETS))}")
        super().__init__()
        maps = max(2, round(21 * width / 64))
        self.stem = nn.Sequential(*convolution(in_channels, width, 7, stride=2), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        stages, inputs = [], width
        for level, count in enumerate(RESNETS[depth]):
            filters = width * 2**level
            first = Bottleneck(inputs, filters, stride=1 if level == 0 else 2)
            stages.append(nn.Sequential(first, *(Bottleneck(4 * filters, filters) for _ in range(count - 1))))
            inputs = 4 * filters
        self.stages = nn.ModuleList(stages)
        self.scores = nn.ModuleList(
            nn.Sequential(GlobalConvolution(4 * width * 2**level, maps, KERNEL), BoundaryRefinement(maps))
            for level in (3, 2, 1, 0)
        )
        self.head = nn.Conv2d(maps, out_channels, 1)
        self.refinements = nn.ModuleList(BoundaryRefinement(maps) for _ in range(5))
        initialise_he(self)
        for layer in self.modules():
            if isinstance(layer, BoundaryRefinement):
                nn.init.zeros_(cast(nn.Conv2d, layer.body[-1]).weight)
        self.doublings = nn.ModuleList(bilinear_upsampling(maps, 2) for _ in range(5))
        self.stride = 32
        self.reach = measure_reach(self._farthest_path(), self.stride)

    def _farthest_path(self) -> list[nn.Module]:
        path = [self.stem, self.pool]
        path += [block.body for stage in self.stages for block in stage]  # type: ignore[attr-defined]
        large, refinement = cast(nn.Sequential, self.scores[0])
        path += [cast(GlobalConvolution, large).tall_first, refinement]
        for double, refine in zip(self.doublings, self.refinements, strict=True):
            path += [double, refine]
        return path

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.stem(x))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        first, *finer = self.scores
        x = first(features.pop())
        for number, (double, refine) in enumerate(zip(self.doublings, self.refinements, strict=True)):
            x = double(x)
            if number < len(finer):
                x = x + finer[number](features.pop())
            x = refine(x)
        return self.head(x)

    def blocks(self) -> list[nn.Module]:
        """Stem, ResNet's four stages, then coarse to fine what makes and joins the scores."""
        first, *finer = self.scores
        joins = [
            nn.ModuleList(layers)
            for layers in zip(self.doublings[:3], finer, self.refinements[:3], strict=True)
        ]
        enlarge = [
            nn.ModuleList(layers) for layers in zip(self.doublings[3:], self.refinements[3:], strict=True)
        ]
        return [self.stem, *self.stages, first, *joins, *enlarge, self.head]
