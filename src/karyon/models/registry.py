"""Architectures by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from karyon.errors import KaryonError
from karyon.io.schemas import did_you_mean
from karyon.models.efficientnet_unet import EfficientNetUNet
from karyon.models.fcn8s import FCN8s
from karyon.models.fcrn import FCRNA, FCRNB
from karyon.models.frcn import FRCN
from karyon.models.gcn import GCN
from karyon.models.micronet import MicroNet
from karyon.models.nb import NB
from karyon.models.network import Network
from karyon.models.resnet_unet import ResNet34UNet
from karyon.models.segnet import SegNet
from karyon.models.unet import UNet
from karyon.models.vgg_unet import VGGUNet

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "efficientnet_unet": EfficientNetUNet,
    "fcn8s": FCN8s,
    "fcrn_a": FCRNA,
    "fcrn_b": FCRNB,
    "frcn": FRCN,
    "gcn": GCN,
    "micronet": MicroNet,
    "nb": NB,
    "resnet34_unet": ResNet34UNet,
    "segnet": SegNet,
    "unet": UNet,
    "vgg_unet": VGGUNet,
}


def build(architecture: str, **arguments: int) -> nn.Module:
    """A network with fresh weights.

    Args:
        architecture: A key of ``ARCHITECTURES``.
        arguments: What that architecture takes, such as ``width``.

    Raises:
        KaryonError: No such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise KaryonError(
            f"unknown architecture '{architecture}'; known: {', '.join(sorted(ARCHITECTURES))}"
            f"{did_you_mean(architecture, ARCHITECTURES)}"
        )
    return ARCHITECTURES[architecture](**arguments)


def blocks(network: nn.Module) -> list[nn.Module]:
    """A network in pieces from input to output; fine-tuning freezes the first of them.

    Every parameter is in exactly one piece. MicroNet's are the ten blocks of its paper.

    Raises:
        TypeError: The network is none of ``ARCHITECTURES``.
    """
    if not isinstance(network, Network):
        raise TypeError(f"{type(network).__name__} has no numbered blocks")
    return network.blocks()


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
