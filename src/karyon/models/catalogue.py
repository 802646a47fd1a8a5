"""A model in a line of a table."""

from __future__ import annotations

from pathlib import Path

import torch

from karyon.errors import KaryonError
from karyon.models.card import WEIGHTS, ModelCard, read_card
from karyon.models.registry import build

COLUMNS = ("name", "architecture", "input", "mpp", "parameters", "validation F1", "MB")


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
        _validation_f1(card),
        f"{weights.stat().st_size / 1e6:.1f}",
    )


def _validation_f1(card: ModelCard) -> str:
    """As the card states it; cards may come without."""
    validation = card.metrics.get("validation")
    f1 = validation.get("f1") if isinstance(validation, dict) else None
    return f"{f1:.4f}" if isinstance(f1, float) else "unknown"
