"""A cohort's scores: pooled and mean figures with intervals, and pooled curves, within each group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from karyon.cohort.layout import SlideFiles
from karyon.evaluation.curve import DetectionCurve, pool_curves
from karyon.evaluation.detection import DetectionScore
from karyon.evaluation.uncertainty import Figure, bootstrap

GROUPINGS = ("organ", "stain", "split", "label_quality")
FIGURES: dict[str, Figure] = {
    "precision": lambda counts: counts["tp"] / (counts["tp"] + counts["fp"]),
    "recall": lambda counts: counts["tp"] / (counts["tp"] + counts["fn"]),
    "f1": lambda counts: 2 * counts["tp"] / (2 * counts["tp"] + counts["fp"] + counts["fn"]),
}


def score_table(slides: pd.DataFrame, radii_um: Sequence[float], cohort: Path, model: str) -> pd.DataFrame:
    """Figures over all annotated slides, and within each group, at every radius.

    Micro averages (``precision``, ``recall``, ``f1``) are of the added counts, macro averages
    (``mean_slide_...``) means over the slides in which the figure is defined. Intervals are bootstrapped over
    patients (:func:`karyon.evaluation.uncertainty.bootstrap`).

    Args:
        slides: From :func:`karyon.cohort.summary.slide_table`.
        radii_um: Match radii in microns; curves are of the first.
        cohort: ``results/<cohort>``, with the slides' curves.
        model: Name of the model.

    Returns:
        The columns of ``scores.parquet`` in ``docs/outputs.md``; empty where no slide is annotated.
    """
    rows = []
    for grouping, group, part in groups(annotated_slides(slides)):
        curve = pool_curves(_curves(part, cohort))
        for number, radius in enumerate(radii_um):
            counts = _counts(part, radius)
            sums = counts.drop(columns="patient").sum()
            total = DetectionScore(int(sums["tp"]), int(sums["fp"]), int(sums["fn"]), *sums.iloc[3:])
            rows.append(
                {
                    "grouping": grouping,
                    "group": group,
                    "model": model,
                    "radius_um": float(radius),
                    "slides": len(part),
                    "patients": _patients(part),
                    "annotated": int(part["annotated"].sum()),
                    "tp": total.tp,
                    "fp": total.fp,
                    "fn": total.fn,
                    **averages(counts, FIGURES),
                    "distance_mean_um": total.distance_mean,
                    "distance_sd_um": total.distance_sd,
                    "average_precision": np.nan if number else curve.average_precision,
                    "best_threshold": np.nan if number else curve.best_threshold,
                }
            )
    return pd.DataFrame(rows)


def card_metrics(scores: pd.DataFrame, segmentation: pd.DataFrame, images: str) -> dict[str, object]:
    """Figures of all slides for a model's card.

    Args:
        scores: From :func:`score_table`.
        segmentation: From :func:`karyon.cohort.segmentation.segmentation_table`.
        images: What the slides are, in words.

    Returns:
        ``images``, ``slides``, ``annotated``, and by radius in um ``precision``, ``recall``, ``f1`` and
        ``mean_slide_f1``, each a list of the value and the bounds of its 95 % interval. Where areas were
        scored, ``outlines``: the number of ``slides``, and each figure's mean over them in the same way.
    """
    pooled = scores[scores["grouping"] == "all"]
    names = ("precision", "recall", "f1", "mean_slide_f1")
    metrics: dict[str, object] = {
        "images": images,
        "slides": int(pooled["slides"].iloc[0]),
        "annotated": int(pooled["annotated"].iloc[0]),
        "radius_um": {
            float(row["radius_um"]): {
                name: _rounded(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in names
            }
            for row in pooled.to_dict("records")
        },
    }
    if segmentation.empty:
        return metrics
    means = segmentation[(segmentation["grouping"] == "all") & (segmentation["average"] == "macro")]
    figures = {
        f"mean_slide_{row['figure']}": _rounded(row["value"], row["low"], row["high"])
        for row in means.to_dict("records")
    }
    return metrics | {"outlines": {"slides": int(means["slides"].max()), **figures}}


def _rounded(*values: float) -> list[float]:
    return [round(float(value), 4) for value in values]


def curve_table(slides: pd.DataFrame, cohort: Path) -> pd.DataFrame:
    """The pooled curve over all annotated slides, and of each group, at the first radius.

    Args:
        slides: From :func:`karyon.cohort.summary.slide_table`.
        cohort: ``results/<cohort>``, with the slides' curves.

    Returns:
        The columns of ``curves.parquet`` in ``docs/outputs.md``; empty where no slide is annotated.
    """
    tables = [
        pool_curves(_curves(part, cohort)).table().assign(grouping=grouping, group=group)
        for grouping, group, part in groups(annotated_slides(slides))
    ]
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table[["grouping", "group", *table.columns.drop(["grouping", "group"])]]


def groups(slides: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """All slides, then those of each value of each grouping: both names, and the rows. None of no slides."""
    if slides.empty:
        return
    yield "all", "all", slides
    for grouping in GROUPINGS:
        for name, part in slides.groupby(grouping):
            if name:
                yield grouping, str(name), part


def annotated_slides(slides: pd.DataFrame) -> pd.DataFrame:
    """Those that were evaluated."""
    return slides[slides["annotated"].notna()] if "annotated" in slides else slides.iloc[:0]


def _curves(slides: pd.DataFrame, cohort: Path) -> list[DetectionCurve]:
    curves = []
    for slide_id, annotated in zip(slides["slide_id"], slides["annotated"], strict=True):
        table = pd.read_parquet(SlideFiles(cohort, slide_id).curve, columns=["threshold", "tp", "fp"])
        threshold, tp, fp = (table[name].to_numpy() for name in ("threshold", "tp", "fp"))
        curves.append(DetectionCurve(threshold, tp + fp, tp, int(annotated)))
    return curves


def _counts(slides: pd.DataFrame, radius: float) -> pd.DataFrame:
    """What adds up over slides, by slide, and the slide's patient."""
    names = ("tp", "fp", "fn", "distance_sum", "distance_square_sum")
    columns = {f"{name}_{radius:g}um": name for name in names}
    return slides.set_index("slide_id")[["patient", *columns]].rename(columns=columns)


def _patients(slides: pd.DataFrame) -> int:
    named = slides.loc[slides["patient"] != "", "patient"]
    return named.nunique() + len(slides) - len(named)


def averages(counts: pd.DataFrame, figures: Mapping[str, Figure]) -> dict[str, float]:
    """Each figure pooled, by its name, and as ``mean_slide_<name>``; and their ``_low`` and ``_high`` bounds.

    Args:
        counts: By slide, as :func:`karyon.evaluation.uncertainty.bootstrap` takes them.
        figures: Functions of the counts, by name.
    """
    found: dict[str, float] = {}
    for row in bootstrap(counts, figures).to_dict("records"):
        name = str(row["figure"]) if row["average"] == "micro" else f"mean_slide_{row['figure']}"
        found |= {name: row["value"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
    return found
