"""Run a network over a slide's tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from karyon.models.card import ModelCard
from karyon.models.registry import channels_last
from karyon.stain.fit import StainFit
from karyon.stain.inputs import NormalisedColour, StainChannel


def input_layer(card: ModelCard, fit: StainFit, channel: str) -> nn.Module:
    """What turns RGB into the network's input, for one slide.

    Args:
        card: The model's card.
        fit: The slide's stains.
        channel: Which stain feeds an ``H-C`` network.

    Raises:
        ValueError: The slide does not carry that stain.
    """
    if card.input == "H-C":
        return StainChannel(fit, channel)
    target = card.target_stain or {}
    return NormalisedColour(fit, np.asarray(target["stain_matrix"]), np.asarray(target["p99"]))


class Predictor:
    """A network on its device, with the batch size that fits.

    Args:
        network: In evaluation mode; gives logits ``(n, 1, h, w)``.
        output: ``probability`` (sigmoid) or ``value`` (clipped to 0 to 1).
        device: Where it runs.
        batch_size: Tiles at once; halved for good when the device runs out of memory.
    """

    def __init__(self, network: nn.Module, output: str, device: torch.device, batch_size: int) -> None:
        self.network = channels_last(network.to(device)).eval()
        self.output = output
        self.device = device
        self.batch_size = batch_size

    def predict(self, tiles: Iterator[np.ndarray | None], inputs: nn.Module) -> Iterator[np.ndarray | None]:
        """Maps of tiles, in order.

        Args:
            tiles: RGB, uint8, ``(h, w, 3)``, all of one size; ``None`` for a missing one.
            inputs: The slide's input layer.

        Yields:
            uint8, ``(h, w)``: 255 times the output; ``None`` for a missing tile.
        """
        inputs = inputs.to(self.device)
        for batch in _batches(tiles, lambda: self.batch_size):
            present = [tile for tile in batch if tile is not None]
            maps = iter(self._predict_batch(np.stack(present), inputs) if present else ())
            yield from (None if tile is None else next(maps) for tile in batch)

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
        on_gpu = self.device.type == "cuda"
        batch = torch.from_numpy(rgb)
        if on_gpu:
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        prepared = inputs(batch).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on_gpu):
            result = self.network(prepared)[:, 0].float()
        scaled = torch.sigmoid(result) if self.output == "probability" else result.clamp(0, 1)
        return (scaled * 255).round().to(torch.uint8).cpu().numpy()


def _batches(
    tiles: Iterator[np.ndarray | None], size: Callable[[], int]
) -> Iterator[list[np.ndarray | None]]:
    """Lists of up to ``size()`` tiles, asked anew each time."""
    batch: list[np.ndarray | None] = []
    for tile in tiles:
        batch.append(tile)
        if len(batch) >= size():
            yield batch
            batch = []
    if batch:
        yield batch
