"""The convolutions of VGG (Simonyan and Zisserman 2015), which several networks take as their encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

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
