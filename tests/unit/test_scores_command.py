"""`karyon scores` on a cohort's folder that the test writes, its figures worked by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from shapely import box

from karyon.cli.main import main
from karyon.cohort.layout import SlideFiles
from karyon.cohort.scores import score_table
from karyon.cohort.segmentation import FIGURES, area_sums
from karyon.evaluation.overlap import overlap_of_polygons
from karyon.models.card import model_folder, read_card, write_card

COUNTS = ("tp", "fp", "fn", "distance_sum", "distance_square_sum")
# Organ, split, patient; counts at 4 um and at 2 um; curve: threshold, tp, fp, fn.
SLIDES = {
    "a": ("lung", "test", "p1", (8, 2, 0, 8.0, 10.0), (4, 6, 4, 2.0, 1.0), [(0.9, 5, 0, 3), (0.4, 8, 2, 0)]),
    "b": ("liver", "test", "p2", (1, 0, 3, 4.0, 16.0), (0, 1, 4, 0.0, 0.0), [(0.5, 1, 0, 3)]),
}
HEADER = (
    "group radius_um slides patients annotated tp fp fn precision recall f1 mean_slide_f1 AP "
    "distance_mean_um distance_sd_um"
)

Command = Callable[..., list[str]]


def slide_row(slide_id: str) -> dict[str, object]:
    organ, split, patient, at_4, at_2, _ = SLIDES[slide_id]
    return {
        "slide_id": slide_id,
        "organ": organ,
        "stain": "HE",
        "patient": patient,
        "split": split,
        "label_quality": "",
        "status": "done",
        "failed_stage": "",
        "error": "",
        "mpp": 0.25,
        "nuclei": 1000 * at_4[0],
        "annotated": at_4[0] + at_4[2],
        **{f"{name}_4um": value for name, value in zip(COUNTS, at_4, strict=True)},
        **{f"{name}_2um": value for name, value in zip(COUNTS, at_2, strict=True)},
    }


PLAIN = {
    "organ": "lung",
    "stain": "HE",
    "patient": "p1",
    "split": "train",
    "label_quality": "",
    "failed_stage": "",
    "error": "",
}


def write_cohort(folder: Path, slides: pd.DataFrame, radii_um: list[float]) -> Path:
    """``results/<cohort>`` as a run leaves it."""
    folder.mkdir()
    for slide_id, (*_, curve) in SLIDES.items():
        path = SlideFiles(folder, slide_id).curve
        path.parent.mkdir(exist_ok=True)
        pd.DataFrame(curve, columns=["threshold", "tp", "fp", "fn"]).to_parquet(path)
        write_matches(folder, slide_id, [("TP", 0.0, "", "")])
    slides.to_parquet(folder / "slides.parquet", index=False)
    score_table(slides, radii_um, folder, "a_model").to_parquet(folder / "scores.parquet", index=False)
    return folder


def write_matches(folder: Path, slide_id: str, rows: list[tuple[str, float, str, str]]) -> None:
    """Kind, place on both sides, and both classes."""
    path = SlideFiles(folder, slide_id).matches
    path.parent.mkdir(exist_ok=True)
    kind, x, class_name, truth_class = zip(*rows, strict=True)
    table = pd.DataFrame({"kind": kind, "x": x, "truth_x": x, "class_name": class_name})
    table.assign(y=0.0, truth_y=0.0, distance_um=0.0, truth_class=truth_class).to_parquet(path)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two annotated slides of two patients, one plain slide of another split, and one that failed."""
    plain = {**PLAIN, "slide_id": "c", "status": "done", "nuclei": 500}
    failed = {
        **PLAIN,
        "slide_id": "d",
        "status": "failed",
        "failed_stage": "tissue",
        "error": "d.svs: truncated; copy it again",
    }
    rows = [*map(slide_row, SLIDES), plain, failed]
    return write_cohort(tmp_path / "cohort", pd.DataFrame(rows), [4.0, 2.0])


