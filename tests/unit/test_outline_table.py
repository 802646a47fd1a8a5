"""The GeoParquet of nuclei with outlines, queries of it, and its exports."""

from __future__ import annotations

import gzip
import importlib.resources
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import duckdb
import geopandas
import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
from skimage.measure import label

from karyon.io.slides import SlideFacts
from karyon.models.card import Decoding, ModelCard
from karyon.nuclei import outline_table, query
from karyon.nuclei.export import COLOURS, write_csv, write_geojson, write_parquet
from karyon.nuclei.outline_table import write_outlines
from karyon.nuclei.query import read_nuclei
from karyon.nuclei.shapes import Shapes, measure_window
from karyon.tiles.grid import Grid

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "outputs.md"
SIDE, MPP = 260, 0.25
FACTS = SlideFacts(2 * SIDE, 2 * SIDE, MPP, "metadata", ((2 * SIDE, 2 * SIDE),), 100, 40, "mirax")
GRID = Grid(SIDE, SIDE, scale=2.0, level=0, ratio=2.0)
STAINS = ("hematoxylin", "eosin")
JOINT = ("background", "inside:tumour", "inside:lymphocyte", "contour")
# What QuPath 0.5 reads of a feature (qupath.lib.io.QuPathTypeAdapters).
POSITION = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
RING = {"type": "array", "items": POSITION, "minItems": 4}
QUPATH = {
    "type": "object",
    "required": ["type", "geometry", "properties"],
    "properties": {
        "type": {"const": "Feature"},
        "geometry": {
            "type": "object",
            "required": ["type", "coordinates"],
            "properties": {
                "type": {"const": "Polygon"},
                "coordinates": {"type": "array", "items": RING, "minItems": 1},
            },
        },
        "properties": {
            "type": "object",
            "required": ["objectType"],
            "properties": {
                "objectType": {"enum": ["detection", "annotation", "cell", "tile"]},
                "name": {"type": "string"},
                "classification": {
                    "type": "object",
                    "required": ["name", "color"],
                    "properties": {
                        "name": {"type": "string"},
                        "color": {
                            "type": "array",
                            "items": {"type": "integer", "minimum": 0, "maximum": 255},
                            "minItems": 3,
                            "maxItems": 3,
                        },
                    },
                },
                "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
            },
            "additionalProperties": False,
        },
    },
}


def card(maps: tuple[str, ...]) -> ModelCard:
    return ModelCard("tiny", "unet", {}, "H-C", 0.5, 8, 2, "softmax", Decoding("dilation", 0.5), maps=maps)


def instances() -> np.ndarray:
    """Discs at random, some of which touch by a corner only: int32, ``(SIDE, SIDE)``."""
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mask = np.zeros((SIDE, SIDE), bool)
    for y, x, radius in random.random((260, 3)) * (SIDE, SIDE, 7):
        mask |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return label(mask, connectivity=2).astype(np.int32)


def measured(labels: np.ndarray, names: tuple[str, ...], step: int) -> list[Shapes]:
    """All nuclei, in windows by the place of their first pixel, each as large as it needs to be."""
    random = np.random.default_rng(5)
    maps = random.integers(0, 128, (len(names), SIDE, SIDE), dtype=np.uint8)
    densities = random.random((SIDE + 2, SIDE + 2, 2), dtype=np.float32)
    background = np.pad(labels == 0, 1)
    first = np.unique(labels, return_index=True)[1][1:]
    owner = first // SIDE // step * 1000 + first % SIDE // step
    windows = []
    for block in np.unique(owner):
        members = np.flatnonzero(owner == block) + 1
        rows, columns = np.nonzero(np.isin(labels, members))
        y0, y1, x0, x1 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        number = np.zeros(labels.max() + 1, np.int32)
        number[members] = np.arange(1, len(members) + 1)
        rim = np.s_[y0 : y1 + 2, x0 : x1 + 2]
        crop = np.s_[y0:y1, x0:x1]
        windows.append(
            measure_window(
                number[labels[crop]],
                int(x0),
                int(y0),
                maps[:, y0:y1, x0:x1],
                names,
                densities[rim],
                background[rim],
            )
        )
    return windows


