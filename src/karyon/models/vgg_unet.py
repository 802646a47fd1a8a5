"""VGG-UNet (Iglovikov and Shvets 2018), the best network of SWITCH's section 3.4."""

from __future__ import annotations

import torch
from torch import nn

from karyon.models.initialisation import initialise_he
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach
from karyon.models.vgg import VGG11, torchvision_names, vgg_stages, vgg_widths


def decoder(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """A 3 x 3 convolution and a 3 x 3 transposed one that doubles the size, each with ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(middle, outputs, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(inplace=True),
    )


class VGGUNet(Network):
    """U-Net whose encoder is VGG11, for weights from ImageNet.

    Iglovikov and Shvets 2018, *TernausNet: U-Net with VGG11 encoder pre-trained on ImageNet for image
    segmentation*, arXiv 1801.05746, with the decoder widths of the authors' published code. Five poolings, a
    convolution at 1/32, then five decoders that each take the encoder's features of their size. There is no
    batch norm. :func:`karyon.models.encoder_weights.load_encoder` loads the encoder; what is not loaded
    starts with He's weights.

    Size: stride 32, reach 184 px, 22,926,241 parameters (SWITCH gives no number).

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters at full size in the encoder, even; the decoder ends with half as many.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        skips = vgg_widths(width)
        outputs = [width // 2, width, 2 * width, 4 * width, 4 * width]
        self.encoders = vgg_stages(VGG11, in_channels, width)
        self.pool = nn.MaxPool2d(2)
        self.centre = decoder(skips[4], 8 * width, outputs[4])
        self.decoders = nn.ModuleList(
            decoder(skips[level] + outputs[level], skips[level], outputs[level - 1]) for level in (4, 3, 2, 1)
        )
        self.head = nn.Sequential(
            nn.Conv2d(skips[0] + outputs[0], outputs[0], 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs[0], out_channels, 1),
        )
        initialise_he(self)
        self.stride = 32
        path = [layer for encoder in self.encoders for layer in (encoder, self.pool)]
        self.reach = measure_reach([*path, self.centre, *self.decoders, self.head], self.stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for encoder in self.encoders:
            skips.append(encoder(x))
            x = self.pool(skips[-1])
        x = self.centre(x)
        for block in [*self.decoders, self.head]:
            x = block(torch.cat([x, skips.pop()], dim=1))
        return x

    def blocks(self) -> list[nn.Module]:
        return [*self.encoders, self.centre, *self.decoders, self.head]

    def imagenet_layers(self) -> dict[str, nn.Module]:
        """The convolutions of VGG11."""
        return torchvision_names(self.encoders)
