"""Fresh weights: He's, and the bilinear interpolation that learned upsampling starts from."""

from __future__ import annotations

import torch
from torch import nn


def initialise_he(network: nn.Module) -> None:
    """Zero-mean normal weights that keep the variance through ReLU layers; biases 0.

    He et al. 2015, *Delving deep into rectifiers*, eq. 10: the variance is 2 over the number of inputs an
    output sums up. Of the weights of a transposed convolution only one in ``stride ** 2`` meets an output.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            inputs = layer.weight[0].numel()
        elif isinstance(layer, nn.ConvTranspose2d):
            inputs = max(1, layer.weight[:, 0].numel() // (layer.stride[0] * layer.stride[1]))
        else:
            continue
        nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def bilinear_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution, without bias, that interpolates each channel bilinearly until it is trained.

    Long et al. 2015, section 3.3. Kernel ``2 * factor``, aligned so that pixel areas, not centres, coincide:
    the output is exactly ``factor`` times as large, and the same wherever a window starts.

    Args:
        channels: Channels of input and output.
        factor: Even.
    """
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    position = torch.arange(2 * factor, dtype=torch.float32, device=layer.weight.device)
    tent = 1 - (position + 0.5 - factor).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = tent[:, None] * tent
    return layer
