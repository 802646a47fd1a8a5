"""Figures of a cohort's evaluation, each from the tables of the cohort; nothing here reads a file."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from karyon.cohort.confusion import MISSED, NO_ANNOTATION, Confusion
from karyon.cohort.field import MARKS

# Names come from sheets and may hold a dollar sign, which is no formula.
STYLE: Any = {
    "text.parse_math": False,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
}
INK, GREY = "#222222", "#777777"
# Okabe and Ito 2008, which people with any kind of colour vision tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
DASHES = ("-", "--", ":")
MOST_CURVES = len(PALETTE) * len(DASHES)
ISO_F1 = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9)
DISTANCE_BINS = 40
NOT_STATED = "not stated"


def draw_precision_recall(curves: pd.DataFrame, scores: pd.DataFrame, radius_um: float) -> Figure | None:
    """Pooled curves: of all slides and of each split, and in a second panel of each organ.

    Args:
        curves: The cohort's pooled curves.
        scores: The cohort's scores, for the operating points and the average precisions.
        radius_um: The main radius.

    Returns:
        The figure; None without any curve.
    """
    curves = curves[curves["recall"].notna()]
    if curves.empty:
        return None
    at_radius = scores[scores["radius_um"] == radius_um].to_dict("records")
    in_use = {(row["grouping"], row["group"]): row for row in at_radius}
    panels = [("all slides", [("all", "all"), *_groups(curves, "split")])]
    if organs := _groups(curves, "organ"):
        panels.append(("by organ", organs))
    entries = max(len(groups) for _, groups in panels) + 1
    figure = Figure(figsize=(5.6 * len(panels), 5.4 + 0.25 * -(-entries // 2)), layout="constrained")
    for axes, (title, groups) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _iso_f1(axes)
        lines = [_curve(axes, curves, in_use.get(key), key, number) for number, key in enumerate(groups)]
        point = Line2D([], [], color=GREY, marker="o", linestyle="", label="threshold in use")
        axes.legend(handles=[*lines, point], loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
        axes.set(xlim=(0, 1.005), ylim=(0, 1.005), aspect="equal", title=title)
        axes.set(xlabel=f"recall (matched within {radius_um:g} µm)", ylabel="precision")
        axes.grid(alpha=0.25)
    return figure


def _groups(curves: pd.DataFrame, grouping: str) -> list[tuple[str, str]]:
    """Key of each group, largest first if they are too many; none where a single group is the whole."""
    rows = curves[curves["grouping"] == grouping]
    annotated = (rows["tp"] + rows["fn"]).groupby(rows["group"]).max()
    largest = sorted(annotated.nlargest(MOST_CURVES).index)
    return [(grouping, str(group)) for group in largest] if len(largest) > 1 else []


def _curve(
    axes: Axes, curves: pd.DataFrame, score: dict[Hashable, Any] | None, key: tuple[str, str], number: int
) -> Line2D:
    whole = key == ("all", "all")
    rows = curves[(curves["grouping"] == key[0]) & (curves["group"] == key[1])]
    dash, colour = divmod(number, len(PALETTE))
    style: dict[str, Any] = {
        "color": PALETTE[colour],
        "linestyle": DASHES[dash % len(DASHES)],
        "linewidth": 1.6,
    }
    if whole:
        style = {"color": INK, "linewidth": 2.2, "zorder": 4}
    label = "all slides" if whole else key[1]
    if score is not None:
        label += f" (AP {score['average_precision']:.3f})"
        point: dict[str, Any] = {"marker": "o", "markersize": 8, "markeredgecolor": "white", "zorder": 5}
        axes.plot(score["recall"], score["precision"], color=style["color"], clip_on=False, **point)
    return axes.plot(rows["recall"], rows["precision"], label=label, **style)[0]


def _iso_f1(axes: Axes) -> None:
    """Lines of equal F1, named where they leave the axes on the right."""
    for f1 in ISO_F1:
        lowest = f1 / (2 - f1)  # the precision that gives this F1 with recall 1, and the other way round
        recall = np.linspace(lowest, 1, 200)
        axes.plot(recall, f1 * recall / (2 * recall - f1), color="#bbbbbb", linewidth=0.8, zorder=1)
        axes.text(1.015, lowest, f"F1 {f1:g}", color=GREY, fontsize=8, va="center")


def draw_boxes(slides: pd.DataFrame, column: str, label: str, by: str = "organ") -> Figure | None:
    """One dot per slide and a box plot per group: median, quartiles, whiskers to 1.5 quartile ranges.

    Args:
        slides: A row of each slide, or of each slide and group.
        column: The figure; slides in which it is undefined are left out.
        label: Of the axis, with the unit.
        by: Column that names the group.

    Returns:
        The figure; None where no slide has the figure.
    """
    values = slides[column].astype(np.float64)
    values, names = values[values.notna()], slides.loc[values.notna(), by].replace("", NOT_STATED)
    if values.empty:
        return None
    groups = [(str(name), part.to_numpy()) for name, part in values.groupby(names)]
    figure = Figure(figsize=(7.5, 1.2 + 0.45 * len(groups)), layout="constrained")
    axes = figure.subplots()
    axes.boxplot(
        [part for _, part in groups],
        orientation="horizontal",
        positions=range(len(groups)),
        widths=0.62,
        showfliers=False,  # the dots show them
        patch_artist=True,
        boxprops={"facecolor": "#e8edf2", "edgecolor": GREY},
        whiskerprops={"color": GREY},
        capprops={"color": GREY},
        medianprops={"color": INK, "linewidth": 2},
    )
    for height, (_, part) in enumerate(groups):
        # Golden steps spread the dots evenly, the same way in every run.
        spread = (np.arange(len(part)) * 0.618034 % 1 - 0.5) * min(0.44, 0.08 * (len(part) - 1))
        axes.plot(part, height + spread, "o", color=PALETTE[0], markersize=4.5, alpha=0.65, markeredgewidth=0)
    axes.set_yticks(range(len(groups)), [f"{name} ({len(part)})" for name, part in groups])
    axes.invert_yaxis()
    axes.set(xlabel=label, ylabel=f"{by.removesuffix('_name')} (slides)")
    axes.grid(axis="x", alpha=0.3)
    return figure


def count_distances(matches: Iterable[pd.DataFrame], radius_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Histogram of the matched pairs' distances over slides, one table in memory at a time.

    Args:
        matches: Each slide's match table, with ``distance_um``.
        radius_um: The match radius, which no distance exceeds.

    Returns:
        Counts, int64, ``(DISTANCE_BINS,)``, and the bins' edges in um, ``(DISTANCE_BINS + 1,)``.
    """
    edges = np.linspace(0, radius_um, DISTANCE_BINS + 1)
    counts = np.zeros(DISTANCE_BINS, np.int64)
    for table in matches:
        distance = table["distance_um"].dropna().to_numpy(np.float64)
        counts += np.histogram(np.minimum(distance, radius_um), edges)[0]  # rounding may pass the radius
    return counts, edges


