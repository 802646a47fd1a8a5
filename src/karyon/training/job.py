"""Training as a job of the workflow."""

from __future__ import annotations

from pathlib import Path

from karyon.io.job import job_log
from karyon.training.experiment import read_experiment
from karyon.training.ship import train_and_ship


def train_job(experiment: str, run: str, card: str, threads: int, gpus: int, log: str) -> None:
    """Train a model from an experiment file, or go on where a job before it was ended.

    Args:
        experiment: The file.
        run: Folder of checkpoint, log and snapshots.
        card: The model's card, in the folder that all of the model goes to.
        threads: CPU threads of each process.
        gpus: How many share each batch; 0 is as 1: the one that torch sees, else the CPU.
        log: File for what training says.

    Raises:
        SystemExit: The experiment, its data or the run is not usable; the message is for the user.
    """
    with job_log(log, "train"):
        train_and_ship(
            read_experiment(Path(experiment)),
            Path(run),
            Path(card).parent,
            threads,
            command=f"karyon train {experiment}",
            devices=max(gpus, 1),
        )
