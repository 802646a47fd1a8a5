"""Training targets against their definitions, pixel by pixel, for maps, outlines and centres alike."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline
from scipy import ndimage
from scipy.spatial import KDTree
from shapely import affinity
from skimage.draw import disk

from karyon.io.annotations import instance_points, read_instances
from karyon.io.annotations.outlines import read_imagescope_outlines
from karyon.io.slides import SlideFacts
from karyon.models.card import Decoding
from karyon.nuclei.decode import decode
from karyon.tiles.grid import Grid
from karyon.training.instance_maps import NUDGE
from karyon.training.shapes import Annotation
from karyon.training.targets import (
    TARGETS,
    as_inside_boundary,
    full_mask,
    inside_boundary,
    instance_map,
    nucleus_distance,
    proximity_map,
    shrunken_mask,
)

KUMAR = "kumar30/instances/TCGA-18-5592-01Z-00-DX1.png"
OUTLINED = "TCGA-CH-5767-01Z-00-DX1"
# Targets of one map, whose border is like any place; of outlines nothing is known beyond it.
OF_CENTRES = [name for name, target in TARGETS.items() if target.maps == ("centre",)]


def draw(name: str, annotation: Annotation, grid: Grid, mpp: float) -> np.ndarray:
    """A target, but for the background and the weight."""
    maps = TARGETS[name].draw(annotation, grid, mpp)
    shown = {"inside_boundary": slice(0, 2), "classes_contour": slice(1, 3)}.get(name)
    return maps if shown is None else maps[shown]


def grid_over(height: int, width: int, mpp: float, model_mpp: float = 0.5) -> Grid:
    return Grid.of_slide(
        SlideFacts(width, height, mpp, "sheet", ((width, height),), 0, 0, "image"), model_mpp
    )


def grid_of(instances: np.ndarray, mpp: float, model_mpp: float = 0.5) -> Grid:
    return grid_over(*instances.shape, mpp, model_mpp)


def one_disc(radius: float, centre: tuple[float, float], side: int) -> np.ndarray:
    instances = np.zeros((side, side), np.int32)
    instances[disk(centre, radius, shape=instances.shape)] = 1
    return instances


def random_nuclei(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Irregular objects of all sizes, some cut by the border, labels with gaps."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), 4)
    labels, _ = ndimage.label(noise > np.quantile(noise, 0.7))
    return labels * 3


def random_stars(seed: int, count: int = 12, side: float = 60.0) -> list[shapely.Polygon]:
    """Outlines with dents, some beyond the border of a square of ``side``."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 11)[:-1]
    radii, centres = rng.uniform(2, 9, (count, 10)), rng.uniform(0, side, (count, 1, 2))
    rays = radii[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [shapely.Polygon(ring) for ring in centres + rays]


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
        for nudge in [(-1e-5, -1e-5), (-1e-5, 1e-5), (1e-5, -1e-5), (1e-5, 1e-5)]:
            source_y = np.floor(centre_y + (y - centre_y) / np.sqrt(share) + 0.5 + nudge[0]).astype(int)
            source_x = np.floor(centre_x + (x - centre_x) / np.sqrt(share) + 0.5 + nudge[1]).astype(int)
            last = np.array(padded.shape) - 1
            answers.append(padded[np.clip(source_y + 1, 0, last[0]), np.clip(source_x + 1, 0, last[1])])
        inside = answers[0]
        unsure |= np.any(answers != inside, axis=0)
        if not np.any(answers):
            distance = np.hypot(y - centre_y, x - centre_x)
            nearest = distance < distance.min() + 1e-5
            inside |= nearest
            unsure |= nearest & (nearest.sum() > 1)
        mask |= inside
    return mask, unsure


@pytest.mark.parametrize("mpp", [0.11, 0.25, 0.37, 0.5, 1.0, 2.3, 4.0])
@pytest.mark.parametrize("share", [0.25, 0.4, 1.0])
def test_mask_of_a_map_follows_the_definition_at_any_resolution(mpp: float, share: float) -> None:
    instances = random_nuclei(seed=int(100 * mpp))
    grid = grid_of(instances, mpp)
    mask = shrunken_mask(instances, grid, mpp, share)
    expected, unsure = by_definition(instances, grid, share)
    assert mask.shape == (grid.height, grid.width)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask[~unsure], expected[~unsure])
    assert expected[~unsure].any()
    if share < 1:
        assert unsure.mean() < 0.01


