"""From an experiment to a model folder."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from karyon.models.card import Decoding, ModelCard
from karyon.models.memory import use_huge_pages
from karyon.models.registry import halo_and_stride
from karyon.models.weights import save_model
from karyon.stain.inputs import MEDIAN_STAIN
from karyon.training.curves import draw_curves
from karyon.training.data import load_datasets
from karyon.training.decoding_choice import RADIUS_UM, Score, choose_decoding
from karyon.training.experiment import Experiment
from karyon.training.logs import logged_seconds
from karyon.training.loop import train
from karyon.training.outline_choice import OutlineScore
from karyon.training.processes import launch

SNAPSHOTS = "snapshots"


def train_and_ship(
    experiment: Experiment, run: Path, output: Path, threads: int, command: str, devices: int = 1
) -> ModelCard | None:
    """Train, choose the decoding on the validation images, write weights and card.

    Args:
        experiment: What to train.
        run: Folder of checkpoint, log and snapshots.
        output: The model's folder.
        threads: CPU threads of each process.
        command: What was typed, for the card.
        devices: How many share each batch, with a process for each.

    Returns:
        The model's card; in all processes but the first, which writes the model, ``None``.

    Raises:
        KaryonError: The devices, the data or the run are not usable: see :func:`launch`,
            :func:`load_datasets` and :func:`train`.
    """
    use_huge_pages()
    fabric = launch(experiment, devices)
    images, validation = load_datasets(experiment)
    origin = {
        "train_images": [image.image_id for image in images],
        "validation_images": [image.image_id for image in validation],
        "experiment": {key: value for key, value in asdict(experiment).items() if key != "licence"},
        "command": f"{command} --output {output}",
        **_left_out(experiment),
    }

    def ship(folder: Path, name: str, network: nn.Module, decoding: Decoding, score: Score) -> ModelCard:
        card = _card(experiment, name, network, decoding, score)
        return save_model(folder, network, replace(card, training=origin | {"seconds": logged_seconds(run)}))

    def snapshot(step: int, network: nn.Module, decoding: Decoding, score: Score) -> None:
        ship(run / SNAPSHOTS / str(step), f"{experiment.name}_{step}", network, decoding, score)

    trained = train(experiment, images, validation, run, threads, fabric, snapshot)
    if not fabric.is_global_zero:
        return None
    draw_curves(run, output)
    return ship(output, experiment.name, trained, *choose_decoding(trained, validation, experiment))


def _left_out(experiment: Experiment) -> dict[str, str]:
    """What of the loss' recipe is missing, for the card: without weights of VGG16 a term of JOINT's is."""
    if experiment.loss != "joint" or experiment.loss_arguments.get("vgg16_weights"):
        return {}
    return {"left_out": "the perceptual term of the loss: the experiment names no vgg16_weights"}


def _card(
    experiment: Experiment,
    name: str,
    network: nn.Module,
    decoding: Decoding,
    score: Score,
) -> ModelCard:
    """The card of a network, but for how it came to be."""
    halo, stride = halo_and_stride(network)
    return ModelCard(
        name=name,
        architecture=experiment.architecture,
        arguments=experiment.network_arguments,
        input=experiment.input,
        mpp=experiment.mpp,
        halo_px=halo,
        stride=stride,
        output=experiment.output,
        decoding=decoding,
        peak=experiment.peak,
        maps=experiment.maps,
        target_stain=_target_stain(experiment),
        metrics={} if experiment.decoding_of else {"validation": _validation_metrics(experiment, score)},
        licence=experiment.licence,
    )


def _target_stain(experiment: Experiment) -> dict[str, list] | None:
    if experiment.input != "CN-H&E":
        return None
    return {
        "stain_matrix": [list(row) for row in MEDIAN_STAIN.stain_matrix],
        "p99": list(MEDIAN_STAIN.p99),
    }


def _validation_metrics(experiment: Experiment, score: Score) -> dict[str, object]:
    splits = [
        f"{split} of {dataset.sheet}"
        for dataset in experiment.datasets
        for split in dataset.validation_splits
    ]
    if isinstance(score, OutlineScore):
        return {
            "images": ", ".join(splits),
            "instance_f1": round(score.f1, 4),
            "aji": round(score.aji, 4),
            "panoptic_quality": round(score.panoptic_quality, 4),
        }
    return {
        "images": ", ".join(splits),
        "radius_um": RADIUS_UM,
        "precision": round(score.precision, 4),
        "recall": round(score.recall, 4),
        "f1": round(score.f1, 4),
    }
