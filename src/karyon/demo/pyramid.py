"""Write a slide as a pyramidal, tiled JPEG TIFF, one strip of rows at a time.

The layout is Aperio's: one TIFF directory per level, finest first, and a description that states the microns
per pixel, which OpenSlide reads as ``openslide.mpp-x``. The same value stands in the resolution tags.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import tifffile
from imagecodecs import jpeg8_encode

TILE = 256
QUALITY = 90
# Halving stops when the longer side of a level is no more than this, but there are always two levels.
COARSEST = 512
MICRONS_PER_CENTIMETER = 10_000.0
# Beyond this many bytes before compression a file might pass the 4 GiB that 32-bit offsets can address.
BIG_TIFF_BYTES = 2**32


def write_pyramid(path: Path, strips: Iterable[np.ndarray], width: int, height: int, mpp: float) -> None:
    """Write all levels in one pass over the pixels.

    Memory holds one row of tiles per level. The tiles of the coarser levels wait, compressed, in
    temporary files beside ``path``, because a TIFF's tiles must follow level by level. The bytes written
    depend on the pixels alone: no date and no program name is stored.

    Args:
        path: File to write, a ``.svs`` or ``.tiff``.
        strips: RGB, uint8, ``(TILE, width, 3)`` each from top to bottom; the last may be lower.
        width: Level-0 width in pixels, at least 2.
        height: Level-0 height in pixels, at least 2.
        mpp: Microns per level-0 pixel.
    """
    sizes = level_sizes(width, height)
    with (
        tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
        ExitStack() as files,
    ):
        levels: list[_Level] = []
        for number in range(len(sizes) - 1, 0, -1):
            spool = files.enter_context((Path(folder) / f"level-{number}").open("w+b"))
            levels.insert(0, _Level(sizes[number][0], spool, levels[0] if levels else None))
        with tifffile.TiffWriter(path, bigtiff=width * height * 4 > BIG_TIFF_BYTES) as tiff:
            _write_level(tiff, _first_level(strips, levels[0]), sizes, 0, mpp)
            levels[0].finish()
            for number, level in enumerate(levels, start=1):
                _write_level(tiff, level.stored(), sizes, number, mpp)


def level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """``(width, height)`` of every level, finest first, each half of the one before, rounded down."""
    sizes = [(width, height)]
    while len(sizes) < 2 or max(sizes[-1]) > COARSEST:
        sizes.append((max(sizes[-1][0] // 2, 1), max(sizes[-1][1] // 2, 1)))
    return sizes


def halve(pixels: np.ndarray) -> np.ndarray:
    """Mean of every 2 x 2 pixels, rounded; an odd last row or column is left out.

    Args:
        pixels: uint8, ``(h, w, 3)``.

    Returns:
        uint8, ``(h // 2, w // 2, 3)``.
    """
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    even = pixels[:height, :width].astype(np.uint16)
    total = even[0::2, 0::2] + even[0::2, 1::2] + even[1::2, 0::2] + even[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)


class _Level:
    """One coarser level: gathers rows until they make a row of tiles, spools these, passes their half on."""

    def __init__(self, width: int, spool: IO[bytes], coarser: _Level | None) -> None:
        self._rows = np.empty((TILE, width, 3), dtype=np.uint8)
        self._filled = 0
        self._spool = spool
        self._lengths: list[int] = []
        self._coarser = coarser

    def add(self, rows: np.ndarray) -> None:
        """Take rows of this level, at most half a row of tiles at a time."""
        self._rows[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)
        if self._filled == TILE:
            self._emit()

    def finish(self) -> None:
        """Emit what is left here and in all coarser levels."""
        if self._filled:
            self._emit()
        if self._coarser:
            self._coarser.finish()

    def stored(self) -> Iterator[bytes]:
        """The tiles of the whole level, row by row."""
        self._spool.seek(0)
        for length in self._lengths:
            yield self._spool.read(length)

    def _emit(self) -> None:
        rows = self._rows[: self._filled]
        for tile in encode_tiles(rows):
            self._spool.write(tile)
            self._lengths.append(len(tile))
        if self._coarser:
            self._coarser.add(halve(rows))
        self._filled = 0


def _first_level(strips: Iterable[np.ndarray], coarser: _Level) -> Iterator[bytes]:
    """Compressed tiles of level 0; a strip goes to the coarser levels first, for none asks after the last."""
    for strip in strips:
        coarser.add(halve(strip))
        yield from encode_tiles(strip)


def encode_tiles(strip: np.ndarray) -> Iterator[bytes]:
    """JPEG tiles of one row of tiles; tiles that reach over the edge are filled up with the edge's pixels.

    Args:
        strip: RGB, uint8, ``(TILE or less, width, 3)``.

    Yields:
        One YCbCr JPEG stream per tile.
    """
    height, width = strip.shape[:2]
    for left in range(0, width, TILE):
        tile = strip[:, left : left + TILE]
        missing = TILE - height, TILE - tile.shape[1]
        if any(missing):
            tile = np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        tile = np.ascontiguousarray(tile)
        # Without chroma subsampling, for stains differ in colour more than in lightness.
        yield bytes(
            jpeg8_encode(tile, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="444")
        )


def _write_level(
    tiff: tifffile.TiffWriter, tiles: Iterator[bytes], sizes: list[tuple[int, int]], level: int, mpp: float
) -> None:
    width, height = sizes[level]
    per_centimeter = MICRONS_PER_CENTIMETER / mpp * width / sizes[0][0]
    tiff.write(
        tiles,
        shape=(height, width, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="ycbcr",
        subsampling=(1, 1),
        compression="jpeg",
        subfiletype=1 if level else 0,
        resolution=(per_centimeter, per_centimeter),
        resolutionunit="CENTIMETER",
        description=_description(sizes, level, mpp),
        software=False,
        metadata=None,
    )


def _description(sizes: list[tuple[int, int]], level: int, mpp: float) -> str:
    """An ImageDescription in Aperio's form, so that OpenSlide and QuPath find the scale and the levels."""
    width, height = sizes[level]
    layout = f"{sizes[0][0]}x{sizes[0][1]} [0,0 {sizes[0][0]}x{sizes[0][1]}] ({TILE}x{TILE})"
    if level:
        layout += f" -> {width}x{height}"
    magnification = round(10 / mpp)
    return (
        f"Aperio Image Library (synthetic slide by Karyon)\r\n{layout} JPEG/YCC Q={QUALITY}"
        f"|AppMag = {magnification}|MPP = {mpp:.8g}"
    )
