"""Outlines against painted and drawn nuclei: by masks, by maps of pixels, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely import affinity

from karyon.errors import SlideError
from karyon.evaluation.areas import DrawnAreas, PaintedAreas, read_areas, restrict_areas
from karyon.evaluation.overlap import Overlap, overlap_of_maps, overlap_of_polygons, part_polygons
from karyon.evaluation.segmentation import score_aji, score_panoptic
from karyon.nuclei.polygons import trace_outlines

NAMES = ("predicted_id", "truth_id", "predicted_area", "truth_area", "predicted", "truth", "area")
WHOLE = st.integers(1, 12).flatmap(
    lambda side: arrays(np.int32, (side, side), elements=st.sampled_from([0, 0, 1, 2, 5]))
)


def assert_same(one: Overlap, other: Overlap) -> None:
    for name in NAMES:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, err_msg=name)


def objects(*polygons: shapely.Geometry) -> np.ndarray:
    array = np.empty(len(polygons), object)
    array[:] = polygons
    return array


def painted(polygons: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The map of polygons that do not overlap, k + 1 for polygon k: by asking for every pixel centre."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    instances = np.zeros(shape, np.int32)
    for number, polygon in enumerate(polygons, start=1):
        instances[shapely.contains_xy(polygon, x.ravel(), y.ravel()).reshape(shape)] = number
    return instances


@settings(max_examples=40, deadline=None)
@given(labels=WHOLE, scale=st.integers(1, 3), seed=st.integers(0, 9))
def test_outlines_of_a_map_overlap_as_its_pixels_do(labels: np.ndarray, scale: int, seed: int) -> None:
    pieces = overlap_of_maps(labels, labels)
    outlines = trace_outlines(np.searchsorted([0, *pieces.truth_id], labels).astype(np.int32), 0, 0)
    polygons = outlines.polygons(scale)
    # The outline of a nucleus in pieces is that of the largest; what it is, asking every pixel tells.
    side = len(labels) * scale
    predicted = painted(polygons, (side, side))
    truth = np.random.default_rng(seed).integers(0, 4, (side, side), np.int32)
    table, expected = PaintedAreas(truth).overlap([polygons]), overlap_of_maps(predicted, truth)
    np.testing.assert_array_equal(table.predicted_id + 1, expected.predicted_id)
    for name in NAMES[1:]:
        np.testing.assert_array_equal(getattr(table, name), getattr(expected, name), err_msg=name)


def blobs() -> np.ndarray:
    """Polygons at odd places and angles, one with a hole, one of two parts, one partly off the map."""
    rings = [
        shapely.Point(x, y).buffer(6.3, quad_segs=5) for x, y in ((12.2, 10.7), (31.4, 9.1), (58.6, 3.3))
    ]
    bent = affinity.rotate(shapely.box(8, 25, 27, 32), 33.3)
    holed = shapely.Point(40, 33).buffer(9.7).difference(shapely.Point(41.3, 33).buffer(3.1))
    parts = shapely.MultiPolygon([shapely.box(2.5, 40.2, 7.7, 44.9), shapely.box(10.1, 41.3, 15.2, 46.6)])
    return objects(*rings, bent, holed, parts)


@pytest.mark.parametrize("size", [1, 4, 6])
def test_polygons_cover_the_pixels_whose_centres_they_hold(size: int) -> None:
    polygons, shape = blobs(), (48, 60)
    truth = np.roll(painted(polygons, shape), (3, -2), (0, 1))
    batches = [polygons[start : start + size] for start in range(0, len(polygons), size)]
    table = PaintedAreas(truth).overlap(batches)
    expected = overlap_of_maps(painted(polygons, shape), truth)
    np.testing.assert_array_equal(table.predicted_id + 1, expected.predicted_id)
    for name in NAMES[1:]:
        np.testing.assert_array_equal(getattr(table, name), getattr(expected, name), err_msg=name)


def test_polygons_that_share_an_edge_through_pixel_centres_share_no_pixel() -> None:
    halves = objects(shapely.box(0, 0, 3, 4), shapely.box(3, 0, 6, 4), shapely.box(0, 4, 6, 6))
    table = PaintedAreas(np.ones((7, 7), np.int32)).overlap([halves])
    assert table.predicted_area.tolist() == [12, 12, 12]


def test_a_polygon_between_the_pixels_is_no_object() -> None:
    thin = objects(shapely.box(2.2, 0, 2.8, 5), shapely.box(-9, -9, -2, -2), shapely.box(0.5, 0.5, 1.5, 1.5))
    table = PaintedAreas(np.zeros((4, 4), np.int32)).overlap([thin])
    assert (table.predicted_id.tolist(), table.predicted_area.tolist(), len(table.truth_id)) == ([2], [1], 0)


def test_nothing_predicted_leaves_the_truth() -> None:
    for areas in (
        PaintedAreas(np.array([[0, 7, 7]], np.int32)),
        DrawnAreas(objects(shapely.box(0, 0, 2, 1))),
    ):
        for batches in ([], [objects()]):
            table = areas.overlap(batches)
            assert (len(table.predicted_id), table.truth_area.tolist(), len(table.area)) == (0, [2], 0)


@pytest.mark.parametrize("size", [1, 4, 6])
def test_batches_do_not_show_against_drawn_nuclei(size: int) -> None:
    polygons = blobs()
    truth = objects(*(affinity.translate(polygon, 2.1, -1.2) for polygon in polygons))
    batches = [polygons[start : start + size] for start in range(0, len(polygons), size)]
    assert_same(DrawnAreas(truth).overlap(batches), overlap_of_polygons(list(polygons), list(truth)))


def test_what_several_outlines_cover_belongs_to_the_first() -> None:
    squares = [shapely.box(0, 0, 10, 10), shapely.box(5, 0, 15, 10), shapely.box(8, 5, 18, 15)]
    beside, within = shapely.box(-5, 0, 0, 10), shapely.box(1, 1, 4, 4)
    parted = part_polygons([*squares, beside, within])
    assert shapely.area(parted).tolist() == [100, 50, 100 - 2 * 5 - 5 * 5, 50, 0]
    assert shapely.equals(parted[0], squares[0])
    assert shapely.union_all(parted).area == shapely.union_all([*squares, beside]).area
    assert len(part_polygons([])) == 0


def test_in_a_region_true_nuclei_say_what_counts() -> None:
    # The region is x < 100. Truth: two inside, one outside.
    truth = objects(shapely.box(0, 0, 10, 10), shapely.box(95, 0, 103, 10), shapely.box(97, 20, 110, 30))
    found = objects(
        shapely.box(0, 0, 10, 8),  # the first
        shapely.box(97, 0, 104, 10),  # the second, itself outside
        shapely.box(96, 20, 102, 30),  # the third, itself inside: does not count
        shapely.box(50, 50, 55, 55),  # false, inside
        shapely.box(150, 50, 155, 55),  # false, outside: does not count
    )
    areas = DrawnAreas(truth)
    centres = shapely.get_coordinates(shapely.centroid(found))
    table = restrict_areas(areas.overlap([found]), centres[:, 0] < 100, areas.centroids()[:, 0] < 100)
    assert (table.predicted_id.tolist(), table.truth_id.tolist()) == ([0, 1, 3], [0, 1])
    assert table.area.tolist() == [80, 60]
    assert score_aji(table).index == pytest.approx((80 + 60) / (100 + 90 + 25))
    panoptic = score_panoptic(table)
    assert (panoptic.tp, panoptic.fp, panoptic.fn) == (2, 1, 0)
    assert panoptic.panoptic_quality == pytest.approx((0.8 + 60 / 90) / 2.5)


@settings(max_examples=50, deadline=None)
@given(truth=WHOLE, shift=st.integers(-2, 2), border=st.integers(0, 12))
def test_regions_that_tile_a_slide_share_its_nuclei_out(truth: np.ndarray, shift: int, border: int) -> None:
    overlap = overlap_of_maps(np.roll(truth, shift, 1), truth)
    sides = [np.arange(len(ids)) * 3 < border for ids in (overlap.predicted_id, overlap.truth_id)]
    parts = [restrict_areas(overlap, *sides), restrict_areas(overlap, *(~side for side in sides))]
    for name in ("predicted_id", "truth_id"):
        shared_out = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(np.sort(shared_out), getattr(overlap, name))


def test_outlines_are_read_apart_and_points_are_none(tmp_path: Path) -> None:
    def collection(*shapes: str) -> Path:
        features = ", ".join(
            f'{{"type": "Feature", "properties": {{}}, "geometry": {shape}}}' for shape in shapes
        )
        path = tmp_path / "truth.geojson"
        path.write_text(f'{{"type": "FeatureCollection", "features": [{features}]}}')
        return path

    square, beside = (shapely.to_geojson(shapely.box(x, 0, x + 4, 4)) for x in (0, 2))
    areas = read_areas(collection(square, square, beside), "geojson", (20, 20), 1.0)
    assert areas.centroids().tolist() == [[2, 2], [5, 2]]
    with pytest.raises(SlideError, match="feature 2: a point; an outline is needed"):
        read_areas(collection(square, '{"type": "Point", "coordinates": [3, 3]}'), "geojson", (20, 20), 1.0)
