"""A training run as a file."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import yaml

from karyon.errors import KaryonError
from karyon.io.schemas import did_you_mean
from karyon.io.splits import TRAIN, VALIDATION
from karyon.models.registry import ARCHITECTURES
from karyon.stain.channels import INPUT_CHANNELS
from karyon.tiles.grid import Grid
from karyon.training.augmentation import Augmentation
from karyon.training.losses import LOSSES
from karyon.training.settings import Range, read_settings
from karyon.training.targets import PEAK, TARGETS

DATA_VARIABLE, DATA_DEFAULT = "KARYON_DATA", "../shared/data"
# What a network gives whose loss is not on logits of each map for itself.
OUTPUTS = {"weighted_mse": "value", "patch_weighted": "softmax", "joint": "softmax"}
# Of an image to try an experiment's functions on: as small as can go through VGG16.
SIDE = 8
# Arguments of networks and targets that follow from the rest of an experiment.
DERIVED = ("in_channels", "out_channels", "classes", "class_of")

Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1)]


@dataclass(frozen=True)
class Dataset:
    """Images of one sheet.

    Attributes:
        sheet: Dataset sheet; ``$KARYON_DATA`` is expanded.
        train_splits: Values of the sheet's column ``split`` to train on.
        validation_splits: Values that choose the decoding and the best step.
        weight: Share of the crops, relative to the other datasets' weights (MICRONET's gamma, as sampling).
        stain_cache: Folder that keeps the images' stain fits for further runs; '' for none.
        fingerprint: Of the images' files: a run does not go on from a checkpoint of other files.
    """

    sheet: str
    train_splits: tuple[str, ...]
    validation_splits: tuple[str, ...] = ()
    weight: Positive = 1.0
    stain_cache: str = ""
    fingerprint: str = ""

    def sheet_path(self) -> Path:
        """The sheet's path, with the data folder filled in."""
        return expand_data(self.sheet)


def expand_data(sheet: str) -> Path:
    """A path with ``$KARYON_DATA``, the folder of annotated images, filled in."""
    return Path(sheet.replace(f"${DATA_VARIABLE}", os.environ.get(DATA_VARIABLE, DATA_DEFAULT)))


@dataclass(frozen=True)
class Optimiser:
    """How gradients change weights.

    Attributes:
        name: ``sgd`` is with Nesterov's momentum.
        learning_rate: The schedule's highest.
        weight_decay: Decoupled for ``adamw``, else added to the gradient.
        momentum: Of ``sgd`` alone.
    """

    name: Literal["adamw", "adam", "sgd"]
    learning_rate: Positive
    weight_decay: Annotated[float, Range(0)] = 0.0
    momentum: Share = 0.9


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes.

    Attributes:
        name: ``step`` multiplies by ``factor`` after ``every`` steps; ``plateau`` after ``patience``
            validations without a better F1, until the rate is below ``until``, which ends the training.
        factor: Of ``step`` and ``plateau``.
        every: Of ``step``, in steps.
        patience: Of ``plateau``, in validations.
        until: Of ``plateau``.
    """

    name: Literal["onecycle", "cosine", "step", "plateau", "constant"]
    factor: Share = 0.1
    every: Count = 1000
    patience: Count = 5
    until: Annotated[float, Range(0)] = 0.0


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
        model: Name or folder of a model.
        freeze: How many blocks, counted from the input, keep their weights.
    """

    model: str
    freeze: Annotated[int, Range(0)] = 0


