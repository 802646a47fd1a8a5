"""What a study found: each variant's F1 with its interval, and how it differs from the first."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from karyon.errors import KaryonError
from karyon.study.cells import cell_table, compare_variants, with_all
from karyon.study.definition import Run
from karyon.study.runs import SCORES


def read_scores(runs: list[Run], folder: Path) -> pd.DataFrame:
    """The scores of all runs that are done, one row per run and image; in the order of the study.

    Raises:
        KaryonError: No run is done.
    """
    files = [folder / run.name / SCORES for run in runs]
    tables = [pd.read_parquet(file) for file in files if file.exists()]
    if not tables:
        raise KaryonError(f"{folder}: no run of the study is done")
    scores = pd.concat(tables, ignore_index=True)
    mean = scores["distance_sum"] / scores["tp"]  # NaN without a matched pair
    return scores.rename(columns={"split": "test_group"}).assign(distance_um=mean)


def study_table(matrix: pd.DataFrame) -> pd.DataFrame:
    """A row per group of test images (all, then each test group) and variant.

    Args:
        matrix: One row per run and test image, as in :func:`karyon.study.cells.cell_table`.

    Returns:
        The columns of :func:`karyon.study.cells.cell_table`, the test group as ``group``, and ``difference``
        of F1 to the first variant with ``p_value`` (NaN for the first), by a paired bootstrap over patients.
    """
    images = with_all(matrix)
    cells = cell_table(images)
    first, *others = cells["variant"].unique()
    pairs = [(group, first, variant) for group in cells["test_group"].unique() for variant in others]
    tests = compare_variants(images, pairs)[["test_group", "variant", "difference", "p_value"]]
    return cells.merge(tests, on=["test_group", "variant"], how="left").rename(
        columns={"test_group": "group"}
    )
