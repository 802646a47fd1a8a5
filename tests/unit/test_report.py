"""The report's folder: what is in it for which cohort, and what its pages say."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import shapely
from matplotlib.figure import Figure
from PIL import Image
from shapely import box

from karyon.cohort.classes import class_table
from karyon.cohort.field import BLUE, GREEN, YELLOW
from karyon.cohort.figures import STYLE
from karyon.cohort.layout import SlideFiles
from karyon.cohort.overlay import GAP_PX, PANEL_PX
from karyon.cohort.pages import class_columns, page, score_columns, slide_columns
from karyon.cohort.plan import SlideRow
from karyon.cohort.report import write_report
from karyon.cohort.segmentation import area_figures, area_sums, segmentation_table
from karyon.evaluation.overlap import overlap_of_polygons
from karyon.io.slides import SlideFacts
from karyon.nuclei.export import COLOURS
from karyon.tiles.grid import Grid

NAN = float("nan")
TABLES = ("slides", "scores", "segmentation", "class_scores", "curves")
ORGAN = "lung $a$ <b>&"


class Cohort:
    """Finished slides of 250 um, white, with a match each, and a miss in all but the first."""

    def __init__(self, folder: Path, slides: int, annotated: bool, classes: bool = False) -> None:
        self.folder, self.classes = folder, classes
        names = [f"s{number}" for number in range(slides)]
        plan = [self._slide(name, number > 0, annotated) for number, name in enumerate(names)]
        (folder / "plan").mkdir()
        pd.DataFrame(plan).to_csv(folder / "plan" / "shard-0.tsv", sep="\t", index=False, quoting=3)
        table = pd.DataFrame(
            {
                "slide_id": names,
                "organ": ORGAN,
                "split": "",
                "status": "done",
                "error": "",
                "warning": "",
                "nuclei_per_mm2": 16.0,
                "tissue_mm2": 0.0625,
                "width": 1000,
                "height": 1000,
                "mpp": 0.25,
            }
        )
        if annotated:
            missed = [int(number > 0) for number in range(slides)]
            table = table.assign(annotated=2.0, tp_4um=1, fp_4um=0, fn_4um=missed, f1_4um=0.75)
        table.to_parquet(folder / "slides.parquet")
        groups = [("all", "all"), ("organ", ORGAN)] if annotated else []
        scores = pd.DataFrame([score(grouping, group) for grouping, group in groups])
        scores.to_parquet(folder / "scores.parquet")
        for name in ("segmentation", "class_scores"):
            pd.DataFrame().to_parquet(folder / f"{name}.parquet")
        curves = pd.DataFrame(
            [(*name, 0.5, 1, 0, 1, 1.0, 0.5, 2 / 3) for name in groups],
            columns=["grouping", "group", "threshold", "tp", "fp", "fn", "precision", "recall", "f1"],
        )
        curves.to_parquet(folder / "curves.parquet")

    def _slide(self, name: str, missed: bool, annotated: bool) -> dict[str, Any]:
        files = SlideFiles(self.folder, name)
        for path in (files.facts, files.matches, files.nuclei):
            path.parent.mkdir(exist_ok=True)
        image = self.folder / f"{name}.png"
        Image.new("RGB", (1000, 1000), "white").save(image)
        facts = SlideFacts(1000, 1000, 0.25, "sheet", ((1000, 1000),), 0, 0, "image")
        grid = Grid.of_slide(facts, 8.0)
        files.facts.write_text(json.dumps({"slide": asdict(facts), "mask_grid": asdict(grid)}))
        for path in (files.tissue_mask, files.thumbnail):
            Image.new("L", (grid.width, grid.height), 255).save(path)
        nuclei = pd.DataFrame(
            {"slide_id": name, "nucleus_id": 1, "x": [300.0], "y": [300.0], "x_um": [75.0], "y_um": [75.0]}
        )
        (nuclei.assign(class_name="tumour", class_id=1) if self.classes else nuclei).to_parquet(files.nuclei)
        if annotated:
            kinds = ["TP", "FN"] if missed else ["TP"]
            place = {
                "nucleus_id": 1,
                "x": 300.0,
                "y": 300.0,
                "distance_um": 1.0,
                "class_name": "",
                "truth_class": "tumour",
            }
            pd.DataFrame({"kind": kinds, **place}).to_parquet(files.matches)
        known = {"slide_id": name, "path": str(image), "organ": ORGAN, "mpp": 0.25}
        kind = {"int": 0, "float": 0.0, "str": ""}
        return {field.name: known.get(field.name, kind[str(field.type)]) for field in fields(SlideRow)}

    def report(self, overlays: int = 1) -> set[str]:
        """Write the report; names of its files."""
        tables = [str(self.folder / f"{name}.parquet") for name in TABLES]
        plans = [str(self.folder / "plan" / "shard-0.tsv")]
        folder = self.folder / "report"
        write_report(*tables, plans, overlays, 1, str(folder), str(self.folder / "report.log"))
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def score(grouping: str, group: str, **known: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"grouping": grouping, "group": group, "model": "unet", "radius_um": 4.0}
    row |= {"slides": 1200, "patients": 1, "annotated": 34567, "tp": 1, "fp": 2, "fn": 3}
    for name in ("precision", "recall", "f1"):
        for prefix in ("", "mean_slide_"):
            row |= {prefix + name: 0.5, f"{prefix}{name}_low": NAN, f"{prefix}{name}_high": NAN}
    row |= {"distance_mean_um": 0.5, "distance_sd_um": 0.25, "average_precision": NAN, "best_threshold": NAN}
    return row | known


FIGURES = {f"Figures/{name}.png" for name in ("density", "precision_recall", "f1", "intervals", "distances")}
ALWAYS = {"Overlays/s0.png", "Heatmaps/s0.png", "Tables/slides.html", "Figures/density.png"}
CLASSES = {"Tables/classes.html", "Figures/class_fractions.png", "Figures/class_densities.png"}
EVALUATION = {"Tables/scores.html", "Figures/confusion.png"} | FIGURES


def test_annotated_cohort_has_every_figure_and_the_fields_with_errors(tmp_path: Path) -> None:
    names = Cohort(tmp_path, slides=3, annotated=True).report()
    assert names == ALWAYS | EVALUATION | {"Errors/01_s1.png", "Errors/02_s2.png"}
    assert (tmp_path / "report.log").read_text() == ""


def test_outlines_that_were_scored_have_a_page(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, slides=2, annotated=True)
    slides = pd.read_parquet(tmp_path / "slides.parquet").assign(patient="", stain="", label_quality="")
    found = overlap_of_polygons([box(0, 0, 8, 10), box(20, 0, 25, 10)], [box(0, 0, 10, 10)])
    sums = area_sums(found, 0.25)
    slides = slides.assign(**sums, **area_figures(sums))
    slides.to_parquet(tmp_path / "slides.parquet")
    segmentation_table(slides, "unet").to_parquet(tmp_path / "segmentation.parquet")
    assert "Tables/outlines.html" in cohort.report()
    content = (tmp_path / "report" / "Tables" / "outlines.html").read_text()
    for text in ("AJI+", "object Dice", "0.533 (0.533 to 0.533)", "lung $a$ &lt;b&gt;&amp;"):
        assert text in content
    assert "<td>0.533</td>" in (tmp_path / "report" / "Tables" / "slides.html").read_text()


def test_classes_that_were_scored_have_a_page(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, slides=2, annotated=True, classes=True)
    slides = pd.read_parquet(tmp_path / "slides.parquet")
    slides = slides.assign(patient=slides["slide_id"], stain="", split="", label_quality="")
    for name in slides["slide_id"]:
        path = SlideFiles(tmp_path, name).matches
        pd.read_parquet(path).assign(class_name="tumour", truth_x=300.0, truth_y=300.0).to_parquet(path)
    class_table(slides, 4.0, tmp_path, "unet").to_parquet(tmp_path / "class_scores.parquet")
    assert cohort.report() >= CLASSES | {"Tables/class_scores.html"}
    content = (tmp_path / "report" / "Tables" / "class_scores.html").read_text()
    # Two pairs and a miss: recall 2 of 3, F1 0.8.
    for text in ("detection first", "tumour", "0.667 (", "0.800 (", "1.000 (1.000 to 1.000)"):
        assert text in content


def test_one_slide_of_one_patient_is_enough(tmp_path: Path) -> None:
    assert Cohort(tmp_path, slides=1, annotated=True).report() == ALWAYS | EVALUATION


def test_cohort_without_annotations_has_no_evaluation(tmp_path: Path) -> None:
    assert Cohort(tmp_path, slides=2, annotated=False).report() == ALWAYS
    assert (tmp_path / "report.log").read_text() == ""


def test_a_model_of_classes_that_found_nothing_costs_no_more_than_their_page(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, slides=2, annotated=False, classes=True)
    for path in (tmp_path / "nuclei").glob("*.parquet"):
        pd.read_parquet(path).iloc[:0].to_parquet(path)
    assert cohort.report() >= ALWAYS - {"Heatmaps/s0.png"}
    assert not (tmp_path / "report" / "Tables" / "classes.html").exists()


def test_a_model_of_classes_has_them_compared(tmp_path: Path) -> None:
    assert Cohort(tmp_path, slides=2, annotated=False, classes=True).report() == ALWAYS | CLASSES
    assert (tmp_path / "report.log").read_text() == ""


def test_classes_are_counted_together_and_compared_between_slides() -> None:
    slides = pd.DataFrame(
        {"slide_id": list("abcd"), "organ": ["lung", "lung", "liver", "liver"], "tissue_mm2": [1, 3, 2, 2]}
    )
    found = {
        "a": ((30, 0.75), (10, 0.25)),
        "b": ((60, 0.3), (140, 0.7)),
        "c": ((5, 1.0), (0, 0.0)),
        "d": ((0, NAN), (0, NAN)),
    }
    counts = pd.DataFrame(
        [
            {"slide_id": slide, "class_name": name, "nuclei": number, "fraction": fraction}
            for slide, row in found.items()
            for name, (number, fraction) in zip(("tumour", "stroma"), row, strict=True)
        ]
    )
    table = class_columns(counts, slides).set_index(["group", "class"])
    assert table.index.tolist() == [
        (group, name) for group in ("all slides", "liver", "lung") for name in ("stroma", "tumour")
    ]
    columns = ["slides", "nuclei", "share of all nuclei", "nuclei per mm²", "median"]
    # Shares of tumour in a slide: 0.75, 0.3 and 1; the slide without nuclei has none.
    assert table.loc[("all slides", "tumour"), columns].tolist() == ["4", "95", "0.388", "12", "0.750"]
    assert table.loc[("lung", "stroma"), columns].tolist() == ["2", "150", "0.625", "38", "0.475"]
    assert table.loc[("liver", "tumour"), columns].tolist() == ["2", "5", "1.000", "1", "1.000"]


@pytest.mark.parametrize("outlined", [True, False])
def test_overlay_shows_classes_and_outlines_where_nuclei_have_them(tmp_path: Path, outlined: bool) -> None:
    cohort = Cohort(tmp_path, slides=1, annotated=False)
    nuclei = pd.DataFrame({"slide_id": "s0", "nucleus_id": [1, 2], "x": [300.0, 700.0], "y": [300.0, 520.0]})
    nuclei = nuclei.assign(x_um=nuclei["x"] / 4, y_um=nuclei["y"] / 4, class_id=[2, 1])
    nuclei["class_name"] = pd.Categorical(["stroma", "tumour"])
    if outlined:
        nuclei["geometry"] = shapely.to_wkb(
            [shapely.box(260, 260, 340, 340), shapely.box(660, 480, 740, 560)]
        )
    nuclei.to_parquet(SlideFiles(tmp_path, "s0").nuclei)
    cohort.report()
    drawn = np.asarray(Image.open(tmp_path / "report" / "Overlays" / "s0.png"))
    panel = drawn[:PANEL_PX, PANEL_PX + GAP_PX : 2 * PANEL_PX + GAP_PX]
    reach = 40 if outlined else 12  # of a circle; the second of the two colours is a triangle's
    place = 0.8 * np.array([[300 - reach, 300], [700 + reach, 520]]) + 0.5
    for (x, y), colour in zip(place.astype(int), (COLOURS[2], COLOURS[1]), strict=True):
        around = panel[y - 4 : y + 5, x - 4 : x + 5].reshape(-1, 3)
        assert (np.abs(around.astype(int) - colour).max(axis=1) < 8).any()
    assert (tmp_path / "report.log").read_text() == ""


def test_what_cannot_be_drawn_is_logged_and_left_out(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, slides=3, annotated=True)
    (tmp_path / "s1.png").write_bytes(b"not a picture")
    (tmp_path / "curves.parquet").write_bytes(b"not a table")
    names = cohort.report(overlays=3)
    left_out = {"Overlays/s1.png", "Errors/01_s1.png", "Figures/precision_recall.png"}
    everything = ALWAYS | EVALUATION | {"Overlays/s2.png", "Errors/02_s2.png"}
    assert names == everything - left_out | {"Heatmaps/s1.png", "Heatmaps/s2.png"}
    log = (tmp_path / "report.log").read_text()
    for name in ("s1.png", "01_s1.png", "precision_recall"):
        assert f"{name} is left out" in log


def test_a_broken_match_table_costs_only_what_needs_it(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, slides=3, annotated=True)
    SlideFiles(tmp_path, "s2").matches.write_bytes(b"not a table")
    assert cohort.report() == (ALWAYS | EVALUATION) - {"Figures/distances.png", "Figures/confusion.png"}
    assert "the gallery of errors is left out" in (tmp_path / "report.log").read_text()


def test_names_of_the_sheet_are_escaped(tmp_path: Path) -> None:
    Cohort(tmp_path, slides=1, annotated=True).report()
    for name in ("slides", "scores"):
        content = (tmp_path / "report" / "Tables" / f"{name}.html").read_text()
        assert "lung $a$ &lt;b&gt;&amp;" in content
        assert "<b>" not in content
    with mpl.rc_context(STYLE):
        assert not Figure().text(0, 0, ORGAN).get_parse_math()


def test_scores_read_as_value_and_interval() -> None:
    scores = pd.DataFrame(
        [
            score(
                "label_quality", "rebuilt", f1=0.8724, f1_low=0.8512, f1_high=0.89, average_precision=0.8765
            ),
            score("all", "all", f1=NAN, distance_mean_um=NAN, distance_sd_um=NAN),
        ]
    )
    table = score_columns(scores)
    assert table["F1"].tolist() == ["0.872 (0.851 to 0.890)", ""]
    assert table["precision"].tolist() == ["0.500", "0.500"]  # a single patient has no interval
    assert table["grouping"].tolist() == ["label quality", "all"]
    assert table["radius (µm)"].tolist() == ["4", "4"]
    assert table[["slides", "annotated", "TP"]].iloc[0].tolist() == ["1,200", "34,567", "1"]
    assert table["distance (µm), mean ± SD"].tolist() == ["0.50 ± 0.25", ""]
    assert table["average precision"].tolist() == ["0.876", ""]


def test_slides_show_their_scores_at_the_main_radius() -> None:
    slides = pd.DataFrame(
        {
            "slide_id": ["a", "b"],
            "organ": "lung",
            "split": "",
            "status": ["done", "failed"],
            "error": ["", "torn"],
            "warning": "",
            "nuclei": [12345.0, NAN],
            "annotated": [100.0, NAN],
            "tp_4um": [80.0, NAN],
            "f1_4um": [0.8333, NAN],
            "f1_2um": [0.1, NAN],
        }
    )
    table = slide_columns(slides, 4.0).set_index("slide")
    shown = table[["nuclei", "annotated", "TP", "F1", "error"]]
    assert shown.loc["a"].tolist() == ["12,345", "100", "80", "0.833", ""]
    assert shown.loc["b"].tolist() == ["", "", "", "", "torn"]
    assert "F1" not in slide_columns(slides, None)


def test_words_stand_left_and_numbers_right() -> None:
    content = page(pd.DataFrame({"n": ["1"], "name": ["x"]}), "T", "", ["name"])
    assert "th:nth-child(2), td:nth-child(2) {text-align: left}" in content
    assert "nth-child(1)" not in content


@pytest.mark.parametrize("overlays", [0, 2])
def test_as_many_pictures_as_configured_first_by_id(tmp_path: Path, overlays: int) -> None:
    names = Cohort(tmp_path, slides=3, annotated=False).report(overlays)
    assert {name for name in names if name.startswith(("Overlays", "Heatmaps"))} == {
        f"{kind}/s{number}.png" for kind in ("Overlays", "Heatmaps") for number in range(overlays)
    }


def test_overlay_of_an_annotated_slide_shows_matches_in_colour(tmp_path: Path) -> None:
    Cohort(tmp_path, slides=2, annotated=True).report(2)
    pictures = [np.asarray(Image.open(tmp_path / "report" / "Overlays" / f"s{n}.png")) for n in range(2)]
    seen = [
        [bool((picture == colour).all(axis=2).any()) for colour in (GREEN, YELLOW, BLUE)]
        for picture in pictures
    ]
    assert seen == [[True, False, False], [True, False, True]]
