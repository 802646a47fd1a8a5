"""Predictions of a study: kept until something they were made of changes; and their scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.draw import disk
from skimage.io import imsave
from test_outlines_stage import outline_model

from karyon.study.predict import CURVE, predict_tests
from karyon.study.score import score_matrix

CENTRES = [(40, 40), (40, 120), (100, 70), (150, 150), (60, 180), (170, 40)]


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    """One field with six dark discs, all annotated, and one that is not there."""
    generator = np.random.default_rng(1)
    image = np.array([226, 160, 195]) + generator.normal(0, 6, (200, 200, 3))
    for centre in CENTRES:
        rows, columns = disk(centre, 10)
        image[rows, columns] = np.array([90, 50, 140]) + generator.normal(0, 6, (len(rows), 3))
    imsave(tmp_path / "field.png", image.clip(0, 255).astype(np.uint8))
    points = "\n".join(f"{x},{y}" for y, x in [*CENTRES, (190, 190)])
    (tmp_path / "field.csv").write_text(f"x,y\n{points}\n")
    path = tmp_path / "plan" / "test" / "gut.tsv"
    path.parent.mkdir(parents=True)
    header = ["slide_id", "path", "mpp", "patient", "annotations", "annotation_format"]
    row = ["field", str(tmp_path / "field.png"), "0.25", "p", str(tmp_path / "field.csv"), "points_csv"]
    path.write_text("\t".join(header) + "\n" + "\t".join(row) + "\n")
    return path


def predict(folder: Path, sheet: Path, model: Path) -> str:
    """Predict, and give what the log says."""
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    manifest = folder / "predictions" / "run.parquet"
    predict_tests(str(model), [str(sheet)], str(folder / "stains"), 4.0, str(manifest), 1, 0, str(log))
    return log.read_text()


@pytest.mark.parametrize("method", ["watershed", "dilation"])
def test_centroids_of_outlines_are_found_in_um(method: str, sheet: Path, tmp_path: Path) -> None:
    assert "gut: 1 images in" in predict(tmp_path, sheet, outline_model(tmp_path, method))
    points = pd.read_parquet(tmp_path / "predictions" / "run" / "gut.parquet")
    found = points.loc[points["kind"] == "found", ["x_um", "y_um"]].to_numpy()
    distance = np.linalg.norm(found[:, None] - np.array(CENTRES)[:, ::-1] * 0.25, axis=2)
    assert len(found) == len(CENTRES)
    assert (distance.min(axis=0) < 0.5).all()
    curve = pd.read_parquet(tmp_path / "predictions" / "run" / "gut.curve.parquet").set_index("threshold")
    assert list(curve.index) == list(CURVE)
    assert list(curve.loc[0.5, ["tp", "fp", "fn"]]) == [6, 0, 1]


def test_a_group_is_done_again_only_when_something_changed(sheet: Path, tmp_path: Path) -> None:
    model = outline_model(tmp_path, "watershed")
    predict(tmp_path, sheet, model)
    assert "gut: done before" in predict(tmp_path, sheet, model)
    with (tmp_path / "field.csv").open("a") as annotations:
        annotations.write("5,5\n")
    assert "gut: 1 images in" in predict(tmp_path, sheet, model)
    (tmp_path / "predictions" / "run" / "gut.parquet").unlink()
    assert "gut: 1 images in" in predict(tmp_path, sheet, model)


def test_the_matrix_counts_each_image_and_what_has_none(sheet: Path, tmp_path: Path) -> None:
    model = outline_model(tmp_path, "watershed")
    sheet.write_text(sheet.read_text() + "empty\tx.png\t0.25\tq\tx.csv\tpoints_csv\n")
    run = {
        **{"run": "run", "variant": "v", "family": "v", "seed": 1, "train_groups": "gut", "series": ""},
        **{"x_name": "", "x": None, "model": str(model), "parent": "", "trains": False},
    }
    plan = {"name": "tiny", "radius_um": 4.0, "threads": 1, "groups": ["gut"], "runs": [run]}
    (tmp_path / "plan" / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "plan" / "study.yaml").write_text("study: {data: {sheets: []}}\n")
    folder = tmp_path / "predictions" / "run"
    folder.mkdir(parents=True)
    # By hand: 3 um apart is a match, 5 um is none.
    points = [("found", 0.0, 0.0), ("found", 20.0, 0.0), ("true", 3.0, 0.0), ("true", 20.0, 5.0)]
    table = pd.DataFrame(points, columns=["kind", "x_um", "y_um"]).assign(image_id="field")
    table.to_parquet(folder / "gut.parquet")
    pd.DataFrame({"image_id": ["field", "empty"], "threshold": 0.5, "tp": 1, "fp": 2, "fn": 3}).to_parquet(
        folder / "gut.curve.parquet"
    )
    manifest = {"group": ["gut"], "model_sha256": ["abc"], "threshold": [0.35], "device": ["CPU"]}
    pd.DataFrame(manifest).to_parquet(tmp_path / "predictions" / "run.parquet")
    outputs = [str(tmp_path / name) for name in ("matrix.parquet", "curves.parquet", "origin.json")]
    score_matrix(str(tmp_path / "plan" / "plan.json"), 4.0, 1, *outputs, log=str(tmp_path / "log.txt"))
    matrix = pd.read_parquet(outputs[0]).set_index("image_id")
    assert list(matrix.index) == ["empty", "field"]
    assert list(matrix.loc["field", ["tp", "fp", "fn"]]) == [1, 1, 1]
    assert matrix.loc["field", ["precision", "recall", "f1", "distance_um"]].tolist() == [0.5, 0.5, 0.5, 3.0]
    assert matrix.loc["empty", ["tp", "fp", "fn"]].tolist() == [0, 0, 0]
    assert matrix.loc["empty", ["precision", "f1"]].isna().all()
    curves = pd.read_parquet(outputs[1])
    assert curves[["threshold", "tp", "fp", "fn"]].to_numpy().tolist() == [[0.5, 2, 4, 6]]
