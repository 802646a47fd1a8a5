"""The nuclei table: its columns, its coordinates, its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from karyon import __version__
from karyon.io.slides import SlideFacts
from karyon.models.card import Decoding, ModelCard
from karyon.nuclei.components import Components, find_components
from karyon.nuclei.table import nuclei_table, write_nuclei
from karyon.tiles.grid import Grid

FACTS = SlideFacts(100, 80, 0.25, "metadata", ((100, 80),), 30, 40, "mirax")
GRID = Grid(50, 40, scale=2.0, level=0, ratio=2.0)
CARD = ModelCard(
    name="tiny",
    architecture="unet",
    arguments={},
    input="H-C",
    mpp=0.5,
    halo_px=8,
    stride=2,
    output="probability",
    decoding=Decoding("components", 0.35),
    sha256="ab12",
)


def two_nuclei() -> Components:
    return Components(
        x=np.array([3.0, 0.0]),
        y=np.array([0.0, 7.5]),
        area=np.array([4, 1]),
        peak=np.array([255, 51], np.uint8),
    )


def test_columns_and_types_are_those_of_the_contract() -> None:
    schema = nuclei_table("slide", two_nuclei(), GRID, FACTS).schema
    assert [(field.name, str(field.type)) for field in schema] == [
        ("slide_id", "dictionary<values=string, indices=int32, ordered=0>"),
        ("nucleus_id", "int64"),
        ("x", "double"),
        ("y", "double"),
        ("x_um", "double"),
        ("y_um", "double"),
        ("probability", "float"),
    ]


def test_positions_are_pixel_centres_of_level_0() -> None:
    # Model pixel 3 covers level-0 pixels 6 and 7, whose common centre is 6.5; 0.25 um each.
    table = nuclei_table("slide", two_nuclei(), GRID, FACTS).to_pandas()
    assert table["x"].tolist() == [6.5, 0.5]
    assert table["y"].tolist() == [0.5, 15.5]
    assert table["x_um"].tolist() == [1.625, 0.125]
    assert table["y_um"].tolist() == [0.125, 3.875]
    assert table["probability"].tolist() == pytest.approx([1.0, 0.2], rel=1e-7)
    assert table["slide_id"].tolist() == ["slide", "slide"]


def test_ids_follow_position() -> None:
    values = np.zeros((40, 50), np.uint8)
    for y, x in [(30, 2), (5, 40), (5, 3), (17, 20)]:
        values[y, x] = 255
    table = nuclei_table("slide", find_components(values, 90, block=8), GRID, FACTS).to_pandas()
    assert table["nucleus_id"].tolist() == [1, 2, 3, 4]
    assert list(zip(table["y"], table["x"], strict=True)) == [
        (10.5, 6.5),
        (10.5, 80.5),
        (34.5, 40.5),
        (60.5, 4.5),
    ]


def test_file_says_what_it_came_from(tmp_path: Path) -> None:
    write_nuclei(tmp_path / "n.parquet", nuclei_table("s", two_nuclei(), GRID, FACTS), FACTS, CARD, "f1n9er")
    assert pq.read_schema(tmp_path / "n.parquet").metadata == {
        b"karyon_version": __version__.encode(),
        b"model": b"tiny",
        b"model_sha256": b"ab12",
        b"mpp": b"0.25",
        b"bounds_x": b"30",
        b"bounds_y": b"40",
        b"fingerprint": b"f1n9er",
    }


def test_file_holds_the_table(tmp_path: Path) -> None:
    table = nuclei_table("s", two_nuclei(), GRID, FACTS)
    write_nuclei(tmp_path / "n.parquet", table, FACTS, CARD, "f")
    assert pq.read_table(tmp_path / "n.parquet").equals(table)


def test_same_nuclei_give_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = Components(
        *rng.random((2, 5000)) * 1000, np.ones(5000, np.int64), rng.integers(1, 256, 5000).astype("u1")
    )
    for name in ("one", "two"):
        write_nuclei(tmp_path / name, nuclei_table("s", found, GRID, FACTS), FACTS, CARD, "f")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_slide_without_nuclei_has_a_table_without_rows(tmp_path: Path) -> None:
    none = find_components(np.zeros((40, 50), np.uint8), 90)
    table = nuclei_table("s", none, GRID, FACTS)
    write_nuclei(tmp_path / "n.parquet", table, FACTS, CARD, "f")
    read = pq.read_table(tmp_path / "n.parquet")
    assert read.num_rows == 0
    assert read.schema.equals(pa.schema(list(table.schema)))
