"""Models on the group they were trained on and on others: the MICRONET paper's cross-organ comparison."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

LEVEL = 0.05
# Of two equally good models one is the better for all of n patients with probability 2 / 2**n. With fewer
# patients than these that is above 5 %, and a bootstrap, which is too sure of itself then, proves nothing.
FEWEST_PATIENTS = 6


def find_matrices(variants: pd.DataFrame, test_groups: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The variants that make up a matrix of train groups by test groups; of several networks, one for each.

    A matrix has at least two variants that were each trained on a group of its own, and one of these is a
    test group. Variants without a swept number belong to it too, whatever they were trained on; where
    several were trained on the same group, those of the same series.

    Args:
        variants: The study's, with ``variant``, ``train_groups``, ``series`` and ``x``.
        test_groups: The study's.

    Returns:
        Rows of ``variants`` under the series they belong to, under '' where one matrix is all there is.
    """
    plain = variants[variants["x"].isna()]
    if _is_matrix(plain, test_groups):
        return {"": plain}
    parts = {str(series): part for series, part in plain.groupby("series", sort=False)}
    return {series: part for series, part in parts.items() if _is_matrix(part, test_groups)}


def sweep_lines(variants: pd.DataFrame, x_name: str) -> dict[str, pd.DataFrame]:
    """The variants of a sweep by the line of a plot that they belong to.

    Args:
        variants: The study's.
        x_name: Which of its sweeps.

    Returns:
        Rows of ``variants`` in order of ``x``, under their series.
    """
    swept = variants[(variants["x_name"] == x_name) & variants["x"].notna()].sort_values("x", kind="stable")
    names = [name for name in variants["series"].unique() if (swept["series"] == name).any()]
    return {str(name): swept[swept["series"] == name] for name in names}


def trained_alone(variants: pd.DataFrame) -> pd.Series:
    """Whether each variant was trained on a single group; bool."""
    groups = variants["train_groups"]
    return (groups != "") & ~groups.str.contains("+", regex=False)


def reference_pairs(
    variants: pd.DataFrame, matrices: dict[str, pd.DataFrame], test_groups: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Which variants are compared: test group, reference and variant.

    The reference is the model trained on the test group alone, in each matrix its own. Of a study without a
    matrix it is the first variant.

    Args:
        variants: The study's.
        matrices: From :func:`find_matrices`.
        test_groups: The study's.
    """
    inside = {variant for part in matrices.values() for variant in part["variant"]}
    others = [str(name) for name in variants["variant"] if name not in inside]
    pairs = []
    for group in test_groups:
        own = [(part, same_model(part, group)) for part in matrices.values()]
        pairs += [(group, same, str(name)) for part, same in own for name in part["variant"]]
        first = own[0][1] if own else str(variants["variant"].iloc[0])
        pairs += [(group, first, name) for name in others]
    return [(group, reference, name) for group, reference, name in pairs if reference not in ("", name)]


def same_model(matrix: pd.DataFrame, group: str) -> str:
    """The variant of a matrix that was trained on this group alone, '' without one."""
    names = matrix.loc[matrix["train_groups"] == group, "variant"]
    return str(names.iloc[0]) if len(names) else ""


def group_table(matrix: pd.DataFrame, cells: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """One row per test group: F1 of the group's own model, and of the models of other groups.

    Models of several groups, or of none, are in neither.

    Args:
        matrix: Variants of one matrix, from :func:`find_matrices`.
        cells: From :func:`karyon.study.cells.cell_table`.
        tests: From :func:`karyon.study.cells.compare_variants`.

    Returns:
        ``test_group``, ``patients``; ``same`` (variant, '' without one), ``same_f1`` with ``same_low`` and
        ``same_high``; ``different`` (number of models), ``mean_different_f1``, ``best_different`` (the train
        group) with ``best_different_f1``; ``wins``, whether the own model's F1 is the largest; lists of
        train groups: ``not_worse``, models that are not significantly worse than the own one, and among
        them ``better``, significantly better ones. Both are empty where ``testable`` is false: with too few
        patients, or no own model.
    """
    train_group = matrix.loc[trained_alone(matrix)].set_index("variant")["train_groups"]
    inside = cells[cells["variant"].isin(train_group.index)]
    rows = []
    for group, part in inside.groupby("test_group", sort=False):
        f1 = part.set_index("variant")["f1"]
        same = same_model(matrix, str(group))
        different = f1.drop(same, errors="ignore")
        best = str(different.idxmax()) if different.notna().any() else ""
        own = part[part["variant"] == same]
        testable = bool(len(own)) and int(part["patients"].iloc[0]) >= FEWEST_PATIENTS
        about = tests[(tests["test_group"] == group) & (tests["reference"] == same)]
        about = about[about["variant"].isin(different.index) & testable]
        clear = about["p_adjusted"] < LEVEL
        rows.append(
            {
                "test_group": group,
                "patients": part["patients"].iloc[0],
                "same": same,
                "same_f1": _single(own, "f1"),
                "same_low": _single(own, "f1_low"),
                "same_high": _single(own, "f1_high"),
                "different": len(different),
                "mean_different_f1": different.mean(),
                "best_different": train_group[best] if best else "",
                "best_different_f1": different.max(),
                "wins": bool(_single(own, "f1") > different.max()),
                "testable": testable,
                "not_worse": train_group[about.loc[~clear | (about["difference"] > 0), "variant"]].tolist(),
                "better": train_group[about.loc[clear & (about["difference"] > 0), "variant"]].tolist(),
            }
        )
    return pd.DataFrame(rows)


def _single(rows: pd.DataFrame, column: str) -> float:
    return float(rows[column].iloc[0]) if len(rows) else float("nan")


def _is_matrix(variants: pd.DataFrame, test_groups: Sequence[str]) -> bool:
    alone = variants.loc[trained_alone(variants), "train_groups"]
    return len(alone) > 1 and bool(alone.is_unique) and bool(alone.isin(test_groups).any())
