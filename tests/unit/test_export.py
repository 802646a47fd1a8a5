"""Exports as other tools read them: json, pandas, tifffile and OpenSlide."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pyarrow as pa
import pytest
import shapely
import tifffile
import zarr

from karyon.io.slides import SlideFacts
from karyon.models.card import Decoding, ModelCard
from karyon.nuclei.components import Components
from karyon.nuclei.export import write_csv, write_geojson, write_mask
from karyon.nuclei.query import ROWS_AT_ONCE
from karyon.nuclei.table import nuclei_table, write_nuclei
from karyon.tiles.grid import Grid

FACTS = SlideFacts(9000, 8000, 0.25, "metadata", ((9000, 8000),), 100, 40, "mirax")
GRID = Grid(4500, 4000, scale=2.0, level=0, ratio=2.0)
CARD = ModelCard("tiny", "unet", {}, "H-C", 0.5, 8, 2, "probability", Decoding("components", 0.5))


def file_of(path: Path, table: pa.Table) -> Path:
    write_nuclei(path, table, FACTS, CARD, "f")
    return path


def table_of(rows: int) -> pa.Table:
    rng = np.random.default_rng(rows)
    x, y = rng.random((2, rows)) * 4000
    found = Components(x, y, np.ones(rows, np.int64), rng.integers(1, 256, rows).astype(np.uint8))
    return nuclei_table("slide-1", found, GRID, FACTS)


def random_map(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width), dtype=np.uint8)


def read_geojson(path: Path) -> dict:
    return json.loads(gzip.decompress(path.read_bytes()))


def test_geojson_is_shifted_by_the_bounds_and_half_a_pixel(tmp_path: Path) -> None:
    found = Components(np.array([99.75]), np.array([24.75]), np.array([1]), np.array([51], np.uint8))
    nuclei = file_of(tmp_path / "n.parquet", nuclei_table("s", found, GRID, FACTS))
    write_geojson(tmp_path / "n.geojson.gz", nuclei)
    (feature,) = read_geojson(tmp_path / "n.geojson.gz")["features"]
    # Model 99.75 is level-0 centre 200, whose pixel reaches from 200 to 201 in QuPath; less bounds of 100.
    assert feature["geometry"] == {"type": "Point", "coordinates": [100.5, 10.5]}
    assert feature["properties"]["objectType"] == "detection"
    assert feature["properties"]["measurements"] == {"probability": 0.2}


@pytest.mark.parametrize("rows", [0, 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 1])
def test_geojson_holds_every_nucleus_over_all_batches(tmp_path: Path, rows: int) -> None:
    table = table_of(rows)
    write_geojson(tmp_path / "n.geojson.gz", file_of(tmp_path / "n.parquet", table))
    collection = read_geojson(tmp_path / "n.geojson.gz")
    assert collection["type"] == "FeatureCollection"
    features = collection["features"]
    assert [int(feature["properties"]["name"]) for feature in features] == list(range(1, rows + 1))
    points = np.array([feature["geometry"]["coordinates"] for feature in features]).reshape(-1, 2)
    expected = np.stack([table["x"].to_numpy() - 99.5, table["y"].to_numpy() - 39.5], axis=1)
    np.testing.assert_allclose(points, expected, atol=5.1e-4)


def test_geojson_is_read_by_a_geometry_library(tmp_path: Path) -> None:
    write_geojson(tmp_path / "n.geojson.gz", file_of(tmp_path / "n.parquet", table_of(25)))
    shapes = shapely.from_geojson(gzip.decompress((tmp_path / "n.geojson.gz").read_bytes()))
    assert [shape.geom_type for shape in shapes.geoms] == ["Point"] * 25


def test_csv_equals_the_table(tmp_path: Path) -> None:
    table = table_of(1000)
    write_csv(tmp_path / "n.csv.gz", file_of(tmp_path / "n.parquet", table))
    read = pd.read_csv(tmp_path / "n.csv.gz", dtype={"probability": np.float32})
    pd.testing.assert_frame_equal(read, table.to_pandas().astype({"slide_id": read["slide_id"].dtype}))


def test_csv_without_nuclei_still_has_its_header(tmp_path: Path) -> None:
    write_csv(tmp_path / "n.csv.gz", file_of(tmp_path / "n.parquet", table_of(0)))
    assert pd.read_csv(tmp_path / "n.csv.gz").columns.tolist() == table_of(0).column_names


def test_same_nuclei_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        nuclei = file_of(tmp_path / name / "n.parquet", table_of(500))
        write_csv(tmp_path / name / "n.csv.gz", nuclei)
        write_geojson(tmp_path / name / "n.geojson.gz", nuclei)
        write_mask(tmp_path / name / "n.tif", random_map(600, 700), 90, GRID, 0.25)
    for file in ("n.csv.gz", "n.geojson.gz", "n.tif"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.fixture(scope="module")
def large_mask(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Path]:
    """A map of 1300 x 900 model pixels of 0.5 um, and its mask."""
    values, path = random_map(900, 1300), tmp_path_factory.mktemp("mask") / "mask.tif"
    write_mask(path, values, 90, Grid(1300, 900, scale=2.0, level=0, ratio=2.0), mpp=0.25)
    return values, path


def test_mask_is_the_thresholded_map(large_mask: tuple[np.ndarray, Path]) -> None:
    values, path = large_mask
    np.testing.assert_array_equal(tifffile.imread(path, key=0), np.where(values >= 90, 255, 0))


def test_mask_opens_as_a_pyramid_in_openslide(large_mask: tuple[np.ndarray, Path]) -> None:
    values, path = large_mask
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((1300, 900), (650, 450), (325, 225))
        for level in range(slide.level_count):
            pixels = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))
            expected = np.where(values[:: 2**level, :: 2**level] >= 90, 255, 0)
            np.testing.assert_array_equal(pixels[..., 0], expected)


def test_mask_states_its_microns_per_pixel(large_mask: tuple[np.ndarray, Path]) -> None:
    with openslide.OpenSlide(large_mask[1]) as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5, rel=1e-6)
    with tifffile.TiffFile(large_mask[1]) as tiff:
        across = [page.get_resolution("MICROMETER")[0] for page in tiff.pages]
    assert across == pytest.approx([1 / 0.5, 1 / 1.0, 1 / 2.0], rel=1e-6)


@pytest.mark.parametrize(("side", "levels"), [(40, 1), (512, 1), (513, 2), (1024, 2), (1025, 3)])
def test_coarsest_level_fits_a_tile(tmp_path: Path, side: int, levels: int) -> None:
    write_mask(tmp_path / "m.tif", random_map(30, side), 90, Grid(side, 30, 1.0, 0, 1.0), 0.5)
    with openslide.OpenSlide(tmp_path / "m.tif") as slide:
        assert slide.level_count == levels


def test_memory_of_the_mask_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    stored = zarr.create_array(store={}, shape=(8192, 8192), chunks=(1024, 1024), dtype="u1", fill_value=0)
    tracemalloc.start()
    write_mask(tmp_path / "m.tif", stored, 90, Grid(8192, 8192, 1.0, 0, 1.0), 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8192 * 8192 / 4
