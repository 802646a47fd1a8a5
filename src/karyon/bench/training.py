"""Training of the shipped network's recipe: crops a second, and what drawing them costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric

from karyon.bench.chain import THREADS
from karyon.bench.measurement import REPEATS, Measurement, fastest
from karyon.bench.predictions import draw_nuclei, paint_window
from karyon.io.schemas import REPOSITORY
from karyon.models.memory import use_huge_pages
from karyon.models.registry import channels_last
from karyon.tiles.grid import Grid
from karyon.training.batches import draw_batch
from karyon.training.data import TrainingImage
from karyon.training.experiment import Experiment, read_experiment
from karyon.training.logs import LOG
from karyon.training.loop import train
from karyon.training.losses import LOSSES
from karyon.training.optimisers import make_optimiser
from karyon.training.start import starting_point
from karyon.training.targets import TARGETS

EXPERIMENT = REPOSITORY / "config" / "experiments" / "switch_unet.yaml"
GOAL_SHARE = 0.10
# Steps from one row of the log to the next; the first row warms up.
STEPS = 20
# The loop validates once a row, within the row's seconds: an image so small takes next to none of them.
VALIDATION_PX = 64


def measure_training(cache: Path, side: int) -> Iterator[Measurement]:
    """Crops a second of the training loop, in float32 and in bfloat16, and the share of time it waits.

    Args:
        cache: Not used: checkpoint and log go to a temporary folder.
        side: Of the drawn training image in pixels. Crops are no larger.
    """
    use_huge_pages()
    preset = read_experiment(EXPERIMENT)
    experiment = replace(
        preset,
        crop_px=min(preset.crop_px, side),
        steps=(1 + REPEATS) * STEPS,
        validate_every=STEPS,
    )
    image = drawn_image(experiment, side)
    validation = drawn_image(experiment, min(side, VALIDATION_PX))
    bare = bare_speed(experiment, [image])
    full, share = loop_speed(experiment, image, validation)
    half, _ = loop_speed(replace(experiment, precision="bfloat16"), image, validation)
    unit = f"crops/s, {experiment.batch} crops of {experiment.crop_px} px a step"
    peer = "forward, backward and optimiser on a batch held ready"
    yield Measurement("training.float32", full, unit, peer, bare, full / bare)
    yield Measurement("training.bfloat16", half, unit, "float32", full, half / full)
    yield Measurement(
        name="training.loader_share",
        value=share,
        unit="of the steps' time, waiting for a batch in float32",
        goal=f"<= {GOAL_SHARE:.2f}",
        met=share <= GOAL_SHARE,
    )


def drawn_image(experiment: Experiment, side: int) -> TrainingImage:
    """An image full of nuclei, drawn as its concentrations: no pixels are read and no stains fitted.

    Args:
        experiment: Its target and microns per pixel; its input is made of concentrations.
        side: In model pixels, which are also level-0 pixels.
    """
    nuclei, random = draw_nuclei(side), np.random.default_rng(0)
    grid = Grid(side, side, 1.0, 0, 1.0)
    centres = nuclei[..., 1::-1].reshape(-1, 2).astype(np.float64)
    centres = centres[(centres < side).all(axis=1)]
    hematoxylin = paint_window(nuclei, 0, 0, side, side) / np.float32(255)
    noise = random.normal(0.2, 0.05, (2, side, side)).astype(np.float32)
    draw = TARGETS[experiment.target].draw
    target = draw(centres, grid, experiment.mpp, **experiment.target_arguments)
    return TrainingImage(
        image_id=f"drawn-{side}",
        patient="",
        dataset=0,
        inputs=torch.from_numpy(noise.clip(0) + np.stack([hematoxylin, np.zeros_like(hematoxylin)])),
        target=torch.from_numpy(target[None]),
        points=centres,
        grid=grid,
        mpp=experiment.mpp,
        truth=centres,
    )


def loop_speed(
    experiment: Experiment, image: TrainingImage, validation: TrainingImage
) -> tuple[float, float]:
    """Crops a second of the fastest row of the log, and the mean share of the rows' time spent waiting."""
    with TemporaryDirectory() as folder:
        train(experiment, [image], [validation], Path(folder), THREADS)
        rows = pd.read_parquet(Path(folder) / LOG).iloc[1:]
    crops = experiment.validate_every * experiment.batch
    return crops / rows["seconds"].min(), float(rows["loader_share"].mean())


def bare_speed(experiment: Experiment, images: Sequence[TrainingImage]) -> float:
    """Crops a second of plain torch on one batch, with nothing drawn, averaged, checked or logged.

    On the device that the training loop would take.
    """
    torch.set_num_threads(THREADS)
    device = Fabric(accelerator="auto", devices=1).device
    batch = draw_batch(images, experiment, 0)
    inputs = batch.inputs.to(device).contiguous(memory_format=torch.channels_last)
    target = batch.target.to(device)
    network = channels_last(starting_point(experiment).network.to(device)).train()
    optimiser = make_optimiser(network, experiment.optimiser)
    weights = list(network.parameters())

    def steps() -> float:
        for _ in range(experiment.validate_every):
            loss = LOSSES[experiment.loss](network(inputs), target, **experiment.loss_arguments)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, experiment.clip)
            optimiser.step()
            optimiser.zero_grad()
        return loss.item()  # waits for a GPU

    return experiment.validate_every * experiment.batch / fastest(steps)
