"""Batches of random crops, drawn ahead in a thread of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch

from karyon.stain.inputs import network_input
from karyon.training.augmentation import vary_colour, vary_stain
from karyon.training.data import TrainingImage
from karyon.training.experiment import Experiment
from karyon.training.geometry import Geometry, cut_crops, draw_geometry
from karyon.training.targets import TARGETS

# Batches held ready: one would do for even steps, two bridge a slow one.
AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """What one training step learns from.

    Attributes:
        inputs: The network's input, float32, ``(n, channels, side, side)``.
        target: float32, ``(n, k, side, side)`` for the ``k`` maps of the experiment's target.
        image_ids: The image of each crop.
        chosen: Its number among the training images.
        geometry: Where the crops lie.
    """

    inputs: torch.Tensor
    target: torch.Tensor
    image_ids: tuple[str, ...]
    chosen: tuple[int, ...]
    geometry: Geometry


def draw_batch(images: Sequence[TrainingImage], experiment: Experiment, step: int) -> Batch:
    """The batch of a step: the same in every run, whatever came before.

    Args:
        images: Training images, all on one device; the crops are cut there.
        experiment: Which crops, and how they vary.
        step: From 0.
    """
    generator = torch.Generator().manual_seed(experiment.seed * 1_000_003 + step)
    shares = crop_shares(images, experiment)
    chosen = torch.multinomial(shares, experiment.batch, replacement=True, generator=generator).tolist()
    extents = [(images[k].grid.height, images[k].grid.width) for k in chosen]
    settings = experiment.augmentation
    geometry = draw_geometry(extents, experiment.crop_px, settings, generator)
    layers = [(images[k].inputs, images[k].target) for k in chosen]
    measured, target = cut_crops(layers, geometry)
    if experiment.input == "RGB":
        varied = vary_colour(measured, settings, generator)
    else:  # the network's input needs the first stain alone, or both
        varied = vary_stain(measured, 1 if experiment.input == "H-C" else 2, settings, generator)
    return Batch(
        inputs=network_input(varied, experiment.input),
        target=TARGETS[experiment.target].settle(target),
        image_ids=tuple(images[k].image_id for k in chosen),
        chosen=tuple(chosen),
        geometry=geometry,
    )


def crop_shares(images: Sequence[TrainingImage], experiment: Experiment) -> torch.Tensor:
    """Share of the crops that each image gives: by its dataset's weight, all images of a dataset alike.

    Returns:
        float64, ``(len(images),)``; sums to 1 over the datasets that have images.
    """
    count = Counter(image.dataset for image in images)
    weights = [experiment.datasets[image.dataset].weight / count[image.dataset] for image in images]
    shares = torch.tensor(weights, dtype=torch.float64)
    return shares / shares.sum()


def batches(images: Sequence[TrainingImage], experiment: Experiment, first: int) -> Iterator[Batch]:
    """The batches of the steps from ``first`` on, drawn while the step before them computes.

    Torch gives up the interpreter's lock while it works, so a thread suffices. It draws with one core: more
    would be taken from the network.

    Args:
        images: As for :func:`draw_batch`.
        experiment: As for :func:`draw_batch`.
        first: The first step; the last is the experiment's.
    """
    draw = partial(draw_batch, images, experiment)
    steps = iter(range(first, experiment.steps))
    with ThreadPoolExecutor(1, "batches", initializer=partial(torch.set_num_threads, 1)) as pool:
        waiting = [pool.submit(draw, step) for step in islice(steps, AHEAD)]
        while waiting:
            batch = waiting.pop(0).result()
            waiting.extend(pool.submit(draw, step) for step in islice(steps, 1))
            yield batch
