"""Random geometry and stain of training crops, batched on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Augmentation:
    """How much training crops vary.

    Attributes:
        scale: Smallest and largest size of nuclei relative to life, drawn log-uniformly.
        elastic_px: Standard deviation of the random displacement, in model pixels.
        gain: Largest relative change of stain strength, as a factor (1.3 draws 1/1.3 to 1.3).
        leak: Largest share of the other stain mixed into the input, for imperfect separation.
        blur_px: Largest standard deviation of the defocus, in model pixels.
        noise: Largest standard deviation of the noise, in units of the 99th percentile.
    """

    scale: tuple[float, float] = (0.7, 1.4)
    elastic_px: float = 1.5
    gain: float = 1.4
    leak: float = 0.15
    blur_px: float = 0.8
    noise: float = 0.05


def draw_crop(
    stains: torch.Tensor, target: torch.Tensor, side: int, settings: Augmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One crop at a random place, angle, scale and reflection, bent a little.

    Its centre lies in the image; what lies outside is glass, as it is for a slide.

    Args:
        stains: Concentrations, ``(c, h, w)``.
        target: Mask in [0, 1], ``(h, w)``.
        side: Side of the crop in model pixels.
        settings: Amounts.
        generator: Source of all randomness.

    Returns:
        Concentrations ``(c, side, side)`` and mask ``(1, side, side)``, which is binary again.
    """
    height, width = stains.shape[-2:]
    uniform = torch.rand(5, generator=generator)
    low, high = (math.log(value) for value in settings.scale)
    size = math.exp(low + (high - low) * float(uniform[0]))
    angle = 2 * math.pi * float(uniform[1])
    flip = -1.0 if uniform[2] < 0.5 else 1.0
    axis = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2) / size
    dy, dx = torch.meshgrid(axis, axis, indexing="ij")
    bend = torch.randn(1, 2, 6, 6, generator=generator) * settings.elastic_px
    bend = functional.interpolate(bend, size=(side, side), mode="bicubic", align_corners=True)[0]
    x = float(uniform[3]) * (width - 1) + flip * (math.cos(angle) * dx - math.sin(angle) * dy) + bend[0]
    y = float(uniform[4]) * (height - 1) + math.sin(angle) * dx + math.cos(angle) * dy + bend[1]
    where = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
    both = torch.cat([stains, target[None]])[None]
    crop = functional.grid_sample(
        both, where[None], mode="bilinear", padding_mode="zeros", align_corners=True
    )[0]
    return crop[:-1], (crop[-1:] > 0.5).float()


def vary_stain(
    stains: torch.Tensor, column: int, settings: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """The network's input from a batch of concentrations: strength, leak, focus and noise varied.

    Args:
        stains: ``(n, 2, h, w)``, in units of each stain's 99th percentile.
        column: Which stain feeds the network.
        settings: Amounts.
        generator: Source of all randomness.

    Returns:
        ``(n, 1, h, w)``.
    """
    count = stains.shape[0]
    uniform = torch.rand(4, count, 1, 1, 1, generator=generator)
    signed = 2 * uniform - 1
    chosen = stains[:, column : column + 1] * settings.gain ** signed[0]
    leaked = (chosen + settings.leak * signed[1] * stains[:, 1 - column : 2 - column]).clamp(min=0)
    offsets = torch.arange(-2, 3, dtype=torch.float32)
    sigma = (settings.blur_px * uniform[2]).clamp(min=0.05)
    kernel = torch.exp(-0.5 * (offsets[None, :] / sigma.reshape(-1, 1)) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    window = (kernel[:, :, None] * kernel[:, None, :])[:, None]
    padded = functional.pad(leaked, (2, 2, 2, 2), mode="reflect")
    blurred = functional.conv2d(padded.transpose(0, 1), window, groups=count).transpose(0, 1)
    grain = torch.randn(blurred.shape, generator=generator)
    return blurred + settings.noise * uniform[3] * grain
