"""The convolutions of VGG (Simonyan and Zisserman 2015), which several networks take as their encoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from karyon.models.encoder_weights import load_layers

# Convolutions of 3 x 3 at each size; a 2 x 2 max pooling follows each group.
VGG11 = (1, 1, 2, 2, 2)
VGG16 = (2, 2, 3, 3, 3)


def vgg_widths(width: int) -> list[int]:
    """Filters at each of the five sizes; VGG's own are those of width 64."""
    return [width * min(2**level, 8) for level in range(5)]


def vgg_stages(convolutions: Sequence[int], in_channels: int, width: int) -> nn.ModuleList:
    """The convolutions of VGG with ReLU, one ``nn.Sequential`` for each size, without the poolings between.

    Args:
        convolutions: ``VGG11`` or ``VGG16``.
        in_channels: Channels of the input.
        width: Filters at full size.
    """
    stages = nn.ModuleList()
    for count, filters in zip(convolutions, vgg_widths(width), strict=True):
        layers: list[nn.Module] = []
        for _ in range(count):
            layers += [nn.Conv2d(in_channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
            in_channels = filters
        stages.append(nn.Sequential(*layers))
    return stages


def torchvision_names(stages: nn.ModuleList) -> dict[str, nn.Module]:
    """The convolutions of ``vgg_stages`` by their names in torchvision's files, such as ``features.3``.

    There each convolution, ReLU and pooling takes one number.
    """
    named: dict[str, nn.Module] = {}
    number = 0
    for stage in stages:
        for layer in stage:  # type: ignore[attr-defined]
            if isinstance(layer, nn.Conv2d):
                named[f"features.{number}"] = layer
            number += 1
        number += 1
    return named


class VGG16Features(nn.Module):
    """What VGG16 sees in a picture at four sizes, the outputs of relu1_2, relu2_2, relu3_3 and relu4_3.

    Its weights are fixed.

    Args:
        path: Weights of torchvision's ``vgg16``, as for :func:`karyon.models.encoder_weights.load_encoder`.

    Raises:
        KaryonError: The file cannot be read, or is not of a VGG16.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        stages = vgg_stages(VGG16, in_channels=3, width=64)
        load_layers(torchvision_names(stages), path)
        self.stages = nn.ModuleList(islice(stages, 4))
        self.pool = nn.MaxPool2d(2)
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features of a batch of pictures, ``(n, 3, h, w)``, finest first; sides of 8 or more."""
        features: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x if not features else self.pool(x))
            features.append(x)
        return features
