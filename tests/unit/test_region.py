"""Regions of interest: membership by brute force, and the border cases of restricted counts by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as MatplotlibPath
from PIL import Image

from karyon.errors import SlideError
from karyon.evaluation.detection import score_detection
from karyon.evaluation.matching import match_points
from karyon.evaluation.region import MaskRegion, PolygonRegion, Restricted, read_region, restrict

# A square of side 10 with a square hole of side 2 in its middle.
RING = PolygonRegion(shapely.box(0, 0, 10, 10) - shapely.box(4, 4, 6, 6))

half = st.integers(-2, 22).map(lambda n: n / 2)
few_points = st.lists(st.tuples(half, half), max_size=12).map(lambda rows: np.array(rows).reshape(-1, 2))


# ---- Membership


def test_points_inside_and_on_every_edge_count() -> None:
    inside = [(1, 1), (5, 3.9), (9.999, 9.999)]
    edge = [(0, 0), (0, 5), (10, 10), (3, 10), (4, 5), (6, 6)]
    outside = [(-1e-9, 5), (10.000001, 5), (5, 5), (4.000001, 5), (11, 11)]
    found = RING.inside(np.array([*inside, *edge, *outside]))
    assert found.tolist() == [True] * 9 + [False] * 5


def test_points_that_are_not_finite_are_outside() -> None:
    points = np.array([[math.nan, 5], [1, math.inf], [1, 1]])
    assert RING.inside(points).tolist() == [False, False, True]
    assert MaskRegion(np.ones((2, 2), bool), (4, 4)).inside(points).tolist() == [False, False, True]


def test_polygon_with_thousands_of_vertices_holds_the_points_that_another_library_finds() -> None:
    angle = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    radius = 300 + 60 * np.sin(37 * angle)
    vertices = 500 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.random.default_rng(0).uniform(0, 1000, (20_000, 2))
    found = PolygonRegion(shapely.Polygon(vertices)).inside(points)
    np.testing.assert_array_equal(found, MatplotlibPath(vertices).contains_points(points))


def test_no_points_are_no_answer() -> None:
    assert RING.inside(np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize("downsample", [1, 4])
def test_a_level0_pixel_centre_has_the_value_of_the_mask_over_it(downsample: int) -> None:
    mask = np.random.default_rng(1).random((5, 7)) < 0.5
    large = np.kron(mask, np.ones((downsample, downsample), bool)).astype(bool)
    y, x = np.indices(large.shape)
    region = MaskRegion(mask, (large.shape[1], large.shape[0]))
    found = region.inside(np.stack([x.ravel(), y.ravel()], axis=1))
    np.testing.assert_array_equal(found.reshape(large.shape), large)


def test_a_mask_pixel_owns_its_left_and_upper_edge_and_nothing_lies_beyond_the_slide() -> None:
    # Mask pixels of 4 slide pixels: they span -0.5 to 3.5 and 3.5 to 7.5.
    region = MaskRegion(np.array([[True, False]]), (8, 4))
    x = [-0.51, -0.5, 3.49, 3.5, 7.5]
    assert region.inside(np.array([[value, 0] for value in x])).tolist() == [False, True, True, False, False]
    whole = MaskRegion(np.ones((1, 2), bool), (8, 4))
    assert whole.inside(np.array([[value, 0] for value in x])).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("size", [(1001, 699), (999, 701), (1004, 696)])
def test_a_mask_whose_sides_are_rounded_is_stretched_over_the_slide(size: tuple[int, int]) -> None:
    region = MaskRegion(np.ones((70, 100), bool), size)
    corners = np.array([[0, 0], [size[0] - 1, size[1] - 1]])
    assert region.inside(corners).all()


@pytest.mark.parametrize(
    ("shape", "size"), [((100, 70), (1000, 700)), ((70, 100), (1000, 1000)), ((0, 0), (10, 10))]
)
def test_a_mask_of_other_proportions_is_refused(shape: tuple[int, int], size: tuple[int, int]) -> None:
    with pytest.raises(
        ValueError, match=rf"the mask has {shape[1]} x {shape[0]} pixels, the slide {size[0]}"
    ):
        MaskRegion(np.ones(shape, bool), size)


# ---- What counts


def restricted(predicted: list[tuple[float, float]], truth: list[tuple[float, float]]) -> Restricted:
    """Restrict to the half-plane left of x = 10, border included, matching within 3."""
    found, true = np.array(predicted).reshape(-1, 2), np.array(truth).reshape(-1, 2)
    return restrict(match_points(found, true, 3), found[:, 0] <= 10, true[:, 0] <= 10)


def counts(result: Restricted) -> tuple[int, int, int]:
    score = score_detection(result.matches, len(result.predicted), len(result.truth))
    return score.tp, score.fp, score.fn


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([(5, 0)], [(6, 0)], (1, 0, 0)),
        ([(11, 0)], [(9, 0)], (1, 0, 0)),  # found a little outside: a hit all the same
        ([(9, 0)], [(11, 0)], (0, 0, 0)),  # a hit of the other side of the border
        ([(11, 0)], [(12, 0)], (0, 0, 0)),
        ([(9, 0)], [], (0, 1, 0)),
        ([(11, 0)], [], (0, 0, 0)),
        ([], [(9, 0)], (0, 0, 1)),
        ([], [(11, 0)], (0, 0, 0)),
        ([(9, 0)], [(13, 0)], (0, 1, 0)),  # too far apart to excuse it
        ([(10, 0)], [], (0, 1, 0)),
        ([(9, 0), (9, 50)], [(10, 0), (9, 90)], (1, 1, 1)),
    ],
    ids=[
        "both inside",
        "detection outside",
        "annotation outside",
        "both outside",
        "false inside",
        "false outside",
        "missed inside",
        "missed outside",
        "out of reach",
        "on the border",
        "three of a kind",
    ],
)
def test_border_cases(
    predicted: list[tuple[float, float]], truth: list[tuple[float, float]], expected: tuple[int, int, int]
) -> None:
    assert counts(restricted(predicted, truth)) == expected


def test_what_counts_is_named_by_its_row_and_paired_by_its_new_position() -> None:
    # Detections: false outside, hit outside, false inside, hit inside; annotations: outside, two inside.
    result = restricted([(20, 0), (11, 0), (0, 50), (5, 0)], [(30, 0), (6, 0), (9, 0)])
    assert result.predicted.tolist() == [1, 2, 3]
    assert result.truth.tolist() == [1, 2]
    assert result.matches.predicted.tolist() == [0, 2]
    assert result.matches.truth.tolist() == [1, 0]
    assert result.matches.distance.tolist() == [2, 1]


@settings(max_examples=150, deadline=None)
@given(predicted=few_points, truth=few_points)
def test_regions_that_tile_the_slide_add_up_to_it(predicted: np.ndarray, truth: np.ndarray) -> None:
    matches = match_points(predicted, truth, 2.5)
    inside, annotated = (RING.inside(points) for points in (predicted, truth))
    here, there = restrict(matches, inside, annotated), restrict(matches, ~inside, ~annotated)
    whole = score_detection(matches, len(predicted), len(truth))
    parts = np.array([counts(here), counts(there)])
    assert parts.sum(axis=0).tolist() == [whole.tp, whole.fp, whole.fn]
    assert counts(here)[0] + counts(here)[2] == annotated.sum()
    # The pairs are pairs of the whole: the same rows at the same distance.
    of_whole = dict(zip(matches.predicted, zip(matches.truth, matches.distance, strict=True), strict=True))
    for row, column, distance in zip(*vars(here.matches).values(), strict=True):
        assert of_whole[here.predicted[row]] == (here.truth[column], distance)


def test_a_region_that_holds_everything_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    predicted, truth = rng.uniform(0, 100, (60, 2)), rng.uniform(0, 100, (50, 2))
    matches = match_points(predicted, truth, 8)
    result = restrict(matches, np.ones(60, bool), np.ones(50, bool))
    assert (len(result.predicted), len(result.truth)) == (60, 50)
    for before, after in zip(vars(matches).values(), vars(result.matches).values(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_pairs_of_other_points_are_refused() -> None:
    matches = match_points(np.zeros((3, 2)), np.zeros((3, 2)), 1)
    with pytest.raises(ValueError, match="a pair has truth row 2, but truth_inside has 2 values"):
        restrict(matches, np.ones(3, bool), np.ones(2, bool))


# ---- Files


def geojson(path: Path, *boxes: tuple[float, float, float, float]) -> Path:
    features: list[Any] = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(*box)), "properties": {}}
        for box in boxes
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_outlines_of_a_file_are_one_region_even_where_they_overlap(tmp_path: Path) -> None:
    path = geojson(tmp_path / "roi.geojson", (0, 0, 10, 10), (5, 5, 20, 10))
    region = read_region(path, "geojson", (100, 100))
    points = np.array([[6, 6], [1, 1], [19, 6], [19, 1], [20, 10]])
    assert region.inside(points).tolist() == [True, True, True, False, True]


def test_a_scale_takes_the_outline_to_level_0(tmp_path: Path) -> None:
    # At half the resolution pixels 0 to 10 span -0.5 to 10.5; their centres lie at 0.5 and 20.5 at level 0.
    path = geojson(tmp_path / "roi.geojson", (0, 0, 10, 10))
    region = read_region(path, "geojson", (100, 100), scale=2.0)
    assert region.inside(np.array([[0.5, 0.5], [20.5, 20.5], [0.4, 5], [20.6, 5]])).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_negative_regions_are_cut_out(tmp_path: Path) -> None:
    def region(number: int, negative: int, *box: float) -> str:
        vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in shapely.box(*box).exterior.coords)
        return f'<Region Id="{number}" NegativeROA="{negative}"><Vertices>{vertices}</Vertices></Region>'

    path = tmp_path / "roi.xml"
    regions = region(1, 0, 0, 0, 20, 20) + region(2, 1, 5, 5, 10, 10)
    path.write_text(
        f"<Annotations><Annotation Id='1'><Regions>{regions}</Regions></Annotation></Annotations>"
    )
    found = read_region(path, "imagescope_xml", (100, 100))
    assert found.inside(np.array([[1, 1], [7, 7], [15, 15]])).tolist() == [True, False, True]


def test_a_mask_image_covers_the_slide_at_its_own_downsample(tmp_path: Path) -> None:
    path = tmp_path / "roi.png"
    Image.fromarray(np.array([[255, 0], [0, 0]], np.uint8)).save(path)
    region = read_region(path, "instance_png", (40, 40))
    assert region.inside(np.array([[0, 0], [19, 19], [20, 0], [0, 20]])).tolist() == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("empty mask", r"roi: the region is empty; expected a value other than 0"),
        ("narrow mask", r"roi: the mask has 2 x 40 pixels, the slide 40 x 40; expected the same proportions"),
        ("no outline", r"roi: the region is empty; expected at least one outline"),
        ("elsewhere", r"roi: 1 of 1 annotations lie outside the slide"),
    ],
)
def test_a_region_that_is_none_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "roi"
    if "mask" in content:
        pixels = np.full((40, 2), 255, np.uint8) if content == "narrow mask" else np.zeros((4, 4), np.uint8)
        Image.fromarray(pixels).save(path, format="png")
    else:
        geojson(path, *([(90, 90, 99, 99)] if content == "elsewhere" else []))
    with pytest.raises(SlideError, match=message):
        read_region(path, "instance_png" if "mask" in content else "geojson", (40, 40))
