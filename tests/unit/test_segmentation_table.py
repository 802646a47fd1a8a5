"""A cohort's figures of areas, over slides and in groups: by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from shapely import box

from karyon.cohort.segmentation import FIGURES, SUMS, area_figures, area_sums, segmentation_table
from karyon.evaluation.overlap import overlap_of_polygons
from karyon.io.schemas import REPOSITORY

MPP = 0.5


def slide(slide_id: str, patient: str, organ: str, width: float, false: int, areas: bool = True) -> dict:
    """One true nucleus of 10 x 10, found as ``width`` x 10 within it, and false ones of 5 x 10."""
    found = [box(0, 0, width, 10), *(box(20 * k, 50, 20 * k + 5, 60) for k in range(false))]
    sums = area_sums(overlap_of_polygons(found, [box(0, 0, 10, 10)]), MPP)
    row = {
        "slide_id": slide_id,
        "patient": patient,
        "organ": organ,
        "stain": "HE",
        "split": "",
        "label_quality": "",
    }
    return row | (sums | area_figures(sums) if areas else {})


@pytest.fixture
def slides() -> pd.DataFrame:
    return pd.DataFrame(
        [
            slide("a", "p1", "lung", 8, 1),
            slide("b", "p2", "liver", 10, 0),
            slide("c", "p3", "liver", 6, 0, areas=False),
        ]
    )


def test_figures_are_pooled_and_averaged_with_the_interval_of_two_patients(slides: pd.DataFrame) -> None:
    table = segmentation_table(slides, "a_model")
    assert set(table["model"]) == {"a_model"}
    rows: Any = table[table["grouping"] == "all"].set_index(["figure", "average"])
    assert rows.index.get_level_values("figure").unique().tolist() == list(FIGURES)
    assert (rows["slides"] == 2).all()
    assert (rows["patients"] == 2).all()
    aji = rows.loc[("aji", "macro"), ["value", "low", "high"]].tolist()
    assert aji == pytest.approx([(80 / 150 + 1) / 2, 80 / 150, 1])
    assert rows.loc[("aji", "micro"), "value"] == pytest.approx((80 + 100) / (150 + 100))
    assert rows.loc[("pq", "macro"), "value"] == pytest.approx((0.8 / 1.5 + 1) / 2)
    assert rows.loc[("pq", "micro"), "value"] == pytest.approx(1.8 / 2.5)
    assert rows.loc[("fdr", "micro"), "value"] == pytest.approx(1 / 3)
    assert rows.loc[("object_dice", "micro"), "value"] == pytest.approx(
        ((80 * 160 / 180 + 100) / 230 + (100 * 160 / 180 + 100) / 200) / 2
    )


def test_groups_hold_the_slides_with_areas_alone(slides: pd.DataFrame) -> None:
    table: Any = segmentation_table(slides, "a_model").set_index(["grouping", "group", "figure", "average"])
    assert table.loc[("organ", "liver", "aji", "micro"), "value"] == pytest.approx(1)
    assert table.loc[("organ", "liver", "aji", "micro"), "slides"] == 1
    assert table.loc[("organ", "lung", "aji", "macro"), "value"] == pytest.approx(80 / 150)


def test_without_areas_the_table_is_empty(slides: pd.DataFrame) -> None:
    assert segmentation_table(slides[slides["slide_id"] == "c"], "a_model").empty
    assert segmentation_table(slides.drop(columns=[*SUMS, *FIGURES]), "a_model").empty


def test_slides_of_other_resolution_add_up_in_microns() -> None:
    squares = [box(0, 0, 10, 10)]
    fine, coarse = (area_sums(overlap_of_polygons(squares, squares), mpp) for mpp in (0.25, 0.5))
    areas = [name for name in fine if name.endswith("_um2")]
    assert [coarse[name] / fine[name] for name in areas] == [4] * len(areas)
    assert {name: fine[name] for name in fine if name not in areas} == {
        name: coarse[name] for name in coarse if name not in areas
    }


def test_every_column_and_figure_is_documented(slides: pd.DataFrame) -> None:
    documented = (REPOSITORY / "docs" / "outputs.md").read_text()
    table = segmentation_table(slides, "a_model")
    for name in (*SUMS, *FIGURES, *table.columns):
        assert f"`{name}`" in documented, name
