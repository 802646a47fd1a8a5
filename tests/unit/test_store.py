"""Maps in a zip file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from karyon.tiles.store import create_array, create_store, open_store

ATTRIBUTES = {"slide_id": "a", "scale": 0.1, "levels": [1, 2]}


def write(path: Path, values: np.ndarray, chunks: tuple[int, ...]) -> None:
    """Chunk by chunk, as the stages do."""
    with create_store(path, ATTRIBUTES) as group:
        array = create_array(group, "map", values.shape, chunks)
        for y in range(0, values.shape[0], chunks[0]):
            for x in range(0, values.shape[1], chunks[1]):
                window = np.s_[y : y + chunks[0], x : x + chunks[1]]
                array[window] = values[window]


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (130, 70), dtype=np.uint8)
    write(tmp_path / "a.zip", values, (64, 32))
    with open_store(tmp_path / "a.zip") as group:
        assert dict(group.attrs) == ATTRIBUTES
        assert group["map"].dtype == np.uint8
        np.testing.assert_array_equal(group["map"][:], values)


def test_zip_holds_every_name_once(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", np.ones((130, 70), np.uint8), (64, 32))
    found = names(tmp_path / "a.zip")
    assert len(found) == len(set(found))
    assert sum("/c/" in name for name in found) == 3 * 3


def test_chunks_of_nothing_but_zeros_take_no_space(tmp_path: Path) -> None:
    values = np.zeros((128, 128), np.uint8)
    values[70, 10] = 1
    write(tmp_path / "a.zip", values, (64, 64))
    assert [name for name in names(tmp_path / "a.zip") if "/c/" in name] == ["map/c/1/0"]
    with open_store(tmp_path / "a.zip") as group:
        np.testing.assert_array_equal(group["map"][:], values)


def test_chunks_are_compressed(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", np.full((1024, 1024), 7, np.uint8), (512, 512))
    assert (tmp_path / "a.zip").stat().st_size < 5_000


def test_nothing_is_visible_before_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with create_store(path, {}) as group:
        create_array(group, "map", (4, 4), (4, 4))[:] = 1
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with create_store(tmp_path / "a.zip", {}) as group:
            create_array(group, "map", (4, 4), (4, 4))[:] = 1
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert list(tmp_path.iterdir()) == []
