"""A training run as a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from karyon.errors import KaryonError
from karyon.training.augmentation import Augmentation

DATA_VARIABLE, DATA_DEFAULT = "KARYON_DATA", "../shared/data"


@dataclass(frozen=True)
class Experiment:
    """What to train, on what, and how; the keys of a file in ``config/experiments/``.

    Attributes:
        name: Name of the model.
        sheet: Dataset sheet; ``$KARYON_DATA`` is expanded.
        train_splits: Values of the sheet's column ``split`` to train on.
        validation_splits: Values that choose the threshold.
        mpp: Microns per model pixel.
        architecture: A key of the registry.
        arguments: The architecture's arguments.
        loss: A key of ``LOSSES``.
        loss_arguments: The loss' arguments.
        steps: Optimiser steps.
        batch: Crops per step.
        crop_px: Side of a crop in model pixels.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: AdamW's.
        clip: Largest norm of the gradient.
        ema: Decay of the moving average of the weights, which is what is shipped.
        validate_every: Steps between validations, and between checkpoints.
        seed: Of everything.
        augmentation: How crops vary.
        licence: Goes into the card.
    """

    name: str
    sheet: str
    train_splits: tuple[str, ...]
    validation_splits: tuple[str, ...]
    mpp: float
    architecture: str
    arguments: dict[str, int]
    loss: str
    loss_arguments: dict[str, float]
    steps: int
    batch: int
    crop_px: int
    learning_rate: float
    weight_decay: float
    clip: float
    ema: float
    validate_every: int
    seed: int
    licence: str
    augmentation: Augmentation = field(default_factory=Augmentation)

    def sheet_path(self) -> Path:
        """The dataset sheet's path, with the data folder filled in."""
        data = os.environ.get(DATA_VARIABLE, DATA_DEFAULT)
        return Path(self.sheet.replace(f"${DATA_VARIABLE}", data))


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        KaryonError: Not YAML, or with missing or unknown keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise KaryonError(f"{path}: cannot be read ({error})") from error
    known = {item.name for item in fields(Experiment)}
    if not isinstance(content, dict) or set(content) - known:
        extra = sorted(set(content) - known) if isinstance(content, dict) else content
        raise KaryonError(f"{path}: unknown keys {extra}; known: {sorted(known)}")
    augmentation = content.get("augmentation", {})
    if "scale" in augmentation:
        augmentation["scale"] = tuple(augmentation["scale"])
    try:
        return Experiment(**{**content, "augmentation": Augmentation(**augmentation)})
    except TypeError as error:
        raise KaryonError(f"{path}: {error}") from error
