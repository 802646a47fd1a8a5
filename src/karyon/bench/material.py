"""What the benches run on: a synthetic slide, and a model that costs next to nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from karyon.demo.look import draw_look
from karyon.demo.slide import render_slide
from karyon.models.card import Decoding, ModelCard
from karyon.models.registry import build, halo_and_stride
from karyon.models.weights import save_model

SLIDE_MPP = 0.25
MODEL_MPP = 0.5
# The trivial model calls a pixel a nucleus where the smoothed concentration, in units of the slide's 99th
# percentile, is above this.
NUCLEUS_CONCENTRATION = 0.5
STEEPNESS = 12.0
TRIVIAL = {"in_channels": 1, "out_channels": 1, "width": 1, "depth": 1}


def synthetic_slide(cache: Path, side: int) -> Path:
    """A square synthetic slide at 0.25 microns per pixel; rendered once (some 4 minutes a gigapixel).

    Args:
        cache: Where it is kept.
        side: In level-0 pixels.
    """
    path = cache / "slides" / f"synthetic-{side}.svs"
    if not path.exists():
        print(f"rendering {path}", file=sys.stderr)
        look = draw_look(0, 0, side * SLIDE_MPP, side * SLIDE_MPP)
        render_slide(path, look, SLIDE_MPP, side, side)
    return path


def trivial_model(cache: Path) -> Path:
    """The folder of a model that thresholds the hematoxylin concentration after two 3 x 3 means.

    It is the registry's U-Net cut down to one level of one filter, with hand-made weights, so that it
    runs through the same code as any other.
    """
    network = build("unet", **TRIVIAL).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 4:
                weight.fill_(STEEPNESS if name.startswith("head") else 1 / 9)
        network.head.bias.fill_(-STEEPNESS * NUCLEUS_CONCENTRATION)  # type: ignore[union-attr, operator]
    halo, stride = halo_and_stride(network)
    card = ModelCard(
        name="trivial",
        architecture="unet",
        arguments=TRIVIAL,
        input="H-C",
        mpp=MODEL_MPP,
        halo_px=halo,
        stride=stride,
        output="probability",
        decoding=Decoding("components", 0.5),
    )
    save_model(cache / "trivial", network, card)
    return cache / "trivial"