@pytest.fixture
def scores(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command; gives what it printed, by line."""

    def command(*words: object) -> list[str]:
        assert main(["scores", *map(str, words)]) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    return command


def squeezed(line: str) -> str:
    return re.sub(r" +", " ", line).strip()


def test_counts_of_the_cohort_and_slides_that_failed_come_first(cohort: Path, scores: Command) -> None:
    printed = scores(cohort)
    assert printed[:2] == [
        "4 slides, 1 failed, 9,500 nuclei",
        "  d: tissue: d.svs: truncated; copy it again",
    ]
    assert printed[-1] == "Model a_model. In brackets: 95 % intervals, bootstrapped over patients."


def test_figures_have_their_intervals_and_the_first_radius_its_average_precision(
    cohort: Path, scores: Command
) -> None:
    header, at_4, at_2 = scores(cohort)[2:5]
    assert squeezed(header) == HEADER
    # Of two patients the interval runs from the one slide's figure to the other's.
    # Curve: 5 right of 5, 6 of 6, 9 of 11, of 12 annotated; distances 12 / 9, squares 26 / 9.
    assert squeezed(at_4) == (
        "all 4.0 2 2 12 9 2 3 "
        "0.8182 (0.800-1.000) 0.7500 (0.250-1.000) 0.7826 (0.400-0.889) 0.6444 (0.400-0.889) "
        "0.7045 1.3333 1.0541"
    )
    # 4 right of 11 found, of 12 annotated; the curves are of 4 um, so there is no average precision.
    assert squeezed(at_2) == (
        "all 2.0 2 2 12 4 7 8 "
        "0.3636 (0.000-0.400) 0.3333 (0.000-0.500) 0.3478 (0.000-0.444) 0.2222 (0.000-0.444) "
        "nan 0.5000 0.0000"
    )


def test_groups_follow_where_they_are_asked_for(cohort: Path, scores: Command) -> None:
    rows = [squeezed(line) for line in scores(cohort, "--by", "organ")[3:-1]]
    assert [row.split()[:2] for row in rows] == [
        ["all", "4.0"],
        ["all", "2.0"],
        ["liver", "4.0"],
        ["liver", "2.0"],
        ["lung", "4.0"],
        ["lung", "2.0"],
    ]
    # One patient has no interval. Average precision: 5 of 8 at precision 1, 3 of 8 at 8 of 10.
    assert rows[4] == (
        "lung 4.0 1 1 8 8 2 0 "
        "0.8000 (nan-nan) 1.0000 (nan-nan) 0.8889 (nan-nan) 0.8889 (nan-nan) 0.9250 1.0000 0.5000"
    )


def test_a_split_is_scored_alone(cohort: Path, scores: Command) -> None:
    printed = scores(cohort, "--split", "test")
    assert printed[0] == "2 slides, 0 failed, 9,000 nuclei"
    assert squeezed(printed[2]).startswith("all 4.0 2 2 12 9 2 3 0.8182 (0.800-1.000)")
    both = scores(cohort, "--split", "test", "train")
    assert both[0] == "4 slides, 1 failed, 9,500 nuclei"


def test_a_split_without_annotated_slides_has_counts_and_no_scores(cohort: Path, scores: Command) -> None:
    assert scores(cohort, "--split", "train") == [
        "2 slides, 1 failed, 500 nuclei",
        "  d: tissue: d.svs: truncated; copy it again",
        "None of these slides is annotated.",
    ]


def test_a_cohort_without_annotations_has_counts_and_no_scores(tmp_path: Path, scores: Command) -> None:
    slides = pd.DataFrame([{**PLAIN, "slide_id": "c", "status": "done", "nuclei": 12345}])
    cohort = write_cohort(tmp_path / "cohort", slides, [4.0])
    assert scores(cohort) == ["1 slides, 0 failed, 12,345 nuclei"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["cohort", "--split", "train", "tset"],
            "--split: no slide has 'tset' (did you mean 'test'?); there are 'test', 'train'",
        ),
        (["cohort", "--by", "colour"], "--by is colour; expected one of organ, stain, split, label_quality"),
        (["elsewhere"], "elsewhere/slides.parquet: not there; run the workflow for this cohort first"),
    ],
    ids=["split", "by", "folder"],
)
def test_what_cannot_be_printed_is_refused_with_what_can(
    words: list[str], message: str, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scores", str(cohort.parent / words[0]), *words[1:]]) == 1
    assert message in capsys.readouterr().err


def test_scores_go_into_the_models_card_and_no_others(
    cohort: Path, scores: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = read_card(model_folder("switch_unet"))
    (tmp_path / "a_model").mkdir()
    write_card(tmp_path / "a_model", replace(shipped, name="a_model", metrics={"validation": {"f1": 0.5}}))
    scores(cohort, "--split", "test", "--card", tmp_path / "a_model")
    metrics = read_card(tmp_path / "a_model").metrics
    assert metrics["validation"] == {"f1": 0.5}
    test = metrics["test"]
    assert isinstance(test, dict)
    assert (test["images"], test["slides"], test["annotated"]) == ("test of cohort", 2, 12)
    assert test["radius_um"][4.0]["f1"] == [0.7826, 0.4, 0.8889]
    assert main(["scores", str(cohort), "--card", str(model_folder("switch_unet"))]) == 1
    assert "--card is of switch_unet, the scores are of a_model" in capsys.readouterr().err


def add_areas(cohort: Path) -> None:
    """Both annotated slides get a nucleus of 10 x 10: found as 8 x 10 beside a false one; found as it is."""
    slides = pd.read_parquet(cohort / "slides.parquet")
    for slide_id, found in {"a": [box(0, 0, 8, 10), box(20, 0, 25, 10)], "b": [box(0, 0, 10, 10)]}.items():
        sums = area_sums(overlap_of_polygons(found, [box(0, 0, 10, 10)]), 0.5)
        slides.loc[slides["slide_id"] == slide_id, list(sums)] = list(sums.values())
    slides.to_parquet(cohort / "slides.parquet")


def test_figures_of_areas_follow_those_of_points(cohort: Path, scores: Command) -> None:
    add_areas(cohort)
    lines = [squeezed(line) for line in scores(cohort, "--split", "test", "--by", "organ")]
    header = lines.index("group figure slides patients mean_slide pooled")
    assert len(lines) == header + 1 + 3 * len(FIGURES) + 1
    assert "all aji 2 2 0.7667 (0.533-1.000) 0.7200 (0.533-1.000)" in lines
    assert "all pq 2 2 0.7667 (0.533-1.000) 0.7200 (0.533-1.000)" in lines
    assert "lung fdr 1 1 0.5000 (nan-nan) 0.5000 (nan-nan)" in lines


def test_figures_of_areas_go_into_the_card(cohort: Path, scores: Command, tmp_path: Path) -> None:
    (tmp_path / "a_model").mkdir()
    shipped = read_card(model_folder("karyon_outline"))
    write_card(tmp_path / "a_model", replace(shipped, name="a_model", metrics={}))
    add_areas(cohort)
    scores(cohort, "--card", tmp_path / "a_model")
    test = read_card(tmp_path / "a_model").metrics["test"]
    assert isinstance(test, dict)
    assert test["outlines"]["slides"] == 2
    assert test["outlines"]["mean_slide_aji"] == [0.7667, 0.5333, 1.0]
    assert len(test["outlines"]) == 1 + len(FIGURES)
    assert test["radius_um"][4.0]["f1"] == [0.7826, 0.4, 0.8889]


def test_figures_of_classes_come_last(cohort: Path, scores: Command) -> None:
    write_matches(cohort, "a", [("TP", 0.0, "tumour", "tumour"), ("TP", 90.0, "tumour", "stroma")])
    lines = [squeezed(line) for line in scores(cohort)]
    header = lines.index("group rule class_name slides tp fp fn precision recall f1 accuracy")
    assert len(lines) == header + 1 + 4 + 1
    assert lines[header + 4] == (
        "all detection_first tumour 2 1 1 0 "
        "0.5000 (0.500-0.500) 1.0000 (1.000-1.000) 0.6667 (0.667-0.667) 0.5000 (0.500-0.500)"
    )
