"""Figures of a matrix of train groups by test groups; nothing here reads a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from scipy.cluster.hierarchy import dendrogram, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from karyon.cohort.figures import GREY, INK, PALETTE
from karyon.study.same_different import same_model, trained_alone

FEWEST_CLUSTERED = 4
GAP = 0.35  # between the cells and their means
SAME, MEAN = PALETTE[0], PALETTE[1]
STAR: dict[str, Any] = {
    "marker": "*",
    "color": SAME,
    "markersize": 11,
    "markeredgecolor": "white",
    "zorder": 5,
}
TRIANGLE: dict[str, Any] = {
    "marker": "^",
    "color": MEAN,
    "markersize": 8,
    "markeredgecolor": "white",
    "zorder": 4,
}
OTHERS: dict[str, Any] = {
    "marker": "s",
    "color": "none",
    "markeredgecolor": GREY,
    "markersize": 5,
    "zorder": 2,
}
COLUMN: dict[str, Any] = {"family": "monospace", "fontsize": 9}


def draw_heatmap(matrix: pd.DataFrame, cells: pd.DataFrame) -> Figure:
    """F1 of each model (rows) on each test group (columns), with means, in the order of the study.

    Args:
        matrix: Variants of one matrix, from :func:`karyon.study.same_different.find_matrices`.
        cells: From :func:`karyon.study.cells.cell_table`.
    """
    f1 = f1_square(matrix, cells)
    figure = Figure(figsize=_size(f1), layout="constrained")
    _heatmap(figure.subplots(), f1, matrix)
    return figure


def draw_clusters(matrix: pd.DataFrame, cells: pd.DataFrame) -> Figure | None:
    """The heatmap with groups side by side whose models can stand in for each other, and their dendrogram.

    The distance of two groups is the F1 that is lost on average by testing each with the other's model.
    Rows and columns have one order, so the diagonal stays one; average linkage, leaves ordered as Bar-Joseph
    et al. 2001. Models and groups that have no counterpart come last.

    Args:
        matrix: As in :func:`draw_heatmap`.
        cells: Likewise.

    Returns:
        The figure; None with fewer than four groups that have a model, or where an F1 is undefined.
    """
    f1 = f1_square(matrix, cells)
    same = [model for group in f1.columns if (model := same_model(matrix, str(group)))]
    groups = [group for group in f1.columns if same_model(matrix, str(group))]
    if len(same) < FEWEST_CLUSTERED or f1.loc[same, groups].isna().any(axis=None):
        return None
    distance = squareform(exchange_loss(f1.loc[same, groups].to_numpy()), checks=False)
    tree = dendrogram(optimal_leaf_ordering(linkage(distance, "average"), distance), no_plot=True)
    rows = [same[leaf] for leaf in tree["leaves"]]
    columns = [groups[leaf] for leaf in tree["leaves"]]
    rows += [name for name in f1.index if name not in rows]
    columns += [name for name in f1.columns if name not in columns]
    width, height = _size(f1)
    figure = Figure(figsize=(width + 1.6, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.3, width))
    for along, across in zip(tree["icoord"], tree["dcoord"], strict=True):
        left.plot(
            across, (np.array(along) - 5) / 10, color=INK, linewidth=1.2, clip_on=False
        )  # leaves lie at 5, 15, ...
    left.set_xlim(1.05 * max(map(max, tree["dcoord"])) or 1.0, 0)
    left.set_xlabel("F1 lost by\nexchange")
    left.spines["left"].set_visible(False)
    left.tick_params(axis="y", length=0, labelleft=False)
    _heatmap(right, f1.loc[rows, columns], matrix)
    right.tick_params(axis="y", labelleft=True)
    return figure


def f1_square(matrix: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """F1 by variant of the matrix (rows) and test group (columns), both in the order of the study."""
    groups = cells["test_group"].unique()
    return cells.pivot(index="variant", columns="test_group", values="f1").loc[matrix["variant"], groups]


def exchange_loss(f1: np.ndarray) -> np.ndarray:
    """F1 that two groups lose on average when each is tested with the model of the other.

    Args:
        f1: Of the model of each group (rows) on each group (columns, in the same order), ``(n, n)``.

    Returns:
        Symmetric, ``(n, n)``, 0 on the diagonal and where the other's model is better.
    """
    loss = np.diagonal(f1) - f1
    return np.maximum((loss + loss.T) / 2, 0.0)


def _size(f1: pd.DataFrame) -> tuple[float, float]:
    rows, columns = f1.shape
    return 3.6 + 0.5 * (columns + 1), 2.2 + 0.36 * (rows + 1)


def _heatmap(axes: Axes, f1: pd.DataFrame, matrix: pd.DataFrame) -> None:
    values = f1.to_numpy()
    height, width = values.shape
    known = values[np.isfinite(values)]
    largest = f1.max().to_numpy()
    norm = Normalize(*((known.min(), known.max()) if known.size else (0.0, 1.0)))
    with_means = [
        (values, 0.0, 0.0),
        (f1.mean(axis=1).to_numpy()[:, None], width + GAP, 0.0),
        (f1.mean(axis=0).to_numpy()[None], 0.0, height + GAP),
    ]
    for part, x, y in with_means:
        extent = (x - 0.5, x + part.shape[1] - 0.5, y + part.shape[0] - 0.5, y - 0.5)
        image = axes.imshow(part, cmap="Blues", norm=norm, extent=extent, aspect="auto")
        for (row, column), value in np.ndenumerate(part):
            best = part is values and value == largest[column]
            colour = "white" if norm(value) > 0.6 else INK
            text = f"{value:.2f}" if np.isfinite(value) else "–"
            weight = "bold" if best else "normal"
            axes.text(x + column, y + row, text, ha="center", va="center", color=colour, fontweight=weight)
    by_variant = matrix.set_index("variant", drop=False).loc[f1.index]
    trained_on = by_variant["train_groups"].where(trained_alone(by_variant), by_variant["variant"])
    for row, column in np.argwhere(trained_on.to_numpy()[:, None] == f1.columns.to_numpy()):
        box: dict[str, Any] = {"fill": False, "edgecolor": MEAN, "linewidth": 2.2, "zorder": 3}
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **box))
    axes.set_xlim(-0.55, width + GAP + 0.55)
    axes.set_ylim(height + GAP + 0.55, -0.55)
    labels = [str(group) for group in f1.columns]
    axes.set_xticks(
        [*range(width), width + GAP], [*labels, "mean"], rotation=45, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks([*range(height), height + GAP], [*trained_on, "mean"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="tested on", ylabel="model trained on")
    axes.set_title(
        "outlined: trained on the tested group; bold: best model of the column", fontsize=9, loc="left"
    )
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, pad=0.02)
    bar.set_label("pooled F1")
    bar.outline.set_visible(False)


def draw_same_different(matrix: pd.DataFrame, cells: pd.DataFrame, groups: pd.DataFrame) -> Figure:
    """F1 on each test group of its own model, of every other group's, and the mean of these.

    The MICRONET paper's Figure 4, with the interval of the own model.

    Args:
        matrix: As in :func:`draw_heatmap`.
        cells: Likewise.
        groups: From :func:`karyon.study.same_different.group_table`.
    """
    alone = matrix.loc[trained_alone(matrix), "variant"]
    figure = Figure(figsize=(11.5, 1.9 + 0.36 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for height, row in enumerate(groups.to_dict("records")):
        part = cells[(cells["test_group"] == row["test_group"]) & cells["variant"].isin(alone)]
        others = part.loc[part["variant"] != row["same"], "f1"]
        axes.plot([row["same_low"], row["same_high"]], [height, height], color=SAME, linewidth=2, zorder=1)
        axes.plot(others, np.full(len(others), height), linestyle="", **OTHERS)
        axes.plot(row["mean_different_f1"], height, **TRIANGLE)
        axes.plot(row["same_f1"], height, **STAR)
        best = f"{row['best_different_f1']:.3f} {row['best_different']}" if row["best_different"] else "–"
        note = f"{_three(row['same_f1']):>6} {_three(row['mean_different_f1']):>6}  {best}"
        axes.text(1.02, height, note, **COLUMN, transform=axes.get_yaxis_transform(), va="center")
    heading = f"{'same':>6} {'mean':>6}  best of the others"
    axes.text(1.02, -0.85, heading, **COLUMN, transform=axes.get_yaxis_transform(), fontweight="bold")
    labels = [
        f"{name} ({patients})"
        for name, patients in zip(groups["test_group"], groups["patients"], strict=True)
    ]
    axes.set_yticks(range(len(groups)), labels)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="pooled F1", ylabel="test group (patients)")
    axes.grid(axis="x", alpha=0.3)
    axes.grid(axis="y", alpha=0.15)
    entries = [
        Line2D([], [], **STAR, linestyle="-", linewidth=2, label="model of the same group, 95 % interval"),
        Line2D([], [], **OTHERS, linestyle="", label="model of one other group"),
        Line2D([], [], **TRIANGLE, linestyle="", label="mean of these"),
    ]
    axes.legend(handles=entries, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def draw_seed_spread(matrix: pd.DataFrame, cells: pd.DataFrame) -> Figure | None:
    """How far the seeds of one model lie apart: largest minus smallest F1 of each cell, by test group.

    Args:
        matrix: As in :func:`draw_heatmap`.
        cells: Likewise.

    Returns:
        The figure; None with a single seed.
    """
    inside = cells[cells["variant"].isin(matrix["variant"]) & (cells["seeds"] > 1)]
    if inside.empty:
        return None
    groups = list(inside["test_group"].unique())
    figure = Figure(figsize=(8.5, 1.5 + 0.3 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for height, group in enumerate(groups):
        part = inside[inside["test_group"] == group]
        spread = part["f1_seeds"].map(np.ptp)
        own = part["variant"] == same_model(matrix, group)
        axes.plot(spread[~own], np.full((~own).sum(), height), linestyle="", **OTHERS)
        axes.plot(spread[own], np.full(own.sum(), height), linestyle="", **STAR)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="largest minus smallest F1 over the seeds", ylabel="test group")
    axes.grid(axis="x", alpha=0.3)
    entries = [
        Line2D([], [], **STAR, linestyle="", label="model of the same group"),
        Line2D([], [], **OTHERS, linestyle="", label="other model"),
    ]
    axes.legend(handles=entries, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def _three(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"
