"""How much training crops vary, and random stain: strength, separation, focus, noise; on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch.nn import functional

from karyon.stain.inputs import MEDIAN_STAIN
from karyon.training.settings import Range

# Half a grey value: the darkest that a pixel is taken for, so that its optical density is finite.
DARKEST = 0.5 / 255
# The kernel of the defocus reaches this many standard deviations.
BLUR_REACH = 2.5


@dataclass(frozen=True)
class Augmentation:
    """How much training crops vary. Place, angle and reflection are always any.

    Attributes:
        scale: Smallest and largest size of nuclei relative to life, drawn log-uniformly; 0.25 makes a scan at
            40x one at 10x.
        elastic_px: Standard deviation of the random displacement, in model pixels.
        gain: Largest relative change of stain strength, as a factor (1.3 draws 1/1.3 to 1.3).
        leak: Largest share of the other stain mixed into a stain, for imperfect separation.
        blur_px: Largest standard deviation of the defocus, in model pixels.
        noise: Largest standard deviation of the noise, in units of the 99th percentile.
    """

    scale: tuple[Annotated[float, Range(0.1, 10)], Annotated[float, Range(0.1, 10)]] = (0.7, 1.4)
    elastic_px: Annotated[float, Range(0)] = 1.5
    gain: Annotated[float, Range(1)] = 1.4
    leak: Annotated[float, Range(0, 1)] = 0.15
    blur_px: Annotated[float, Range(0, 4)] = 0.8
    noise: Annotated[float, Range(0)] = 0.05


def vary_stain(
    stains: torch.Tensor, channels: int, settings: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Concentrations with strength, leak, focus and noise varied.

    A stain ``s`` beside the other ``t`` becomes ``blur(max(s gain^a + leak b t, 0)) + noise d g`` with ``a``
    and ``b`` uniform in -1 to 1 for each crop and stain, ``d`` in 0 to 1 for each crop, and ``g`` standard
    normal for each pixel; the blur's standard deviation is uniform in 0 to ``blur_px``.

    Args:
        stains: ``(n, 2, h, w)``, in units of each stain's 99th percentile, >= 0.
        channels: 1 for the first stain alone, 2 for both.
        settings: Amounts.
        generator: Source of all randomness, on the CPU: the draws are the same on every device.

    Returns:
        ``(n, channels, h, w)``; only the noise may be below 0.
    """
    draws = _draw(len(stains), generator, stains.device)
    strengthened = _strengthened(stains, channels, settings, draws)
    return _blurred(strengthened, settings, draws) + _noise(strengthened, settings, draws, generator)


def vary_colour(missing: torch.Tensor, settings: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Colours varied as :func:`vary_stain` varies stains, for images whose own stains are not known.

    Each pixel's optical density is split into the two stains of ``MEDIAN_STAIN``, as far as they are >= 0,
    and a rest; the rest stays, so that nothing changes where the stains do not.

    Args:
        missing: The light that is missing, ``1 - intensity / 255``, ``(n, 3, h, w)``.
        settings: Amounts; ``noise`` is in units of ``MEDIAN_STAIN``'s percentiles.
        generator: Source of all randomness, on the CPU.

    Returns:
        ``(n, 3, h, w)``, in 0 to 1.
    """
    draws = _draw(len(missing), generator, missing.device)
    mix = torch.tensor(MEDIAN_STAIN.stain_matrix) * torch.tensor(MEDIAN_STAIN.p99)
    density = -torch.log1p(-missing.clamp(max=1 - DARKEST))
    stains = _mixed(torch.linalg.pinv(mix), density).clamp(min=0)
    change = _strengthened(stains, 2, settings, draws) - stains
    density = _blurred(density + _mixed(mix, change), settings, draws)
    density = density + _mixed(mix, _noise(stains, settings, draws, generator))
    return -torch.expm1(-density.clamp(min=0))


@dataclass(frozen=True)
class _Draws:
    """Uniform random numbers in 0 to 1 for each crop, ``(n, 2, 1, 1)`` or ``(n, 1, 1, 1)``."""

    gain: torch.Tensor
    leak: torch.Tensor
    blur: torch.Tensor
    noise: torch.Tensor


def _draw(count: int, generator: torch.Generator, device: torch.device) -> _Draws:
    uniform = torch.rand(count, 6, 1, 1, generator=generator).to(device)
    return _Draws(gain=uniform[:, :2], leak=uniform[:, 2:4], blur=uniform[:, 4:5], noise=uniform[:, 5:])


def _strengthened(stains: torch.Tensor, channels: int, settings: Augmentation, draws: _Draws) -> torch.Tensor:
    gain = settings.gain ** (2 * draws.gain - 1)
    leak = settings.leak * (2 * draws.leak - 1)
    mixed = stains[:, :channels] * gain[:, :channels] + leak[:, :channels] * stains.flip(1)[:, :channels]
    return mixed.clamp(min=0)


def _blurred(images: torch.Tensor, settings: Augmentation, draws: _Draws) -> torch.Tensor:
    """Gaussian, one axis after the other, mirrored about the pixels at the border."""
    radius = math.ceil(BLUR_REACH * settings.blur_px)
    sigma = (settings.blur_px * draws.blur).clamp(min=0.05)  # the least leaves everything as it is
    # A sum of shifted images takes less than half the time of a grouped convolution, which kornia's
    # gaussian_blur2d is too (0.24 and 0.96 ms for three crops of 192 pixels on one core).
    taps = [torch.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    total = torch.stack(taps).sum(dim=0)
    images = functional.pad(images, (radius,) * 4, mode="reflect")
    for axis in (-2, -1):
        length = images.shape[axis] - 2 * radius
        blurred = torch.zeros_like(images.narrow(axis, 0, length))
        for start, tap in enumerate(taps):
            blurred.addcmul_(images.narrow(axis, start, length), tap / total)
        images = blurred
    return images


def _noise(
    like: torch.Tensor, settings: Augmentation, draws: _Draws, generator: torch.Generator
) -> torch.Tensor:
    grain = torch.randn(like.shape, generator=generator).to(like.device)
    return settings.noise * draws.noise * grain


def _mixed(matrix: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    return torch.einsum("kc,nchw->nkhw", matrix.to(channels), channels)
