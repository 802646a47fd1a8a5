"""FCN-8s (Long et al. 2015), MICRONET's baseline "FCN"."""

from __future__ import annotations

import torch
from torch import nn

from karyon.models.initialisation import bilinear_upsampling, initialise_he
from karyon.models.network import Network
from karyon.models.receptive_field import measure_reach
from karyon.models.vgg import VGG16, torchvision_names, vgg_stages, vgg_widths


class FCN8s(Network):
    """VGG16 made convolutional; scores at 1/32, 1/16 and 1/8 are added up and interpolated to full size.

    Long, Shelhamer and Darrell 2015, *Fully convolutional networks for semantic segmentation*, CVPR, sections
    3.1 and 4.2. The fully connected layers become convolutions of 7 x 7 and 1 x 1 with dropout 0.5. As in
    the paper scores start at 0, upsampling as bilinear interpolation, learned but for the last, by eight,
    which stays fixed. The paper pads the image by 100 px and cuts the sum to fit; here all layers keep
    the size, so nothing is cut. VGG16 comes from :func:`karyon.models.encoder_weights.load_encoder`, else
    it starts with He's weights.

    Size: stride 32, reach 245 px, 134,264,547 parameters (paper: 134 M). **Heavy**: at full width 89 % of
    them are in the two layers that were fully connected.

    Args:
        in_channels: Channels of the input.
        out_channels: Maps that are predicted, as logits.
        width: Filters at full size; the layers that were fully connected have 64 times as many.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 64) -> None:
        super().__init__()
        widths = vgg_widths(width)
        self.encoders = vgg_stages(VGG16, in_channels, width)
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Sequential(
            nn.Conv2d(widths[4], 64 * width, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(64 * width, 64 * width, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
        )
        self.scores = nn.ModuleList(
            nn.Conv2d(inputs, out_channels, 1) for inputs in (widths[2], widths[3], 64 * width)
        )
        initialise_he(self)
        for score in self.scores:
            nn.init.zeros_(score.weight)  # type: ignore[arg-type]
        self.doublings = nn.ModuleList(bilinear_upsampling(out_channels, 2) for _ in range(2))
        self.eightfold = bilinear_upsampling(out_channels, 8).requires_grad_(False)
        self.stride = 32
        path = [layer for encoder in self.encoders for layer in (encoder, self.pool)]
        path += [self.classifier, *self.doublings, self.eightfold]
        self.reach = measure_reach(path, self.stride)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        pooled = []
        for encoder in self.encoders:
            x = self.pool(encoder(x))
            pooled.append(x)
        score_8, score_16, score_32 = self.scores
        double_16, double_8 = self.doublings
        x = double_16(score_32(self.classifier(x))) + score_16(pooled[3])
        return self.eightfold(double_8(x) + score_8(pooled[2]))

    def blocks(self) -> list[nn.Module]:
        return [
            *self.encoders,
            self.classifier,
            nn.ModuleList([self.scores, self.doublings, self.eightfold]),
        ]

    def imagenet_layers(self) -> dict[str, nn.Module]:
        """The convolutions of VGG16 and its first two fully connected layers."""
        first, second = (layer for layer in self.classifier if isinstance(layer, nn.Conv2d))
        return {**torchvision_names(self.encoders), "classifier.0": first, "classifier.3": second}