@pytest.mark.parametrize(("mpp", "side"), [(0.25, 60), (0.37, 80), (0.5, 60)])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_mask_of_outlines_equals_another_library(mpp: float, side: int, share: float) -> None:
    stars = random_stars(seed=side, side=side)
    grid = grid_over(side, side, mpp)
    rows, columns = np.mgrid[: grid.height, : grid.width]
    positions = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) * grid.scale - 0.5
    expected = np.zeros(grid.height * grid.width, bool)
    for star in stars:
        small = affinity.scale(star, np.sqrt(share), np.sqrt(share), origin=star.centroid)
        expected |= Outline(np.asarray(small.exterior.coords)).contains_points(positions)
    mask = shrunken_mask(stars, grid, mpp, share)
    np.testing.assert_array_equal(mask.ravel(), expected)
    assert mask.dtype == np.float32


@pytest.mark.parametrize("share", [0.25, 0.7, 1.0])
def test_mask_of_centres_is_discs_of_that_share(share: float) -> None:
    centres = np.random.default_rng(3).uniform(-5, 105, (20, 2))
    grid = grid_over(100, 100, 0.25)
    rows, columns = np.mgrid[: grid.height, : grid.width]
    # 6 um at 0.25 um per pixel: a radius of 12 px.
    expected = np.any(
        [np.hypot(2 * columns + 0.5 - x, 2 * rows + 0.5 - y) <= 12 * np.sqrt(share) for x, y in centres],
        axis=0,
    )
    np.testing.assert_array_equal(shrunken_mask(centres, grid, 0.25, share, diameter_um=6.0), expected)


def test_whole_mask_worked_by_hand() -> None:
    # Model pixels of 2 px: their centres, at 0.5, 2.5 and 4.5, lie on edges and belong to pixels 1, 3 and 5.
    instances = np.zeros((6, 6), np.int32)
    instances[1:4, 1:5] = 7
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert full_mask(instances, grid_of(instances, 0.25), 0.25).tolist() == expected
    outline = shapely.box(0.5, 0.5, 4.5, 3.5)
    assert full_mask([outline], grid_of(instances, 0.25), 0.25).tolist() == expected


rectangles = st.lists(
    st.tuples(st.integers(0, 26), st.integers(0, 26), st.integers(1, 12), st.integers(1, 12)), max_size=6
)


@settings(deadline=None, max_examples=60)
@given(rows=rectangles, mpp=st.sampled_from([0.25, 0.37, 0.5, 0.9]), name=st.sampled_from(sorted(TARGETS)))
def test_map_and_outlines_of_the_same_rectangles_agree(
    rows: list[tuple[int, int, int, int]], mpp: float, name: str
) -> None:
    instances, outlines = np.zeros((30, 30), np.int32), []
    for left, top, width, height in rows:
        right, bottom = min(left + width, 30), min(top + height, 30)
        if not instances[top:bottom, left:right].any():
            instances[top:bottom, left:right] = 1 + len(outlines)
            outlines.append(shapely.box(left - 0.5, top - 0.5, right - 0.5, bottom - 0.5))
    grid = grid_of(instances, mpp)
    drawn = [draw(name, annotation, grid, mpp) for annotation in (instances, outlines)]
    np.testing.assert_allclose(*drawn, rtol=0, atol=1e-5)


def test_holes_are_background_and_parts_belong_together() -> None:
    ring = shapely.Polygon(
        shapely.box(9.5, 9.5, 29.5, 29.5).exterior, [shapely.box(14.5, 14.5, 24.5, 24.5).exterior]
    )
    parts = shapely.MultiPolygon([shapely.box(39.5, 9.5, 45.5, 29.5), shapely.box(53.5, 9.5, 59.5, 29.5)])
    mask = full_mask([ring, parts], grid_over(40, 70, 0.5), 0.5)
    expected = np.zeros((40, 70))
    expected[10:30, 10:30] = 1
    expected[15:25, 15:25] = 0
    expected[10:30, 40:46] = expected[10:30, 54:60] = 1
    np.testing.assert_array_equal(mask, expected)
    # About their common centroid, x = 49.5: parts of 3 px from 44.5 and from 51.5 on.
    columns = np.flatnonzero(shrunken_mask([parts], grid_over(40, 70, 0.5), 0.5).any(axis=0))
    assert columns.tolist() == [45, 46, 47, 52, 53, 54]