@dataclass(frozen=True)
class Experiment:
    """What to train, on what, and how; the keys of a file in ``config/experiments/``.

    Attributes:
        name: Name of the model.
        datasets: What to train and to validate on.
        mpp: Microns per model pixel.
        input: What feeds the network; ``karyon.stain.inputs`` describes each.
        architecture: A key of ``ARCHITECTURES``.
        arguments: The architecture's, without ``in_channels`` and ``out_channels``, which follow from
            ``input`` and ``target``.
        target: A key of ``TARGETS``.
        target_arguments: The target's.
        classes: Classes of nuclei that are told apart, as the annotations name them, for a target with
            classes; a nucleus of another class or of none counts as one of them, it is not known which.
        loss: A key of ``LOSSES``.
        loss_arguments: The loss'.
        decoding: Which way of reading nuclei from the maps is tuned on the validation images: of centres
            ``components`` or ``peaks``, of outlines ``dilation`` or ``watershed``.
        steps: Optimiser steps.
        batch: Crops per step.
        crop_px: Side of a crop in model pixels.
        optimiser: How gradients change weights.
        schedule: How the learning rate changes.
        clip: Largest norm of the gradient.
        ema: Decay of the moving average of the weights, which is what is shipped; 0 for none.
        validate_every: Steps between validations, and between checkpoints.
        patience: Validations without a better F1 after which training stops; 0 for never.
        snapshot_every: Steps between the models that are kept of the way, in ``<run>/snapshots/<step>/``; a
            multiple of ``validate_every``, 0 for none.
        seed: Of everything.
        precision: ``bfloat16`` computes convolutions in it, on GPUs and CPUs made for it.
        start: A model to fine-tune; ``None`` starts afresh.
        encoder_weights: File of ImageNet weights for the encoder.
        augmentation: How crops vary.
        decoding_of: A model whose card says how nuclei are read, to train on all annotated images: then no
            dataset has ``validation_splits``.
        licence: Goes into the card.
    """

    name: str
    datasets: tuple[Dataset, ...]
    mpp: Positive
    input: Literal["H-C", "HE-C", "CN-H&E", "RGB"]
    architecture: str
    target: str
    loss: str
    decoding: Literal["components", "peaks", "dilation", "watershed"]
    steps: Count
    batch: Count
    crop_px: Count
    optimiser: Optimiser
    schedule: Schedule
    validate_every: Count
    licence: str
    arguments: dict[str, int] = field(default_factory=dict)
    target_arguments: dict[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    loss_arguments: dict[str, float | str] = field(default_factory=dict)
    clip: Positive = 5.0
    ema: Share = 0.999
    patience: Annotated[int, Range(0)] = 0
    snapshot_every: Annotated[int, Range(0)] = 0
    seed: Annotated[int, Range(0)] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    start: Start | None = None
    encoder_weights: str | None = None
    decoding_of: str | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def output(self) -> str:
        """What the network's maps are: a model card's ``output``."""
        return OUTPUTS.get(self.loss, "probability")

    @property
    def maps(self) -> tuple[str, ...]:
        """What each of the network's maps shows: a model card's ``maps``."""
        return TARGETS[self.target].names(self.classes)

    @property
    def finds_outlines(self) -> bool:
        """Whether nuclei are found with their outlines, or their centres alone."""
        return self.maps != ("centre",)

    @property
    def peak(self) -> float:
        """What the network is trained to give at a nucleus' centre: the map is its output over this."""
        return float(self.target_arguments.get("peak", PEAK)) if self.target == "proximity_map" else 1.0

    @property
    def network_arguments(self) -> dict[str, int]:
        """The architecture's arguments with the numbers of input channels and of maps."""
        channels = {"in_channels": INPUT_CHANNELS[self.input], "out_channels": len(self.maps)}
        return {**channels, **self.arguments}


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        KaryonError: Not YAML, or with mistakes; the message lists all of them, one a line.
    """
    return as_experiment(read_yaml(path), str(path))


def on_split(experiment: Experiment, sheet: Path) -> Experiment:
    """The experiment on one division of a protocol, in place of its own datasets.

    Args:
        experiment: Any.
        sheet: From ``karyon split``; its name without the extension is added to the experiment's.
    """
    validation = () if experiment.decoding_of else (VALIDATION,)
    dataset = Dataset(str(sheet), train_splits=(TRAIN,), validation_splits=validation)
    return replace(experiment, name=f"{experiment.name}_{sheet.stem}", datasets=(dataset,))


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        KaryonError: It cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise KaryonError(f"{path}: cannot be read ({error})") from error


def as_experiment(content: object, source: str) -> Experiment:
    """An experiment from YAML's mappings, lists and plain values.

    Args:
        content: What YAML gave.
        source: What messages call it, such as the file's name.

    Raises:
        KaryonError: It has mistakes; the message lists all of them, one a line.
    """
    try:
        experiment = read_settings(Experiment, content)
    except ValueError as error:
        raise KaryonError("\n".join(f"{source}: {line}" for line in str(error).splitlines())) from error
    mistakes = list(_mistakes(experiment))
    if mistakes:
        raise KaryonError("\n".join(f"{source}: {mistake}" for mistake in mistakes))
    return experiment


def _mistakes(experiment: Experiment) -> Iterator[str]:
    """What the types do not say."""
    draws = {name: target.draw for name, target in TARGETS.items()}
    for key, known in (("architecture", ARCHITECTURES), ("target", draws), ("loss", LOSSES)):
        yield from _argument_mistakes(experiment, key, known)
    target = TARGETS.get(experiment.target)
    if target and experiment.decoding not in target.decodings:
        yield (
            f"decoding is {experiment.decoding}, which does not read maps of the target {experiment.target}; "
            f"expected {' or '.join(target.decodings)}."
        )
    if target and experiment.classes and not target.by_class:
        yield f"classes: the target {experiment.target} does not tell classes apart; leave them out."
    if len(set(experiment.classes)) < len(experiment.classes):
        yield f"classes are {', '.join(experiment.classes)}; expected each once."
    if not any(dataset.train_splits for dataset in experiment.datasets):
        yield "datasets: none has train_splits; name what to train on."
    yield from _validation_mistakes(experiment)
    for number, dataset in enumerate(experiment.datasets):
        for split in sorted(set(dataset.train_splits) & set(dataset.validation_splits)):
            yield f"datasets[{number}]: '{split}' is in train_splits and in validation_splits; expected one."
    low, high = experiment.augmentation.scale
    if low > high:
        yield f"augmentation.scale is [{low}, {high}]; expected the smaller first."
    if experiment.snapshot_every % experiment.validate_every:
        yield (
            f"snapshot_every is {experiment.snapshot_every}; expected a multiple of validate_every, "
            f"{experiment.validate_every}, where a snapshot's decoding is chosen."
        )
    if experiment.start is not None and experiment.encoder_weights is not None:
        yield "start and encoder_weights: both say what to start from; leave one out."


def _validation_mistakes(experiment: Experiment) -> Iterator[str]:
    """Of what chooses the decoding, and of what needs validation."""
    validated = any(dataset.validation_splits for dataset in experiment.datasets)
    if not validated and experiment.decoding_of is None:
        yield "datasets: none has validation_splits; name what chooses the decoding, or decoding_of a model."
    if experiment.decoding_of is None:
        return
    if validated:
        yield "decoding_of and validation_splits: both choose the decoding; leave one out."
    if experiment.patience or experiment.schedule.name == "plateau":
        yield "decoding_of: patience and the schedule plateau need validation_splits."


def _argument_mistakes(
    experiment: Experiment, key: str, known: Mapping[str, Callable[..., Any]]
) -> Iterator[str]:
    """Of a function named by the experiment, and of the arguments for it."""
    name = getattr(experiment, key)
    if name not in known:
        choices = ", ".join(known)
        yield f"{key} is an unknown name, '{name}'{did_you_mean(name, known)}; expected one of {choices}."
        return
    arguments = "arguments" if key == "architecture" else f"{key}_arguments"
    given = getattr(experiment, arguments)
    takes = [
        argument.name
        for argument in inspect.signature(known[name]).parameters.values()
        if argument.default is not argument.empty and argument.name not in DERIVED
    ]
    unknown = [argument for argument in given if argument not in takes]
    for argument in unknown:
        closest = did_you_mean(argument, takes)
        choices = f"expected one of {', '.join(takes)}" if takes else f"{name} takes none"
        yield f"{arguments}.{argument} is an unknown key{closest}; {choices}."
    if not unknown and experiment.target in TARGETS:  # of the target's maps are network and loss
        try:
            _TRIALS[key](experiment)
        except (KaryonError, ValueError, RuntimeError, TypeError, ArithmeticError) as error:
            yield f"{arguments} is {given}, which {name} does not take: {error}"


def _try_architecture(experiment: Experiment) -> None:
    with torch.device("meta"):
        ARCHITECTURES[experiment.architecture](**experiment.network_arguments)


def _try_target(experiment: Experiment) -> None:
    _draw_nothing(experiment, experiment.target_arguments)


def _try_loss(experiment: Experiment) -> None:
    target = torch.from_numpy(_draw_nothing(experiment, {})).reshape(1, -1, SIDE, SIDE)
    maps = torch.zeros(1, len(experiment.maps), SIDE, SIDE)
    LOSSES[experiment.loss](maps, target, **experiment.loss_arguments)


def _draw_nothing(experiment: Experiment, arguments: Mapping[str, float]) -> np.ndarray:
    """The target of an image without nuclei."""
    target = TARGETS[experiment.target]
    classes = {"classes": len(experiment.classes)} if target.by_class else {}
    return target.draw(np.empty((0, 2)), Grid(SIDE, SIDE, 1.0, 0, 1.0), 1.0, **classes, **arguments)


_TRIALS: dict[str, Callable[[Experiment], None]] = {
    "architecture": _try_architecture,
    "target": _try_target,
    "loss": _try_loss,
}
