"""A training run as a picture: loss, learning rate and validation F1 over the steps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from karyon.io.atomic import atomic_path
from karyon.training.logs import LOG

CURVES = "curves.png"
# Without validation images there is no F1.
PANELS = {"loss": "mean training loss", "f1": "F1, validation", "lr": "learning rate"}


def draw_curves(run: Path, output: Path) -> None:
    """Draw the log of a run.

    Args:
        run: The run's folder.
        output: Folder of the model; gets ``curves.png``.
    """
    log = pd.read_parquet(run / LOG)
    shown = {column: title for column, title in PANELS.items() if log[column].notna().any()}
    figure = Figure(figsize=(3 * len(shown), 3), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        axes.plot(log["step"], log[column], marker="o", color="#0072B2")
        axes.set(title=title, xlabel="step", xlim=(0, None))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(output / CURVES) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
