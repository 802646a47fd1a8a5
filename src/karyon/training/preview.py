"""A contact sheet of training crops, as the network gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from karyon.stain.inputs import MEDIAN_STAIN
from karyon.training.batches import Batch, draw_batch
from karyon.training.data import TrainingImage
from karyon.training.experiment import Experiment

COLUMNS = 4
PANEL_INCHES, DPI = 4.0, 120
# Far apart for all kinds of colour vision, and from the tissue's pink and purple; as on overlays of nuclei.
OUTLINE, POINT = "#00f5a0", "#ffc800"
# Small: a target may be a few pixels wide.
POINT_STYLE: Any = {"color": POINT, "markersize": 5, "markeredgecolor": "black", "markeredgewidth": 0.5}


def draw_contact_sheet(images: Sequence[TrainingImage], experiment: Experiment, count: int) -> Figure:
    """Crops as the first step gets them, with the target's outlines and the annotated nuclei.

    Args:
        images: Training images.
        experiment: What is trained; of its seed depends which crops are drawn.
        count: Number of crops.
    """
    batch = draw_batch(images, replace(experiment, batch=count), step=0)
    colours = to_colour(batch.inputs, experiment.input)
    # The outline of a mask, and the half height of a map of peaks.
    level = max(float(batch.target[:, 0].max()), 1.0) / 2
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    with mpl.rc_context({"text.parse_math": False}):  # names may hold a dollar sign
        figure = Figure(figsize=(PANEL_INCHES * columns, (PANEL_INCHES + 0.3) * rows + 0.9), dpi=DPI)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for k, axes in enumerate(panels):
            axes.set(xticks=[], yticks=[])  # the frame stays: glass is as white as the page
            axes.set_visible(k < count)
            if k < count:
                _draw_crop(axes, colours[k], batch, k, images[batch.chosen[k]], level)
        amounts = ", ".join(
            f"{name} {_words(value)}" for name, value in asdict(experiment.augmentation).items()
        )
        figure.suptitle(
            f"{experiment.name}: {experiment.input} at {experiment.mpp:g} µm/px, seed {experiment.seed}\n"
            + amounts,
            fontsize=10,
        )
        figure.legend(
            handles=_legend(experiment), loc="outside lower center", ncols=2, frameon=False, fontsize=10
        )
    return figure


def to_colour(inputs: torch.Tensor, name: str) -> np.ndarray:
    """What a network's input looks like: stains in the colours of ``MEDIAN_STAIN``, colours as they are.

    Args:
        inputs: ``(n, c, h, w)``.
        name: Which input; a key of ``karyon.stain.channels.INPUT_CHANNELS``.

    Returns:
        RGB in 0 to 1, ``(n, h, w, 3)``.
    """
    values = inputs.movedim(1, -1).cpu().numpy()
    if name == "RGB":
        light = 1 - values
    elif name == "CN-H&E":
        light = values
    else:
        mix = np.array(MEDIAN_STAIN.stain_matrix) * np.array(MEDIAN_STAIN.p99)
        light = np.exp(-values @ mix[:, : values.shape[-1]].T)
    return np.clip(light, 0, 1)


def _draw_crop(
    axes: Axes, colour: np.ndarray, batch: Batch, k: int, image: TrainingImage, level: float
) -> None:
    side = batch.geometry.side
    axes.imshow(colour, interpolation="nearest")
    target = batch.target[k, 0].cpu().numpy()
    if target.max() > level:
        axes.contour(target, [level], colors=OUTLINE, linewidths=0.9)
    points = batch.geometry.to_crop(k, image.points)
    points = points[((points > -0.5) & (points < side - 0.5)).all(axis=1)]
    axes.plot(*points.T, ".", **POINT_STYLE)
    axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
    axes.set_title(f"{image.image_id}, size × {float(batch.geometry.size[k]):.2f}", fontsize=9)


def _legend(experiment: Experiment) -> list[Line2D]:
    outline = Line2D([], [], color=OUTLINE, label=f"target ({experiment.target})")
    point = Line2D([], [], marker=".", linestyle="", label="annotated nucleus", **POINT_STYLE)
    return [outline, point]


def _words(value: float | tuple[float, float]) -> str:
    return " to ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"
