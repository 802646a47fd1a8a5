"""JOINT's target against hand-worked pixels and brute force, and its sets after interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from karyon.io.slides import SlideFacts
from karyon.tiles.grid import Grid
from karyon.training.class_maps import as_class_sets, classes_contour

BACKGROUND, CONTOUR, WEIGHT = 0, -2, -1


def grid_over(height: int, width: int, mpp: float = 0.5) -> Grid:
    facts = SlideFacts(width, height, mpp, "sheet", ((width, height),), 0, 0, "image")
    return Grid.of_slide(facts, 0.5)


def two_squares() -> np.ndarray:
    """Of 5 x 5 pixels, side by side, numbered 3 and 8."""
    instances = np.zeros((7, 14), np.int32)
    instances[1:6, 1:6], instances[1:6, 6:11] = 3, 8
    return instances


def test_outlines_with_and_without_class() -> None:
    # The second nucleus is of class 1 of 3; the class of the first is not known.
    maps = classes_contour(two_squares(), grid_over(7, 14), 0.5, 3, np.array([-1, 1]), boundary_px=1.0)
    assert (maps.shape, maps.dtype) == ((6, 7, 14), np.float32)
    np.testing.assert_array_equal(maps[BACKGROUND], two_squares() == 0)
    heart = np.zeros((2, 7, 14))
    heart[0, 2:5, 2:5], heart[1, 2:5, 7:10] = 1, 1
    np.testing.assert_array_equal(maps[1], heart[0])
    np.testing.assert_array_equal(maps[2], heart.sum(axis=0))
    np.testing.assert_array_equal(maps[3], heart[0])
    np.testing.assert_array_equal(maps[CONTOUR], (two_squares() > 0) - heart.sum(axis=0))


def test_without_classes_there_is_one_inside() -> None:
    maps = classes_contour(two_squares(), grid_over(7, 14), 0.5)
    assert maps.shape == (4, 7, 14)
    assert np.argwhere(maps[1]).tolist() == [[3, 3], [3, 8]]  # 2 px of contour leave one pixel each
    np.testing.assert_array_equal(maps[:3].sum(axis=0), 1)


@pytest.mark.parametrize("mpp", [0.5, 0.25])
def test_centres_are_sure_near_by_and_unknown_round_about(mpp: float) -> None:
    # At x = 10 of class 0, at x = 22 of class 1, at x = 40 of no class; 0.5 um apart at 0.5 um per pixel.
    centres = np.array([[10.0, 10.0], [22.0, 10.0], [40.0, 10.0]])
    shape = (21, 60)
    annotation, size = centres, shape
    if mpp == 0.25:
        annotation, size = (centres + 0.5) * 2 - 0.5, (42, 120)
    grid = grid_over(*size, mpp)
    class_of = np.array([0, 1, -1])
    maps = classes_contour(annotation, grid, mpp, 2, class_of, heart_um=1.0, reach_um=4.0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    away = np.hypot(x - centres[:, 0, None, None], y - centres[:, 1, None, None])
    nearest, distance = away.argmin(axis=0), away.min(axis=0) * 0.5
    clear = (np.abs(distance - 1) > 1e-6) & (np.abs(distance - 4) > 1e-6)  # rounding decides on the circles
    clear &= np.abs(away[0] - away[1]) > 1e-6
    heart, near = distance < 1, distance < 4
    expected = {
        BACKGROUND: ~heart,
        1: near & np.isin(nearest, [0, 2]),
        2: near & np.isin(nearest, [1, 2]),
        CONTOUR: near & ~heart,
    }
    for number, truth in expected.items():
        np.testing.assert_array_equal(maps[number][clear], truth[clear])
    assert (maps[0] + maps[1] + maps[2] == 1)[heart & (nearest < 2)].all()


def test_weight_equals_brute_force() -> None:
    instances = np.zeros((30, 40), np.int32)
    instances[3:9, 4:12], instances[3:9, 14:22], instances[12:20, 6:15], instances[25:, 30:] = 1, 2, 5, 6
    weight = classes_contour(instances, grid_over(30, 40), 0.5, w0=10.0, sigma_um=1.25)[WEIGHT]
    y, x = np.mgrid[:30, :40]
    distances = []
    for label in (1, 2, 5, 6):
        rows, columns = np.nonzero(instances == label)
        away = np.hypot(y[..., None] - rows, x[..., None] - columns)
        distances.append(away.min(axis=-1) * 0.5)
    d1, d2 = np.sort(distances, axis=0)[:2]
    expected = 1 + 10 * np.exp(-((d1 + d2) ** 2) / (2 * 1.25**2))
    np.testing.assert_allclose(weight, expected, atol=1e-4)
    assert weight.max() > 4
    assert (classes_contour(instances, grid_over(30, 40), 0.5, w0=0.0)[WEIGHT] == 1).all()


def test_pixel_between_touching_nuclei_weighs_as_worked_by_hand() -> None:
    # The pixel at (3, 5) is of the first nucleus and one pixel, 0.5 um, from the second.
    weight = classes_contour(two_squares(), grid_over(7, 14), 0.5, w0=10.0, sigma_um=1.0)[WEIGHT]
    assert weight[3, 5] == pytest.approx(1 + 10 * np.exp(-0.125))
    assert weight[3, 12] == pytest.approx(1 + 10 * np.exp(-((1 + 3.5) ** 2) / 2), rel=1e-5)


def test_one_nucleus_has_no_second_to_be_parted_from_and_counts_about_its_centre() -> None:
    maps = classes_contour(np.array([[3.0, 4.0]]), grid_over(9, 9), 0.5, heart_weight=7.0)
    np.testing.assert_array_equal(maps[WEIGHT], np.where(maps[BACKGROUND], 1, 7))
    assert 20 < (maps[BACKGROUND] == 0).sum() < 36  # 1.5 um are 3 px
    outlined = classes_contour(two_squares() // 8, grid_over(7, 14), 0.5, heart_weight=7.0)
    np.testing.assert_array_equal(outlined[WEIGHT], 1)


def test_interpolated_sets_are_sure_where_more_than_half_is() -> None:
    # Background, two insides and contour of a pixel each, and what it may be.
    rules = {
        (0.0, 1.0, 0.0, 0.0): (0, 1, 0, 0),
        (0.0, 0.4, 0.0, 0.6): (0, 0, 0, 1),
        (0.0, 0.4, 0.4, 0.6): (0, 0, 0, 1),  # the inside of a nucleus without a class, and a contour
        (0.45, 1.0, 0.45, 0.45): (0, 1, 0, 0),  # a heart, and a little of what is not known
        (0.55, 1.0, 0.55, 0.55): (1, 1, 1, 1),
        (0.5, 0.0, 0.0, 0.5): (1, 0, 0, 1),  # a half is not more than a half
        (0.3, 0.3, 0.0, 0.4): (1, 1, 0, 1),
        (0.0, 0.3, 0.0, 0.0): (0, 1, 0, 0),  # the rest lies beyond the image
        (0.0, 0.0, 0.0, 0.0): (1, 0, 0, 0),
    }
    weights = torch.linspace(0.0, 4.0, len(rules))
    interpolated = torch.cat([torch.tensor(list(rules)).T, weights[None]])[None, :, None]
    settled = as_class_sets(interpolated)
    assert settled[0, :-1, 0].T.tolist() == [list(rule) for rule in rules.values()]
    assert torch.equal(settled[0, -1, 0], weights.clamp(min=1))


def test_target_that_was_not_interpolated_stays_as_it_is() -> None:
    drawn = classes_contour(two_squares(), grid_over(7, 14), 0.5, 3, np.array([-1, 1]))
    whole = torch.from_numpy(drawn)[None]
    assert torch.equal(as_class_sets(whole), whole)
