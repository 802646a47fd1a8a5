"""Outlines along pixel edges: valid, and giving the nuclei back, as shapely sees them."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label

from karyon.nuclei.polygons import join_outlines, trace_outlines


def rasterised(polygon: shapely.Polygon, height: int, width: int) -> np.ndarray:
    """Which pixel centres lie inside, of pixels whose corners are at integers less a half."""
    rows, columns = np.mgrid[:height, :width].astype(float)
    return shapely.contains_xy(polygon, columns, rows)


def picture(*rows: str) -> np.ndarray:
    return np.array([[int(pixel) for pixel in row.replace(".", "0")] for row in rows], np.int32)


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans()),
    st.sampled_from([1, 2]),
)
def test_polygons_are_valid_and_give_every_nucleus_back(mask: np.ndarray, connectivity: int) -> None:
    labels = label(mask, connectivity=connectivity).astype(np.int32)
    polygons = trace_outlines(labels, 0, 0).polygons(1.0)
    assert len(polygons) == labels.max()
    for nucleus, polygon in enumerate(polygons, start=1):
        assert polygon.geom_type == "Polygon"
        assert shapely.is_valid_reason(polygon) == "Valid Geometry"
        np.testing.assert_array_equal(rasterised(polygon, *labels.shape), labels == nucleus)


def test_outline_of_a_pixel_is_its_four_corners_in_level_0_pixels() -> None:
    # Model pixel (12, 7) is level-0 pixels 48 to 51 and 28 to 31; corners are half a pixel further out.
    (polygon,) = trace_outlines(picture("..", ".1"), 11, 6).polygons(4.0)
    assert polygon.exterior.is_ccw  # by the numbers, as GeoParquet says of this file
    assert polygon.normalize().equals(shapely.box(47.5, 27.5, 51.5, 31.5))


def test_corners_stand_only_where_the_outline_turns() -> None:
    (polygon,) = trace_outlines(picture("1111", "1111", "11.."), 0, 0).polygons(1.0)
    assert len(polygon.exterior.coords) == 6 + 1
    assert polygon.area == 10


def test_hole_is_a_ring_of_its_own() -> None:
    (polygon,) = trace_outlines(picture("1111", "1..1", "1111"), 0, 0).polygons(1.0)
    assert (polygon.area, len(polygon.interiors)) == (10, 1)
    assert not polygon.interiors[0].is_ccw


def test_hole_that_meets_the_outside_at_a_corner_leaves_a_valid_polygon() -> None:
    (polygon,) = trace_outlines(picture("111", "1.1", "11."), 0, 0).polygons(1.0)
    assert polygon.is_valid
    assert polygon.area == pytest.approx(7, abs=0.07)


def test_neighbours_share_their_edge() -> None:
    one, two = trace_outlines(picture("1122", "1122"), 0, 0).polygons(1.0)
    assert one.intersection(two).length == 2
    assert one.intersection(two).area == 0


def test_pixels_that_touch_by_a_corner_are_joined_by_a_bridge() -> None:
    (polygon,) = trace_outlines(picture("1.", ".1"), 0, 0).polygons(1.0)
    assert polygon.is_valid
    assert polygon.area == pytest.approx(2 + 2 * 0.25**2 / 2)


def test_of_a_nucleus_in_pieces_the_largest_is_outlined() -> None:
    labels = picture("11..2.", "11..1.", "..3.1.", "3....1")
    one, two, three = trace_outlines(labels, 0, 0).polygons(1.0)
    assert (one.area, two.area) == (4, 1)
    assert three.area == 1
    assert one.centroid.coords[0] == (0.5, 0.5)


def test_window_does_not_change_an_outline() -> None:
    labels = picture(".....", ".112.", ".1.2.", ".1..3")
    there = trace_outlines(labels, 20, 30).polygons(2.0)
    here = trace_outlines(labels[1:, 1:], 21, 31).polygons(2.0)
    assert shapely.equals_exact(there, here).all()


def test_selected_and_joined_outlines_are_those_of_the_nuclei() -> None:
    labels = label(np.random.default_rng(2).random((40, 50)) < 0.5, connectivity=1).astype(np.int32)
    outlines = trace_outlines(labels, 0, 0)
    polygons = outlines.polygons(1.0)
    chosen = np.random.default_rng(3).permutation(len(polygons))[:20]
    assert shapely.equals_exact(outlines.select(chosen).polygons(1.0), polygons[chosen]).all()
    both = join_outlines([outlines.select(chosen), outlines])
    assert shapely.equals_exact(both.polygons(1.0), np.append(polygons[chosen], polygons)).all()


def test_window_without_nuclei_has_no_outlines() -> None:
    assert len(trace_outlines(np.zeros((5, 6), np.int32), 0, 0).polygons(1.0)) == 0
