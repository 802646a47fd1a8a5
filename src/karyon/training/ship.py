"""From an experiment to a model folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from karyon.evaluation.detection import DetectionScore
from karyon.models.card import ModelCard
from karyon.models.memory import use_huge_pages
from karyon.models.registry import halo_and_stride
from karyon.models.weights import save_model
from karyon.stain.inputs import MEDIAN_STAIN
from karyon.training.data import load_datasets
from karyon.training.decoding_choice import RADIUS_UM, choose_decoding
from karyon.training.experiment import Experiment
from karyon.training.logs import logged_seconds
from karyon.training.loop import train


def train_and_ship(experiment: Experiment, run: Path, output: Path, threads: int, command: str) -> ModelCard:
    """Train, choose the decoding on the validation images, write weights and card.

    Args:
        experiment: What to train.
        run: Folder of checkpoint and log.
        output: The model's folder.
        threads: CPU threads.
        command: What was typed, for the card.

    Raises:
        KaryonError: The data or the run is not usable: see :func:`load_datasets` and :func:`train`.
    """
    use_huge_pages()
    images, validation = load_datasets(experiment)
    trained = train(experiment, images, validation, run, threads)
    decoding, score = choose_decoding(trained, validation, experiment)
    halo, stride = halo_and_stride(trained)
    card = ModelCard(
        name=experiment.name,
        architecture=experiment.architecture,
        arguments=experiment.network_arguments,
        input=experiment.input,
        mpp=experiment.mpp,
        halo_px=halo,
        stride=stride,
        output=experiment.output,
        decoding=decoding,
        peak=experiment.peak,
        target_stain=_target_stain(experiment),
        training={
            "train_images": [image.image_id for image in images],
            "validation_images": [image.image_id for image in validation],
            "experiment": {key: value for key, value in asdict(experiment).items() if key != "licence"},
            "seconds": logged_seconds(run),
            "command": f"{command} --output {output}",
        },
        metrics={"validation": _validation_metrics(experiment, score)},
        licence=experiment.licence,
    )
    return save_model(output, trained, card)


def _target_stain(experiment: Experiment) -> dict[str, list] | None:
    if experiment.input != "CN-H&E":
        return None
    return {
        "stain_matrix": [list(row) for row in MEDIAN_STAIN.stain_matrix],
        "p99": list(MEDIAN_STAIN.p99),
    }


def _validation_metrics(experiment: Experiment, score: DetectionScore) -> dict[str, object]:
    splits = [
        f"{split} of {dataset.sheet}"
        for dataset in experiment.datasets
        for split in dataset.validation_splits
    ]
    return {
        "images": ", ".join(splits),
        "radius_um": RADIUS_UM,
        "precision": round(score.precision, 4),
        "recall": round(score.recall, 4),
        "f1": round(score.f1, 4),
    }
