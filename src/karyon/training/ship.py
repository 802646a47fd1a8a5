"""From an experiment to a model folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from karyon.errors import KaryonError
from karyon.io.sheets import read_sheet
from karyon.models.card import Decoding, ModelCard, save_model
from karyon.models.registry import build, halo_and_stride
from karyon.training.data import TrainingImage, load_image
from karyon.training.experiment import Experiment
from karyon.training.loop import RADIUS_UM, choose_decoding, logged_seconds, train


def train_and_ship(experiment: Experiment, run: Path, output: Path, threads: int, command: str) -> ModelCard:
    """Train, choose the decoding on the validation images, write weights and card.

    Args:
        experiment: What to train.
        run: Folder of checkpoint and log.
        output: The model's folder.
        threads: CPU threads.
        command: What was typed, for the card.
    """
    sheet = read_sheet(experiment.sheet_path())
    halo, stride = halo_and_stride(build(experiment.architecture, **experiment.arguments))
    images = _load(sheet, experiment.train_splits, experiment.mpp)
    validation = _load(sheet, experiment.validation_splits, experiment.mpp)
    trained = train(experiment, images, validation, run, threads)
    decoding, score = choose_decoding(trained, validation, experiment.mpp)
    card = ModelCard(
        name=experiment.name,
        architecture=experiment.architecture,
        arguments=experiment.arguments,
        input="H-C",
        mpp=experiment.mpp,
        halo_px=halo,
        stride=stride,
        output="probability",
        decoding=Decoding(**asdict(decoding)),
        training={
            "sheet": experiment.sheet,
            "train_images": [image.image_id for image in images],
            "validation_images": [image.image_id for image in validation],
            "experiment": {key: value for key, value in asdict(experiment).items() if key != "licence"},
            "seconds": logged_seconds(run),
            "command": f"{command} --output {output}",
        },
        metrics={
            "validation": {
                "images": ", ".join(experiment.validation_splits),
                "radius_um": RADIUS_UM,
                "precision": round(score.precision, 4),
                "recall": round(score.recall, 4),
                "f1": round(score.f1, 4),
            }
        },
        licence=experiment.licence,
    )
    return save_model(output, trained, card)


def _load(sheet: pd.DataFrame, splits: tuple[str, ...], mpp: float) -> list[TrainingImage]:
    rows = sheet[sheet["split"].isin(splits)]
    if rows.empty:
        raise KaryonError(f"no image of the sheet has split {' or '.join(splits)}")
    return [load_image(row, mpp) for _, row in rows.iterrows()]
