"""Reading tiles ahead: order, threads, and tiles that cannot be decoded."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest

from karyon.errors import SlideError
from karyon.inference.reader import read_tiles
from karyon.io.slides import Slide, SlideFacts
from karyon.tiles.grid import Grid
from karyon.tiles.layout import TileLayout

HEIGHT, WIDTH, CORE, HALO = 70, 90, 16, 4
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
FACTS = SlideFacts(WIDTH, HEIGHT, 0.5, "sheet", ((WIDTH, HEIGHT),), 0, 0, "image")
GRID = Grid.of_slide(FACTS, 0.5)
LAYOUT = TileLayout.of_grid(GRID, CORE, HALO, 4)
TILES = np.array([(row, column, 1.0) for row in range(LAYOUT.rows) for column in range(LAYOUT.columns)])


class Scanner:
    """Opens handles that, like OpenSlide's, refuse every read after one that failed."""

    def __init__(self, failures: dict[tuple[int, int], int] | None = None) -> None:
        self.failures = Counter(failures or {})
        self.handles: list[Handle] = []

    def open(self) -> Handle:
        self.handles.append(Handle(self))
        return self.handles[-1]


class Handle(Slide):
    """A handle of a scanner's slide."""

    facts = FACTS

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner
        self.broken = self.closed = False
        self.threads: set[int] = set()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        self.threads.add(threading.get_ident())
        assert not self.closed
        if not self.broken and self.scanner.failures[x, y]:
            self.scanner.failures[x, y] -= 1
            self.broken = True
        if self.broken:
            raise SlideError(f"x {x}, y {y}: cannot be decoded")
        return PIXELS[y : y + height, x : x + width]

    def reopen(self) -> None:
        self.broken = False

    def close(self) -> None:
        self.closed = True


def expected_tile(row: int, column: int) -> np.ndarray:
    """Cut from the whole slide in the midst of glass."""
    margin = CORE + 2 * HALO
    on_glass = np.full((HEIGHT + 2 * margin, WIDTH + 2 * margin, 3), 255, np.uint8)
    on_glass[margin:-margin, margin:-margin] = PIXELS
    y, x = row * CORE - HALO + margin, column * CORE - HALO + margin
    return on_glass[y : y + LAYOUT.window, x : x + LAYOUT.window]


def corner(row: int, column: int) -> tuple[int, int]:
    """Where a tile's read starts on the slide."""
    return max(column * CORE - HALO, 0), max(row * CORE - HALO, 0)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 0), (1, 5), (4, 1), (4, 100)])
def test_tiles_are_windows_of_the_slide_in_order(threads: int, ahead: int) -> None:
    found = list(read_tiles(Scanner().open, GRID, LAYOUT, TILES, threads, ahead))
    assert len(found) == len(TILES)
    for (row, column, _), (tile, lost) in zip(TILES.astype(int), found, strict=True):
        np.testing.assert_array_equal(tile, expected_tile(row, column))
        assert lost == 0


def test_order_is_kept_when_a_later_tile_is_ready_first() -> None:
    second_read = threading.Event()
    scanner = Scanner()

    class Slow(Handle):
        def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
            if (x, y) == corner(0, 0):
                assert second_read.wait(timeout=20)
            if (x, y) == corner(0, 1):
                second_read.set()
            return super().read(level, x, y, width, height)

    found = list(read_tiles(lambda: Slow(scanner), GRID, LAYOUT, TILES[:3], threads=2, ahead=3))
    for column, (tile, _) in enumerate(found):
        np.testing.assert_array_equal(tile, expected_tile(0, column))


def test_every_thread_reads_through_a_handle_of_its_own() -> None:
    meeting = threading.Barrier(2)

    class Meeting(Handle):
        def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
            meeting.wait(timeout=20)
            return super().read(level, x, y, width, height)

    scanner = Scanner()
    handles = []

    def open_again() -> Slide:
        handles.append(Meeting(scanner))
        return handles[-1]

    list(read_tiles(open_again, GRID, LAYOUT, TILES[:4], threads=2, ahead=4))
    assert [len(handle.threads) for handle in handles] == [1, 1]
    assert handles[0].threads != handles[1].threads


@pytest.mark.parametrize("threads", [1, 3])
def test_tile_that_fails_once_is_read_on_a_fresh_handle(threads: int) -> None:
    scanner = Scanner({corner(1, 1): 1, corner(2, 3): 1})
    found = list(read_tiles(scanner.open, GRID, LAYOUT, TILES, threads, ahead=6))
    assert not any(lost for _, lost in found)
    np.testing.assert_array_equal(found[1 * LAYOUT.columns + 1][0], expected_tile(1, 1))
    np.testing.assert_array_equal(found[2 * LAYOUT.columns + 3][0], expected_tile(2, 3))


@pytest.mark.parametrize("threads", [1, 3])
def test_tile_that_always_fails_is_glass_alone_and_counted(threads: int) -> None:
    scanner = Scanner({corner(1, 2): 99})
    found = list(read_tiles(scanner.open, GRID, LAYOUT, TILES, threads, ahead=6))
    broken = LAYOUT.columns + 2
    for number, (row, column, _) in enumerate(TILES.astype(int)):
        tile, lost = found[number]
        wanted = np.full_like(tile, 255) if number == broken else expected_tile(row, column)
        np.testing.assert_array_equal(tile, wanted)
        assert lost == pytest.approx(LAYOUT.window**2 / (HEIGHT * WIDTH) if number == broken else 0)


def test_reads_run_no_further_ahead_than_told() -> None:
    started = []

    class Counting(Handle):
        def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
            started.append((x, y))
            return super().read(level, x, y, width, height)

    images = read_tiles(lambda: Counting(Scanner()), GRID, LAYOUT, TILES, threads=2, ahead=3)
    next(images)
    images.close()
    assert len(started) <= 1 + 3


@pytest.mark.parametrize("threads", [1, 4])
def test_handles_are_closed_when_all_is_read(threads: int) -> None:
    scanner = Scanner()
    list(read_tiles(scanner.open, GRID, LAYOUT, TILES, threads, ahead=4))
    assert scanner.handles
    assert all(handle.closed for handle in scanner.handles)


def test_handles_are_closed_when_the_reader_is_abandoned() -> None:
    scanner = Scanner()
    images = read_tiles(scanner.open, GRID, LAYOUT, TILES, threads=3, ahead=8)
    next(images)
    images.close()
    assert scanner.handles
    assert all(handle.closed for handle in scanner.handles)


def test_slide_that_cannot_be_opened_is_the_slides_error() -> None:
    def refuse() -> Slide:
        raise SlideError("slide-1.svs: cannot be read")

    with pytest.raises(SlideError, match=r"slide-1\.svs: cannot be read"):
        list(read_tiles(refuse, GRID, LAYOUT, TILES, threads=2, ahead=4))


def test_slide_without_tissue_opens_nothing() -> None:
    scanner = Scanner()
    assert list(read_tiles(scanner.open, GRID, LAYOUT, np.empty((0, 3)), threads=2, ahead=4)) == []
    assert not scanner.handles
