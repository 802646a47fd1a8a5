"""What a study shows, in sentences that follow from its tables alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from karyon.study.same_different import FEWEST_PATIENTS, LEVEL, sweep_lines, trained_alone


def matrix_verdict(
    matrix: pd.DataFrame, groups: pd.DataFrame, cells: pd.DataFrame, tests: pd.DataFrame
) -> list[str]:
    """Whether the diagonal wins: a group's own model against those of other groups.

    Args:
        matrix: Variants of one matrix, from :func:`karyon.study.same_different.find_matrices`.
        groups: From :func:`karyon.study.same_different.group_table`.
        cells: From :func:`karyon.study.cells.cell_table`.
        tests: From :func:`karyon.study.cells.compare_variants`.
    """
    own = groups[groups["same"] != ""]
    sentences = [*_diagonal(own), *_significance(own), *_means(own)]
    for variant in matrix.loc[~trained_alone(matrix), "variant"]:
        sentences.append(_joint_model(variant, own, tests))
    return sentences + list(_seeds(cells[cells["variant"].isin(matrix["variant"])]))


def _diagonal(own: pd.DataFrame) -> Iterator[str]:
    yield (
        f"The model trained on the tested group has the highest F1 of all single-group models on "
        f"{own['wins'].sum()} of {len(own)} test groups."
    )
    others = [
        f"{row['test_group']} ({row['best_different']} {row['best_different_f1']:.3f}, "
        f"own {row['same_f1']:.3f})"
        for row in own[~own["wins"]].to_dict("records")
    ]
    if others:
        yield f"A model of another group is at least level on {', '.join(others)}."


def _significance(own: pd.DataFrame) -> Iterator[str]:
    testable = own[own["testable"]]
    if len(testable):
        alike = testable[testable["not_worse"].map(len) > 0]
        yield (
            f"On {len(alike)} of the {len(testable)} test groups with at least {FEWEST_PATIENTS} patients, "
            "some model of another group is as good as the own one, in that it is not significantly worse "
            f"(paired bootstrap over patients, {LEVEL:.0%} level, adjusted by Holm for the models compared)"
            + (f": {_listed(alike, 'not_worse')}." if len(alike) else ".")
        )
        better = testable[testable["better"].map(len) > 0]
        if len(better):
            yield f"Significantly better than the own model: {_listed(better, 'better')}."
    few = own.loc[~own["testable"], "test_group"]
    if len(few):
        yield (
            f"{', '.join(few)}: fewer than {FEWEST_PATIENTS} patients, too few for a test to tell models "
            "apart."
        )


def _listed(groups: pd.DataFrame, column: str) -> str:
    return "; ".join(f"on {row['test_group']}: {', '.join(row[column])}" for row in groups.to_dict("records"))


def _means(own: pd.DataFrame) -> Iterator[str]:
    both = own.dropna(subset=["same_f1", "mean_different_f1"])
    if len(both):
        same, different = both["same_f1"].mean(), both["mean_different_f1"].mean()
        yield (
            f"Averaged over test groups, F1 is {same:.3f} with the own model and {different:.3f} with those "
            f"of other groups, a difference of {same - different:+.3f}."
        )


def _joint_model(variant: str, own: pd.DataFrame, tests: pd.DataFrame) -> str:
    about = tests[(tests["variant"] == variant) & tests["reference"].isin(own["same"])]
    about = about.merge(own[["test_group", "testable"]], on="test_group")
    higher = about["difference"] > 0
    clear = (about["p_adjusted"] < LEVEL) & about["testable"]
    return (
        f"{variant} has a higher F1 than the own model on {higher.sum()} of {len(about)} test groups "
        f"(significantly on {(higher & clear).sum()}), and is significantly worse on "
        f"{(~higher & clear).sum()}."
    )


def _seeds(cells: pd.DataFrame) -> Iterator[str]:
    spread = cells.loc[cells["seeds"] > 1, "f1_seeds"].map(np.ptp).dropna()
    if len(spread):
        yield (
            "Between seeds, F1 of the same model on the same test group differs by "
            f"{spread.median():.3f} in the median, and by {spread.max():.3f} at most."
        )


def sweep_verdict(cells: pd.DataFrame, variants: pd.DataFrame, x_name: str) -> list[str]:
    """How F1 changes along each line of a sweep, on the group it was trained on if it is tested, else on all.

    Args:
        cells: From :func:`karyon.study.cells.cell_table`.
        variants: The study's.
        x_name: Which of its sweeps.
    """
    table = cells.dropna(subset=["f1"])
    groups = list(table["test_group"].unique())
    sentences = []
    for name, swept in sweep_lines(variants, x_name).items():
        trained_on = str(swept["train_groups"].iloc[0])
        group = trained_on if trained_on in groups else groups[0]
        line = table[table["test_group"] == group].merge(swept, on="variant").sort_values("x")
        if line.empty:
            continue
        first, last, best = line.iloc[0], line.iloc[-1], line.iloc[int(line["f1"].argmax())]
        sentences.append(
            f"{name}{', ' if name else ''}tested on {group}: from {x_name} {first['x']:g} to {last['x']:g}, "
            f"F1 goes from {first['f1']:.3f} to {last['f1']:.3f}; it is highest, {best['f1']:.3f}, "
            f"at {best['x']:g}."
        )
    return sentences


def comparison_verdict(cells: pd.DataFrame, variants: pd.DataFrame) -> list[str]:
    """Which variant is best, over all test images or the single test group.

    Args:
        cells: From :func:`karyon.study.cells.cell_table`.
        variants: Those that are compared.
    """
    group = cells["test_group"].iloc[0]
    inside = cells[(cells["test_group"] == group) & cells["variant"].isin(variants["variant"])]
    f1 = inside.dropna(subset=["f1"]).set_index("variant")["f1"]
    if f1.empty:
        return []
    best = f"Tested on {group}, {f1.idxmax()} has the highest F1, {f1.max():.3f}."
    return [best, *_seeds(inside)]


def reference_verdict(cells: pd.DataFrame, variants: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    """Which variants differ significantly from their reference, over all test images or the single group.

    Args:
        cells: From :func:`karyon.study.cells.cell_table`.
        variants: Those to speak of.
        tests: From :func:`karyon.study.cells.compare_variants`.
    """
    group = cells["test_group"].iloc[0]
    about = tests[(tests["test_group"] == group) & tests["variant"].isin(variants["variant"])]
    sentences = []
    for reference, rows in about.groupby("reference", sort=False):
        if rows["patients"].iloc[0] < FEWEST_PATIENTS:
            sentences.append(f"There are fewer than {FEWEST_PATIENTS} patients, too few for a test.")
            continue
        clear, higher = rows["p_adjusted"] < LEVEL, rows["difference"] > 0
        better, worse = (", ".join(rows.loc[clear & side, "variant"]) for side in (higher, ~higher))
        sentences.append(
            f"Tested on {group} and compared with {reference}, significantly better: {better or 'none'}; "
            f"significantly worse: {worse or 'none'} (paired bootstrap over patients, {LEVEL:.0%} level, "
            "Holm)."
        )
    return sentences
