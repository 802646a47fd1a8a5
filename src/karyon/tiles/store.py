"""Tile predictions and slide-level maps on disk: chunked, compressed, one file each."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import ZipStore

from karyon.errors import SlideError
from karyon.io.atomic import atomic_path
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout

COMPRESSION = ZstdCodec(level=3)


@contextmanager
def create_store(path: Path, attributes: dict[str, Any]) -> Iterator[zarr.Group]:
    """A new Zarr group in a zip file, which appears under ``path`` when the block ends well.

    A zip file keeps every version of what is written twice, so attributes are given at once and
    chunks are written once.
    """
    with atomic_path(path) as temporary:
        store = ZipStore(temporary, mode="w", compression=zipfile.ZIP_STORED)
        try:
            yield zarr.create_group(store, attributes=attributes)
        finally:
            store.close()


@contextmanager
def open_store(path: Path) -> Iterator[zarr.Group]:
    """The Zarr group in a zip file, for reading.

    Raises:
        SlideError: The file is gone.
    """
    if not path.is_file():
        raise SlideError(f"{path}: the file is gone; start again with --forcerun infer to have it made anew")
    store = ZipStore(path, mode="r")
    try:
        yield zarr.open_group(store=store, mode="r")
    finally:
        store.close()


def read_layout(store: zarr.Group) -> tuple[Grid, TileLayout, np.ndarray]:
    """Grid, tiles' layout, and ``(n, 3)`` tiles of a store of tile predictions."""
    attributes = store.attrs.asdict()
    grid, layout = Grid(**attributes["grid"]), TileLayout(**attributes["layout"])  # type: ignore[arg-type]
    return grid, layout, np.asarray(attributes["tiles"], dtype=np.float64).reshape(-1, 3)


class Predictions:
    """Tile predictions of one or more stores, as if they were one array.

    Args:
        arrays: uint8, ``(n, window, window)`` each, or ``(n, c, window, window)``.

    Attributes:
        shape: Of all of them together.
    """

    def __init__(self, arrays: Sequence[zarr.Array]) -> None:
        self._arrays = arrays
        self._starts = np.cumsum([0, *(array.shape[0] for array in arrays)])
        self.shape = (int(self._starts[-1]), *arrays[0].shape[1:])

    def __getitem__(self, number: int) -> np.ndarray:
        """The prediction of a tile, ``(window, window)`` or ``(c, window, window)``."""
        part = int(np.searchsorted(self._starts, number, side="right")) - 1
        return np.asarray(self._arrays[part][number - int(self._starts[part])])


def join_parts(stores: Sequence[zarr.Group]) -> tuple[Grid, TileLayout, np.ndarray, Predictions]:
    """Grid, tiles' layout, ``(n, 3)`` tiles and predictions of a slide whose parts lie in several stores."""
    read = [read_layout(store) for store in stores]
    grid, layout, _ = read[0]
    tiles = np.concatenate([part for _, _, part in read])
    return grid, layout, tiles, Predictions([store["predictions"] for store in stores])  # type: ignore[misc]


def create_array(group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> zarr.Array:
    """A uint8 array whose all-zero chunks take no space."""
    return group.create_array(
        name, shape=shape, chunks=chunks, dtype=np.uint8, compressors=[COMPRESSION], fill_value=0
    )
