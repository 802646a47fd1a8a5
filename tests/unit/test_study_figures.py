"""Figures of a study: what they show, read back from the drawing, against values worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from karyon.cohort.figures import PALETTE
from karyon.study.figures import (
    draw_clusters,
    draw_heatmap,
    draw_same_different,
    draw_seed_spread,
    exchange_loss,
)
from karyon.study.panels import draw_curves, draw_sweep, draw_variants, pool_seeds

NAN = float("nan")
GROUPS = ["lung", "kidney", "breast", "eye"]
F1 = np.array([[0.9, 0.5, 0.6, 0.3], [0.6, 0.8, 0.8, 0.3], [0.5, 0.7, 0.8, 0.3], [0.2, 0.2, 0.2, 0.7]])


def variants(*table: tuple[str, str, str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(table, columns=["variant", "train_groups", "series", "x_name", "x"])


def models(*extra: tuple[str, str, str, str, float]) -> pd.DataFrame:
    return variants(*((f"m-{group}", group, "", "", NAN) for group in GROUPS), *extra)


def cell(variant: str, group: str, f1: float, **known: Any) -> dict[str, Any]:
    row = {"test_group": group, "variant": variant, "seeds": 2, "patients": 7, "f1": f1}
    row |= {"f1_low": f1 - 0.1, "f1_high": f1 + 0.1, "f1_seeds": [f1 - 0.02, f1 + 0.03]}
    return row | {"precision": 0.8, "recall": 0.6} | known


def square(f1: np.ndarray = F1) -> pd.DataFrame:
    return pd.DataFrame(
        [
            cell(f"m-{train}", test, f1[row, column])
            for column, test in enumerate(GROUPS)
            for row, train in enumerate(GROUPS)
        ]
    )


def texts(axes: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts}


def outlined(axes: Axes) -> set[tuple[float, float]]:
    return {patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)}


def test_heatmap_has_every_cell_means_and_the_diagonal_outlined() -> None:
    cells = pd.concat([square(), pd.DataFrame([cell("joint", group, 0.4) for group in GROUPS])])
    axes = draw_heatmap(models(("joint", "lung+kidney", "", "", NAN)), cells).axes[0]
    shown = texts(axes)
    assert [shown[column, 0] for column in range(4)] == ["0.90", "0.50", "0.60", "0.30"]
    assert [shown[column, 4] for column in range(4)] == ["0.40"] * 4
    assert outlined(axes) == {(n - 0.5, n - 0.5) for n in range(4)}
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == [*GROUPS, "joint", "mean"]
    means = {value for (x, y), value in shown.items() if x % 1 or y % 1}
    assert {f"{F1[0].mean():.2f}", f"{(F1[:, 3].sum() + 0.4) / 5:.2f}"} <= means
    bold = {text.get_position() for text in axes.texts if text.get_fontweight() == "bold"}
    assert bold == {(0, 0), (1, 1), (2, 1), (2, 2), (3, 3)}  # breast is a tie


def test_heatmap_has_a_dash_where_f1_is_undefined() -> None:
    axes = draw_heatmap(models(), square(np.where(F1 == 0.9, NAN, F1))).axes[0]
    assert texts(axes)[0, 0] == "–"
    assert draw_heatmap(models(), square(np.full((4, 4), NAN))).axes


def test_exchange_loss_by_hand() -> None:
    loss = exchange_loss(F1)
    # lung and kidney: lung's model loses 0.8 - 0.5 on kidney, kidney's 0.9 - 0.6 on lung.
    assert loss[0, 1] == pytest.approx(0.3)
    assert loss[1, 2] == pytest.approx((0.0 + 0.1) / 2)
    assert np.array_equal(loss, loss.T)
    assert not np.diagonal(loss).any()
    assert exchange_loss(np.array([[0.5, 0.9], [0.9, 0.5]])).max() == 0


def test_clusters_join_first_what_stands_in_for_each_other() -> None:
    figure = draw_clusters(models(("joint", "", "", "", NAN)), pd.concat([square(), square_of_joint()]))
    assert figure is not None
    tree, heatmap = figure.axes[:2]
    order = [label.get_text() for label in heatmap.get_yticklabels()]
    assert abs(order.index("kidney") - order.index("breast")) == 1
    assert order[4:] == ["joint", "mean"]
    assert [label.get_text() for label in heatmap.get_xticklabels()][:4] == order[:4]
    assert len(outlined(heatmap)) == 4
    heights = sorted(max(line.get_xdata()) for line in tree.lines)
    assert heights[0] == pytest.approx(0.05)
    first = min(tree.lines, key=lambda line: max(line.get_xdata()))
    ends = sorted([order.index("kidney"), order.index("breast")])
    assert [min(first.get_ydata()), max(first.get_ydata())] == ends


def square_of_joint() -> pd.DataFrame:
    return pd.DataFrame([cell("joint", group, 0.4) for group in GROUPS])


def test_three_groups_or_an_undefined_cell_have_no_tree() -> None:
    cells = square()
    three = cells[~cells["variant"].eq("m-eye")]
    assert draw_clusters(models().iloc[:3], three) is None
    assert draw_clusters(models(), square(np.where(F1 == 0.3, NAN, F1))) is None


def points(axes: Axes, marker: str) -> list[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [(x, y) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_same_and_different_are_where_they_belong() -> None:
    groups = pd.DataFrame(
        [
            {
                "test_group": group,
                "patients": 7,
                "same": f"m-{group}",
                "same_f1": F1[n, n],
                "same_low": F1[n, n] - 0.1,
                "same_high": F1[n, n] + 0.1,
                "mean_different_f1": np.delete(F1[:, n], n).mean(),
                "best_different": GROUPS[n - 1],
                "best_different_f1": np.delete(F1[:, n], n).max(),
            }
            for n, group in enumerate(GROUPS)
        ]
    )
    axes = draw_same_different(models(), square(), groups).axes[0]
    assert points(axes, "*") == [(F1[n, n], n) for n in range(4)]
    assert sorted(points(axes, "s"), key=lambda point: point[1])[:3] == [(0.6, 0), (0.5, 0), (0.2, 0)]
    assert len(points(axes, "s")) == 12
    assert points(axes, "^") == [(pytest.approx(np.delete(F1[:, n], n).mean()), n) for n in range(4)]
    assert axes.get_yticklabels()[0].get_text() == "lung (7)"
    assert any("0.900  0.433  0.600 eye" in text.get_text() for text in axes.texts)


def test_seed_spread_is_largest_minus_smallest() -> None:
    figure = draw_seed_spread(models(), square())
    assert figure is not None
    shown = points(figure.axes[0], "*") + points(figure.axes[0], "s")
    assert len(shown) == 16
    assert {round(x, 6) for x, _ in shown} == {0.05}
    assert draw_seed_spread(models(), square().assign(seeds=1)) is None


def curve_rows(variant: str, group: str, seed: int, *table: tuple[float, int, int, int]) -> pd.DataFrame:
    rows = pd.DataFrame(table, columns=["threshold", "tp", "fp", "fn"])
    return rows.assign(variant=variant, test_group=group, seed=seed)


def test_curves_of_seeds_are_added_where_all_have_the_threshold() -> None:
    one = curve_rows("a", "lung", 1, (0.2, 8, 4, 2), (0.5, 6, 0, 4), (0.9, 0, 0, 10))
    two = curve_rows("a", "lung", 2, (0.2, 7, 1, 3), (0.6, 6, 0, 4), (0.9, 0, 0, 10))
    pooled = pool_seeds(pd.concat([one, two]))
    assert pooled["threshold"].tolist() == [0.2]  # at 0.9 nothing is found: no precision
    assert pooled["precision"].tolist() == pytest.approx([15 / 20])
    assert pooled["recall"].tolist() == pytest.approx([15 / 20])


def curves() -> pd.DataFrame:
    return pd.concat(
        curve_rows(f"m-{train}", test, 1, (0.2, 80, 40, 20), (0.5, 60 + n, 10, 40 - n))
        for n, train in enumerate(GROUPS)
        for test in GROUPS
    )


def drawn(axes: Axes, colour: str) -> list[Any]:
    lines = [line for line in axes.lines if line.get_marker() == "None"]
    return [line for line in lines if to_hex(line.get_color()) == colour.lower()]


def test_curve_of_the_own_model_is_the_bold_one() -> None:
    own = {group: f"m-{group}" for group in GROUPS}
    figure = draw_curves(curves(), square(), list(models()["variant"]), own)
    assert figure is not None
    for n, axes in enumerate(figure.axes):
        assert axes.get_title() == GROUPS[n]
        (bold,) = drawn(axes, PALETTE[0])
        assert bold.get_xdata().tolist() == pytest.approx([0.8, (60 + n) / 100])
        assert len(drawn(axes, "#999999")) == 3
        assert points(axes, "o") == [(0.6, 0.8)]


def test_curves_without_an_own_model_are_told_apart_by_colour() -> None:
    names = list(models()["variant"])
    figure = draw_curves(curves(), square(), names, {})
    assert figure is not None
    assert [len(drawn(figure.axes[0], colour)) for colour in PALETTE[:4]] == [1] * 4
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*names, "threshold in use", "equal F1"]
    assert draw_curves(curves().iloc[:0], square(), names, {}) is None


SWEEP = variants(
    *(
        (f"tuned-{series}-{x}", series, f"tuned, {series}", "share", x)
        for series in ("lung", "kidney")
        for x in (0.1, 0.5, 1)
    ),
    ("scratch", "lung", "", "", NAN),
)


def test_sweep_has_a_line_per_series_and_levels_across() -> None:
    cells = pd.DataFrame(
        [
            cell(variant, group, 0.5 + number / 100)
            for group in ("lung", "kidney")
            for number, variant in enumerate(SWEEP["variant"])
        ]
    )
    figure: Figure = draw_sweep(cells, SWEEP, "share")
    axes = figure.axes[0]
    lung, kidney = (line for line in axes.lines if line.get_marker() == "o")
    assert lung.get_xdata().tolist() == [0.1, 0.5, 1.0]
    assert lung.get_ydata().tolist() == pytest.approx([0.5, 0.51, 0.52])
    assert lung.get_linewidth() > kidney.get_linewidth()  # the panel is lung's
    (level,) = (line for line in axes.lines if line.get_marker() == "None")
    assert level.get_ydata()[0] == pytest.approx(0.56)
    assert axes.get_xscale() == "linear"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "tuned, lung",
        "tuned, kidney",
        "scratch",
    ]


@pytest.mark.parametrize(("values", "scale"), [((0, 0.005, 50), "symlog"), ((0.1, 1, 10), "log")])
def test_a_wide_sweep_is_on_a_logarithmic_axis(values: tuple[float, ...], scale: str) -> None:
    study = variants(*((f"v-{x}", "lung", "", "tau", x) for x in values))
    figure = draw_sweep(pd.DataFrame([cell(name, "lung", 0.5) for name in study["variant"]]), study, "tau")
    assert figure.axes[0].get_xscale() == scale
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [f"{x:g}" for x in values]


def test_variants_have_their_interval_and_seeds() -> None:
    cells = pd.DataFrame([cell("a", "lung", 0.5), cell("b", "lung", 0.7, seeds=1, f1_seeds=[0.7])])
    axes = draw_variants(cells, ["a", "b"]).axes[0]
    assert points(axes, "D") == [(0.5, 0), (0.7, 1)]
    assert [x for x, _ in points(axes, "o")] == pytest.approx([0.48, 0.53])
    assert axes.lines[0].get_xdata() == pytest.approx([0.4, 0.6])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
