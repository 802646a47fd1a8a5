"""A cohort's figures of classes from match tables, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from karyon.cohort.classes import COLUMNS, class_table
from karyon.cohort.layout import SlideFiles
from karyon.io.schemas import REPOSITORY

NAN = np.nan
MPP = 0.5
# kind, x, y, truth x, truth y, distance in um, class, true class.
FIRST = [
    ("TP", 10, 10, 10, 10, 0.0, "tumour", "tumour"),
    ("TP", 50, 10, 51, 10, 0.5, "tumour", "stroma"),
    ("TP", 90, 10, 90, 10, 0.0, "stroma", ""),  # known as a nucleus alone
    ("FP", 54, 10, NAN, NAN, NAN, "stroma", ""),  # 3 px from the true stroma that the second was paired with
    ("FN", 200, 10, 200, 10, NAN, "", "tumour"),
]
SECOND = [
    ("TP", 10, 10, 10, 10, 0.0, "tumour", "tumour"),
    ("FP", 50, 10, NAN, NAN, NAN, "tumour", ""),
]


def write_cohort(folder: Path, tables: dict[str, list[tuple]]) -> pd.DataFrame:
    rows = []
    for number, (slide_id, table) in enumerate(tables.items()):
        path = SlideFiles(folder, slide_id).matches
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(table, columns=COLUMNS).to_parquet(path)
        known = dict.fromkeys(("stain", "split", "label_quality"), "")
        organ = "lung" if number else "liver"
        rows.append(
            {"slide_id": slide_id, "patient": "", "organ": organ, "mpp": MPP, "annotated": 3.0, **known}
        )
    return pd.DataFrame(rows)


@pytest.fixture
def table(tmp_path: Path) -> Any:
    slides = write_cohort(tmp_path, {"a": FIRST, "b": SECOND})
    found = class_table(slides, 4.0, tmp_path, "a_model")
    return found.set_index(["grouping", "group", "rule", "class_name"])


def counts(row: pd.Series) -> list[int]:
    return row[["tp", "fp", "fn"]].tolist()


def test_each_class_is_counted_by_both_rules_over_the_slides(table: Any) -> None:
    whole = table.loc[("all", "all")]
    assert counts(whole.loc[("detection_first", "tumour")]) == [2, 2, 1]
    # The stroma paired with an annotation without a class is neither right nor wrong.
    assert counts(whole.loc[("detection_first", "stroma")]) == [0, 1, 1]
    # On its own the false stroma finds the true one.
    assert counts(whole.loc[("strict", "stroma")]) == [1, 0, 0]
    assert counts(whole.loc[("strict", "tumour")]) == [2, 2, 1]
    assert whole.loc[("detection_first", "tumour"), "f1"] == pytest.approx(4 / 7)
    assert whole.loc[("detection_first", "tumour"), "mean_slide_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert whole.loc[("strict", "tumour"), ["f1_low", "f1_high"]].tolist() == pytest.approx([1 / 2, 2 / 3])


def test_accuracy_is_of_the_pairs_with_a_true_class(table: Any) -> None:
    assert table.loc[("all", "all"), "accuracy"].tolist() == pytest.approx([2 / 3] * 4)
    assert table.loc[("organ", "liver"), "accuracy"].tolist() == pytest.approx([1 / 2] * 4)


def test_a_group_has_every_class_of_the_cohort(table: Any) -> None:
    lung = table.loc[("organ", "lung")]
    assert counts(lung.loc[("strict", "tumour")]) == [1, 1, 0]
    assert counts(lung.loc[("strict", "stroma")]) == [0, 0, 0]
    assert np.isnan(lung.loc[("strict", "stroma"), "f1"])


def without(rows: list[tuple], place: int) -> list[tuple]:
    return [(*row[:place], "", *row[place + 1 :]) for row in rows]


@pytest.mark.parametrize("place", [6, 7], ids=["model", "annotations"])
def test_without_classes_on_one_side_there_is_nothing_to_tell(place: int, tmp_path: Path) -> None:
    slides = write_cohort(tmp_path, {"a": without(FIRST, place), "b": without(SECOND, place)})
    assert class_table(slides, 4.0, tmp_path, "a_model").empty


def test_without_classes_or_nuclei_there_is_nothing_to_tell(tmp_path: Path) -> None:
    slides = write_cohort(tmp_path, {"a": without(without(FIRST, 6), 7), "b": []})
    assert class_table(slides, 4.0, tmp_path, "a_model").empty
    assert class_table(slides.drop(columns="annotated"), 4.0, tmp_path, "a_model").empty
    empty = write_cohort(tmp_path, {"a": FIRST, "b": []})
    assert len(class_table(empty, 4.0, tmp_path, "a_model")) == 4 * 3


def test_every_column_is_documented(table: Any) -> None:
    documented = (REPOSITORY / "docs" / "outputs.md").read_text()
    for name in table.reset_index().columns:
        assert f"`{name}`" in documented, name
