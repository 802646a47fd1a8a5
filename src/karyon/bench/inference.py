"""Every network on one tile, as stage `infer` runs it and in bfloat16, against the network as built.

TorchScript, as an exported form to compare with, is left out: torch has deprecated it, and cannot trace the
unpooling of ``segnet``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from karyon.bench.chain import THREADS
from karyon.bench.measurement import Measurement, fastest
from karyon.models.folding import fold_batch_norm
from karyon.models.memory import use_huge_pages
from karyon.models.registry import ARCHITECTURES, build, channels_last

# Narrow, for some networks take a minute a tile at the width of their paper.
WIDTH = 8
# ResNet-152's blocks are ResNet-50's, only more of them.
NARROW = {name: {"width": WIDTH} | ({"depth": 50} if name == "gcn" else {}) for name in ARCHITECTURES}
PEER = "the network as built"


def measure_inference(cache: Path, side: int) -> Iterator[Measurement]:
    """Megapixels a second of each architecture on CPUs, with random weights and one tile at a time.

    Args:
        cache: Not used: nothing is written.
        side: Of the tile in pixels, halo included.
    """
    use_huge_pages()
    torch.set_num_threads(THREADS)
    tile = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    for architecture, arguments in NARROW.items():
        network = build(architecture, **arguments).eval()
        words = ", ".join(f"{name} {value}" for name, value in {"threads": THREADS, **arguments}.items())
        with torch.inference_mode():
            speed = {way: side**2 / fastest(run) / 1e6 for way, run in ways_to_run(network, tile).items()}
        peer = speed.pop(PEER)
        for way, value in speed.items():
            yield Measurement(
                name=f"inference.{architecture}.{way}",
                value=value,
                unit=f"Mpx/s, {words}",
                peer=PEER,
                peer_value=peer,
                ratio=value / peer,
            )


def ways_to_run(network: nn.Module, tile: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """Functions that run a network on a tile; to be called in ``torch.inference_mode``.

    Args:
        network: In evaluation mode; it is not changed.
        tile: float32, ``(1, channels, h, w)``, contiguous.

    Returns:
        Each gives logits ``(1, out_channels, h, w)``. ``PEER``: the network as it is. ``float32``: with
        folded batch norm and channels last, as stage `infer` runs it. ``bfloat16``: the same with
        convolutions in bfloat16.
    """
    folded = channels_last(fold_batch_norm(network))
    prepared = tile.contiguous(memory_format=torch.channels_last)

    def in_bfloat16() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result: torch.Tensor = folded(prepared)
        return result

    return {
        PEER: lambda: network(tile),
        "float32": lambda: folded(prepared),
        "bfloat16": in_bfloat16,
    }
