"""What a study found: each variant's F1 with its interval, and how it differs from the first."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from karyon.cohort.scores import FIGURES
from karyon.errors import KaryonError
from karyon.evaluation.detection import DetectionScore
from karyon.evaluation.uncertainty import bootstrap, compare
from karyon.study.definition import Run
from karyon.study.runs import SCORES

F1 = {"f1": FIGURES["f1"]}


def read_scores(runs: list[Run], folder: Path) -> pd.DataFrame:
    """The scores of all runs that are done, one row per run and image; in the order of the study.

    Raises:
        KaryonError: No run is done.
    """
    files = [folder / run.name / SCORES for run in runs]
    tables = [pd.read_parquet(file) for file in files if file.exists()]
    if not tables:
        raise KaryonError(f"{folder}: no run of the study is done")
    return pd.concat(tables, ignore_index=True)


def study_table(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per group of test images (all, then each split) and variant.

    Counts are added over the seeds, so every image counts once per seed. Intervals and p-values are of a
    bootstrap over patients, of all seeds together: they say how much the figures depend on the images, and
    ``f1_seeds`` how much on the seed.

    Args:
        scores: From :func:`read_scores`.

    Returns:
        Columns ``group``, ``variant``, ``seeds``, ``images``, ``precision``, ``recall``, ``f1`` with
        ``f1_low`` and ``f1_high``, ``mean_image_f1``, ``f1_seeds`` (a list, each seed's pooled F1),
        ``difference`` of F1 to the first variant with ``p_value`` (NaN for the first), and ``distance_um``,
        the mean of the matched pairs.
    """
    groups = [("all", scores), *((str(split), part) for split, part in scores.groupby("split", sort=False))]
    return pd.DataFrame([row for group, part in groups for row in _group_rows(group, part)])


def _group_rows(group: str, scores: pd.DataFrame) -> list[dict[str, object]]:
    variants = {str(name): part for name, part in scores.groupby("variant", sort=False)}
    reference = _counts(next(iter(variants.values())))
    rows = []
    for number, (variant, part) in enumerate(variants.items()):
        counts = _counts(part)
        averages = bootstrap(counts, FIGURES).set_index(["figure", "average"])
        total = part[["tp", "distance_sum"]].sum()
        row: dict[str, object] = {
            "group": group,
            "variant": variant,
            "seeds": part["seed"].nunique(),
            "images": len(counts),
            "precision": averages.loc[("precision", "micro"), "value"],
            "recall": averages.loc[("recall", "micro"), "value"],
            "f1": averages.loc[("f1", "micro"), "value"],
            "f1_low": averages.loc[("f1", "micro"), "low"],
            "f1_high": averages.loc[("f1", "micro"), "high"],
            "mean_image_f1": averages.loc[("f1", "macro"), "value"],
            "f1_seeds": [_pooled(seed) for _, seed in part.groupby("seed")],
            "difference": float("nan"),
            "p_value": float("nan"),
            "distance_um": total["distance_sum"] / total["tp"] if total["tp"] else float("nan"),
        }
        if number and counts.index.equals(reference.index):
            paired = compare(counts, reference, F1).iloc[0]
            row |= {"difference": paired["difference"], "p_value": paired["p_value"]}
        rows.append(row)
    return rows


def _counts(scores: pd.DataFrame) -> pd.DataFrame:
    """Counts by image, as shares of one seed's: a variant with fewer seeds done is compared all the same."""
    sums = scores.groupby("image_id")[["tp", "fp", "fn"]].mean()
    return sums.assign(patient=scores.groupby("image_id")["patient"].first())


def _pooled(scores: pd.DataFrame) -> float:
    tp, fp, fn = (int(scores[name].sum()) for name in ("tp", "fp", "fn"))
    return DetectionScore(tp, fp, fn).f1
