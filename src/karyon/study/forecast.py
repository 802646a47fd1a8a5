"""What a study will take, before anything is run."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import torch

from karyon.models.registry import build, channels_last
from karyon.study.planned import PlannedStudy
from karyon.training.experiment import read_experiment

# A step is timed on two crops of this side, and taken to grow with the pixels; the best time of a few, for
# the first warms up.
SIDE, REPEATS = 192, 3


def training_hours(study: PlannedStudy) -> float:
    """Hours of one core, or of this machine's GPU, that the trainings not done yet will take.

    One step of each network is timed. Images, losses and validation, which take a few percent, are left out.

    Args:
        study: Planned, so that its experiments lie on disk.
    """
    seconds = 0.0
    for run in study.runs:
        if run.trains and not Path(run.model, "card.yaml").exists():
            experiment = read_experiment(
                Path("results/studies", study.name, "plan", run.run, "experiment.yaml")
            )
            pixels = experiment.steps * experiment.batch * experiment.crop_px**2
            seconds += pixels * _seconds_per_pixel(
                experiment.architecture,
                tuple(experiment.network_arguments.items()),
                experiment.precision,
            )
    return seconds / 3600


@cache
def _seconds_per_pixel(architecture: str, arguments: tuple[tuple[str, int], ...], precision: str) -> float:
    """Of forward and backward pass, measured here."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = channels_last(build(architecture, **dict(arguments)).to(device))
    inputs = torch.rand(2, dict(arguments)["in_channels"], SIDE, SIDE, device=device)
    torch.set_num_threads(1)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = network(inputs)
        outputs.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds) / inputs[:, 0].numel()
