"""Label images: equal to the map that the outlines were traced from, at every level, without holding it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from skimage.measure import label

from karyon.io.slides import SlideFacts
from karyon.models.card import Decoding, ModelCard
from karyon.nuclei import label_image
from karyon.nuclei.label_image import _read_rows, write_label_image
from karyon.nuclei.outline_table import write_outlines
from karyon.nuclei.shapes import measure_window
from karyon.tiles.grid import Grid

CARD = ModelCard("tiny", "unet", {}, "H-C", 0.5, 8, 2, "softmax", Decoding("watershed", 0.5))
MAPS = ("nucleus", "distance")
HEIGHT, WIDTH = 190, 260


def discs() -> np.ndarray:
    """Discs and rings at random, some of which touch by a corner only, some cut by the edge: int32."""
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for y, x, radius in random.random((150, 3)) * (HEIGHT, WIDTH, 11):
        away = (rows - y) ** 2 + (columns - x) ** 2
        mask |= (away <= radius**2) & (away >= (radius - 5) ** 2)
    return label(mask, connectivity=2).astype(np.int32)


def facts_of(height: int, width: int) -> SlideFacts:
    return SlideFacts(width, height, 0.25, "metadata", ((width, height),), 0, 0, "aperio")


def write_table(path: Path, labels: np.ndarray, facts: SlideFacts) -> Path:
    """The table of a map that lies at the slide's top left."""
    height, width = labels.shape
    scale = 0.5 / facts.mpp
    background = np.pad(labels, 1) == 0
    shapes = measure_window(
        labels,
        0,
        0,
        np.full((2, height, width), 255, np.uint8),
        MAPS,
        np.zeros((*background.shape, 2), np.float32),
        background,
    )
    grid = Grid(width, height, scale=scale, level=0, ratio=scale)
    write_outlines(path, "s", [shapes], grid, facts, CARD, ("hematoxylin", "eosin"), "f")
    return path


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bands of 64 rows cut through many nuclei."""
    monkeypatch.setattr(label_image, "TILE", 64)
    return write_table(tmp_path / "s.parquet", discs(), facts_of(2 * HEIGHT, 2 * WIDTH))


def levels_of(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        (series,) = file.series
        assert series.axes == "YX"
        return [level.asarray() for level in series.levels]


def test_labels_are_the_map_that_the_outlines_were_traced_from(table: Path, tmp_path: Path) -> None:
    write_label_image(tmp_path / "s.ome.tif", table, facts_of(2 * HEIGHT, 2 * WIDTH))
    image = levels_of(tmp_path / "s.ome.tif")[0]
    assert image.dtype == np.uint32
    expected = np.kron(discs(), np.ones((2, 2), np.int32))
    pairs = np.unique(np.stack([expected.ravel(), image.ravel()]), axis=1).T
    nuclei = pq.read_table(table, columns=["nucleus_id", "x", "y"]).to_pandas()
    # Each nucleus has one id and each id one nucleus.
    assert len(pairs) == len(nuclei) + 1 == expected.max() + 1
    assert pairs[0].tolist() == [0, 0]
    assert sorted(pairs[1:, 1]) == nuclei["nucleus_id"].tolist()
    for row in nuclei.itertuples():
        centre = np.argwhere(image == row.nucleus_id).mean(axis=0)
        assert (row.y, row.x) == pytest.approx(tuple(centre))


def test_every_level_takes_each_second_pixel_of_the_one_before(table: Path, tmp_path: Path) -> None:
    write_label_image(tmp_path / "s.ome.tif", table, facts_of(2 * HEIGHT, 2 * WIDTH))
    whole, *smaller = levels_of(tmp_path / "s.ome.tif")
    assert [level.shape for level in smaller] == [(190, 260), (95, 130), (48, 65), (24, 33)]
    for power, level in enumerate(smaller, start=1):
        np.testing.assert_array_equal(level, whole[:: 2**power, :: 2**power])


def test_nuclei_of_a_region_alone_keep_their_ids_and_place(table: Path, tmp_path: Path) -> None:
    facts = facts_of(2 * HEIGHT, 2 * WIDTH)
    region = shapely.box(100, 50, 300, 200)
    write_label_image(tmp_path / "all.ome.tif", table, facts)
    write_label_image(tmp_path / "some.ome.tif", table, facts, region)
    whole, some = (levels_of(tmp_path / f"{name}.ome.tif")[0] for name in ("all", "some"))
    nuclei = pq.read_table(table, columns=["nucleus_id", "x", "y"]).to_pandas()
    inside = nuclei["x"].between(100, 300) & nuclei["y"].between(50, 200)
    assert 0 < inside.sum() < len(nuclei)
    np.testing.assert_array_equal(some, np.where(np.isin(whole, nuclei["nucleus_id"][inside]), whole, 0))


def test_a_long_nucleus_is_whole_and_bands_read_what_reaches_into_them(tmp_path: Path) -> None:
    labels = np.zeros((1200, 60), np.int32)
    labels[10:1190, 5:9] = 1
    for number in range(40):
        labels[30 * number + 4 : 30 * number + 12, 30:40] = number + 2
    table = write_table(tmp_path / "s.parquet", labels, facts_of(2400, 120))
    write_label_image(tmp_path / "s.ome.tif", table, facts_of(2400, 120))
    image = levels_of(tmp_path / "s.ome.tif")[0]
    np.testing.assert_array_equal(image > 0, np.kron(labels, np.ones((2, 2))) > 0)
    assert len(np.unique(image[:, 10:18])) == 2
    # Of the bar and 40 squares, which are 60 rows apart, the bar and the one at rows 668 to 683.
    found = [row for batch in _read_rows(table, None, 640, 704) for row in batch["nucleus_id"].to_pylist()]
    assert sorted(found) == sorted(set(np.unique(image[640:704])) - {0})
    assert len(found) == 2


def test_pixels_have_their_size(table: Path, tmp_path: Path) -> None:
    write_label_image(tmp_path / "s.ome.tif", table, facts_of(2 * HEIGHT, 2 * WIDTH))
    with tifffile.TiffFile(tmp_path / "s.ome.tif") as file:
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"], pixels["Type"]) == (0.25, "µm", "uint32")


def test_memory_is_that_of_a_band_not_of_the_slide(tmp_path: Path) -> None:
    facts = facts_of(8000, 8000)
    nuclei = write_table(tmp_path / "s.parquet", discs(), facts)
    write_label_image(tmp_path / "warm.ome.tif", nuclei, facts_of(2 * HEIGHT, 2 * WIDTH))
    tracemalloc.start()
    write_label_image(tmp_path / "s.ome.tif", nuclei, facts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Of 256 MB a band of 512 rows has 16, and a few tiles are on their way to the file.
    assert peak < 64e6
