"""A cohort's figures of areas: what adds up over slides, and the figures with their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import pandas as pd

from karyon.cohort.scores import groups
from karyon.evaluation.overlap import Overlap
from karyon.evaluation.segmentation import (
    AggregatedJaccard,
    DiceScore,
    InstanceScore,
    ObjectDiceScore,
    score_aji,
    score_aji_plus,
    score_dice,
    score_object_dice,
    score_panoptic,
)
from karyon.evaluation.segmentation_errors import SegmentationErrors, count_errors
from karyon.evaluation.uncertainty import Figure, bootstrap

# By the prefix of their columns: scores that hold areas, which get the unit, and scores that hold counts.
AREAS: dict[str, tuple[type, Callable[[Overlap], Any]]] = {
    "aji": (AggregatedJaccard, score_aji),
    "aji_plus": (AggregatedJaccard, score_aji_plus),
    "dice": (DiceScore, score_dice),
    "object_dice": (ObjectDiceScore, score_object_dice),
}
COUNTS: dict[str, tuple[type, Callable[[Overlap], Any]]] = {
    "pq": (InstanceScore, score_panoptic),
    "nb": (SegmentationErrors, count_errors),
}
# The columns of `slides.parquet` that add up over slides.
SUMS = (
    *(f"{name}_{field.name}_um2" for name, (kind, _) in AREAS.items() for field in fields(kind)),
    *(f"{name}_{field.name}" for name, (kind, _) in COUNTS.items() for field in fields(kind)),
)


def area_sums(overlap: Overlap, mpp: float) -> dict[str, float]:
    """What of a slide's areas adds up over slides: the fields of the scores in ``karyon.evaluation``.

    Args:
        overlap: The table of the slide's nuclei, in level-0 pixels.
        mpp: Microns per level-0 pixel, so that slides of any mpp add up.

    Returns:
        A value for each of ``SUMS``.
    """
    areas = (asdict(score(overlap)).values() for _, score in AREAS.values())
    counts = (asdict(score(overlap)).values() for _, score in COUNTS.values())
    values = [
        *(area * mpp**2 for each in areas for area in each),
        *(count for each in counts for count in each),
    ]
    return dict(zip(SUMS, values, strict=True))


def _object_dice(sums: pd.DataFrame) -> pd.Series:
    """Mean of both sides' means; 0 where one side alone is empty."""
    areas = sums["object_dice_predicted_area_um2"], sums["object_dice_truth_area_um2"]
    means = (
        sums["object_dice_predicted_sum_um2"] / areas[0],
        sums["object_dice_truth_sum_um2"] / areas[1],
    )
    mean = (means[0] + means[1]) / 2
    return mean.where((areas[0] > 0) & (areas[1] > 0), 0.0).where(areas[0] + areas[1] > 0)


# What each is: `docs/methods.md`.
FIGURES: dict[str, Figure] = {
    "aji": lambda sums: sums["aji_intersection_um2"] / sums["aji_union_um2"],
    "aji_plus": lambda sums: sums["aji_plus_intersection_um2"] / sums["aji_plus_union_um2"],
    "dq": lambda sums: 2 * sums["pq_tp"] / (2 * sums["pq_tp"] + sums["pq_fp"] + sums["pq_fn"]),
    "sq": lambda sums: sums["pq_iou_sum"] / sums["pq_tp"],
    "pq": lambda sums: 2 * sums["pq_iou_sum"] / (2 * sums["pq_tp"] + sums["pq_fp"] + sums["pq_fn"]),
    "dice": lambda sums: 2 * sums["dice_intersection_um2"] / sums["dice_total_um2"],
    "object_dice": _object_dice,
    "nb_f1": lambda sums: 2 * sums["nb_tp"] / (_found(sums) + _true(sums)),
    "nb_dice": lambda sums: sums["nb_dice_sum"] / sums["nb_tp"],
    "mdr": lambda sums: sums["nb_missed"] / _true(sums),
    "fdr": lambda sums: sums["nb_false"] / _found(sums),
    "usr": lambda sums: sums["nb_under_segmented"] / (sums["nb_tp"] + sums["nb_under_segmented"]),
    "osr": lambda sums: sums["nb_over_segmented"] / (sums["nb_tp"] + sums["nb_over_segmented"]),
}


def _found(sums: pd.DataFrame) -> pd.Series:
    return sums["nb_tp"] + sums["nb_false"] + sums["nb_over_segmented"]


def _true(sums: pd.DataFrame) -> pd.Series:
    return sums["nb_tp"] + sums["nb_missed"] + sums["nb_under_segmented"]


def area_figures(sums: dict[str, float]) -> dict[str, float]:
    """Each of ``FIGURES`` of one slide, NaN where it is undefined.

    Args:
        sums: From :func:`area_sums`.
    """
    slide = pd.DataFrame([sums])
    return {name: float(pd.Series(figure(slide)).iloc[0]) for name, figure in FIGURES.items()}


def segmentation_table(slides: pd.DataFrame, model: str) -> pd.DataFrame:
    """Figures over all slides whose areas were scored, and within each group, with their intervals.

    Args:
        slides: From :func:`karyon.cohort.summary.slide_table`.
        model: Name of the model.

    Returns:
        The columns of ``segmentation.parquet`` in ``docs/outputs.md``; empty where no slide has such scores.
    """
    tables = []
    scored = slides[slides["dice_total_um2"].notna()] if "dice_total_um2" in slides else slides.iloc[:0]
    for grouping, group, part in groups(scored):
        table = bootstrap(part.set_index("slide_id")[["patient", *SUMS]], FIGURES)
        origin = pd.DataFrame({"grouping": grouping, "group": group, "model": model}, index=table.index)
        tables.append(pd.concat([origin, table.rename(columns={"images": "slides"})], axis=1))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
