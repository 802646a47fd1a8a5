"""Training masks against the definition, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import disk

from karyon.io.slides import SlideFacts
from karyon.tiles.grid import Grid
from karyon.training.targets import shrunken_mask


def grid_of(instances: np.ndarray, mpp: float, model_mpp: float = 0.5) -> Grid:
    height, width = instances.shape
    return Grid.of_slide(
        SlideFacts(width, height, mpp, "sheet", ((width, height),), 0, 0, "image"), model_mpp
    )


def one_disc(radius: float, centre: tuple[float, float], side: int) -> np.ndarray:
    instances = np.zeros((side, side), np.int32)
    instances[disk(centre, radius, shape=instances.shape)] = 1
    return instances


def random_nuclei(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Irregular objects of all sizes, some cut by the border, labels with gaps."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), 4)
    labels, _ = ndimage.label(noise > np.quantile(noise, 0.7))
    return labels * 3


def by_definition(instances: np.ndarray, grid: Grid, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Foreground by asking every model pixel for every nucleus; and where the answer hangs on rounding."""
    mask = np.zeros((grid.height, grid.width), bool)
    unsure = np.zeros_like(mask)
    rows, columns = np.mgrid[: grid.height, : grid.width]
    y, x = (rows + 0.5) * grid.scale - 0.5, (columns + 0.5) * grid.scale - 0.5
    for label in np.unique(instances[instances > 0]):
        centre_y, centre_x = np.argwhere(instances == label).mean(axis=0)
        padded = np.pad(instances == label, 1)
        answers = []
        for nudge in [(-1e-6, -1e-6), (-1e-6, 1e-6), (1e-6, -1e-6), (1e-6, 1e-6)]:
            source_y = np.floor(centre_y + (y - centre_y) / np.sqrt(share) + 0.5 + nudge[0]).astype(int)
            source_x = np.floor(centre_x + (x - centre_x) / np.sqrt(share) + 0.5 + nudge[1]).astype(int)
            last = np.array(padded.shape) - 1
            answers.append(padded[np.clip(source_y + 1, 0, last[0]), np.clip(source_x + 1, 0, last[1])])
        inside = answers[0]
        unsure |= np.any(answers != inside, axis=0)
        if not np.any(answers):
            nearest = np.hypot(y - centre_y, x - centre_x)
            inside[np.unravel_index(nearest.argmin(), nearest.shape)] = True
        mask |= inside
    return mask, unsure


@pytest.mark.parametrize("mpp", [0.11, 0.25, 0.37, 0.5, 1.0, 2.3, 4.0])
@pytest.mark.parametrize("share", [0.25, 0.4])
def test_mask_follows_the_definition_at_any_resolution(mpp: float, share: float) -> None:
    instances = random_nuclei(seed=int(100 * mpp))
    grid = grid_of(instances, mpp)
    mask = shrunken_mask(instances, grid, share)
    expected, unsure = by_definition(instances, grid, share)
    assert mask.shape == (grid.height, grid.width)
    np.testing.assert_array_equal(mask[~unsure], expected[~unsure])
    assert expected[~unsure].any()
    assert unsure.mean() < 0.01


@pytest.mark.parametrize("mpp", [0.1, 0.25, 0.5])
def test_central_quarter_of_the_area_is_kept(mpp: float) -> None:
    radius = 16 / mpp
    instances = one_disc(radius, (20.3 / mpp, 19.8 / mpp), int(40 / mpp))
    area_um2 = shrunken_mask(instances, grid_of(instances, mpp)).sum() * 0.5**2
    assert area_um2 == pytest.approx(0.25 * np.pi * 16**2, rel=0.02)


@pytest.mark.parametrize("mpp", [0.1, 0.25, 0.5])
def test_centroid_stays_where_it_is(mpp: float) -> None:
    instances = one_disc(8.2 / mpp, (20.3 / mpp, 15.8 / mpp), int(40 / mpp))
    grid = grid_of(instances, mpp)
    found = grid.to_level0(np.argwhere(shrunken_mask(instances, grid)).mean(axis=0)) * mpp
    expected = np.argwhere(instances).mean(axis=0) * mpp
    np.testing.assert_allclose(found, expected, atol=0.1)


@pytest.mark.parametrize("place", [(0, 0), (13, 17), (29, 39)])
@pytest.mark.parametrize("mpp", [0.1, 0.25])
def test_nucleus_too_small_for_the_grid_keeps_its_nearest_pixel(place: tuple[int, int], mpp: float) -> None:
    instances = np.zeros((30, 40), np.int32)
    instances[place] = 5
    mask = shrunken_mask(instances, grid_of(instances, mpp))
    scale = 0.5 / mpp
    row, column = (
        min(int((position + 0.5) / scale), size - 1) for position, size in zip(place, mask.shape, strict=True)
    )
    assert np.argwhere(mask).tolist() == [[row, column]]


def test_nucleus_cut_by_the_border_shrinks_about_what_is_left_of_it() -> None:
    instances = one_disc(20, (0, 30), 60)
    mask = shrunken_mask(instances, grid_of(instances, 0.5))
    inside = np.argwhere(instances == 1)
    assert mask.sum() == pytest.approx(0.25 * len(inside), rel=0.05)
    np.testing.assert_allclose(np.argwhere(mask).mean(axis=0), inside.mean(axis=0), atol=0.6)
    assert not mask[0].any()


def test_touching_nuclei_come_apart() -> None:
    instances = np.zeros((20, 40), np.int32)
    instances[2:18, 2:20] = 1
    instances[2:18, 20:38] = 2
    _, count = ndimage.label(shrunken_mask(instances, grid_of(instances, 0.5)))
    assert count == 2


def test_image_without_nuclei_has_an_empty_mask() -> None:
    instances = np.zeros((30, 40), np.int32)
    mask = shrunken_mask(instances, grid_of(instances, 0.25))
    assert mask.shape == (15, 20)
    assert not mask.any()