@pytest.mark.parametrize("mpp", [0.1, 0.25, 0.5])
def test_central_quarter_of_the_area_is_kept(mpp: float) -> None:
    radius = 16 / mpp
    instances = one_disc(radius, (20.3 / mpp, 19.8 / mpp), int(40 / mpp))
    area_um2 = shrunken_mask(instances, grid_of(instances, mpp), mpp).sum() * 0.5**2
    assert area_um2 == pytest.approx(0.25 * np.pi * 16**2, rel=0.02)


@pytest.mark.parametrize("mpp", [0.1, 0.25, 0.5])
def test_centroid_stays_where_it_is(mpp: float) -> None:
    instances = one_disc(8.2 / mpp, (20.3 / mpp, 15.8 / mpp), int(40 / mpp))
    grid = grid_of(instances, mpp)
    found = grid.to_level0(np.argwhere(shrunken_mask(instances, grid, mpp)).mean(axis=0)) * mpp
    expected = np.argwhere(instances).mean(axis=0) * mpp
    np.testing.assert_allclose(found, expected, atol=0.1)


@pytest.mark.parametrize("place", [(0, 0), (13, 17), (29, 39)])
@pytest.mark.parametrize("mpp", [0.1, 0.25])
@pytest.mark.parametrize("kind", ["map", "outlines", "centres"])
def test_nucleus_too_small_for_the_grid_keeps_its_nearest_pixel(
    place: tuple[int, int], mpp: float, kind: str
) -> None:
    instances = np.zeros((30, 40), np.int32)
    instances[place] = 5
    y, x = place
    annotation: Annotation = {
        "map": instances,
        "outlines": [shapely.box(x - 0.5, y - 0.5, x + 0.5, y + 0.5)],
        "centres": np.array([[x, y]], np.float64),
    }[kind]
    mask = shrunken_mask(annotation, grid_of(instances, mpp), mpp, diameter_um=mpp)
    scale = 0.5 / mpp
    row, column = (
        min(int((position + 0.5) / scale), size - 1) for position, size in zip(place, mask.shape, strict=True)
    )
    assert np.argwhere(mask).tolist() == [[row, column]]


def test_nucleus_cut_by_the_border_shrinks_about_what_is_left_of_it() -> None:
    instances = one_disc(20, (0, 30), 60)
    mask = shrunken_mask(instances, grid_of(instances, 0.5), 0.5)
    inside = np.argwhere(instances == 1)
    assert mask.sum() == pytest.approx(0.25 * len(inside), rel=0.05)
    np.testing.assert_allclose(np.argwhere(mask).mean(axis=0), inside.mean(axis=0), atol=0.6)
    assert not mask[0].any()


def test_touching_nuclei_come_apart() -> None:
    instances = np.zeros((20, 40), np.int32)
    instances[2:18, 2:20] = 1
    instances[2:18, 20:38] = 2
    grid = grid_of(instances, 0.5)
    assert ndimage.label(full_mask(instances, grid, 0.5))[1] == 1
    assert ndimage.label(shrunken_mask(instances, grid, 0.5))[1] == 2


def by_every_centre(centres: np.ndarray, grid: Grid, reach: float) -> np.ndarray:
    """MICRONET's eq. 1 with alpha 3, times 5, from the distances of every pixel to every centre."""
    rows, columns = np.mgrid[: grid.height, : grid.width]
    y, x = (rows + 0.5) * grid.scale - 0.5, (columns + 0.5) * grid.scale - 0.5
    nearest = np.min([np.hypot(x - cx, y - cy) for cx, cy in [*centres, (np.inf, np.inf)]], axis=0)
    return 5 * np.where(nearest <= reach, (np.exp(3 * (1 - nearest / reach)) - 1) / (np.exp(3) - 1), 0)