def write(path: Path, names: tuple[str, ...] = JOINT, step: int = 100, mpp: float = MPP) -> Path:
    facts = SlideFacts(**{**vars(FACTS), "mpp": mpp})
    write_outlines(path, "slide-1", measured(instances(), names, step), GRID, facts, card(names), STAINS, "f")
    return path


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("nuclei") / "slide-1.parquet")


@pytest.fixture
def coarse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same on a slide of 80 microns a pixel, so 42 mm wide, in row groups of 10."""
    monkeypatch.setattr(outline_table, "ROWS_AT_ONCE", 10)
    return write(tmp_path / "coarse.parquet", mpp=80.0)


def test_every_nucleus_has_its_outline_in_level_0_pixels(nuclei: Path) -> None:
    labels, table = instances(), pq.read_table(nuclei)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    seen = []
    for wkb, x, y, box in zip(
        *(table[name].to_pylist() for name in ("geometry", "x", "y", "bbox")), strict=True
    ):
        polygon = shapely.from_wkb(wkb)
        assert polygon.is_valid
        assert polygon.bounds == (box["xmin"], box["ymin"], box["xmax"], box["ymax"])
        inside = shapely.contains_xy(polygon, columns * 2 + 0.5, rows * 2 + 0.5)  # centres of model pixels
        (nucleus,) = np.unique(labels[inside])
        np.testing.assert_array_equal(inside, labels == nucleus)
        assert (x, y) == pytest.approx((columns[inside].mean() * 2 + 0.5, rows[inside].mean() * 2 + 0.5))
        seen.append(nucleus)
    assert sorted(seen) == list(range(1, labels.max() + 1))


def test_figures_are_in_microns(nuclei: Path) -> None:
    table = pd.read_parquet(nuclei)
    (window,) = measured(instances(), JOINT, step=SIDE)
    order = np.lexsort((window.shape["x"], window.shape["y"]))  # the slide is smaller than a field
    shape = window.shape[order]
    np.testing.assert_allclose(table["area_um2"], shape["area"] * 0.25, rtol=1e-6)
    np.testing.assert_allclose(table["major_um"], shape["major"] * 0.5, rtol=1e-6)
    np.testing.assert_allclose(table["solidity"], shape["solidity"], rtol=1e-6)
    np.testing.assert_allclose(table["x_um"], table["x"] * MPP)
    np.testing.assert_array_equal(table["hematoxylin_sd"], window.staining[order, 0, 0, 1])
    np.testing.assert_array_equal(table["eosin_ring_mean"], window.staining[order, 1, 1, 0])
    assert table["nucleus_id"].tolist() == list(range(1, len(table) + 1))
    names = np.array(["tumour", "lymphocyte"])[window.class_id[order] - 1]
    assert table["class_name"].tolist() == names.tolist()
    assert set(names) == {"tumour", "lymphocyte"}


def test_model_without_classes_has_no_columns_of_them(tmp_path: Path) -> None:
    names = pq.read_schema(write(tmp_path / "n.parquet", ("nucleus", "distance"))).names
    assert not [name for name in names if name.startswith("class")]
    assert names[-2:] == ["geometry", "bbox"]


def test_what_is_not_defined_is_left_empty(nuclei: Path) -> None:
    table = pq.read_table(nuclei)
    without = pc.equal(table["perimeter_um"], 0)
    assert pc.any(without).as_py()
    np.testing.assert_array_equal(table["circularity"].is_null(), without)


def test_file_says_that_it_is_geoparquet_and_where_it_came_from(nuclei: Path) -> None:
    said = pq.read_schema(nuclei).metadata
    assert (said[b"bounds_x"], said[b"fingerprint"]) == (b"100", b"f")
    geo = json.loads(said[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"], column["crs"]) == ("WKB", ["Polygon"], None)
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]


def test_geopandas_reads_the_whole_and_a_box(nuclei: Path) -> None:
    whole = geopandas.read_parquet(nuclei)
    assert (len(whole), whole.crs, whole.is_valid.all()) == (instances().max(), None, True)
    assert whole.area.sum() == pytest.approx(whole["area_um2"].sum() / MPP**2, rel=1e-3)  # but for bridges
    box = (100, 100, 300, 300)
    expected = whole["nucleus_id"][whole.envelope.intersects(shapely.box(*box))]
    assert geopandas.read_parquet(nuclei, bbox=box)["nucleus_id"].tolist() == expected.tolist()


def test_duckdbs_spatial_extension_reads_them_as_documented(nuclei: Path) -> None:
    page = DOCUMENTATION.read_text()
    (query,) = re.findall("With DuckDB's spatial extension: `(.*?)`", page)
    extension = importlib.resources.files("duckdb_extension_spatial") / f"extensions/v{duckdb.__version__}"
    with duckdb.connect() as connection:
        connection.execute(f"load '{extension}/spatial.duckdb_extension'")
        box = (100, 100, 300, 300)
        asked = query.replace("9000, 4000, 12000, 6000", ", ".join(map(str, box)))
        assert asked != query
        counts = dict(connection.sql(asked.replace("s1.parquet", str(nuclei))).fetchall())
    whole = geopandas.read_parquet(nuclei)
    inside = whole[whole.intersects(shapely.box(*box))]
    assert counts == inside["class_name"].value_counts().to_dict()
    assert len(counts) == 2


READ_BACK = """
import json, spatialdata
slide = spatialdata.read_zarr("s1.zarr")
table, shapes = slide["table"], slide["nuclei"]
print(json.dumps({
    "areas": dict(zip(shapes.index.tolist(), shapes.area.tolist())),
    "classes": dict(zip(table.obs["nucleus_id"].tolist(), table.obs["class_name"].tolist())),
    "columns": table.var_names.tolist(),
    "measured": table.X[:, 0].tolist(),
    "places": table.obsm["spatial"].tolist(),
}))
"""


@pytest.mark.long
def test_spatialdata_takes_them_as_documented(nuclei: Path, tmp_path: Path) -> None:
    # It needs another pandas than Karyon: a minute, and some 250 MB, for an environment of its own.
    page = DOCUMENTATION.read_text()
    (snippet,) = (code for code in re.findall("```python\n(.*?)```", page, re.S) if "spatialdata" in code)
    (version,) = re.findall(r"spatialdata (\d+\.\d+\.\d+)", page)
    run = partial(subprocess.run, check=True, cwd=tmp_path)
    run([sys.executable, "-m", "venv", "own"])
    run(["own/bin/pip", "install", "--quiet", f"spatialdata=={version}"])
    shutil.copy(nuclei, tmp_path / "s1.parquet")
    run(["own/bin/python", "-c", snippet])
    printed = run(["own/bin/python", "-c", READ_BACK], stdout=subprocess.PIPE).stdout
    seen = json.loads(printed.splitlines()[-1])
    table = geopandas.read_parquet(nuclei).set_index("nucleus_id")
    assert {int(key): value for key, value in seen["areas"].items()} == pytest.approx(table.area.to_dict())
    assert {int(key): name for key, name in seen["classes"].items()} == table["class_name"].to_dict()
    assert seen["columns"][0] == "area_um2"
    assert seen["measured"] == pytest.approx(table["area_um2"].tolist())
    assert seen["places"] == pytest.approx(table[["x", "y"]].to_numpy())


def test_windows_do_not_change_a_byte(tmp_path: Path, nuclei: Path) -> None:
    for step in (SIDE, 37):
        assert write(tmp_path / "n.parquet", step=step).read_bytes() == nuclei.read_bytes()


def test_slide_without_nuclei_has_a_table_without_rows(tmp_path: Path, nuclei: Path) -> None:
    write_outlines(tmp_path / "n.parquet", "s", [], GRID, FACTS, card(JOINT), STAINS, "f")
    none = pq.read_table(tmp_path / "n.parquet")
    assert none.num_rows == 0
    assert none.schema.equals(pq.read_schema(nuclei))


def test_rows_stand_in_fields_of_a_millimetre(coarse: Path) -> None:
    table = pd.read_parquet(coarse)
    places = pd.DataFrame({"row": table["y_um"] // 1000, "column": table["x_um"] // 1000})
    assert places.nunique().min() > 10
    places = places.join(table[["y", "x"]])
    pd.testing.assert_frame_equal(places, places.sort_values(list(places)).reset_index(drop=True))


@pytest.mark.parametrize(
    "region", [shapely.box(100, 60, 220, 230), shapely.Polygon([(20, 20), (500, 90), (300, 480)])]
)
def test_region_gives_the_nuclei_whose_centroid_it_holds(coarse: Path, region: shapely.Polygon) -> None:
    table = pd.read_parquet(coarse)
    expected = table["nucleus_id"][shapely.intersects_xy(region, table["x"], table["y"])]
    batches = list(read_nuclei(coarse, ["nucleus_id", "probability"], region))
    assert all(batch.schema.names == ["nucleus_id", "probability"] for batch in batches)
    found = [number for batch in batches for number in batch["nucleus_id"].to_pylist()]
    assert 0 < len(found) < len(table)
    assert found == expected.tolist()


def test_region_reads_only_the_row_groups_that_lie_near(
    coarse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, size: int, groups: list[int], columns: list[str]) -> object:
        read.extend(groups)
        return real(self, size, groups, columns)

    monkeypatch.setattr(query.pq.ParquetFile, "iter_batches", spy)
    list(read_nuclei(coarse, ["x"], shapely.box(0, 0, 100, 100)))
    groups = pq.read_metadata(coarse).num_row_groups
    assert groups > 10
    assert 0 < len(read) <= groups / 4
    assert list(read_nuclei(coarse, ["x"], shapely.box(9000, 0, 9999, 100))) == []


def test_geojson_is_what_qupath_reads(tmp_path: Path, nuclei: Path) -> None:
    write_geojson(tmp_path / "n.geojson.gz", nuclei)
    features = json.loads(gzip.decompress((tmp_path / "n.geojson.gz").read_bytes()))["features"]
    table = pd.read_parquet(nuclei)
    assert len(features) == len(table)
    polygons = shapely.transform(shapely.from_wkb(table["geometry"]), lambda xy: xy - (99.5, 39.5))
    for feature, polygon, row in zip(features, polygons, table.itertuples(), strict=True):
        jsonschema.validate(feature, QUPATH)
        assert shapely.equals_exact(shapely.geometry.shape(feature["geometry"]), polygon, 1e-3)
        given = feature["properties"]
        assert given["classification"] == {"name": row.class_name, "color": list(COLOURS[row.class_id])}
        assert given["measurements"]["area_um2"] == pytest.approx(row.area_um2, abs=1e-4)


def test_csv_has_every_column_but_the_outlines(tmp_path: Path, nuclei: Path) -> None:
    write_csv(tmp_path / "n.csv.gz", nuclei)
    expected = pd.read_parquet(nuclei).drop(columns=["geometry", "bbox"])
    read = pd.read_csv(
        tmp_path / "n.csv.gz", dtype=expected.dtypes.drop(["slide_id", "class_name"]).to_dict()
    )
    pd.testing.assert_frame_equal(
        read, expected.astype({"slide_id": str, "class_name": str}), check_dtype=False
    )


def test_part_of_a_table_is_geoparquet_too(tmp_path: Path, nuclei: Path) -> None:
    region = shapely.box(0, 0, 300, 200)
    write_parquet(tmp_path / "part.parquet", nuclei, region)
    part, whole = pq.read_table(tmp_path / "part.parquet"), pq.read_table(nuclei)
    assert part.schema.equals(whole.schema, check_metadata=True)
    inside = shapely.intersects_xy(region, whole["x"].to_numpy(), whole["y"].to_numpy())
    assert part.to_pylist() == whole.filter(pa.array(inside)).to_pylist()
