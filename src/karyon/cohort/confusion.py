"""What the model called the nuclei of each annotated class, counted over the match tables of a cohort."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

NO_ANNOTATION, MISSED, NUCLEUS = "no annotation", "missed", "nucleus"
COLUMNS = ["kind", "class_name", "truth_class"]


@dataclass(frozen=True)
class Confusion:
    """Annotations by their class and by what became of them, after matching without regard to class.

    Attributes:
        counts: True class by predicted class, int64; the last row is ``no annotation``, the last column
            ``missed``. Where the two meet there is nothing to count.
        unlabelled: Annotations without a class, matched or missed; they are in no row.
    """

    counts: pd.DataFrame
    unlabelled: int


def count_confusion(matches: Iterable[pd.DataFrame]) -> Confusion | None:
    """Count over slides, one table in memory at a time.

    A detection without a class is a ``nucleus``; so is an annotation where none of the cohort has a class.

    Args:
        matches: Each slide's match table, with the columns ``COLUMNS``.

    Returns:
        The counts; None where neither side has classes.
    """
    per_slide = [table.groupby(COLUMNS, observed=True).size() for table in matches]
    if not per_slide:
        return None
    pairs = pd.concat(per_slide).groupby(level=COLUMNS).sum().rename("number").reset_index()
    if not (pairs[["class_name", "truth_class"]] != "").any(axis=None):
        return None
    if (pairs["truth_class"] == "").all():
        pairs["truth_class"] = NUCLEUS
    annotated = pairs["kind"] != "FP"
    unlabelled = annotated & (pairs["truth_class"] == "")
    true = np.where(annotated, pairs["truth_class"], NO_ANNOTATION)
    found = np.where(pairs["kind"] == "FN", MISSED, pairs["class_name"].replace("", NUCLEUS))
    counted = pairs.assign(true=true, found=found)[~unlabelled]
    counts = counted.pivot_table("number", "true", "found", aggfunc="sum", fill_value=0)
    rows = [*sorted(set(counts.index) - {NO_ANNOTATION}), NO_ANNOTATION]
    columns = [*sorted(set(counts.columns) - {MISSED}), MISSED]
    counts = counts.reindex(index=rows, columns=columns, fill_value=0).astype(np.int64)
    return Confusion(counts, int(pairs.loc[unlabelled, "number"].sum()))