@settings(deadline=None, max_examples=60)
@given(
    centres=st.integers(0, 9).flatmap(
        lambda n: arrays(np.float64, (n, 2), elements=st.floats(-20, 80, width=32))
    ),
    mpp=st.sampled_from([0.25, 0.37, 0.5, 1.1]),
)
def test_proximity_equals_brute_force_over_all_centres(centres: np.ndarray, mpp: float) -> None:
    grid = grid_over(45, 60, mpp)
    found = proximity_map(centres, grid, mpp)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_every_centre(centres, grid, 3.75 / mpp), rtol=0, atol=1e-5)


def test_proximity_worked_by_hand() -> None:
    # d = 1 um = 4 px. At a distance of 2 px 5 (e^1.5 - 1) / (e^3 - 1) = 5 * 3.481689 / 19.085537.
    near = proximity_map(np.array([[8.0, 8.0]]), grid_over(17, 17, 0.25, 0.25), 0.25, reach_um=1.0)
    assert near[8, 8] == 5
    assert near[8, 6] == near[10, 8] == pytest.approx(0.912128, rel=1e-5)
    assert near[8, 4] == near[12, 8] == near[5, 12] == near[0, 0] == 0  # at 4, 4, 5 and far


def test_peak_scales_the_map_and_decay_bends_it() -> None:
    centres, grid = np.array([[8.0, 8.0]]), grid_over(17, 17, 0.5)
    half = proximity_map(centres, grid, 0.5, reach_um=2.0, decay=1e-6, peak=1.0)
    # Without decay the map is a cone: a half at half the reach.
    assert half[8, 10] == pytest.approx(0.5, rel=1e-5)
    bent = proximity_map(centres, grid, 0.5, peak=1.0)
    np.testing.assert_allclose(5 * bent, proximity_map(centres, grid, 0.5), rtol=1e-6)


def test_proximity_of_areas_is_that_of_their_centroids() -> None:
    instances, stars = random_nuclei(seed=5), random_stars(seed=5)
    for annotation, centres in (
        (instances, instance_points(instances)),
        (stars, np.array([(star.centroid.x, star.centroid.y) for star in stars])),
    ):
        grid = grid_of(instances, 0.25)
        found, expected = (proximity_map(source, grid, 0.25) for source in (annotation, centres))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def as_stored(proximity: np.ndarray) -> np.ndarray:
    return np.rint(proximity / 5 * 255).astype(np.uint8)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), mpp=st.sampled_from([0.25, 0.5]))
def test_decoded_proximity_gives_the_centres_back(seed: int, mpp: float) -> None:
    reach = 3.75 / mpp
    centres = np.empty((0, 2))
    for candidate in np.random.default_rng(seed).uniform(0, 199, (150, 2)):
        if not len(centres) or np.hypot(*(centres - candidate).T).min() > reach:
            centres = np.vstack([centres, candidate])
    grid = grid_over(200, 200, mpp)
    values = as_stored(proximity_map(centres, grid, mpp))
    found = decode(values, Decoding("peaks", 0.35, distance_um=2.0), int(values.max()), 0.5)
    points = grid.to_level0(np.stack([found.x, found.y], axis=1))
    distance, which = KDTree(points).query(centres)
    assert sorted(which) == list(range(len(points)))
    # Half the diagonal of a model pixel, and as much as 255 steps can hide.
    assert distance.max() / grid.scale < np.sqrt(0.5) + 0.05


def draw_annotation(kind: str, mpp: float, seed: int = 11) -> Annotation:
    """Nuclei of an image of 60 x 60 px at 0.5 um per pixel, at any finer one of which 0.5 is a multiple."""
    factor = round(0.5 / mpp)
    if kind == "map":
        return np.kron(random_nuclei(seed, 60, 60), np.ones((factor, factor), np.int64))
    stars = random_stars(seed)
    if kind == "centres":
        return (np.array([(star.centroid.x, star.centroid.y) for star in stars]) + 0.5) * factor - 0.5
    return [shapely.transform(star, lambda vertices: (vertices + 0.5) * factor - 0.5) for star in stars]


@pytest.mark.parametrize("kind", ["map", "outlines", "centres"])
@pytest.mark.parametrize("name", TARGETS)
def test_resolution_of_the_annotation_does_not_matter(name: str, kind: str) -> None:
    coarse = draw(name, draw_annotation(kind, 0.5), grid_over(60, 60, 0.5), 0.5)
    for mpp, side in ((0.25, 120), (0.125, 240)):
        fine = draw(name, draw_annotation(kind, mpp), grid_over(side, side, mpp), mpp)
        np.testing.assert_allclose(fine, coarse, rtol=0, atol=1e-5)
    assert coarse.any()


