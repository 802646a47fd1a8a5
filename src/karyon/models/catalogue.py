"""A model in a line of a table."""

from __future__ import annotations

from pathlib import Path

import torch

from karyon.errors import KaryonError
from karyon.models.card import WEIGHTS, ModelCard, read_card
from karyon.models.registry import build

COLUMNS = ("name", "architecture", "input", "mpp", "parameters", "F1", "measured on", "MB")


def describe_model(folder: Path) -> tuple[str, ...]:
    """The cells of ``COLUMNS`` for a model.

    Args:
        folder: The model's.

    Raises:
        KaryonError: The card cannot be read or does not fit its architecture, or the weights are missing.
    """
    card = read_card(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise KaryonError(f"{weights}: the card is there but the weights are not")
    try:
        with torch.device("meta"):
            network = build(card.architecture, **card.arguments)
    except TypeError as error:
        raise KaryonError(
            f"{folder}: {card.architecture} does not take {card.arguments} ({error})"
        ) from error
    parameters = sum(value.numel() for value in network.parameters())
    return (
        folder.name,
        card.architecture,
        card.input,
        f"{card.mpp:g}",
        f"{parameters:,}",
        *_f1(card),
        f"{weights.stat().st_size / 1e6:.1f}",
    )


def _f1(card: ModelCard) -> tuple[str, str]:
    """F1 at the card's first radius and what it was measured on: test images, else those of validation.

    Cards may come without, and those of others say it in another way.
    """
    test, validation = card.metrics.get("test"), card.metrics.get("validation")
    if isinstance(test, dict) and test.get("radius_um"):
        value, low, high = next(iter(test["radius_um"].values()))["f1"]
        return f"{value:.3f} ({low:.3f}-{high:.3f})", str(test["images"])
    if isinstance(validation, dict) and isinstance(validation.get("f1"), float):
        return f"{validation['f1']:.3f}", "validation images"
    return "unknown", ""
