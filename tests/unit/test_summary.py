"""The cohort's tables, against a cohort of six slides worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from karyon.cohort.layout import SlideFiles
from karyon.cohort.scores import curve_table, score_table
from karyon.cohort.summary import check_failures, slide_table, summarise

STAGES = ("tissue", "stain", "infer", "stitch", "nuclei", "evaluate")
# slide: shard, organ, and where and how it ended.
SLIDES = {
    "e-bad-stain": ("shard-00000", "lung", "stain", "failed"),
    "a-good": ("shard-00000", "lung", "", "done"),
    "b-good": ("shard-00001", "breast", "", "done"),
    "c-plain": ("shard-00001", "breast", "", "done"),
    "d-glass": ("shard-00000", "lung", "tissue", "no_tissue"),
    "f-broken": ("shard-00001", "", "tissue", "failed"),
}
# tp, fp, fn, sum of distances, sum of their squares, at 4 um.
SCORES = {"a-good": (8, 2, 0, 8.0, 10.0), "b-good": (1, 0, 3, 4.0, 16.0)}
# threshold, tp, fp, fn: the last is the operating point.
CURVES = {"a-good": [(0.9, 5, 0, 3), (0.4, 8, 2, 0)], "b-good": [(0.5, 1, 0, 3)]}


class Cohort:
    """Plans and manifests as the stages leave them, in two shards."""

    def __init__(self, folder: Path, annotated: bool = True) -> None:
        self.folder = folder
        for slide_id, points in CURVES.items():
            curve = SlideFiles(folder, slide_id).curve
            curve.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(points, columns=["threshold", "tp", "fp", "fn"]).to_parquet(curve)
            matches = SlideFiles(folder, slide_id).matches
            matches.parent.mkdir(exist_ok=True)
            pd.DataFrame({"class_name": [""], "truth_class": [""]}).to_parquet(matches)
        self.plans = [self._plan(shard) for shard in ("shard-00000", "shard-00001")]
        self.manifests = [
            self._manifest(stage, shard, annotated)
            for stage in STAGES
            for shard in ("shard-00001", "shard-00000")
        ]

    def _plan(self, shard: str) -> str:
        rows = [
            {
                "slide_id": slide_id,
                "path": f"/slides/{slide_id}.svs",
                "organ": organ,
                "stain": "HE",
                "patient": "NA",
                "split": "",
                "label_quality": "",
            }
            for slide_id, (home, organ, _, _) in SLIDES.items()
            if home == shard
        ]
        path = self.folder / "plan" / f"{shard}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
        return str(path)

    def _manifest(self, stage: str, shard: str, annotated: bool) -> str:
        rows = [
            self._row(slide_id, stage, annotated) for slide_id, (home, *_) in SLIDES.items() if home == shard
        ]
        path = self.folder / "manifests" / stage / f"{shard}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(path, index=False)
        return str(path)

    def _row(self, slide_id: str, stage: str, annotated: bool) -> dict:
        _, _, failed_stage, status = SLIDES[slide_id]
        late = bool(failed_stage) and STAGES.index(stage) > STAGES.index(failed_stage)
        row = {
            "slide_id": slide_id,
            "status": "done",
            "error": "",
            "warning": "",
            "seconds": 1.5,
            "fingerprint": "f",
        }
        if late or stage == failed_stage:
            row["status"] = "skipped" if late and status == "failed" else status
            row["error"] = f"{slide_id}: cannot be read" if status == "failed" else ""
            return row
        if slide_id == "a-good" and stage in ("stain", "infer"):
            row["warning"] = f"{stage} is doubtful"
        if stage == "nuclei":
            row["nuclei"] = 10
        if stage == "evaluate" and not (annotated and slide_id in SCORES):
            row["status"] = "not_annotated"
        elif stage == "evaluate":
            names = ("tp", "fp", "fn", "distance_sum", "distance_square_sum")
            row |= {f"{name}_4um": value for name, value in zip(names, SCORES[slide_id], strict=True)}
            row |= {f"{name}_2.5um": 0 for name in names} | {
                "fn_2.5um": SCORES[slide_id][0] + SCORES[slide_id][2]
            }
            row["annotated"] = SCORES[slide_id][0] + SCORES[slide_id][2]
        return row


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path)


def table_of(cohort: Cohort) -> pd.DataFrame:
    return slide_table(cohort.plans, cohort.manifests).set_index("slide_id")


def scores_of(cohort: Cohort) -> pd.DataFrame:
    return score_table(slide_table(cohort.plans, cohort.manifests), [4.0, 2.5], cohort.folder, "a_model")


def write(cohort: Cohort) -> dict[str, str]:
    """Write the tables at two radii; gives their paths by name."""
    paths = {
        name: str(cohort.folder / f"{name}.parquet")
        for name in ("slides", "scores", "segmentation", "class_scores", "curves")
    }
    summarise(cohort.plans, cohort.manifests, [4.0, 2.5], "a_model", **paths)
    return paths


def test_every_slide_has_one_row_sorted_by_id(cohort: Cohort) -> None:
    assert slide_table(cohort.plans, cohort.manifests)["slide_id"].tolist() == sorted(SLIDES)


def test_status_is_that_of_the_first_stage_that_could_not_finish(cohort: Cohort) -> None:
    table = table_of(cohort)
    assert table["status"].to_dict() == {slide_id: status for slide_id, (_, _, _, status) in SLIDES.items()}
    assert table["failed_stage"].to_dict() == {
        slide_id: stage if status == "failed" else "" for slide_id, (_, _, stage, status) in SLIDES.items()
    }
    assert table.loc["f-broken", "error"] == "f-broken: cannot be read"
    assert table.loc["e-bad-stain", "error"] == "e-bad-stain: cannot be read"
    assert (table.loc[["a-good", "b-good", "c-plain", "d-glass"], "error"] == "").all()


def test_slide_without_tissue_whose_annotations_cannot_be_read_has_failed(cohort: Cohort) -> None:
    (path,) = (path for path in cohort.manifests if path.endswith("evaluate/shard-00000.parquet"))
    manifest = pd.read_parquet(path).set_index("slide_id")
    manifest.loc["d-glass", ["status", "error"]] = ["failed", "d-glass.png: not an image"]
    manifest.reset_index().to_parquet(path)
    row = slide_table(cohort.plans, cohort.manifests).set_index("slide_id").loc["d-glass"]
    assert row[["status", "failed_stage", "error"]].tolist() == [
        "failed",
        "evaluate",
        "d-glass.png: not an image",
    ]


def test_warnings_of_all_stages_are_joined(cohort: Cohort) -> None:
    table = table_of(cohort)
    assert table.loc["a-good", "warning"] == "stain is doubtful; infer is doubtful"
    assert (table["warning"].drop("a-good") == "").all()


def test_sheet_columns_facts_and_seconds_are_there(cohort: Cohort) -> None:
    table = table_of(cohort)
    assert table.loc["b-good", ["path", "organ", "patient"]].tolist() == [
        "/slides/b-good.svs",
        "breast",
        "NA",
    ]
    assert table.loc["b-good", [f"seconds_{stage}" for stage in STAGES]].tolist() == [1.5] * 6
    assert table.loc["b-good", "nuclei"] == 10
    assert np.isnan(table.loc["f-broken", "nuclei"])


def test_scores_are_pooled_over_slides_and_within_groups(cohort: Cohort) -> None:
    scores = scores_of(cohort)
    at_4 = scores[scores["radius_um"] == 4.0].set_index(["grouping", "group"])
    assert set(at_4.index) == {("all", "all"), ("organ", "breast"), ("organ", "lung"), ("stain", "HE")}
    whole = at_4.loc[("all", "all")]
    # 9 right of 11 found, of 12 annotated; distances 12 / 9, squares 26 / 9.
    assert whole[["slides", "annotated", "tp", "fp", "fn"]].tolist() == [2, 12, 9, 2, 3]
    assert whole["precision"] == pytest.approx(9 / 11)
    assert whole["recall"] == pytest.approx(9 / 12)
    assert whole["f1"] == pytest.approx(18 / 23)
    assert whole["distance_mean_um"] == pytest.approx(12 / 9)
    assert whole["distance_sd_um"] == pytest.approx((26 / 9 - (12 / 9) ** 2) ** 0.5)
    assert whole["mean_slide_f1"] == pytest.approx((16 / 18 + 2 / 5) / 2)
    assert at_4.loc[("organ", "lung"), ["tp", "fp", "fn"]].tolist() == [8, 2, 0]
    assert at_4.loc[("organ", "breast"), "f1"] == pytest.approx(2 / 5)


def test_every_radius_has_its_rows(cohort: Cohort) -> None:
    scores = scores_of(cohort)
    assert scores.groupby("radius_um").size().to_dict() == {2.5: 4, 4.0: 4}
    narrow = scores[(scores["radius_um"] == 2.5) & (scores["grouping"] == "all")].iloc[0]
    assert (narrow["tp"], narrow["fn"], narrow["recall"]) == (0, 12, 0.0)


def test_intervals_are_of_patients(cohort: Cohort) -> None:
    scores = scores_of(cohort).set_index(["grouping", "group", "radius_um"])
    # Both slides are of the patient "NA": there is nothing to resample.
    assert scores.loc[("all", "all", 4.0), "patients"] == 1
    assert scores[["f1_low", "f1_high", "mean_slide_f1_low"]].isna().all().all()


def test_intervals_of_two_patients_run_from_the_one_to_the_other(cohort: Cohort) -> None:
    slides = slide_table(cohort.plans, cohort.manifests)
    slides["patient"] = slides["slide_id"]
    whole = score_table(slides, [4.0], cohort.folder, "a_model").iloc[0]
    # A resample of two patients is the one twice, the other twice, or both.
    assert (whole["f1_low"], whole["f1_high"]) == (pytest.approx(2 / 5), pytest.approx(16 / 18))
    assert whole["mean_slide_f1_low"] == pytest.approx(2 / 5)


def test_curves_are_pooled_over_slides(cohort: Cohort) -> None:
    curves = curve_table(slide_table(cohort.plans, cohort.manifests), cohort.folder)
    whole = curves[curves["grouping"] == "all"]
    assert whole[["threshold", "tp", "fp", "fn"]].to_numpy().tolist() == [
        [0.9, 5, 0, 7],
        [0.5, 6, 0, 6],
        [0.4, 9, 2, 3],
    ]
    # Precision 1 up to recall 6/12, then 9/11 up to 9/12.
    scores = scores_of(cohort).set_index(["grouping", "radius_um"])
    assert scores.loc[("all", 4.0), "average_precision"] == pytest.approx(6 / 12 + 3 / 12 * 9 / 11)
    assert scores.loc[("all", 4.0), "best_threshold"] == 0.4  # F1 10/17, 12/18, 18/23
    assert np.isnan(scores.loc[("all", 2.5), "average_precision"])


def test_cohort_without_annotations_has_empty_score_and_curve_tables(tmp_path: Path) -> None:
    paths = write(Cohort(tmp_path, annotated=False))
    assert len(pd.read_parquet(paths["slides"])) == len(SLIDES)
    assert pd.read_parquet(paths["scores"]).empty
    for name in ("curves", "segmentation", "class_scores"):
        assert pd.read_parquet(paths[name]).empty


def test_summary_files_hold_the_tables(cohort: Cohort) -> None:
    paths = write(cohort)
    table = slide_table(cohort.plans, cohort.manifests)
    pd.testing.assert_frame_equal(pd.read_parquet(paths["slides"]), table, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet(paths["scores"]), scores_of(cohort), check_dtype=False)
    assert len(pd.read_parquet(paths["curves"])) == 3 + 3 + 2 + 1  # all, stain, lung, breast


@pytest.fixture
def slides(cohort: Cohort) -> str:
    """The slide table: 2 of 6 failed; a slide of mere glass is no failure."""
    return write(cohort)["slides"]


@pytest.mark.parametrize("fraction", [2 / 6, 0.5, 1.0])
def test_as_many_failures_as_allowed_are_a_verdict(slides: str, tmp_path: Path, fraction: float) -> None:
    check_failures(slides, fraction, str(tmp_path / "verdict.txt"))
    assert (tmp_path / "verdict.txt").read_text().splitlines() == [
        "2 of 6 slides failed",
        "e-bad-stain: stain: e-bad-stain: cannot be read",
        "f-broken: tissue: f-broken: cannot be read",
    ]


@pytest.mark.parametrize("fraction", [0.0, 0.33])
def test_more_failures_than_allowed_are_an_error(slides: str, tmp_path: Path, fraction: float) -> None:
    with pytest.raises(SystemExit, match=r"2 of 6 slides failed, more than max_failed_fraction") as caught:
        check_failures(slides, fraction, str(tmp_path / "verdict.txt"))
    assert "f-broken: tissue: f-broken: cannot be read" in str(caught.value)
    assert not (tmp_path / "verdict.txt").exists()


@pytest.mark.parametrize(("failed", "fraction"), [(3, 0.03), (29, 0.29), (7, 0.07), (57, 0.57)])
def test_allowed_share_is_exact(tmp_path: Path, failed: int, fraction: float) -> None:
    # 0.29 * 100 is 28.999999999999996 in binary.
    status = ["failed"] * failed + ["done"] * (100 - failed)
    table = pd.DataFrame({"slide_id": [f"s{k}" for k in range(100)], "status": status})
    table.assign(failed_stage="tissue", error="").to_parquet(tmp_path / "slides.parquet")
    check_failures(str(tmp_path / "slides.parquet"), fraction, str(tmp_path / "verdict.txt"))
    assert (tmp_path / "verdict.txt").exists()