@pytest.mark.parametrize("kind", ["map", "outlines", "centres"])
@pytest.mark.parametrize("name", OF_CENTRES)
def test_resolution_of_the_model_changes_no_area(name: str, kind: str) -> None:
    annotation = draw_annotation(kind, 0.125)
    areas = [
        draw(name, annotation, grid_over(240, 240, 0.125, model_mpp), 0.125).sum() * model_mpp**2
        for model_mpp in (0.125, 0.25, 0.5)
    ]
    assert areas == pytest.approx([areas[0]] * 3, rel=0.05)


@pytest.mark.parametrize("kind", ["map", "outlines", "centres"])
@pytest.mark.parametrize("name", OF_CENTRES)
def test_shift_by_whole_model_pixels_shifts_the_target(name: str, kind: str) -> None:
    annotation = draw_annotation(kind, 0.25)
    still = draw(name, annotation, grid_over(120, 120, 0.25), 0.25)
    if kind == "map":
        moved: Annotation = np.pad(annotation, ((6, 0), (10, 0)))
    elif kind == "centres":
        moved = annotation + np.array([10.0, 6.0])
    else:
        moved = [affinity.translate(outline, 10, 6) for outline in annotation]
    shifted = draw(name, moved, grid_over(126, 130, 0.25), 0.25)
    np.testing.assert_allclose(shifted[3:, 5:], still, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["map", "outlines", "centres"])
@pytest.mark.parametrize("name", TARGETS)
def test_order_of_nuclei_does_not_matter(name: str, kind: str) -> None:
    annotation, grid = draw_annotation(kind, 0.25), grid_over(120, 120, 0.25)
    turned = (annotation.max() + 1 - annotation) * (annotation > 0) if kind == "map" else annotation[::-1]
    np.testing.assert_array_equal(draw(name, turned, grid, 0.25), draw(name, annotation, grid, 0.25))


@pytest.mark.parametrize("annotation", [np.zeros((30, 40), np.int32), [], (), np.empty((0, 2))])
@pytest.mark.parametrize("name", TARGETS)
def test_image_without_nuclei_has_an_empty_target(name: str, annotation: Annotation) -> None:
    target = draw(name, annotation, grid_over(30, 40, 0.25), 0.25)
    assert target.shape[-2:] == (15, 20)
    assert target.dtype == np.float32
    assert not target.any()


def test_nuclei_beyond_the_image_leave_no_mark() -> None:
    far = np.array([[-30.0, 10.0], [10.0, 60.0], [500.0, 500.0]])
    for name in TARGETS:
        assert not draw(name, far, grid_over(30, 40, 0.25), 0.25).any(), name
        discs = [shapely.Point(point).buffer(3) for point in far]
        assert not draw(name, discs, grid_over(30, 40, 0.25), 0.25).any(), name


@pytest.mark.parametrize("model_mpp", [0.25, 0.5])
def test_real_nuclei_keep_a_quarter_of_their_area_and_none_is_lost(
    real_file: Callable[[str], Path], model_mpp: float
) -> None:
    instances = read_instances(real_file(KUMAR), "instance_png")
    grid = grid_of(instances, 0.25, model_mpp)
    mask = shrunken_mask(instances, grid, 0.25)
    area = (instances > 0).sum() / grid.scale**2
    assert mask.sum() / area == pytest.approx(0.25, abs=0.005)
    assert full_mask(instances, grid, 0.25).sum() / area == pytest.approx(1, abs=0.01)
    enlarged = np.kron(mask, np.ones((int(grid.scale), int(grid.scale)))) > 0
    assert np.unique(instances[enlarged & (instances > 0)]).tolist() == np.unique(instances)[1:].tolist()


