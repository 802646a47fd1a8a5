"""A cohort's figures of each class, by both rules of ``karyon.evaluation.classes``, from its match tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from karyon.cohort.layout import SlideFiles
from karyon.cohort.scores import FIGURES, annotated_slides, averages, groups
from karyon.evaluation.matching import Matches
from karyon.evaluation.pair import NO_CLASS, ClassScores, Nuclei, score_classes
from karyon.evaluation.region import Restricted
from karyon.evaluation.uncertainty import Figure

COLUMNS = ["kind", "x", "y", "truth_x", "truth_y", "distance_um", "class_name", "truth_class"]
RULES = ("strict", "detection_first")
ACCURACY: dict[str, Figure] = {"accuracy": lambda counts: counts["agreed"] / counts["pairs"]}


def class_table(slides: pd.DataFrame, radius_um: float, cohort: Path, model: str) -> pd.DataFrame:
    """Figures of each class over all annotated slides, and within each group.

    Args:
        slides: From :func:`karyon.cohort.summary.slide_table`.
        radius_um: Match radius of the match tables, in microns.
        cohort: ``results/<cohort>``, with the match tables.
        model: Name of the model.

    Returns:
        The columns of ``class_scores.parquet`` in ``docs/outputs.md``; empty where no class occurs among both
        the cohort's detections and its annotations.
    """
    annotated = annotated_slides(slides)
    if not _share_a_class(cohort, annotated["slide_id"]):
        return pd.DataFrame()
    scores = {
        str(slide["slide_id"]): _score_slide(cohort, str(slide["slide_id"]), radius_um, slide["mpp"])
        for slide in annotated.to_dict("records")
    }
    counts = pd.DataFrame([row for slide_id, each in scores.items() for row in _counts(slide_id, each)])
    pairs = pd.DataFrame([_agreement(each) for each in scores.values()], index=list(scores))
    by_class = counts.set_index(["rule", "class_name", "slide_id"]).sort_index()
    rows = []
    for grouping, group, part in groups(annotated):
        patient = part.set_index("slide_id")["patient"]
        accuracy = averages(pairs.loc[patient.index].assign(patient=patient), ACCURACY)
        for rule in RULES:
            for name in by_class.index.unique("class_name"):
                # A slide without the class has nothing to count.
                found = by_class.loc[(rule, name)].reindex(patient.index, fill_value=0)
                rows.append(
                    {
                        "grouping": grouping,
                        "group": group,
                        "model": model,
                        "rule": rule,
                        "class_name": name,
                        "slides": len(part),
                        **found.sum().to_dict(),
                        **averages(found.assign(patient=patient), FIGURES),
                        **{key: accuracy[key] for key in ("accuracy", "accuracy_low", "accuracy_high")},
                    }
                )
    return pd.DataFrame(rows)


def _share_a_class(cohort: Path, slide_ids: Iterable[str]) -> bool:
    found: set[str] = set()
    real: set[str] = set()
    for slide_id in slide_ids:
        table = pd.read_parquet(SlideFiles(cohort, slide_id).matches, columns=["class_name", "truth_class"])
        found.update(table["class_name"].unique())
        real.update(table["truth_class"].unique())
    return bool(found & real - {""})


def _score_slide(cohort: Path, slide_id: str, radius_um: float, mpp: float) -> ClassScores:
    """The sides of a slide's match table, in which pairs come first, are all that counts."""
    table = pd.read_parquet(SlideFiles(cohort, slide_id).matches, columns=COLUMNS)
    found, real = table[table["kind"] != "FN"], table[table["kind"] != "FP"]
    predicted, truth = (
        Nuclei(
            side[list(position)].to_numpy(),
            tuple(name or None for name in side[class_name]),
            np.arange(len(side)),
        )
        for side, position, class_name in (
            (found, ("x", "y"), "class_name"),
            (real, ("truth_x", "truth_y"), "truth_class"),
        )
    )
    pairs = np.arange((table["kind"] == "TP").sum())
    matches = Matches(pairs, pairs, table["distance_um"].to_numpy()[pairs] / mpp)
    counted = Restricted(np.arange(len(found)), np.arange(len(real)), matches)
    return score_classes(predicted, truth, counted, radius_um / mpp, mpp)


def _counts(slide_id: str, scores: ClassScores) -> Iterator[dict[str, object]]:
    """A slide's counts, a row for each rule and class; detections without a class are of none."""
    for rule, of_rule in zip(RULES, (scores.strict, scores.detection_first), strict=True):
        for name, score in zip(scores.names, of_rule, strict=True):
            if name != NO_CLASS:
                counts = {"tp": score.tp, "fp": score.fp, "fn": score.fn}
                yield {"slide_id": slide_id, "rule": rule, "class_name": name, **counts}


def _agreement(scores: ClassScores) -> dict[str, int]:
    """How many pairs have a true class, and in how many of them the classes agree."""
    pairs = scores.confusion[:-1, :-1]
    return {"pairs": int(pairs.sum()), "agreed": int(np.trace(pairs))}
