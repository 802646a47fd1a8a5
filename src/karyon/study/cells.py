"""A study's matrix cell by cell: what each variant reaches on each test group, and how two differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from karyon.cohort.scores import FIGURES
from karyon.errors import KaryonError
from karyon.evaluation.detection import DetectionScore
from karyon.evaluation.uncertainty import bootstrap, compare

ALL = "all"
F1 = {"f1": FIGURES["f1"]}
COUNTS = ["tp", "fp", "fn"]


def with_all(matrix: pd.DataFrame) -> pd.DataFrame:
    """The matrix with its images once more, as one test group ``all``, where it has several.

    Args:
        matrix: One row per run and test image.

    Raises:
        KaryonError: One of several test groups has that name.
    """
    if matrix["test_group"].nunique() < 2:
        return matrix
    if (matrix["test_group"] == ALL).any():
        raise KaryonError(
            f"a test group is named '{ALL}', which stands for all groups; rename it in the study"
        )
    # Two groups may use the same name for different images.
    image = matrix["test_group"] + "/" + matrix["image_id"]
    return pd.concat([matrix.assign(test_group=ALL, image_id=image), matrix], ignore_index=True)


def cell_table(matrix: pd.DataFrame) -> pd.DataFrame:
    """One row per test group and variant: pooled figures, the interval of F1, and what the seeds differ by.

    Counts are averaged over the seeds, so ``precision``, ``recall`` and ``f1`` are those of the images of all
    seeds together. The interval is of a bootstrap over patients: it says how much F1 depends on the images,
    and ``f1_seeds`` how much on the seed.

    Args:
        matrix: One row per run and test image: ``variant``, ``test_group``, ``seed``, ``image_id``,
            ``patient``, ``tp``, ``fp``, ``fn`` and ``distance_um``, the mean over the matched pairs.

    Returns:
        In the order of the matrix: ``test_group``, ``variant``, ``seeds``, ``images``, ``patients``,
        ``precision``, ``recall``, ``f1`` with ``f1_low`` and ``f1_high`` (NaN with one patient),
        ``mean_image_f1`` (over the images in which F1 is defined), ``f1_seeds`` (a list, each seed's pooled
        F1, by seed) and ``distance_um``, the mean of the matched pairs. NaN where undefined.
    """
    counts = image_counts(matrix)
    parts = {
        (str(group), str(variant)): part
        for group, tested in matrix.groupby("test_group", sort=False)
        for variant, part in tested.groupby("variant", sort=False)
    }
    rows = []
    for (group, variant), part in parts.items():
        of_images = counts[group, variant]
        pooled = _pooled(of_images)
        micro, macro = bootstrap(of_images, F1).to_dict("records")
        rows.append(
            {
                "test_group": group,
                "variant": variant,
                "seeds": part["seed"].nunique(),
                "images": micro["images"],
                "patients": micro["patients"],
                "precision": pooled.precision,
                "recall": pooled.recall,
                "f1": micro["value"],
                "f1_low": micro["low"],
                "f1_high": micro["high"],
                "mean_image_f1": macro["value"],
                "f1_seeds": [_pooled(seed).f1 for _, seed in part.groupby("seed")],
                "distance_um": _mean_distance(part),
            }
        )
    return pd.DataFrame(rows)


def compare_variants(matrix: pd.DataFrame, pairs: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """How F1 of variants differs from that of another on the same images: paired bootstrap over patients.

    Args:
        matrix: As in :func:`cell_table`; both variants of a pair have the same images.
        pairs: Test group, the variant that is compared with, and the variant.

    Returns:
        A row per pair: ``test_group``, ``reference``, ``variant``, ``f1_reference``, ``f1``, ``difference``
        (variant minus reference) with its interval ``low`` to ``high``, ``p_value``, ``p_adjusted`` (by
        :func:`holm`, for the number of variants compared with this reference on this test group),
        ``images`` and ``patients``. With a single patient interval and p-values are NaN.
    """
    counts = image_counts(matrix)
    rows = []
    for group, reference, variant in pairs:
        one, other = counts[group, variant], counts[group, reference]
        micro = compare(one, other, F1).iloc[0]
        names = {"test_group": group, "reference": reference, "variant": variant}
        f1 = {"f1_reference": _pooled(other).f1, "f1": _pooled(one).f1}
        rows.append(names | f1 | micro.drop(["figure", "average"]).to_dict())
    columns = ["test_group", "reference", "variant", "f1_reference", "f1", "difference", "low", "high"]
    table = pd.DataFrame(rows, columns=[*columns, "p_value", "images", "patients"])
    adjusted = table.groupby(["test_group", "reference"])["p_value"].transform(holm)
    table.insert(columns.index("high") + 2, "p_adjusted", adjusted.astype(np.float64))
    return table


def holm(p_values: pd.Series | np.ndarray) -> np.ndarray:
    """P-values adjusted for their number, by the step-down method of Holm (1979).

    The k-th smallest of m is multiplied by ``m - k + 1``, and is at least as large as those before it. Below
    a level of 5 %, the chance that any of them is there by chance alone is 5 %.

    Args:
        p_values: ``(m,)``; NaN is no test, and does not count.

    Returns:
        float64, ``(m,)``, at most 1.
    """
    raw = np.asarray(p_values, np.float64)
    adjusted = np.full(len(raw), np.nan)
    order = np.argsort(raw)[: int(np.isfinite(raw).sum())]  # NaN comes last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1.0)
    return adjusted


def image_counts(matrix: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Counts of each image, averaged over the seeds: a variant with fewer seeds is compared all the same.

    Args:
        matrix: As in :func:`cell_table`.

    Returns:
        Under test group and variant, a table with ``tp``, ``fp``, ``fn`` and ``patient`` by ``image_id``.
    """
    grouped = matrix.groupby(["test_group", "variant", "image_id"], sort=False)
    counts = grouped[COUNTS].mean().assign(patient=grouped["patient"].first())
    parts = counts.groupby(level=["test_group", "variant"], sort=False)
    return {(str(group), str(variant)): part.droplevel([0, 1]) for (group, variant), part in parts}


def _pooled(counts: pd.DataFrame) -> DetectionScore:
    tp, fp, fn = counts[COUNTS].sum()
    return DetectionScore(tp, fp, fn)


def _mean_distance(rows: pd.DataFrame) -> float:
    found = rows[rows["tp"] > 0]
    return float(np.average(found["distance_um"], weights=found["tp"])) if len(found) else float("nan")