def brute_depths(instances: np.ndarray) -> np.ndarray:
    """Of every pixel of a nucleus the distance to the nearest pixel that is not of it, else 0."""
    rows, columns = np.indices(instances.shape)
    depths = np.zeros(instances.shape)
    for row, column in np.argwhere(instances > 0):
        other = instances != instances[row, column]
        depths[row, column] = np.hypot(rows[other] - row, columns[other] - column).min()
    return depths


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_distance_of_a_map_equals_brute_force(seed: int) -> None:
    # Cut by lines, so that nuclei touch.
    instances = random_nuclei(seed, 40, 50)
    instances[:, 25:] += (instances[:, 25:] > 0) * 1000
    nucleus, distance = nucleus_distance(instances, grid_of(instances, 0.5), 0.5)
    np.testing.assert_array_equal(nucleus, instances > 0)
    depths = brute_depths(instances)
    deepest = ndimage.maximum(depths, instances, np.arange(instances.max() + 1))
    np.testing.assert_allclose(distance, depths / np.maximum(deepest[instances], 1), atol=1e-6)


@pytest.mark.parametrize("boundary_px", [1.0, 2.0, 2.5])
def test_boundary_of_a_map_equals_brute_force(boundary_px: float) -> None:
    instances = random_nuclei(4, 40, 50)
    instances[20:] += (instances[20:] > 0) * 1000
    inside, boundary, background = inside_boundary(instances, grid_of(instances, 0.5), 0.5, boundary_px)
    depths = brute_depths(instances)
    np.testing.assert_array_equal(inside, depths > boundary_px)
    np.testing.assert_array_equal(boundary, (depths > 0) & (depths <= boundary_px))
    np.testing.assert_array_equal(background, instances == 0)