def draw_distances(counts: np.ndarray, edges: np.ndarray, radii_um: Sequence[float]) -> Figure | None:
    """Histogram of the matched pairs' distances, with the match radii marked.

    Args:
        counts: From :func:`count_distances`.
        edges: Likewise; the last is the main radius.
        radii_um: All match radii.

    Returns:
        The figure; None without any pair.
    """
    if not counts.any():
        return None
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.stairs(counts, edges, fill=True, color=_colour("TP"), alpha=0.6)
    axes.stairs(counts, edges, color=INK, linewidth=0.8)
    main = edges[-1]
    for radius in sorted(set(radii_um) | {main}):
        axes.axvline(radius, color=INK, linestyle="-" if radius == main else "--", linewidth=1)
        note = f"{radius:g} µm" + (" (main)" if radius == main else "")
        axes.text(radius, 1.02, note, transform=axes.get_xaxis_transform(), ha="center", fontsize=9)
    axes.set_xlim(0, max(main, *radii_um) * 1.04)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("distance between detection and annotation (µm)")
    axes.set_ylabel(f"matched pairs per {edges[1] - edges[0]:g} µm")
    axes.set_title(f"{counts.sum():,} matched pairs; dashed: the other match radii", fontsize=10, pad=22)
    return figure


def draw_confusion(confusion: Confusion) -> Figure:
    """Counts and row percentages in the cells, which are shaded by the percentage."""
    counts = confusion.counts
    total = counts.sum(axis=1)
    share = counts.div(total.where(total > 0), axis=0).to_numpy()
    height, width = counts.shape
    figure = Figure(figsize=(2.6 + 1.25 * width, 2.0 + 0.75 * height), layout="constrained")
    axes = figure.subplots()
    # What matches no annotation is split over classes, but no share of it is right.
    right = np.where((counts.index == NO_ANNOTATION)[:, None], 0.0, share)
    axes.imshow(right, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), number in np.ndenumerate(counts.to_numpy()):
        true, found = counts.index[row], counts.columns[column]
        if (true, found) == (NO_ANNOTATION, MISSED):
            axes.text(column, row, "–", ha="center", va="center", color=GREY)
            continue
        part = share[row, column]
        note = f"{number:,}" + ("" if np.isnan(part) else f"\n{part:.1%}")
        weight = "bold" if true == found else "normal"
        colour = "white" if right[row, column] > 0.55 else INK
        axes.text(column, row, note, ha="center", va="center", color=colour, fontweight=weight)
    axes.set_xticks(range(width), [str(name) for name in counts.columns], rotation=20, ha="right")
    axes.set_yticks(range(height), [f"{name}\n(n = {total[name]:,})" for name in counts.index])
    axes.set_xticks(np.arange(width - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(height - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(length=0, which="both")
    axes.spines[:].set_visible(False)
    axes.set(xlabel="found as", ylabel="annotated as")
    note = "count and share of the row"
    if confusion.unlabelled:
        note += f"; {confusion.unlabelled:,} annotations without a class are left out"
    figure.suptitle(note, fontsize=9)
    return figure


def draw_intervals(scores: pd.DataFrame, radius_um: float) -> Figure | None:
    """Pooled F1 with its 95 % interval: of all slides, and by split, organ and label quality.

    Args:
        scores: The cohort's scores.
        radius_um: The main radius.

    Returns:
        The figure; None without any defined F1.
    """
    scores = scores[(scores["radius_um"] == radius_um) & scores["f1"].notna()]
    parts = [
        (name, scores[scores["grouping"] == name]) for name in ("all", "split", "organ", "label_quality")
    ]
    parts = [(name, part.sort_values("group")) for name, part in parts if len(part)]
    if not parts:
        return None
    lines = sum(len(part) + 1 for _, part in parts) - 1
    figure = Figure(figsize=(10.5, 1.1 + 0.3 * lines), layout="constrained")
    axes = figure.subplots()
    labels: list[tuple[float, str]] = []
    height = 0.0
    for name, part in parts:
        if name != "all":
            labels.append((height, name.replace("_", " ")))
            height += 1
        for row in part.to_dict("records"):
            _interval(axes, height, row, whole=name == "all")
            labels.append((height, "all slides" if name == "all" else f"{row['group']}  "))
            height += 1
    axes.set_yticks([position for position, _ in labels], [text for _, text in labels])
    headings = {name.replace("_", " ") for name, _ in parts if name != "all"}
    for tick, (_, text) in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if text in headings else "normal")
    whole = scores.loc[scores["grouping"] == "all", "f1"]
    if len(whole):
        axes.axvline(whole.iloc[0], color=GREY, linestyle=":", linewidth=1, zorder=1)
    axes.set_ylim(height - 0.4, -0.8)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"pooled F1 within {radius_um:g} µm, and its 95 % interval by bootstrap over patients")
    axes.grid(axis="x", alpha=0.3)
    heading = f"{'F1':5} {'(95 % interval)':18} {'slides':>7} {'patients':>8}"
    axes.text(1.02, 1.0, heading, transform=axes.transAxes, family="monospace", fontsize=9, fontweight="bold")
    return figure


def _interval(axes: Axes, height: float, row: dict[Any, Any], whole: bool) -> None:
    colour = INK if whole else PALETTE[0]
    known = np.isfinite([row["f1_low"], row["f1_high"]]).all()
    if known:
        axes.plot([row["f1_low"], row["f1_high"]], [height, height], color=colour, linewidth=2)
    axes.plot(row["f1"], height, "D" if whole else "o", color=colour, markersize=7 if whole else 6)
    note = f"({row['f1_low']:.3f} to {row['f1_high']:.3f})" if known else "(no interval)"
    axes.text(
        1.02,
        height,
        f"{row['f1']:.3f} {note:18} {row['slides']:7,} {row['patients']:8,}",
        transform=axes.get_yaxis_transform(),
        family="monospace",
        fontsize=9,
        va="center",
    )


def _colour(kind: str) -> tuple[float, float, float]:
    red, green, blue = MARKS[kind].colour
    return red / 255, green / 255, blue / 255
