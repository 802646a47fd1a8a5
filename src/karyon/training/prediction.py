"""The maps of a whole training or validation image."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from karyon.models.registry import halo_and_stride
from karyon.stain.inputs import network_input
from karyon.training.data import TrainingImage
from karyon.training.experiment import Experiment


@torch.inference_mode()
def predict_maps(network: nn.Module, image: TrainingImage, experiment: Experiment) -> np.ndarray:
    """The maps of a whole image as the slide workflow stores them, uint8, ``(k, h, w)``.

    Round the image lies glass, as wide as the network's reach.

    Args:
        network: What was trained; is put into evaluation mode.
        image: A training or validation image.
        experiment: Says what the network takes and gives.
    """
    device = next(network.parameters()).device
    network.eval()
    halo, stride = halo_and_stride(network)
    height, width = image.grid.height, image.grid.width
    right, bottom = halo + -width % stride, halo + -height % stride
    measured = functional.pad(image.inputs[None].to(device), (halo, right, halo, bottom))
    prepared = network_input(measured, experiment.input).contiguous(memory_format=torch.channels_last)
    outputs = network(prepared)[0, :, halo : halo + height, halo : halo + width].float()
    if experiment.output == "probability":
        scaled = torch.sigmoid(outputs)
    elif experiment.output == "softmax":
        scaled = torch.softmax(outputs, dim=0)
    else:
        scaled = (outputs / experiment.peak).clamp(0, 1)
    return (scaled * 255).round().to(torch.uint8).cpu().numpy()
