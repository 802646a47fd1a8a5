"""The runs of a study: each is trained, decoded and scored on the test images, once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import nn

from karyon.evaluation.detection import score_detection
from karyon.evaluation.matching import match_points
from karyon.io.atomic import atomic_path
from karyon.models.card import Decoding
from karyon.study.definition import Run
from karyon.training.data import TrainingImage, load_datasets, load_split
from karyon.training.decoding_choice import RADIUS_UM, choose_decoding, find_nuclei
from karyon.training.experiment import Experiment
from karyon.training.loop import train

SCORES = "scores.parquet"


def do_run(run: Run, test_splits: Sequence[str], folder: Path, threads: int) -> None:
    """Train one run of a study and score it; nothing where it is done, and a run broken off is resumed.

    Args:
        run: Which.
        test_splits: Splits of the datasets' sheets to score on.
        folder: The study's; the run gets ``<variant>-<seed>/`` in it with checkpoint, log and scores.
        threads: CPU threads.

    Raises:
        KaryonError: The data or the run is not usable: see :func:`load_datasets` and :func:`train`.
    """
    scores = folder / run.name / SCORES
    if scores.exists():
        print(f"{run.name}: done", file=sys.stderr)
        return
    images, validation = load_datasets(run.experiment)
    network = train(run.experiment, images, validation, folder / run.name, threads)
    decoding, _ = choose_decoding(network, validation, run.experiment)
    tables = [
        score_images(network, load_split(run.experiment, number, split), run.experiment, decoding, split)
        for number in range(len(run.experiment.datasets))
        for split in test_splits
    ]
    table = pd.concat(tables, ignore_index=True).assign(variant=run.variant, seed=run.seed)
    with atomic_path(scores) as temporary:
        table.to_parquet(temporary, index=False)


def score_images(
    network: nn.Module,
    images: Sequence[TrainingImage],
    experiment: Experiment,
    decoding: Decoding,
    split: str,
) -> pd.DataFrame:
    """Counts of each image, matched within 4 um.

    Returns:
        Columns ``image_id``, ``patient``, ``split``, ``threshold``, ``tp``, ``fp``, ``fn`` and
        ``distance_sum`` (um, over the matched pairs).
    """
    rows = []
    for image in images:
        points = find_nuclei(network, image, experiment, decoding)
        matches = match_points(points, image.truth, RADIUS_UM / image.mpp)
        score = score_detection(matches, len(points), len(image.truth), image.mpp)
        rows.append(
            {
                "image_id": image.image_id,
                "patient": image.patient,
                "split": split,
                "threshold": decoding.threshold,
                "tp": score.tp,
                "fp": score.fp,
                "fn": score.fn,
                "distance_sum": score.distance_sum,
            }
        )
    return pd.DataFrame(rows)
