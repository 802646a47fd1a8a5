"""Architectures by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from karyon.errors import KaryonError
from karyon.models.unet import UNet

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"unet": UNet}


def build(architecture: str, **arguments: int) -> nn.Module:
    """A network with fresh weights.

    Args:
        architecture: A key of ``ARCHITECTURES``.
        arguments: What that architecture takes, such as ``width``.

    Raises:
        KaryonError: No such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise KaryonError(f"unknown architecture '{architecture}'; known: {', '.join(sorted(ARCHITECTURES))}")
    return ARCHITECTURES[architecture](**arguments)


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in channels-last order, in which convolutions are fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def halo_and_stride(network: nn.Module) -> tuple[int, int]:
    """Halo and stride of a network, in pixels.

    Its tiles need a halo as wide as its reach, here rounded up to a multiple of the stride, and sides
    that are multiples of the stride.
    """
    stride, reach = int(network.stride), int(network.reach)  # type: ignore[arg-type]
    return reach + -reach % stride, stride
