"""Decoding rules in physical units, with hand-worked maps."""

from __future__ import annotations

import numpy as np
import pytest

from karyon.models.card import Decoding
from karyon.nuclei.decode import decode, map_threshold


@pytest.mark.parametrize(
    ("threshold", "expected"),
    # 0.35 * 255 = 89.25: 89 would let a probability of 0.349 pass.
    [(0.35, 90), (0.5, 128), (0.0, 1), (1.0, 255)],
)
def test_probability_threshold_is_the_first_map_value_that_reaches_it(
    threshold: float, expected: int
) -> None:
    assert map_threshold(Decoding("components", threshold), maximum=100) == expected


def test_threshold_that_is_a_map_value_is_that_value() -> None:
    values = range(1, 256)
    assert [map_threshold(Decoding("components", value / 255), 255) for value in values] == list(values)


@pytest.mark.parametrize(("maximum", "expected"), [(200, 100), (201, 101), (255, 128), (1, 1), (0, 1)])
def test_peak_threshold_is_a_share_of_the_slides_maximum(maximum: int, expected: int) -> None:
    assert map_threshold(Decoding("peaks", 0.5), maximum) == expected


@pytest.mark.parametrize(("min_area_um2", "kept"), [(0.0, [4, 9]), (1.0, [4, 9]), (1.01, [9]), (2.26, [])])
def test_components_are_dropped_by_area_in_microns(min_area_um2: float, kept: list[int]) -> None:
    values = np.zeros((12, 12), np.uint8)
    values[1:3, 1:3] = values[6:9, 6:9] = 200
    # At 0.5 microns per pixel 4 pixels are 1 um2 and 9 pixels are 2.25 um2.
    found = decode(values, Decoding("components", 0.35, min_area_um2=min_area_um2), 200, model_mpp=0.5)
    assert found.area.tolist() == kept


@pytest.mark.parametrize(("model_mpp", "expected"), [(0.5, [3]), (0.75, [3, 7]), (1.0, [3, 7])])
def test_peak_distance_is_in_microns(model_mpp: float, expected: list[int]) -> None:
    values = np.zeros((9, 14), np.uint8)
    values[4, 3], values[4, 7] = 200, 150
    # The peaks are 4 pixels apart: 2 um at 0.5 microns per pixel, 3 and 4 um at the others.
    found = decode(values, Decoding("peaks", 0.5, distance_um=2.0), 200, model_mpp=model_mpp)
    assert found.x.tolist() == expected


def test_faint_peaks_are_judged_by_the_slides_maximum_not_their_own() -> None:
    values = np.zeros((9, 9), np.uint8)
    values[4, 4] = 80
    rule = Decoding("peaks", 0.5)
    assert decode(values, rule, maximum=160, model_mpp=0.5).x.tolist() == [4]
    assert decode(values, rule, maximum=161, model_mpp=0.5).x.tolist() == []
