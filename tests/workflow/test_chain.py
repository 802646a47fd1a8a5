"""The chain from sheet to report, on a small cohort."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, SETTINGS, Workflow, new_workflow
from PIL import Image


def results(workflow: Workflow) -> Path:
    return workflow.folder / "results" / "tiny"


def test_every_slide_is_done_and_has_its_nuclei(finished: Workflow) -> None:
    table = pd.read_parquet(results(finished) / "slides.parquet")
    assert list(table["status"]) == ["done"] * 3
    for row in table.itertuples():
        nuclei = pd.read_parquet(results(finished) / "nuclei" / f"{row.slide_id}.parquet")
        assert len(nuclei) == row.nuclei > 50
        assert set(nuclei["slide_id"]) == {row.slide_id}
        assert list(nuclei["nucleus_id"]) == list(range(1, len(nuclei) + 1))


def test_the_shipped_model_finds_the_nuclei_that_were_drawn(finished: Workflow) -> None:
    scores = pd.read_parquet(results(finished) / "scores.parquet")
    pooled = scores[(scores["grouping"] == "all") & (scores["radius_um"] == 4.0)].iloc[0]
    assert pooled["f1"] > 0.8


def test_scores_are_those_of_the_match_tables(finished: Workflow) -> None:
    tables = pd.concat([pd.read_parquet(path) for path in (results(finished) / "matches").glob("*.parquet")])
    counts = tables["kind"].value_counts()
    scores = pd.read_parquet(results(finished) / "scores.parquet").iloc[0]
    assert (scores["tp"], scores["fp"], scores["fn"]) == (counts["TP"], counts["FP"], counts["FN"])
    assert tables["distance_um"].max() <= 4.0


def test_exports_hold_the_same_nuclei(finished: Workflow) -> None:
    for path in (results(finished) / "nuclei").glob("*.parquet"):
        with gzip.open(path.with_suffix(".geojson.gz"), "rt") as stream:
            features = json.load(stream)["features"]
        assert len(features) == pq.read_metadata(path).num_rows


def test_metadata_name_the_model_and_the_mpp(finished: Workflow) -> None:
    path = sorted((results(finished) / "nuclei").glob("*.parquet"))[0]
    metadata = pq.read_schema(path).metadata
    assert float(metadata[b"mpp"]) == pytest.approx(0.5, rel=1e-3)
    assert metadata[b"model"] == b"karyon_default"
    assert len(metadata[b"model_sha256"]) == 64


@pytest.mark.parametrize(
    "table",
    [
        "slides.parquet",
        "scores.parquet",
        "curves.parquet",
        "nuclei/*.parquet",
        "matches/*.parquet",
        "curves/*.parquet",
    ],
)
def test_every_column_is_documented(finished: Workflow, table: str) -> None:
    documented = (REPOSITORY / "docs" / "outputs.md").read_text()
    for column in pd.read_parquet(next(results(finished).glob(table))).columns:
        assert f"`{re.sub(r'_[0-9.]+um$', '_4um', column)}`" in documented, column


def test_two_runs_from_scratch_give_the_same_bytes(
    finished: Workflow, sheet: pd.DataFrame, tmp_path: Path
) -> None:
    again = new_workflow(tmp_path / "again")
    again.write_sheet(sheet.iloc[:1])  # the bytes of a slide do not depend on its neighbours
    assert again.run().returncode == 0
    (path,) = (results(again) / "nuclei").glob("*.parquet")
    assert path.read_bytes() == (results(finished) / "nuclei" / path.name).read_bytes()


def test_a_second_run_has_nothing_to_do(finished: Workflow) -> None:
    assert finished.planned() == []


def test_a_changed_threshold_reruns_nuclei_and_after(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path / "work")
    planned = workflow.planned(settings={**SETTINGS, "nuclei": {"geojson": True, "threshold": 0.6}})
    assert planned == ["evaluate"] * 3 + ["nuclei"] * 3 + ["report", "summary", "verdict"]


def test_without_maps_a_changed_threshold_begins_with_inference_and_finds_the_same(
    finished: Workflow, sheet: pd.DataFrame, tmp_path: Path
) -> None:
    workflow = finished.copy(tmp_path / "work")
    assert {path.name for path in results(workflow).iterdir()} >= {"maps", "nuclei"}
    assert not list((results(workflow) / "tiles").iterdir())
    workflow.write_sheet(sheet.iloc[:1])
    before = {path: path.stat().st_mtime_ns for path in (results(workflow) / "nuclei").glob("*.parquet")}
    result = workflow.run("--until", "nuclei", settings={**SETTINGS, "keep_maps": False})
    assert result.returncode == 0, result.stderr
    name = sheet["slide_id"].iloc[0]
    assert not (results(workflow) / "maps" / f"{name}.zarr.zip").exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was done again
    changed = {**SETTINGS, "keep_maps": False, "nuclei": {"geojson": True, "threshold": 0.6}}
    chain = ["evaluate", "infer", "nuclei", "stitch"]
    assert workflow.planned(settings=changed) == sorted([*chain, "report", "summary", "verdict"])


def test_a_new_slide_runs_only_its_shard(finished: Workflow, sheet: pd.DataFrame, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path / "work")
    workflow.write_sheet(pd.concat([sheet, sheet.iloc[[0]].assign(slide_id="added")]))
    chain = ["evaluate", "infer", "nuclei", "stain", "stitch", "tissue"]
    assert workflow.planned() == sorted([*chain, "report", "summary", "verdict"])


def test_an_edited_comment_in_a_script_runs_nothing(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path / "work")
    for script in (workflow.folder / "workflow" / "scripts").glob("*.py"):
        script.write_text("# a comment\n" + script.read_text())
    assert workflow.planned() == []


def test_a_lost_result_is_made_again_and_is_the_same(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path / "work")
    path = sorted((results(workflow) / "nuclei").glob("*.parquet"))[0]
    before = path.read_bytes()
    path.unlink()
    shard = path.stem
    result = workflow.run("--forcerun", f"results/tiny/manifests/nuclei/{shard}.parquet", "--until", "nuclei")
    assert result.returncode == 0, result.stderr
    assert path.read_bytes() == before


def test_bad_slides_end_in_their_row_and_the_others_complete(sheet: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "empty.svs").write_bytes(b"")
    (tmp_path / "text.svs").write_text("not a slide")
    Image.fromarray(np.full((600, 600, 3), 244, np.uint8)).save(tmp_path / "blank.png")
    bad = pd.DataFrame(
        [
            {"slide_id": "empty", "path": tmp_path / "empty.svs", "mpp": 0.5},
            {"slide_id": "text", "path": tmp_path / "text.svs", "mpp": 0.5},
            {"slide_id": "blank", "path": tmp_path / "blank.png", "mpp": 0.5},
            {"slide_id": "no_mpp", "path": tmp_path / "blank.png", "mpp": None},
        ]
    )
    workflow = new_workflow(tmp_path / "work")
    good = sheet["slide_id"].iloc[0]
    workflow.write_sheet(pd.concat([sheet.iloc[:1], bad]))
    settings = {**SETTINGS, "shard_size": 64, "max_failed_fraction": 0.7}
    result = workflow.run(settings=settings)
    assert result.returncode == 0, result.stdout + result.stderr
    table = pd.read_parquet(results(workflow) / "slides.parquet").set_index("slide_id")
    assert table["status"].to_dict() == {
        good: "done",
        "empty": "failed",
        "text": "failed",
        "blank": "no_tissue",
        "no_mpp": "failed",
    }
    assert "0 bytes" in table.loc["empty", "error"]
    assert "neither OpenSlide nor Pillow" in table.loc["text", "error"]
    assert "microns per pixel" in table.loc["no_mpp", "error"]
    strict = workflow.run(settings={**settings, "max_failed_fraction": 0.5})
    assert strict.returncode != 0
    assert "3 of 5 slides failed" in strict.stdout + strict.stderr


def test_the_html_report_is_self_contained(finished: Workflow, tmp_path: Path) -> None:
    workflow = finished.copy(tmp_path / "work")
    result = workflow.run("--report", "report.html")
    assert result.returncode == 0, result.stderr
    content = (workflow.folder / "report.html").read_text()
    assert content.count("data:image/png") >= 4
    for tag in ("<script src=", '<link href="http'):
        assert tag not in content
