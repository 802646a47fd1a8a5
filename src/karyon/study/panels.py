"""Figures with a panel per test group: precision and recall, sweeps, and plain comparisons of variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from karyon.cohort.figures import DASHES, GREY, INK, ISO_F1, MOST_CURVES, PALETTE
from karyon.study.same_different import sweep_lines

MOST_COLUMNS = 5
WIDE_RANGE = 20  # a sweep over more than this factor is drawn on a logarithmic axis
OWN: dict[str, Any] = {"color": PALETTE[0], "linewidth": 2.4, "zorder": 4}
OTHER: dict[str, Any] = {"color": "#999999", "linewidth": 0.8, "zorder": 2}
SEED: dict[str, Any] = {
    "marker": "o",
    "color": "none",
    "markeredgecolor": INK,
    "markersize": 3.5,
    "linestyle": "",
}
ISO: dict[str, Any] = {"color": "#cccccc", "linewidth": 0.7, "zorder": 1}
ISO_NAME: dict[str, Any] = {"textcoords": "offset points", "color": GREY, "fontsize": 7, "va": "center"}
LEVEL_LINE: dict[str, Any] = {"linestyle": (0, (5, 3)), "linewidth": 1.2}


def draw_curves(
    curves: pd.DataFrame, cells: pd.DataFrame, variants: Sequence[str], own: Mapping[str, str]
) -> Figure | None:
    """Precision and recall over the threshold, a panel per test group, the counts of all seeds together.

    Args:
        curves: One row per run, test group and threshold: ``variant``, ``test_group``, ``seed``,
            ``threshold``, ``tp``, ``fp``, ``fn``.
        cells: From :func:`karyon.study.cells.cell_table`, for the point at the threshold in use.
        variants: Which to show.
        own: Of a matrix, the model of each test group: it is drawn bold and the others thin, all alike.
            Without any, variants are told apart by colour.

    Returns:
        The figure; None without curves.
    """
    pooled = pool_seeds(curves[curves["variant"].isin(variants)])
    if pooled.empty or (not own and len(variants) > MOST_CURVES):
        return None
    groups = [group for group in cells["test_group"].unique() if (pooled["test_group"] == group).any()]
    figure, panels = _grid(len(groups), legend=not own, entries=len(variants))
    for group, axes in zip(groups, panels, strict=True):
        tested = pooled[pooled["test_group"] == group]
        for number, variant in enumerate(variants):
            rows = tested[tested["variant"] == variant]
            bold = own.get(group) == variant
            style = (OWN if bold else OTHER) if own else _style(number)
            axes.plot(rows["recall"], rows["precision"], **style)
            if bold or not own:
                _operating_point(axes, cells, group, variant, style["color"])
        _iso_f1(axes)
        axes.set_title(group, fontsize=10)
    shown = pooled[["recall", "precision"]]
    low = max(0.0, float(np.floor(shown.quantile(0.1).min() * 10) / 10))
    for axes in panels:
        axes.set(xlim=(low, 1.01), ylim=(low, 1.01), aspect="equal")
    figure.supxlabel("recall", fontsize=10)
    figure.supylabel("precision", fontsize=10)
    entries = [Line2D([], [], label=name, **_style(number)) for number, name in enumerate(variants)]
    if own:
        entries = [Line2D([], [], label="model of the same group", **OWN)]
        entries += [Line2D([], [], label="other models", **OTHER)]
    entries.append(Line2D([], [], color=GREY, marker="o", linestyle="", label="threshold in use"))
    entries.append(Line2D([], [], label="equal F1", **ISO))
    _legend(figure, entries)
    return figure


def pool_seeds(curves: pd.DataFrame) -> pd.DataFrame:
    """Counts of the seeds added at every threshold that all of them have, with precision and recall.

    Args:
        curves: As in :func:`draw_curves`.

    Returns:
        ``variant``, ``test_group``, ``threshold``, ``tp``, ``fp``, ``fn``, ``precision``, ``recall``; rows
        in which the last two are undefined are left out.
    """
    all_seeds = curves.groupby(["variant", "test_group"])["seed"].transform("nunique")
    grouped = curves.assign(all_seeds=all_seeds).groupby(["variant", "test_group", "threshold"])
    added = grouped[["tp", "fp", "fn"]].sum()[grouped["seed"].nunique() == grouped["all_seeds"].first()]
    added = added.reset_index()
    precision, recall = (added["tp"] / (added["tp"] + added[wrong]) for wrong in ("fp", "fn"))
    added = added.assign(precision=precision, recall=recall)
    return added.dropna(subset=["precision", "recall"])


def draw_sweep(cells: pd.DataFrame, variants: pd.DataFrame, x_name: str) -> Figure:
    """F1 with its interval against the value that is swept: a panel per test group, a line per series.

    A line is bold where it was trained on the tested group. Variants of the same or of no series that sweep
    nothing are levels to compare with, drawn dashed across.

    Args:
        cells: From :func:`karyon.study.cells.cell_table`.
        variants: The study's.
        x_name: Which of its sweeps.
    """
    lines = sweep_lines(variants, x_name)
    swept = pd.concat(lines.values())
    levels = variants[(variants["x_name"] == "") & variants["series"].isin(["", *swept["series"]])]
    colours = {str(name): _style(number + len(lines)) for number, name in enumerate(levels["variant"])}
    groups = list(cells["test_group"].unique())
    figure, panels = _grid(len(groups), legend=True, entries=len(lines) + len(levels), square=False)
    for group, axes in zip(groups, panels, strict=True):
        tested = cells[cells["test_group"] == group].set_index("variant")
        for number, line in enumerate(lines.values()):
            rows = tested.loc[line["variant"]]
            style = _style(number)
            band: dict[str, Any] = {"color": style["color"], "alpha": 0.13, "linewidth": 0}
            axes.fill_between(line["x"], rows["f1_low"], rows["f1_high"], **band)
            style["linewidth"] = 2.6 if line["train_groups"].iloc[0] == group else 1.4
            axes.plot(line["x"], rows["f1"], marker="o", markersize=4.5, **style)
        for name, style in colours.items():
            axes.axhline(tested.loc[name, "f1"], **style | LEVEL_LINE)
        axes.set_title(group, fontsize=10)
        axes.grid(alpha=0.3)
        _scale_x(axes, np.sort(swept["x"].unique()))
    figure.supxlabel(x_name, fontsize=10)
    figure.supylabel("pooled F1, 95 % interval", fontsize=10)
    entries = [Line2D([], [], label=name or "F1", marker="o", **_style(n)) for n, name in enumerate(lines)]
    entries += [Line2D([], [], label=name, **style | LEVEL_LINE) for name, style in colours.items()]
    _legend(figure, entries)
    return figure


def _scale_x(axes: Axes, values: np.ndarray) -> None:
    """A tick at each value; logarithmic where they span a wide range, with a linear part if one is 0."""
    above = values[values > 0]
    if len(above) > 1 and (values >= 0).all() and above[-1] / above[0] > WIDE_RANGE:
        if len(above) < len(values):
            axes.set_xscale("symlog", linthresh=above[0], linscale=0.8)
        else:
            axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_xticks([], minor=True)


def draw_variants(cells: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """F1 of each variant with its interval, and of each seed as a small ring: a panel per test group.

    Args:
        cells: From :func:`karyon.study.cells.cell_table`.
        variants: Which to show, the first as the one that others are compared with.
    """
    groups = list(cells["test_group"].unique())
    columns = min(len(groups), MOST_COLUMNS - 1)
    rows = -(-len(groups) // columns)
    size = (2.2 + 2.5 * columns, 0.9 + rows * (0.6 + 0.28 * len(variants)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    for group, axes in zip(groups, panels, strict=False):
        tested = cells[cells["test_group"] == group].set_index("variant")
        for height, variant in enumerate(variants):
            row = tested.loc[variant]
            axes.plot([row["f1_low"], row["f1_high"]], [height, height], color=PALETTE[0], linewidth=2)
            if row["seeds"] > 1:
                axes.plot(row["f1_seeds"], np.full(row["seeds"], height + 0.25), **SEED)
            axes.plot(
                row["f1"], height, "D", color=PALETTE[0], markersize=6, markeredgecolor="white", zorder=4
            )
        axes.axvline(tested.loc[variants[0], "f1"], color=GREY, linestyle=":", linewidth=1, zorder=1)
        axes.set_title(group, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks(range(len(variants)), variants)
        axes.set_ylim(len(variants) - 0.4, -0.6)
    figure.supxlabel("pooled F1, 95 % interval; rings: each seed; dotted: the first variant", fontsize=10)
    return figure


def _style(number: int) -> dict[str, Any]:
    dash, colour = divmod(number, len(PALETTE))
    return {"color": PALETTE[colour], "linestyle": DASHES[dash % len(DASHES)], "linewidth": 1.6}


def _operating_point(axes: Axes, cells: pd.DataFrame, group: str, variant: str, colour: str) -> None:
    row = cells[(cells["test_group"] == group) & (cells["variant"] == variant)]
    axes.plot(
        row["recall"], row["precision"], "o", color=colour, markersize=6, markeredgecolor="white", zorder=6
    )


def _iso_f1(axes: Axes) -> None:
    for f1 in ISO_F1:
        recall = np.linspace(f1 / (2 - f1), 1, 100)
        axes.plot(recall, f1 * recall / (2 * recall - f1), **ISO)
        axes.annotate(f"{f1:g}", (1.0, f1 / (2 - f1)), (5, 0), annotation_clip=True, **ISO_NAME)


def _grid(count: int, legend: bool, entries: int, square: bool = True) -> tuple[Figure, list[Axes]]:
    """Panels with common axes, as many beside each other as are well seen."""
    columns = min(count, MOST_COLUMNS)
    rows = -(-count // columns)
    side = {1: 4.8, 2: 3.6}.get(count, 3.2 if count <= 4 else 2.5)
    width = 0.5 + side * columns
    lines = -(-entries // _legend_columns(width)) if legend else 1
    size = (width, 0.7 + 0.25 * lines + side * rows * (1.06 if square else 0.85))
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel())
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)  # the lowest of its column
    return figure, panels[:count]


def _legend(figure: Figure, entries: Sequence[Line2D]) -> None:
    columns = min(_legend_columns(figure.get_figwidth()), len(entries))
    figure.legend(handles=list(entries), loc="outside upper center", ncols=columns)


def _legend_columns(width: float) -> int:
    """As many as names of usual length have room in a figure of so many inches."""
    return min(4, int(width // 2))
