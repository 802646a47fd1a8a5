"""A model of outlines through the whole workflow."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from conftest import REPOSITORY, SETTINGS, Workflow, new_workflow

from karyon.cli.main import main

NAME = "demo-1"


@pytest.fixture(scope="module")
def outlined(sheet: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """One slide after a first run."""
    workflow = new_workflow(tmp_path_factory.mktemp("outlines") / "work")
    workflow.write_sheet(sheet[sheet["slide_id"] == NAME])
    result = workflow.run(settings={**SETTINGS, "model": "karyon_outline"})
    assert result.returncode == 0, result.stdout + result.stderr
    return workflow


def results(workflow: Workflow) -> Path:
    return workflow.folder / "results" / "tiny"


def test_every_nucleus_has_a_valid_outline_about_its_centroid(outlined: Workflow) -> None:
    nuclei = geopandas.read_parquet(results(outlined) / "nuclei" / f"{NAME}.parquet")
    slides = pd.read_parquet(results(outlined) / "slides.parquet")
    assert len(nuclei) == slides["nuclei"].item() > 50
    assert nuclei.geometry.is_valid.all()
    assert set(nuclei.geometry.geom_type) == {"Polygon"}
    bounds = nuclei.geometry.bounds
    assert nuclei["x"].between(bounds["minx"], bounds["maxx"]).all()
    assert nuclei["y"].between(bounds["miny"], bounds["maxy"]).all()


def test_the_nuclei_that_were_drawn_are_found(outlined: Workflow) -> None:
    scores = pd.read_parquet(results(outlined) / "scores.parquet")
    assert scores.loc[scores["grouping"] == "all", "f1"].max() > 0.8


def test_qupath_gets_the_outlines_in_its_own_frame(outlined: Workflow) -> None:
    nuclei = geopandas.read_parquet(results(outlined) / "nuclei" / f"{NAME}.parquet")
    with gzip.open(results(outlined) / "nuclei" / f"{NAME}.geojson.gz", "rt") as stream:
        features = json.load(stream)["features"]
    found = geopandas.GeoDataFrame.from_features(features)
    # QuPath has pixel corners at integers; this slide has no bounds to be shifted by.
    assert found.geometry.geom_equals_exact(nuclei.geometry.translate(0.5, 0.5), 1e-3).all()


def test_centroids_seed_a_watershed_as_the_documentation_shows(
    outlined: Workflow, sheet: pd.DataFrame, tmp_path: Path
) -> None:
    documented = (REPOSITORY / "docs" / "outputs.md").read_text()
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", documented, re.DOTALL) if "watershed(" in block
    ]
    box = ["--bbox", "200", "100", "599", "499"]
    command = ["export", str(results(outlined)), "--format", "csv", *box, "--output", str(tmp_path)]
    assert main(command) == 0
    slide = sheet.set_index("slide_id").loc[NAME, "path"]
    for theirs, ours in {
        "9000, 4000, 1000": "200, 100, 400",
        "s1.svs": slide,
        "results/my_cohort/export/s1.csv.gz": str(tmp_path / f"{NAME}.csv.gz"),
    }.items():
        assert theirs in code
        code = code.replace(theirs, ours)
    found: dict[str, Any] = {}
    exec(code, found)
    nuclei = geopandas.read_parquet(results(outlined) / "nuclei" / f"{NAME}.parquet").set_index("nucleus_id")
    grown = found["labels"]
    assert set(np.unique(grown)) - {0} <= set(found["nuclei"]["nucleus_id"])
    rows, columns = np.nonzero(grown)
    inside = shapely.contains_xy(nuclei.geometry[grown[rows, columns]].to_numpy(), columns + 200, rows + 100)
    # Most of what is stained in a nucleus' outline, and little else, is grown from its own centroid.
    assert inside.mean() > 0.6


def test_the_report_shows_slide_and_density(outlined: Workflow) -> None:
    for folder in ("Overlays", "Heatmaps"):
        assert (results(outlined) / "report" / folder / f"{NAME}.png").is_file()
    assert (results(outlined) / "logs" / "report.log").read_text() == ""


def test_a_second_run_has_nothing_to_do(outlined: Workflow) -> None:
    assert outlined.planned() == []


def test_another_threshold_leaves_the_maps(outlined: Workflow, tmp_path: Path) -> None:
    settings = {**SETTINGS, "model": "karyon_outline", "nuclei": {"geojson": True, "threshold": 0.6}}
    planned = outlined.copy(tmp_path / "work").planned(settings=settings)
    assert planned == ["evaluate", "nuclei", "report", "summary", "verdict"]
