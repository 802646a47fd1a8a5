"""What the networks of the papers share: any input size, a stride, a reach, and numbered blocks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Network(nn.Module):
    """Base of the detection networks.

    Attributes:
        stride: Pixels by which a window can be shifted so that the map shifts with it.
        reach: Input pixels on each side that an output pixel may depend on: a pixel at least as far from the
            border of the window is the same in every window that starts at a multiple of the stride.
    """

    stride: int
    reach: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, out_channels, h, w)`` of a float batch ``(n, in_channels, h, w)`` of any size.

        Sides that are no multiple of the stride are padded with zeros to the right and below, which is what
        the convolutions see beyond a border anyway, and the map is cut to the input's size.
        """
        height, width = x.shape[-2:]
        padded = functional.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        return self.logits(padded)[..., :height, :width]

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch whose sides are multiples of the stride."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The network in pieces from input to output: every parameter is in exactly one of them."""
        raise NotImplementedError

    def imagenet_layers(self) -> dict[str, nn.Module]:
        """The layers that ImageNet weights exist for, by their names in torchvision's files; mostly none."""
        return {}
