"""`karyon export` by the command line, on points and outlines."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from PIL import Image

from karyon.cli.main import main
from karyon.io.slides import SlideFacts
from karyon.models.card import Decoding, ModelCard
from karyon.nuclei.components import Components
from karyon.nuclei.outline_table import write_outlines
from karyon.nuclei.shapes import measure_window
from karyon.nuclei.table import nuclei_table, write_nuclei
from karyon.tiles.grid import Grid

FACTS = SlideFacts(1000, 800, 0.5, "metadata", ((1000, 800),), 100, 40, "mirax")
GRID = Grid(1000, 800, scale=1.0, level=0, ratio=1.0)
CARD = ModelCard("tiny", "unet", {}, "H-C", 0.5, 8, 2, "probability", Decoding("components", 0.5))
POINTS = np.array([[150.0, 100.0], [300.0, 200.0], [310.0, 200.0], [900.0, 700.0]])


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Slide `points` has four points; slide `outlines` has squares of 5 pixels round the same."""
    nuclei, (x, y) = tmp_path / "nuclei", POINTS.T
    found = Components(x, y, np.ones(4, np.int64), np.full(4, 255, np.uint8))
    write_nuclei(nuclei / "points.parquet", nuclei_table("points", found, GRID, FACTS), FACTS, CARD, "f")
    labels = np.zeros((800, 1000), np.int32)
    for number, (column, row) in enumerate(POINTS.astype(int), start=1):
        labels[row - 2 : row + 3, column - 2 : column + 3] = number
    rim = np.pad(labels, 1) == 0
    shapes = measure_window(
        labels,
        0,
        0,
        np.full((2, 800, 1000), 255, np.uint8),
        ("nucleus", "distance"),
        np.dstack([rim, rim]),
        rim,
    )
    write_outlines(
        nuclei / "outlines.parquet", "outlines", [shapes], GRID, FACTS, CARD, ("hematoxylin", "eosin"), "f"
    )
    (tmp_path / "tissue").mkdir()
    for slide in ("points", "outlines"):
        facts = {"slide": asdict(FACTS), "mask_grid": asdict(Grid.of_slide(FACTS, 8.0))}
        (tmp_path / "tissue" / f"{slide}.json").write_text(json.dumps(facts))
        Image.new("L", (62, 50), 255).save(tmp_path / "tissue" / f"{slide}.mask.png")
    table = pd.DataFrame({"slide_id": ["points", "outlines", "failed"], "status": ["done", "done", "failed"]})
    table.to_parquet(tmp_path / "slides.parquet")
    return tmp_path


@pytest.fixture
def export(cohort: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[Path]]:
    def run(*words: str) -> list[Path]:
        assert main(["export", str(cohort), *words]) == 0
        return [Path(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.fixture
def refusal(cohort: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*words: str) -> str:
        assert main(["export", str(cohort), "--format", "csv", *words]) == 1
        return capsys.readouterr().err

    return run


def shapes_of(path: Path) -> list[shapely.Geometry]:
    collection = json.loads(gzip.decompress(path.read_bytes()))
    return [shapely.geometry.shape(feature["geometry"]) for feature in collection["features"]]


def test_every_slide_gets_a_file(export: Callable[..., list[Path]], cohort: Path) -> None:
    outlines, points = export("--format", "geojson")
    assert (outlines, points) == tuple(
        cohort / "export" / f"{name}.geojson.gz" for name in ("outlines", "points")
    )
    # QuPath's origin is the corner of the bounds' first pixel.
    centres = POINTS - (100, 40) + 0.5
    np.testing.assert_allclose(shapely.get_coordinates(shapes_of(points)), centres)
    squares = [shapely.box(x - 2.5, y - 2.5, x + 2.5, y + 2.5) for x, y in centres]
    assert all(one.equals(other) for one, other in zip(shapes_of(outlines), squares, strict=True))


@pytest.mark.parametrize("slide", ["points", "outlines"])
def test_box_is_in_pixels_of_the_whole_image(
    export: Callable[..., list[Path]], tmp_path: Path, slide: str
) -> None:
    box = ["--bbox", "200", "150", "305", "900"]
    (path,) = export("--format", "csv", "--slide", slide, *box, "--output", str(tmp_path / "part"))
    assert path == tmp_path / "part" / f"{slide}.csv.gz"
    assert pd.read_csv(path)[["nucleus_id", "x", "y"]].to_numpy().tolist() == [[2, 300, 200]]


def test_region_is_in_the_frame_that_qupath_shows(export: Callable[..., list[Path]], tmp_path: Path) -> None:
    # Round the second and third nucleus, as they lie in QuPath.
    area = shapely.Polygon([(190, 150), (230, 150), (230, 170), (190, 170)])
    feature = {"type": "Feature", "geometry": json.loads(shapely.to_geojson(area)), "properties": {}}
    (tmp_path / "area.geojson").write_text(json.dumps(feature))
    (path,) = export("--format", "parquet", "--slide", "outlines", "--region", str(tmp_path / "area.geojson"))
    assert pq.read_table(path)["nucleus_id"].to_pylist() == [2, 3]


def test_labels_are_an_image_of_the_slide(export: Callable[..., list[Path]]) -> None:
    (path,) = export("--format", "labels", "--slide", "outlines", "--bbox", "200", "150", "305", "900")
    assert path.name == "outlines.labels.ome.tif"
    expected = np.zeros((800, 1000), np.uint32)
    expected[198:203, 298:303] = 2
    np.testing.assert_array_equal(tifffile.imread(path), expected)


def test_labels_of_centres_are_refused(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(cohort), "--format", "labels", "--slide", "points"]) == 1
    assert "points.parquet: centres without outlines" in capsys.readouterr().err
    assert not list((cohort / "export").glob("*"))


def test_region_of_several_slides_is_refused(refusal: Callable[..., str]) -> None:
    assert "a region is of one slide, 2 are asked for; name one" in refusal("--bbox", "0", "0", "9", "9")


def test_region_without_an_area_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "none.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    said = refusal("--slide", "points", "--region", str(tmp_path / "none.geojson"))
    assert "none.geojson: has no area; draw one in QuPath" in said


@pytest.mark.parametrize("slide", ["lines", "failed"])
def test_slide_that_is_not_finished_is_refused(refusal: Callable[..., str], slide: str) -> None:
    assert f"slides.parquet: no finished slide {slide}" in refusal("--slide", "points", slide)


def test_table_of_a_slide_that_has_failed_since_is_left(
    export: Callable[..., list[Path]], cohort: Path
) -> None:
    shutil.copy(cohort / "nuclei" / "points.parquet", cohort / "nuclei" / "failed.parquet")
    assert [path.name for path in export("--format", "csv")] == ["outlines.csv.gz", "points.csv.gz"]


def test_damaged_table_is_named_and_the_others_are_written(
    cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = cohort / "nuclei" / "outlines.parquet"
    whole.write_bytes(whole.read_bytes()[:-10])
    assert main(["export", str(cohort), "--format", "csv"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(cohort / "export" / "points.csv.gz")]
    assert "outlines.parquet: cannot be read (" in said.err
    assert "run the workflow again" in said.err


def test_cohort_that_was_not_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "none"), "--format", "csv"]) == 1
    assert "slides.parquet: not there; run the workflow" in capsys.readouterr().err
