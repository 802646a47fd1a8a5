"""Run a network over a slide's tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

from karyon.inference.ordered import map_in_order
from karyon.models.card import ModelCard
from karyon.models.registry import channels_last
from karyon.stain.fit import StainFit
from karyon.stain.inputs import MEDIAN_STAIN, SlideInput, TargetStain


def input_layer(card: ModelCard, fit: StainFit, channel: str) -> nn.Module:
    """What turns RGB into the network's input, for one slide.

    Args:
        card: The model's card.
        fit: The slide's stains.
        channel: Which stain marks nuclei: what feeds an ``H-C`` network, and comes first in ``HE-C``.

    Raises:
        ValueError: The slide does not carry that stain.
    """
    target = TargetStain(**card.target_stain) if card.target_stain else MEDIAN_STAIN
    return SlideInput(card.input, fit, channel, target)


class Predictor:
    """A network on its device, in batches for a GPU or in threads for CPUs.

    On CPUs each thread runs the network on a tile of its own: threads that share a tile would wait for each
    other at every layer, and for whatever else the machine does. So a map does not depend on their number.

    Args:
        network: In evaluation mode; gives logits ``(n, c, h, w)``.
        output: ``probability`` (sigmoid), ``softmax`` (over the maps) or ``value`` (clipped to 0 to 1).
        device: Where it runs.
        batch_size: Tiles at once; halved for good when the device's memory runs out.
        threads: Threads that take single tiles; 0 takes batches, in the caller's thread.
        bfloat16: Compute convolutions in bfloat16.
    """

    def __init__(
        self,
        network: nn.Module,
        output: str,
        device: torch.device,
        batch_size: int,
        threads: int = 0,
        bfloat16: bool = False,
    ) -> None:
        self.network = channels_last(network.to(device)).eval()
        self.output = output
        self.device = device
        self.batch_size = batch_size
        self.threads = threads
        self.bfloat16 = bfloat16

    def predict(self, tiles: Iterator[np.ndarray], inputs: nn.Module) -> Iterator[np.ndarray]:
        """Maps of tiles, in order.

        Args:
            tiles: RGB, uint8, ``(h, w, 3)``, all of one size.
            inputs: The slide's input layer.

        Yields:
            uint8, ``(h, w)``, of several maps ``(c, h, w)``: 255 times the output.
        """
        inputs = inputs.to(self.device)
        if self.threads:
            yield from map_in_order(
                lambda tile: self._forward(tile[None], inputs)[0],
                tiles,
                self.threads,
                ahead=self.threads,
                prepare=partial(torch.set_num_threads, 1),
            )
            return
        for batch in _batches(tiles, lambda: self.batch_size):
            yield from self._predict_batch(np.stack(batch), inputs)

    def _predict_batch(self, rgb: np.ndarray, inputs: nn.Module) -> np.ndarray:
        try:
            return self._forward(rgb, inputs)
        except torch.OutOfMemoryError:
            if len(rgb) == 1:
                raise
            torch.cuda.empty_cache()
            self.batch_size = len(rgb) // 2
        parts = [rgb[start : start + self.batch_size] for start in range(0, len(rgb), self.batch_size)]
        return np.concatenate([self._predict_batch(part, inputs) for part in parts])

    @torch.inference_mode()
    def _forward(self, rgb: np.ndarray, inputs: nn.Module) -> np.ndarray:
        batch = torch.from_numpy(rgb)
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        prepared = inputs(batch).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            result = self.network(prepared)
        result = (result[:, 0] if result.shape[1] == 1 else result).float()
        return (self._scale(result) * 255).round().to(torch.uint8).cpu().numpy()

    def _scale(self, result: torch.Tensor) -> torch.Tensor:
        """What the network gives, from 0 to 1."""
        if self.output == "softmax":
            return torch.softmax(result, dim=1)
        return torch.sigmoid(result) if self.output == "probability" else result.clamp(0, 1)


def _batches(tiles: Iterator[np.ndarray], size: Callable[[], int]) -> Iterator[list[np.ndarray]]:
    """Lists of up to ``size()`` tiles, asked anew each time."""
    batch: list[np.ndarray] = []
    for tile in tiles:
        batch.append(tile)
        if len(batch) >= size():
            yield batch
            batch = []
    if batch:
        yield batch
