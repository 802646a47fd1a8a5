"""The weights that training starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from karyon.errors import KaryonError
from karyon.models.card import model_folder
from karyon.models.encoder_weights import load_encoder
from karyon.models.registry import blocks, build
from karyon.models.weights import load_model
from karyon.training.experiment import Experiment, Start


@dataclass(frozen=True)
class StartingPoint:
    """A network before its first step.

    Attributes:
        network: With its first weights.
        frozen: The blocks that keep them.
        words: Where the weights come from, for the user.
    """

    network: nn.Module
    frozen: list[nn.Module]
    words: str

    def train(self) -> None:
        """Training mode, but for frozen blocks: their batch norm keeps its statistics, nothing drops out."""
        self.network.train()
        for block in self.frozen:
            block.eval()


def starting_point(experiment: Experiment) -> StartingPoint:
    """Build the network with random weights, with those of a model, or with an encoder from a file.

    Raises:
        KaryonError: The model or the file is not there, or is of another network; or all blocks are frozen.
    """
    network = build(experiment.architecture, **experiment.network_arguments)
    if experiment.start is not None:
        frozen = _continue(network, experiment, experiment.start)
        words = f"weights of {experiment.start.model}, the first {len(frozen)} blocks frozen"
        return StartingPoint(network, frozen, words)
    if experiment.encoder_weights is not None:
        load_encoder(network, Path(experiment.encoder_weights))
        return StartingPoint(
            network, [], f"encoder of {experiment.encoder_weights}, random weights elsewhere"
        )
    return StartingPoint(network, [], "random weights")


def _continue(network: nn.Module, experiment: Experiment, start: Start) -> list[nn.Module]:
    """Take over a model's weights, and freeze the first blocks; returns these."""
    trained, card = load_model(model_folder(start.model))
    for key, found, wanted in (
        ("architecture", card.architecture, experiment.architecture),
        ("input", card.input, experiment.input),
    ):
        if found != wanted:
            raise KaryonError(f"start: {key} of {start.model} is {found}, the experiment's is {wanted}")
    # Pixels that were folded by 2 are not in the order of those that are by 4.
    repeated = len(card.maps) == 1 and getattr(trained, "fold", 1) in (1, getattr(network, "fold", 1))
    try:
        network.load_state_dict(_with_maps(trained.state_dict(), network.state_dict(), repeated))
    except RuntimeError as error:
        raise KaryonError(
            f"start: {start.model} was built with {card.arguments}, the experiment's network with "
            f"{experiment.network_arguments}; take the same"
        ) from error
    pieces = blocks(network)
    if start.freeze >= len(pieces):
        raise KaryonError(
            f"start: freeze is {start.freeze}, but {experiment.architecture} has {len(pieces)} blocks; "
            "at least one must be left to train"
        )
    for block in pieces[: start.freeze]:
        block.requires_grad_(False)
    return pieces[: start.freeze]


def _with_maps(
    weights: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], repeated: bool
) -> dict[str, torch.Tensor]:
    """The weights of a network with one map for one with several, or for one that folds pixels.

    Each map starts as that one, and each pixel that is folded with others as their mean did: a folding
    network starts as the other one at its coarser resolution. Where both fold, the pixels of a map come one
    after another, and then those of the next map.

    Args:
        weights: Of the one.
        wanted: Of the other, for their shapes.
        repeated: Whether the one has one map, and its pixels are in the other's order.
    """
    fitted = {}
    for name, value in weights.items():
        shape = wanted[name].shape if name in wanted else value.shape
        if repeated and value.ndim and value.shape[1:] == shape[1:] and shape[0] % value.shape[0] == 0:
            value = value.repeat(shape[0] // value.shape[0], *[1] * (value.ndim - 1))
        elif value.ndim == 4 and shape[0] == value.shape[0] and shape[1] % value.shape[1] == 0:
            pixels = shape[1] // value.shape[1]
            value = value.repeat_interleave(pixels, dim=1) / pixels
        fitted[name] = value
    return fitted