def test_square_of_five_pixels() -> None:
    instances = np.zeros((7, 8), np.int32)
    instances[1:6, 1:6] = 9
    _, distance = nucleus_distance(instances, grid_of(instances, 0.5), 0.5)
    expected = [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 3, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    np.testing.assert_allclose(distance[1:6, 1:6], np.array(expected) / 3, rtol=1e-6)
    inside, boundary, _ = inside_boundary(instances, grid_of(instances, 0.5), 0.5)
    assert np.argwhere(inside).tolist() == [[3, 3]]
    assert boundary.sum() == 24


def test_image_within_a_nucleus_has_no_boundary() -> None:
    instances = np.full((6, 4), 3, np.int32)
    grid = grid_of(instances, 0.5)
    assert inside_boundary(instances, grid, 0.5)[0].all()
    assert (nucleus_distance(instances, grid, 0.5) == 1).all()


def test_overlapping_outlines_share_by_centroid() -> None:
    outlines = [shapely.box(-0.5, -0.5, 9.5, 3.5), shapely.box(5.5, -0.5, 15.5, 3.5)]
    expected = np.zeros((4, 20), int)
    expected[:, :8], expected[:, 8:16] = 1, 2  # centroids at 4.5 and 10.5; nearer to the first up to 7.5
    grid = grid_of(expected, 0.5)
    np.testing.assert_array_equal(instance_map(outlines, grid, 0.5), expected)
    np.testing.assert_array_equal(instance_map(outlines[::-1], grid, 0.5), (3 - expected) * (expected > 0))


def test_many_centres_are_shared_out_as_by_asking_every_one() -> None:
    random = np.random.default_rng(5)
    grid, radius = Grid(160, 120, 1.0, 0, 1.0), 24.0
    centres = random.random((300, 2)) * (180, 140) - 10
    centres[100:200] = np.rint(centres[100:200])  # pixels on the middle between two
    centres[::7] = centres[3]  # the last of those in one place has it
    position = grid.to_level0(np.stack(np.meshgrid(np.arange(160), np.arange(120)), axis=-1) + NUDGE)
    away = np.array([np.hypot(*np.moveaxis(position - centre, -1, 0)) for centre in centres])
    last = len(centres) - np.argmin(away[::-1], axis=0)
    found = instance_map(centres, grid, 0.25, diameter_um=2 * radius * 0.25)
    np.testing.assert_array_equal(found, np.where(away.min(axis=0) <= radius, last, 0))


@pytest.mark.parametrize("drawn", [instance_map, shrunken_mask, proximity_map])
def test_memory_does_not_grow_with_the_number_of_nuclei(drawn: Callable[..., np.ndarray]) -> None:
    grid, peaks = Grid(200, 200, 1.0, 0, 1.0), []
    for count in (1500, 6000):
        centres = np.random.default_rng(5).random((count, 2)) * 200
        tracemalloc.start()
        drawn(centres, grid, 0.2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_interpolated_classes_become_one_by_the_rules_of_nb() -> None:
    # Inside, boundary, background of a pixel each, and what becomes of it.
    rules = {
        (0.0, 0.51, 0.49): (0, 1, 0),
        (0.49, 0.51, 0.0): (0, 1, 0),
        (0.5, 0.5, 0.0): (1, 0, 0),  # a half is not above it
        (0.01, 0.3, 0.69): (1, 0, 0),  # anything of the inside
        (0.0, 0.5, 0.5): (0, 0, 1),
        (0.0, 0.0, 1.0): (0, 0, 1),
        (0.0, 0.0, 0.0): (0, 0, 1),  # beyond the image
    }
    interpolated = torch.tensor(list(rules)).T[None, :, None]
    assert as_inside_boundary(interpolated)[0, :, 0].T.tolist() == [list(rule) for rule in rules.values()]


def test_real_centres_that_stand_alone_come_back(real_file: Callable[[str], Path]) -> None:
    instances = read_instances(real_file(KUMAR), "instance_png")
    grid = grid_of(instances, 0.25)
    values = as_stored(proximity_map(instances, grid, 0.25))
    found = decode(values, Decoding("peaks", 0.35, distance_um=2.0), int(values.max()), 0.5)
    centres = instance_points(instances)
    alone = KDTree(centres).query(centres, k=2)[0][:, 1] > 3.75 / 0.25
    points = grid.to_level0(np.stack([found.x, found.y], axis=1))
    assert alone.sum() > 100
    assert KDTree(points).query(centres[alone])[0].max() / grid.scale < np.sqrt(0.5) + 0.05


def test_real_outlines_and_their_map_agree(real_file: Callable[[str], Path]) -> None:
    instances = read_instances(real_file(f"kumar30/instances/{OUTLINED}.png"), "instance_png")
    drawn = read_imagescope_outlines(real_file(f"kumar30/xml/{OUTLINED}.xml")).areas
    grid = grid_of(instances, 0.25, 0.25)
    outlines = [shapely.make_valid(area) for area in drawn]
    from_map, from_outlines = (full_mask(source, grid, 0.25) > 0 for source in (instances, outlines))
    assert (from_map & from_outlines).sum() / (from_map | from_outlines).sum() > 0.99


NO_AREA = shapely.LineString([(0, 0), (5, 5)])
CROSSED = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (np.zeros((30, 40)), "float64 of shape .30, 40.; expected an instance map"),
        (np.zeros((30, 40, 3), np.uint8), "uint8 of shape .30, 40, 3."),
        (np.zeros((30, 40), bool), "bool of shape .30, 40."),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), "centre 1 is at .nan, 1.0."),
        ([shapely.box(0, 0, 3, 3), NO_AREA], "polygon 1 is not valid or has no area"),
        ([CROSSED], "polygon 0 is not valid or has no area"),
    ],
)
@pytest.mark.parametrize("name", TARGETS)
def test_annotation_that_cannot_be_drawn_is_refused(name: str, annotation: Annotation, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(name, annotation, grid_over(30, 40, 0.25), 0.25)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shrunken_mask", {"mpp": 0.0}),
        ("shrunken_mask", {"share": 0.0}),
        ("shrunken_mask", {"share": 1.5}),
        ("full_mask", {"diameter_um": -1.0}),
        ("proximity_map", {"mpp": np.nan}),
        ("proximity_map", {"reach_um": 0.0}),
        ("proximity_map", {"decay": 0.0}),
        ("proximity_map", {"peak": np.inf}),
        ("nucleus_distance", {"diameter_um": 0.0}),
        ("inside_boundary", {"boundary_px": 0.0}),
        ("classes_contour", {"boundary_px": -1.0}),
        ("classes_contour", {"sigma_um": 0.0}),
        ("classes_contour", {"w0": -1.0}),
        ("classes_contour", {"reach_um": 1.0}),
    ],
)
def test_argument_out_of_range_is_refused(name: str, arguments: dict[str, float]) -> None:
    ((argument, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{argument} is {value}; expected"):
        TARGETS[name].draw(np.array([[3.0, 4.0]]), grid_over(30, 40, 0.25), **{"mpp": 0.25, **arguments})
