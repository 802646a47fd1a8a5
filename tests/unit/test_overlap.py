"""The overlap table against masks of every pair of objects, by hand, and polygons against maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from karyon.evaluation.overlap import (
    Overlap,
    best_pairs,
    overlap_of_blocks,
    overlap_of_maps,
    overlap_of_polygons,
)
from karyon.io.annotations import read_instances

KUMAR = "kumar30/instances/TCGA-18-5592-01Z-00-DX1.png"
ids = st.sampled_from([0, 0, 1, 2, 5, 2_000_000_000])
two_maps = st.tuples(st.integers(0, 7), st.integers(0, 7)).flatmap(
    lambda shape: st.tuples(arrays(np.int32, shape, elements=ids), arrays(np.int64, shape, elements=ids))
)


def as_dicts(overlap: Overlap) -> tuple[dict[int, float], dict[int, float], dict[tuple[int, int], float]]:
    """Areas by id, and common areas by both ids."""
    predicted, truth = overlap.predicted_id[overlap.predicted], overlap.truth_id[overlap.truth]
    return (
        dict(zip(overlap.predicted_id.tolist(), overlap.predicted_area.tolist(), strict=True)),
        dict(zip(overlap.truth_id.tolist(), overlap.truth_area.tolist(), strict=True)),
        dict(zip(zip(predicted.tolist(), truth.tolist(), strict=True), overlap.area.tolist(), strict=True)),
    )


def by_masks(predicted: np.ndarray, truth: np.ndarray) -> tuple[dict, dict, dict]:
    """The same from a mask of the full size for every object."""
    masks = {int(k): predicted == k for k in np.unique(predicted) if k}
    true_masks = {int(k): truth == k for k in np.unique(truth) if k}
    common = {(i, j): (masks[i] & true_masks[j]).sum() for i in masks for j in true_masks}
    return (
        {i: mask.sum() for i, mask in masks.items()},
        {j: mask.sum() for j, mask in true_masks.items()},
        {pair: area for pair, area in common.items() if area},
    )


@settings(max_examples=200, deadline=None)
@given(maps=two_maps)
def test_table_of_maps_equals_masks(maps: tuple[np.ndarray, np.ndarray]) -> None:
    overlap = overlap_of_maps(*maps)
    assert as_dicts(overlap) == by_masks(*maps)
    assert sorted(zip(overlap.predicted, overlap.truth, strict=True)) == list(
        zip(overlap.predicted, overlap.truth, strict=True)
    )
    assert (np.diff(overlap.predicted_id) > 0).all()


def test_table_of_real_maps_equals_masks(real_file: Callable[[str], Path]) -> None:
    truth = read_instances(real_file(KUMAR), "instance_png")[:400, :400]
    predicted = np.roll(truth, (3, -4), (0, 1))
    assert as_dicts(overlap_of_maps(predicted, truth)) == by_masks(predicted, truth)


def test_hand_worked_pairs() -> None:
    predicted = np.array([[7, 7, 7, 0], [7, 3, 3, 0]])
    truth = np.array([[0, 4, 4, 4], [0, 4, 9, 0]])
    overlap = overlap_of_maps(predicted, truth)
    assert as_dicts(overlap) == ({3: 2, 7: 4}, {4: 4, 9: 1}, {(3, 4): 1, (3, 9): 1, (7, 4): 2})
    assert overlap.union.tolist() == [5, 2, 6]
    assert overlap.iou.tolist() == [1 / 5, 1 / 2, 2 / 6]
    assert overlap.dice.tolist() == [2 / 6, 2 / 3, 4 / 8]


@settings(max_examples=50, deadline=None)
@given(maps=two_maps, rows=st.integers(0, 7), columns=st.integers(0, 7))
def test_blocks_give_the_table_of_the_whole(
    maps: tuple[np.ndarray, np.ndarray], rows: int, columns: int
) -> None:
    parts = [np.s_[:rows, :columns], np.s_[rows:, :columns], np.s_[:, columns:]]
    blocks = overlap_of_blocks([(maps[0][part], maps[1][part]) for part in reversed(parts)])
    assert as_dicts(blocks) == as_dicts(overlap_of_maps(*maps))


def test_maps_taller_than_a_band_are_counted_whole() -> None:
    tall = np.repeat(np.arange(5000) // 1500, 3).reshape(5000, 3)
    assert as_dicts(overlap_of_maps(tall, np.minimum(tall, 1))) == (
        {1: 4500, 2: 4500, 3: 1500},
        {1: 10500},
        {(1, 1): 4500, (2, 1): 4500, (3, 1): 1500},
    )


def test_no_blocks_are_two_empty_maps() -> None:
    assert as_dicts(overlap_of_blocks([])) == ({}, {}, {})


# Left, top, width and height of rectangles on the pixels' grid.
rectangles = st.lists(
    st.tuples(st.integers(0, 14), st.integers(0, 14), st.integers(1, 6), st.integers(1, 6)), max_size=7
)


def draw_disjoint(rows: list[tuple[int, int, int, int]]) -> tuple[np.ndarray, list[shapely.Polygon]]:
    """Those rectangles that overlap none before them, as a map and as polygons, in the same order."""
    instances, polygons = np.zeros((20, 20), int), []
    for left, top, width, height in rows:
        place = np.s_[top : top + height, left : left + width]
        if not instances[place].any():
            polygons.append(shapely.box(left, top, left + width, top + height))
            instances[place] = len(polygons)
    return instances, polygons


@settings(max_examples=100, deadline=None)
@given(predicted=rectangles, truth=rectangles)
def test_polygons_on_the_pixel_grid_give_the_table_of_the_map(
    predicted: list[tuple[int, int, int, int]], truth: list[tuple[int, int, int, int]]
) -> None:
    predicted_map, predicted_polygons = draw_disjoint(predicted)
    truth_map, truth_polygons = draw_disjoint(truth)
    maps = overlap_of_maps(predicted_map, truth_map)
    polygons = overlap_of_polygons(predicted_polygons, truth_polygons)
    np.testing.assert_array_equal(polygons.predicted_id + 1, maps.predicted_id)
    np.testing.assert_array_equal(polygons.truth_id + 1, maps.truth_id)
    for name in ("predicted_area", "truth_area", "predicted", "truth", "area"):
        np.testing.assert_allclose(getattr(polygons, name), getattr(maps, name), rtol=1e-12, err_msg=name)


def test_circles_overlap_by_the_lens_between_them() -> None:
    # Two unit circles whose centres are 1 apart: the lens is 2 pi / 3 - sqrt(3) / 2.
    first, second = (shapely.Point(x, 0).buffer(1, quad_segs=500) for x in (0, 1))
    overlap = overlap_of_polygons([first], [second, shapely.Point(2.5, 0).buffer(1)])
    assert overlap.truth.tolist() == [0]
    np.testing.assert_allclose(overlap.area, [2 * np.pi / 3 - np.sqrt(3) / 2], rtol=1e-5)
    np.testing.assert_allclose(overlap.predicted_area, [np.pi], rtol=1e-5)


@pytest.mark.parametrize(("n_predicted", "n_truth"), [(0, 0), (2, 0), (0, 2)])
def test_an_empty_side_of_polygons_has_no_pairs(n_predicted: int, n_truth: int) -> None:
    square = shapely.box(0, 0, 1, 1)
    overlap = overlap_of_polygons([square] * n_predicted, [square] * n_truth)
    assert (len(overlap.predicted_id), len(overlap.truth_id), len(overlap.area)) == (n_predicted, n_truth, 0)


def test_best_pair_is_the_largest_then_the_second_value_then_the_first_pair() -> None:
    rows = np.array([4, 4, 4, 1, 1, 1, 0])
    first, second = np.array([1, 3, 3, 2, 2, 1, 0]), np.array([9, 1, 2, 5, 5, 9, 0])
    assert best_pairs(rows, first).tolist() == [6, 3, 1]
    assert best_pairs(rows, first, second).tolist() == [6, 3, 2]


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"predicted has shape \(2, 3\), truth \(3, 2\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "predicted holds float64"),
        (np.zeros((2, 2), int), np.zeros((2, 2), bool), "truth holds bool"),
        (np.zeros((2, 2), int), np.array([[0, 1], [-4, 1]]), "truth holds the id -4"),
    ],
)
def test_maps_that_are_none_are_refused(predicted: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlap_of_maps(predicted, truth)


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)]), "truth polygon 1 is not valid"),
        (shapely.Polygon(), "truth polygon 1 has no area"),
    ],
)
def test_polygons_without_an_area_of_their_own_are_refused(outline: shapely.Polygon, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        overlap_of_polygons([], [shapely.box(0, 0, 1, 1), outline])
