"""NB's four kinds of error on scenes whose counts are worked out by hand, and by laws."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from karyon.evaluation.overlap import overlap_of_maps
from karyon.evaluation.segmentation_errors import SegmentationErrors, count_errors
from karyon.evaluation.segmentation_matching import match_by_dice
from karyon.io.annotations import read_instances

KUMAR = "kumar30/instances/TCGA-18-5592-01Z-00-DX1.png"
ids = st.sampled_from([0, 0, 1, 2, 5])
two_maps = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: st.tuples(*[arrays(np.int32, shape, elements=ids)] * 2)
)


def errors_of(predicted: list[int], truth: list[int]) -> SegmentationErrors:
    return count_errors(overlap_of_maps(np.array([predicted]), np.array([truth])))


def test_two_nuclei_found_as_one_are_one_match_and_one_under_segmentation() -> None:
    errors = errors_of([1, 1, 1, 1, 1, 0], [1, 1, 2, 2, 2, 0])
    assert errors == SegmentationErrors(1, 0, 1, 0, 0, dice_sum=6 / 8)
    assert (errors.under_segmentation_rate, errors.missed_rate, errors.recall) == (1 / 2, 0, 1 / 2)


def test_a_nucleus_in_three_pieces_is_one_match_and_two_over_segmentations() -> None:
    errors = errors_of([1, 1, 1, 2, 2, 3], [1, 1, 1, 1, 1, 1])
    assert errors == SegmentationErrors(1, 0, 0, 0, 2, dice_sum=6 / 9)
    assert (errors.over_segmentation_rate, errors.false_rate, errors.precision) == (2 / 3, 0, 1 / 3)


def test_nucleus_on_background_is_missed_and_prediction_on_background_is_false() -> None:
    errors = errors_of([1, 1, 0, 0, 0, 7], [1, 1, 0, 2, 2, 0])
    assert errors == SegmentationErrors(1, 1, 0, 1, 0, dice_sum=1)
    assert (errors.missed_rate, errors.false_rate) == (1 / 2, 1 / 2)
    assert (errors.under_segmentation_rate, errors.over_segmentation_rate) == (0, 0)


def test_half_in_a_match_is_still_missed() -> None:
    # Nucleus 2: exactly half of it lies in prediction 1, whose match is nucleus 1.
    errors = errors_of([1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 2, 2, 2, 2])
    assert (errors.tp, errors.missed, errors.under_segmented) == (1, 1, 0)


def test_prediction_too_large_to_match_is_false_and_what_it_holds_is_missed() -> None:
    errors = errors_of([1] * 20, [1, 0, 2, 0, 3] + [0] * 15)
    assert errors == SegmentationErrors(0, 3, 0, 1, 0, dice_sum=0)
    assert math.isnan(errors.under_segmentation_rate)
    assert math.isnan(errors.dice)


def test_rates_have_the_denominators_of_the_paper() -> None:
    errors = SegmentationErrors(
        tp=60, missed=10, under_segmented=30, false=15, over_segmented=25, dice_sum=45
    )
    assert (errors.fn, errors.fp) == (40, 40)
    assert errors.missed_rate == 10 / (40 + 60)
    assert errors.false_rate == 15 / (60 + 40)
    assert errors.under_segmentation_rate == 30 / (40 + 60 - 10)
    assert errors.over_segmentation_rate == 25 / (40 + 60 - 15)
    assert (errors.precision, errors.recall, errors.f1, errors.dice) == (0.6, 0.6, 0.6, 0.75)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        (0, 0, [math.nan] * 5),
        (1, 0, [math.nan, 1, math.nan, math.nan, 0]),
        (0, 1, [1, math.nan, math.nan, math.nan, 0]),
    ],
    ids=["both empty", "no truth", "no prediction"],
)
def test_rates_of_empty_sides(predicted: int, truth: int, expected: list[float]) -> None:
    errors = errors_of([predicted], [truth])
    rates = [errors.missed_rate, errors.false_rate]
    rates += [errors.under_segmentation_rate, errors.over_segmentation_rate, errors.f1]
    np.testing.assert_equal(rates, expected)


@settings(max_examples=150, deadline=None)
@given(maps=two_maps)
def test_kinds_of_errors_equal_masks_of_the_matched_regions(maps: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, truth = maps
    overlap = overlap_of_maps(predicted, truth)
    pairs = match_by_dice(overlap)
    matched = overlap.predicted_id[overlap.predicted[pairs]]
    matched_truth = overlap.truth_id[overlap.truth[pairs]]
    errors = count_errors(overlap)
    assert (errors.tp, errors.missed, errors.under_segmented) == kinds(
        truth, matched_truth, np.isin(predicted, matched)
    )
    assert (errors.tp, errors.false, errors.over_segmented) == kinds(
        predicted, matched, np.isin(truth, matched_truth)
    )


def kinds(instances: np.ndarray, matched: np.ndarray, region: np.ndarray) -> tuple[int, int, int]:
    """Objects that are matched, that lie elsewhere, and that lie in the region by more than half."""
    others = [k for k in np.unique(instances) if k and k not in matched]
    inside = sum(2 * region[instances == k].sum() > (instances == k).sum() for k in others)
    return len(matched), len(others) - inside, inside


def test_joined_nuclei_of_a_real_map_are_under_segmented_and_the_reverse_over_segmented(
    real_file: Callable[[str], Path],
) -> None:
    truth = read_instances(real_file(KUMAR), "instance_png")
    truth = np.where(np.isin(truth, broken_nuclei(truth)), 0, truth)  # only nuclei in one piece
    joined, groups = ndimage.label(truth)
    nuclei = len(np.unique(truth)) - 1
    errors = count_errors(overlap_of_maps(joined, truth))
    # Every group of touching nuclei holds one match unless it is too large for any; all else is merged.
    assert errors.tp + errors.false == groups
    assert errors.tp + errors.under_segmented + errors.missed == nuclei
    assert errors.over_segmented == 0
    assert errors.under_segmented > 50
    reverse = count_errors(overlap_of_maps(truth, joined))
    assert reverse.over_segmented == errors.under_segmented
    assert reverse.under_segmented == 0


def broken_nuclei(truth: np.ndarray) -> list[int]:
    boxes = ndimage.find_objects(truth)
    return [k for k, box in enumerate(boxes, 1) if box and ndimage.label(truth[box] == k)[1] > 1]


def test_pooled_counts_add_up() -> None:
    one, other = SegmentationErrors(1, 2, 3, 4, 5, 0.5), SegmentationErrors(10, 20, 30, 40, 50, 8.0)
    assert one + other == SegmentationErrors(11, 22, 33, 44, 55, 8.5)
