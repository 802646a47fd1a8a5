"""Networks with their weights: written beside a card, and built from one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from karyon.io.atomic import atomic_path
from karyon.models.card import (
    WEIGHTS,
    ModelCard,
    check_weights,
    file_sha256,
    read_card,
    write_card,
    wrong_weights,
)
from karyon.models.registry import build


def save_model(folder: Path, network: nn.Module, card: ModelCard) -> ModelCard:
    """Write weights and card; returns the card with the weights' sha256."""
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, temporary)
    card = replace(card, sha256=file_sha256(folder / WEIGHTS))
    write_card(folder, card)
    return card


def load_model(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Build the network of a card, with its weights, in evaluation mode.

    Of a ``value`` card the output is already divided by ``peak``; the weights are those that were trained.

    Raises:
        KaryonError: The weights are missing, are no safetensors file, are not those of the card, or
            do not fit the architecture.
    """
    card = read_card(folder)
    path = check_weights(folder, card)
    try:
        network = build(card.architecture, **card.arguments)
        network.load_state_dict(load_file(path))
    except (RuntimeError, TypeError) as error:
        raise wrong_weights(path, card, error) from error
    if card.peak != 1:
        network.register_forward_hook(lambda module, inputs, output: output / card.peak)
    return network.eval(), card
