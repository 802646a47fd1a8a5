"""How far a network sees, worked out from its layers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
SPREADS = (nn.ConvTranspose2d, nn.MaxUnpool2d)


def measure_reach(path: Iterable[nn.Module], stride: int) -> int:
    """Pixels on each side of an output pixel that the output can depend on.

    An interval of output rows is followed back to the input, layer by layer, for each place of the output row
    within the stride. Kernels are taken to be the same in rows and columns.

    Args:
        path: The layers that see farthest, from input to output; modules that hold others are opened in the
            order of registration. Layers that act on single pixels do not matter.
        stride: The network's stride in pixels.
    """
    layers = [layer for module in path for layer in module.modules()]
    farthest = 0
    for row in range(stride):
        first = last = row
        for layer in reversed(layers):
            first, last = _seen(layer, first, last)
        farthest = max(farthest, row - first, last - row)
    return farthest


def _seen(layer: nn.Module, first: int, last: int) -> tuple[int, int]:
    """The input rows that the output rows ``first`` to ``last`` of a layer depend on."""
    if isinstance(layer, nn.Upsample):
        factor = int(layer.scale_factor)  # type: ignore[arg-type]
        if layer.mode == "nearest":
            return first // factor, last // factor
        # Bilinear: pixel centres at (row + 0.5) / factor - 0.5, between two input rows.
        return (2 * first + 1 - factor) // (2 * factor), (2 * last + 1 - factor) // (2 * factor) + 1
    if not isinstance(layer, WINDOWS + SPREADS):
        return first, last
    kernel, step, padding = (_rows(size) for size in (layer.kernel_size, layer.stride, layer.padding))
    if isinstance(layer, WINDOWS):
        return first * step - padding, last * step - padding + kernel - 1
    return -((kernel - 1 - first - padding) // step), (last + padding) // step


def _rows(size: object) -> int:
    return int(size[0]) if isinstance(size, tuple) else int(size)  # type: ignore[call-overload]
