"""The model grid over a slide, and windows read from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from karyon.io.slides import Slide, SlideFacts, open_slide
from karyon.tiles.grid import Grid, read_window

# 0.25 microns per pixel: levels at 0.25, 1.0 and 4.0.
FACTS = SlideFacts(4000, 3200, 0.25, "metadata", ((4000, 3200), (1000, 800), (250, 200)), 0, 0, "test")
RATIOS = [0.6, 1.0, 1.37, 2.0, 2.5, 3.99, 7.3]


@pytest.fixture(scope="module")
def slide(scene: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    """The scene as a plain image at 0.5 microns per pixel."""
    path = tmp_path_factory.mktemp("grid") / "scene.png"
    Image.fromarray(scene).save(path)
    with open_slide(path, mpp=0.5) as slide:
        yield slide


def whole(slide: Slide, grid: Grid) -> np.ndarray:
    return read_window(slide, grid, 0, 0, grid.width, grid.height)


@pytest.mark.parametrize(
    ("mpp", "level", "ratio"),
    [
        (0.25, 0, 1),
        (0.5, 0, 2),
        (0.9, 0, 3.6),
        (1.0, 1, 1),
        (2.0, 1, 2),
        (4.0, 2, 1),
        (8.0, 2, 2),
        (0.1, 0, 0.4),
    ],
)
def test_nearest_level_that_is_finer_is_read(mpp: float, level: int, ratio: float) -> None:
    grid = Grid.of_slide(FACTS, mpp)
    assert (grid.level, grid.ratio) == (level, pytest.approx(ratio, abs=1 / 2048))
    assert grid.scale == pytest.approx(mpp / 0.25, rel=2e-3)
    assert (grid.width, grid.height) == (int(4000 / grid.scale), int(3200 / grid.scale))


@pytest.mark.parametrize(("mpp", "snaps"), [(0.981, True), (1.019, True), (0.979, False), (1.021, False)])
def test_level_within_two_percent_is_used_as_it_is(mpp: float, snaps: bool) -> None:
    grid = Grid.of_slide(FACTS, mpp)
    assert (grid.level == 1 and grid.ratio == 1 and grid.scale == 4) is snaps


def test_snapped_window_is_the_levels_own_pixels(slide: Slide, scene: np.ndarray) -> None:
    np.testing.assert_array_equal(whole(slide, Grid.of_slide(slide.facts, 0.505)), scene)


def test_centres_of_model_pixels_lie_at_the_centres_of_what_they_cover() -> None:
    grid = Grid.of_slide(
        FACTS, 1.0
    )  # each covers four level-0 pixels: 0 to 3, centre 1.5; 4 to 7, centre 5.5
    np.testing.assert_allclose(grid.to_level0(np.array([0, 1, 2.5])), [1.5, 5.5, 11.5])


@settings(deadline=None, max_examples=50)
@given(st.floats(0.03, 30), st.floats(-1e5, 1e5))
def test_from_level0_is_the_inverse_of_to_level0(mpp: float, position: float) -> None:
    grid = Grid.of_slide(FACTS, mpp)
    there_and_back = grid.from_level0(grid.to_level0(np.array(position)))
    np.testing.assert_allclose(there_and_back, position, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("ratio", [2, 2.5, 4, 8])  # those that divide 640 x 480
def test_whole_image_is_pillows_antialiased_resize(slide: Slide, scene: np.ndarray, ratio: float) -> None:
    expected = Image.fromarray(scene).resize((int(640 / ratio), int(480 / ratio)), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(whole(slide, Grid.of_slide(slide.facts, 0.5 * ratio)), np.asarray(expected))


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(RATIOS), st.data())
def test_overlapping_windows_agree(slide: Slide, ratio: float, data: st.DataObject) -> None:
    grid = Grid.of_slide(slide.facts, 0.5 * ratio)
    boxes = []
    for _ in range(2):
        x0 = data.draw(st.integers(0, grid.width // 2))
        y0 = data.draw(st.integers(0, grid.height // 2))
        x1 = data.draw(st.integers(grid.width // 2 + 1, grid.width))
        y1 = data.draw(st.integers(grid.height // 2 + 1, grid.height))
        boxes.append((x0, y0, x1, y1))
    canvases = np.full((2, grid.height, grid.width, 3), -1)
    for canvas, (x0, y0, x1, y1) in zip(canvases, boxes, strict=True):
        canvas[y0:y1, x0:x1] = read_window(slide, grid, x0, y0, x1 - x0, y1 - y0)
    difference = np.abs(canvases[0] - canvases[1])[(canvases >= 0).all(axis=0)]
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 2 + 0.01 * difference.size


def test_overlapping_windows_of_a_pyramid_agree(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        grid = Grid.of_slide(slide.facts, 0.7)
        assert grid.level == 1
        first, second = read_window(slide, grid, 0, 0, 150, 120), read_window(slide, grid, 61, 37, 150, 120)
    difference = np.abs(first[37:, 61:].astype(int) - second[:83, :89])
    assert difference.max() <= 1
    assert difference.mean() < 0.01


@pytest.mark.parametrize("ratio", [1.0, 2.5])
@pytest.mark.parametrize("margin", [3, 40, 500])  # the last is wider than the slide
def test_window_beyond_the_edge_is_white_as_glass(slide: Slide, ratio: float, margin: int) -> None:
    grid = Grid.of_slide(slide.facts, 0.5 * ratio)
    expected = np.full((grid.height + 2 * margin, grid.width + 2 * margin, 3), 255, np.uint8)
    expected[margin:-margin, margin:-margin] = whole(slide, grid)
    window = read_window(slide, grid, -margin, -margin, grid.width + 2 * margin, grid.height + 2 * margin)
    np.testing.assert_array_equal(window, expected)


def test_slide_smaller_than_a_model_pixel_has_one() -> None:
    tiny = SlideFacts(3, 2, 0.25, "sheet", ((3, 2),), 0, 0, "image")
    grid = Grid.of_slide(tiny, 8.0)
    assert (grid.width, grid.height) == (1, 1)
