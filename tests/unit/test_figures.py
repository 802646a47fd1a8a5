"""Figures of the evaluation: what they show, read back from the drawing, against values worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from karyon.cohort.confusion import Confusion, count_confusion
from karyon.cohort.figures import (
    ISO_F1,
    count_distances,
    draw_boxes,
    draw_confusion,
    draw_distances,
    draw_intervals,
    draw_precision_recall,
)

NAN = float("nan")
# grouping, group: precision and recall at thresholds 0.9 and 0.5.
CURVES = {
    ("all", "all"): ((0.9, 0.4), (0.8, 0.7)),
    ("split", "train"): ((1.0, 0.5), (0.9, 0.8)),
    ("split", "test"): ((0.8, 0.3), (0.7, 0.6)),
    ("organ", "lung"): ((0.9, 0.4), (0.8, 0.7)),
}


def curve_table(names: list[tuple[str, str]]) -> pd.DataFrame:
    rows = [
        {
            "grouping": name[0],
            "group": name[1],
            "threshold": threshold,
            "tp": 10,
            "fp": 1,
            "fn": 5,
            "precision": precision,
            "recall": recall,
        }
        for name in names
        for threshold, (precision, recall) in zip((0.9, 0.5), CURVES[name], strict=True)
    ]
    return pd.DataFrame(
        rows, columns=["grouping", "group", "threshold", "tp", "fp", "fn", "precision", "recall"]
    )


def score(grouping: str, group: str, **known: Any) -> dict[str, Any]:
    row = {"grouping": grouping, "group": group, "radius_um": 4.0, "slides": 3, "patients": 2}
    figures = {"precision": 0.85, "recall": 0.6, "f1": 0.7, "f1_low": 0.6, "f1_high": 0.8}
    return row | figures | {"average_precision": 0.75} | known


def axes_of(figure: Figure | None) -> list[Axes]:
    assert figure is not None
    return figure.axes


def named_lines(axes: Axes) -> dict[str, list[list[float]]]:
    lines = [line for line in axes.lines if not line.get_label().startswith("_")]
    return {
        line.get_label(): np.stack([line.get_xdata(), line.get_ydata()], axis=1).tolist() for line in lines
    }


def test_curves_of_all_slides_and_of_each_split_are_drawn() -> None:
    curves = curve_table([("all", "all"), ("split", "train"), ("split", "test"), ("organ", "lung")])
    scores = pd.DataFrame([score("all", "all"), score("split", "train", average_precision=0.8125)])
    (axes,) = axes_of(draw_precision_recall(curves, scores, 4.0))  # one organ is no second panel
    assert named_lines(axes) == {
        "all slides (AP 0.750)": [[0.4, 0.9], [0.7, 0.8]],
        "test": [[0.3, 0.8], [0.6, 0.7]],
        "train (AP 0.812)": [[0.5, 1.0], [0.8, 0.9]],
    }
    assert "recall" in axes.get_xlabel()
    assert "4 µm" in axes.get_xlabel()
    assert axes.get_ylabel() == "precision"


def test_operating_point_is_that_of_the_scores_at_the_main_radius() -> None:
    scores = pd.DataFrame(
        [score("all", "all"), score("all", "all", radius_um=2.0, precision=0.1, recall=0.1)]
    )
    (axes,) = axes_of(draw_precision_recall(curve_table([("all", "all")]), scores, 4.0))
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in points] == [(0.6, 0.85)]


def test_grey_lines_are_of_equal_f1() -> None:
    (axes,) = axes_of(
        draw_precision_recall(curve_table([("all", "all")]), pd.DataFrame([score("all", "all")]), 4.0)
    )
    lines = [line for line in axes.lines if len(line.get_xdata()) > 100]
    for line, f1 in zip(lines, ISO_F1, strict=True):
        recall, precision = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        np.testing.assert_allclose(2 * precision * recall / (precision + recall), f1)
    assert [text.get_text() for text in axes.texts] == [f"F1 {f1:g}" for f1 in ISO_F1]


def test_organs_have_a_panel_of_their_own_and_many_keep_apart() -> None:
    organs = [f"organ {number:02d}" for number in range(30)]
    one = curve_table([("all", "all")])
    curves = pd.concat(
        [one, *(one.assign(grouping="organ", group=organ, tp=number) for number, organ in enumerate(organs))]
    )
    _, axes = axes_of(draw_precision_recall(curves, pd.DataFrame([score("all", "all")]), 4.0))
    lines = [line for line in axes.lines if line.get_label().startswith("organ")]
    assert [line.get_label() for line in lines] == organs[9:]  # the 21 with most annotations
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 21


def test_without_a_curve_there_is_no_figure() -> None:
    scores = pd.DataFrame([score("all", "all")])
    assert draw_precision_recall(curve_table([]), scores, 4.0) is None
    no_truth = curve_table([("all", "all")]).assign(recall=NAN)
    assert draw_precision_recall(no_truth, scores, 4.0) is None


def test_boxes_hold_the_slides_of_each_organ() -> None:
    slides = pd.DataFrame(
        {"organ": ["lung", "", "lung", "lung", "colon"], "f1": [0.5, 0.6, 0.9, 0.7, NAN]}, index=range(7, 12)
    )
    (axes,) = axes_of(draw_boxes(slides, "f1", "F1"))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["lung (3)", "not stated (1)"]
    dots = [sorted(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [[0.5, 0.7, 0.9], [0.6]]
    boxes = [patch.get_path().get_extents() for patch in axes.patches]
    np.testing.assert_allclose([[box.x0, box.x1] for box in boxes], [[0.6, 0.8], [0.6, 0.6]])
    heights = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
    assert all(abs(height - row).max() < 0.31 for row, height in enumerate(heights))  # within their box
    assert axes.get_xlabel() == "F1"


def test_boxes_of_nothing_are_no_figure() -> None:
    assert draw_boxes(pd.DataFrame({"organ": ["lung"], "f1": [NAN]}), "f1", "F1") is None


def test_distances_are_counted_over_slides_up_to_the_radius() -> None:
    one = pd.DataFrame({"distance_um": [0.05, 0.15, NAN, 4.0]})
    two = pd.DataFrame({"distance_um": [0.15, np.nextafter(4.0, 5), NAN]})
    counts, edges = count_distances([one, two], 4.0)
    np.testing.assert_allclose(edges, np.arange(41) / 10)
    assert np.flatnonzero(counts).tolist() == [0, 1, 39]
    assert counts[[0, 1, 39]].tolist() == [1, 2, 2]


def test_histogram_shows_counts_and_marks_every_radius() -> None:
    counts, edges = count_distances([pd.DataFrame({"distance_um": [0.05, 0.15, 3.0]})], 4.0)
    (axes,) = axes_of(draw_distances(counts, edges, [4.0, 2.0]))
    assert [line.get_xdata()[0] for line in axes.lines] == [2.0, 4.0]
    assert [text.get_text() for text in axes.texts] == ["2 µm", "4 µm (main)"]
    steps = next(patch for patch in axes.patches if isinstance(patch, StepPatch))
    assert steps.get_data().values.tolist() == counts.tolist()
    assert "3 matched pairs" in axes.get_title()


def test_histogram_without_pairs_is_no_figure() -> None:
    counts, edges = count_distances([pd.DataFrame({"distance_um": [NAN]})], 4.0)
    assert draw_distances(counts, edges, [4.0]) is None


def matches(*rows: tuple[str, str, str, int]) -> pd.DataFrame:
    """Kind, true class, predicted class, how often."""
    table = pd.DataFrame(rows, columns=["kind", "truth_class", "class_name", "number"])
    return table.loc[table.index.repeat(table["number"])].drop(columns="number")


def cells(confusion: Confusion) -> dict[tuple[str, str], int]:
    return {(str(row), str(column)): int(n) for (row, column), n in confusion.counts.stack().items()}


def test_confusion_is_counted_over_slides_and_leaves_unlabelled_out() -> None:
    one = matches(("TP", "tumour", "tumour", 5), ("TP", "tumour", "lymphocyte", 2), ("TP", "", "tumour", 4))
    two = matches(
        ("TP", "tumour", "tumour", 1),
        ("FP", "", "lymphocyte", 3),
        ("FN", "lymphocyte", "", 6),
        ("FN", "", "", 7),
    )
    confusion = count_confusion([one, two])
    assert confusion is not None
    assert confusion.counts.index.tolist() == ["lymphocyte", "tumour", "no annotation"]
    assert confusion.counts.columns.tolist() == ["lymphocyte", "tumour", "missed"]
    assert confusion.counts.to_numpy().tolist() == [[0, 0, 6], [2, 6, 0], [3, 0, 0]]
    assert confusion.unlabelled == 11


def test_a_model_without_classes_shows_recall_by_class() -> None:
    confusion = count_confusion(
        [matches(("TP", "a", "", 3), ("FN", "a", "", 1), ("FN", "b", "", 2), ("FP", "", "", 9))]
    )
    assert confusion is not None
    assert cells(confusion) == {
        ("a", "nucleus"): 3,
        ("a", "missed"): 1,
        ("b", "nucleus"): 0,
        ("b", "missed"): 2,
        ("no annotation", "nucleus"): 9,
        ("no annotation", "missed"): 0,
    }


def test_annotations_without_any_class_are_one_row() -> None:
    confusion = count_confusion([matches(("TP", "", "a", 3), ("FN", "", "", 1), ("FP", "", "b", 2))])
    assert confusion is not None
    assert confusion.counts.loc["nucleus"].to_dict() == {"a": 3, "b": 0, "missed": 1}
    assert confusion.unlabelled == 0


@pytest.mark.parametrize("tables", [[], [matches(("TP", "", "", 3), ("FN", "", "", 1))]])
def test_without_classes_there_is_no_confusion(tables: list[pd.DataFrame]) -> None:
    assert count_confusion(tables) is None


def test_confusion_cells_show_count_and_share_of_the_row() -> None:
    counts = pd.DataFrame(
        [[1500, 500], [7, 0]], index=["tumour", "no annotation"], columns=["nucleus", "missed"]
    )
    figure = draw_confusion(Confusion(counts, unlabelled=1234))
    (axes,) = axes_of(figure)
    at = {text.get_position(): text.get_text() for text in axes.texts}
    assert at == {(0, 0): "1,500\n75.0%", (1, 0): "500\n25.0%", (0, 1): "7\n100.0%", (1, 1): "–"}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["nucleus", "missed"]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "tumour\n(n = 2,000)",
        "no annotation\n(n = 7)",
    ]
    assert "1,234 annotations without a class are left out" in figure.get_suptitle()


def test_intervals_are_drawn_by_split_organ_and_label_quality() -> None:
    scores = pd.DataFrame(
        [
            score("all", "all", f1=0.71),
            score("all", "all", radius_um=2.0, f1=0.1),
            score("label_quality", "rebuilt", f1=0.74, f1_low=0.73, f1_high=0.75),
            score("organ", "lung", f1=0.73, f1_low=NAN, f1_high=NAN),
            score("stain", "HE", f1=0.2),
            score("split", "test", f1=0.72, f1_low=0.7, f1_high=0.76),
            score("split", "empty", f1=NAN),
        ]
    )
    (axes,) = axes_of(draw_intervals(scores, 4.0))
    labels = [text.get_text().strip() for text in axes.get_yticklabels()]
    assert labels == ["all slides", "split", "test", "organ", "lung", "label quality", "rebuilt"]
    points = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() in "oD"}
    assert points == {0: 0.71, 2: 0.72, 4: 0.73, 6: 0.74}
    bars = [
        line for line in axes.lines if line.get_marker() not in tuple("oD") and line.get_linestyle() == "-"
    ]
    assert {line.get_ydata()[0]: list(line.get_xdata()) for line in bars} == {
        0: [0.6, 0.8],
        2: [0.7, 0.76],
        6: [0.73, 0.75],
    }
    written = [text.get_text().split() for text in axes.texts]
    assert ["0.720", "(0.700", "to", "0.760)", "3", "2"] in written
    assert ["0.730", "(no", "interval)", "3", "2"] in written


def test_intervals_of_undefined_scores_are_no_figure() -> None:
    assert draw_intervals(pd.DataFrame([score("all", "all", f1=NAN)]), 4.0) is None
