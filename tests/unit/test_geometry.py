"""Where crops come from: laws of the map, and that image, mask and points stay together."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from karyon.training.augmentation import Augmentation
from karyon.training.geometry import CONTROLS, Geometry, cut_crops, draw_geometry

STILL = Augmentation(scale=(1.0, 1.0), elastic_px=0.0)
IDENTITY = ((1.0, 0.0), (0.0, 1.0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def place(side: int, centre: tuple[float, float], linear: tuple[tuple[float, float], ...]) -> Geometry:
    """One crop without a bend."""
    return Geometry(
        side=side,
        centre=torch.tensor([centre], dtype=torch.float64),
        linear=torch.tensor([linear], dtype=torch.float64),
        controls=torch.zeros(1, 2, CONTROLS, CONTROLS, dtype=torch.float64),
    )


def own_map(height: int, width: int) -> torch.Tensor:
    """An image that is its own map: channel 0 is x, channel 1 is y."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).float()


def noise(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(channels, height, width, generator=seeded(0)) + 0.1


def steps(sources: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far neighbours to the right and below lie apart in the image, ``(n, 2, side - 1, side - 1)``."""
    corner = sources[..., :-1, :-1]
    return sources[..., :-1, 1:] - corner, sources[..., 1:, :-1] - corner


def test_a_crop_of_the_whole_image_without_change_is_the_image() -> None:
    image = noise(3, 31, 31)
    crop = cut_crops([[image]], place(31, (15.0, 15.0), IDENTITY))[0]
    torch.testing.assert_close(crop[0], image, rtol=0, atol=2e-5)


def test_a_crop_inside_is_a_slice() -> None:
    image = noise(2, 60, 50)
    crop = cut_crops([[image]], place(8, (20.5, 33.5), IDENTITY))[0]
    torch.testing.assert_close(crop[0], image[:, 30:38, 17:25], rtol=0, atol=2e-5)


@pytest.mark.parametrize("side", [9, 10])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_quarter_turns_and_flips_are_exact(side: int, turns: int, mirrored: bool) -> None:
    image = noise(2, side, side)
    mask = (image[:1] > 0.6).float()
    # torch.rot90 turns anticlockwise as seen, from x towards -y: the crop's x axis then runs down the image.
    linear = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns) @ np.diag([-1 if mirrored else 1, 1])
    middle = (side - 1) / 2
    geometry = place(side, (middle, middle), tuple(map(tuple, linear.astype(float).tolist())))
    crop, target = cut_crops([[image, mask]], geometry)

    def expected(layer: torch.Tensor) -> torch.Tensor:
        turned = torch.rot90(layer, turns, dims=(-2, -1))
        return turned.flip(-1) if mirrored else turned

    torch.testing.assert_close(crop[0], expected(image), rtol=0, atol=2e-5)
    assert torch.equal((target[0] > 0.5).float(), expected(mask))


def test_sources_follow_their_formula() -> None:
    geometry = draw_geometry([(80, 70), (60, 90)], 24, Augmentation(elastic_px=0.0), seeded(3))
    sources = geometry.sources()
    for k, row, column in [(0, 0, 0), (0, 5, 17), (1, 23, 2)]:
        offset = torch.tensor([column - 11.5, row - 11.5], dtype=torch.float64)
        expected = geometry.centre[k] + geometry.linear[k] @ offset
        torch.testing.assert_close(sources[k, :, row, column], expected)


@given(seed=st.integers(0, 2**32), scale=st.floats(0.3, 3.0))
@settings(max_examples=25, deadline=None)
def test_without_a_bend_a_crop_is_a_turn_or_a_reflection_at_its_size(seed: int, scale: float) -> None:
    amounts = Augmentation(scale=(scale, scale), elastic_px=0.0)
    geometry = draw_geometry([(50, 40)] * 3, 12, amounts, seeded(seed))
    across, down = steps(geometry.sources())
    for step in (across, down):
        torch.testing.assert_close(step.norm(dim=1) * scale, torch.ones_like(step[:, 0]))
    dot = (across * down).sum(dim=1) * scale**2
    torch.testing.assert_close(dot, torch.zeros_like(dot), rtol=0, atol=1e-9)
    torch.testing.assert_close(geometry.size, torch.full((3,), scale, dtype=torch.float64))


def test_places_angles_sizes_and_reflections_cover_their_range() -> None:
    amounts = Augmentation(scale=(0.5, 2.0), elastic_px=0.0)
    geometry = draw_geometry([(100, 300)] * 2000, 4, amounts, seeded(1))
    size = geometry.size.numpy()
    assert 0.5 <= size.min() < 0.51
    assert 1.98 < size.max() <= 2.0
    assert np.median(size) == pytest.approx(1.0, abs=0.06)  # log-uniform
    assert (np.linalg.det(geometry.linear.numpy()) < 0).mean() == pytest.approx(0.5, abs=0.05)
    angle = np.arctan2(*geometry.linear[:, :, 1].numpy().T)
    counts, _ = np.histogram(angle, bins=8, range=(-math.pi, math.pi))
    assert counts.min() > 190
    x, y = geometry.centre.numpy().T
    assert (x.min(), y.min()) == (pytest.approx(0, abs=1), pytest.approx(0, abs=1))
    assert (x.max(), y.max()) == (pytest.approx(299, abs=1), pytest.approx(99, abs=1))


def test_the_bend_moves_pixels_by_its_standard_deviation() -> None:
    generators = seeded(2), seeded(2)
    bent, still = (
        draw_geometry([(400, 400)] * 800, 16, replace(STILL, elastic_px=amount), generator).sources()
        for amount, generator in zip((3.0, 0.0), generators, strict=True)
    )
    # The crop's corners are control points.
    assert float((bent - still)[:, :, ::15, ::15].std()) == pytest.approx(3.0, rel=0.03)
    assert float((bent - still).mean()) == pytest.approx(0.0, abs=0.1)


@given(
    seed=st.integers(0, 2**32),
    scale=st.floats(0.3, 2.0),
    elastic=st.floats(0, 4),
    side=st.integers(24, 70),
)
@settings(max_examples=40, deadline=None)
def test_points_map_back_to_the_pixels_they_came_from(
    seed: int, scale: float, elastic: float, side: int
) -> None:
    # Beyond a slope of about 1 a bend folds, and has no inverse: its steepest is kept well below that, where
    # the steps of the inversion suffice.
    bend = min(elastic, 0.08 * side / (CONTROLS - 1) / scale)
    amounts = Augmentation(scale=(scale, scale), elastic_px=bend)
    geometry = draw_geometry([(90, 120)], side, amounts, seeded(seed))
    pixels = np.random.default_rng(seed).integers(0, side, (20, 2))
    points = geometry.sources()[0][:, pixels[:, 1], pixels[:, 0]].T.numpy()
    np.testing.assert_allclose(geometry.to_crop(0, points), pixels, atol=0.02)


@pytest.mark.parametrize("seed", range(12))
def test_a_blob_lands_where_its_point_lands_in_image_and_mask(seed: int) -> None:
    height, width, spacing = 312, 364, 26
    y, x = np.mgrid[:height, :width]
    points = np.array(
        [(a, b) for a in range(13, width - 12, spacing) for b in range(13, height - 12, spacing)], float
    )
    image = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 18) for a, b in points)
    layer = torch.from_numpy(image.astype(np.float32))[None]
    mask = (layer > 0.5).float()
    geometry = draw_geometry([(height, width)], 192, Augmentation(elastic_px=2.0), seeded(seed))
    crop, target = (part[0, 0].numpy() for part in cut_crops([[layer, mask]], geometry))
    mapped = geometry.to_crop(0, points)
    inside = mapped[((mapped > 12) & (mapped < 179)).all(axis=1)]
    assert len(inside) > 3
    for binary, weight in ((crop > 0.3, crop), (target > 0.5, target > 0.5)):
        labels, count = ndimage.label(binary)
        found = np.array(ndimage.center_of_mass(weight, labels, range(1, count + 1)))[:, ::-1]
        distance = np.linalg.norm(inside[:, None] - found[None], axis=-1).min(axis=1)
        assert distance.max() < 0.5


@pytest.mark.parametrize("seed", range(6))
def test_mask_and_image_stay_together(seed: int) -> None:
    mask = (torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(2).random((90, 70)), 3)) > 0.5)[
        None
    ]
    layer = mask.float()
    geometry = draw_geometry([(90, 70)] * 2, 48, Augmentation(elastic_px=3.0), seeded(seed))
    crops, targets = cut_crops([[layer.repeat(2, 1, 1), layer]] * 2, geometry)
    assert crops.shape == (2, 2, 48, 48)
    assert targets.shape == (2, 1, 48, 48)
    assert torch.equal(crops, targets.expand_as(crops))


@pytest.mark.parametrize("scale", [0.25, 0.6, 1.0, 1.5])
def test_outside_of_the_image_is_glass_and_inside_is_not(scale: float) -> None:
    height, width = 40, 30
    amounts = Augmentation(scale=(scale, scale), elastic_px=1.0)
    geometry = draw_geometry([(height, width)] * 4, 96, amounts, seeded(1))
    crop = cut_crops([[torch.ones(1, height, width)]] * 4, geometry)[0][:, 0]
    x, y = geometry.sources().unbind(1)
    # Bilinear interpolation reaches one pixel far, and the last block of an average beyond the image.
    reach = 1.5 * max(round(1 / scale), 1)
    outside = (x < -reach) | (x > width - 1 + reach) | (y < -reach) | (y > height - 1 + reach)
    inside = (x > reach) & (x < width - 1 - reach) & (y > reach) & (y < height - 1 - reach)
    assert bool(outside.any())
    assert bool(inside.any())
    assert float(crop[outside].abs().max()) == 0.0
    torch.testing.assert_close(crop[inside], torch.ones_like(crop[inside]), rtol=0, atol=1e-5)


def test_crops_of_images_of_different_sizes_are_each_cut_from_their_own() -> None:
    images = [own_map(70, 120), own_map(200, 90) + 1000]
    geometry = draw_geometry([(70, 120), (200, 90)], 16, STILL, seeded(5))
    geometry = replace(geometry, centre=torch.tensor([[60.2, 35.1], [44.7, 120.3]], dtype=torch.float64))
    crops = cut_crops([[image] for image in images], geometry)[0]
    expected = geometry.sources() + torch.tensor([0, 1000])[:, None, None, None]
    torch.testing.assert_close(crops.double(), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_strong_bends_reach_no_further_than_what_is_cut(seed: int) -> None:
    geometry = draw_geometry([(400, 400)], 24, Augmentation(scale=(0.7, 2.0), elastic_px=15.0), seeded(seed))
    geometry = replace(geometry, centre=torch.tensor([[200.3, 199.8]], dtype=torch.float64))
    crop = cut_crops([[own_map(400, 400)]], geometry)[0]
    torch.testing.assert_close(crop.double(), geometry.sources(), rtol=0, atol=1e-3)


def test_shrinking_averages_as_a_coarser_scan_does() -> None:
    image = noise(1, 64, 64)
    crop = cut_crops([[image]], place(16, (31.5, 31.5), ((4.0, 0.0), (0.0, 4.0))))[0]
    expected = image.reshape(1, 16, 4, 16, 4).mean(dim=(2, 4))
    torch.testing.assert_close(crop[0], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("scale", [0.25, 0.35, 0.5, 0.7])
def test_shrinking_does_not_shift(scale: float) -> None:
    # An average over a symmetric window of a plane is the plane.
    geometry = draw_geometry([(301, 283)], 24, Augmentation(scale=(scale, scale), elastic_px=0.0), seeded(4))
    geometry = replace(geometry, centre=torch.tensor([[141.3, 150.6]], dtype=torch.float64))
    crop = cut_crops([[own_map(301, 283)]], geometry)[0]
    torch.testing.assert_close(crop.double(), geometry.sources(), rtol=0, atol=1e-3)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_continuous_values_stay_between_those_of_their_neighbours(seed: int) -> None:
    target = torch.rand(1, 50, 60, generator=seeded(seed)) * 5
    geometry = draw_geometry([(50, 60)], 20, replace(STILL, elastic_px=1.0), seeded(seed))
    crop = cut_crops([[target]], geometry)[0][0, 0]
    padded = torch.nn.functional.pad(target[0], (2, 2, 2, 2)).numpy()  # glass
    x, y = (
        np.clip(axis.floor().long().numpy(), -2, end)
        for axis, end in zip(geometry.sources()[0], (60, 50), strict=True)
    )
    corners = np.stack([padded[y + 2 + dy, x + 2 + dx] for dy in (0, 1) for dx in (0, 1)])
    values = crop.numpy()
    assert (values >= corners.min(axis=0) - 1e-3).all()
    assert (values <= corners.max(axis=0) + 1e-3).all()
    assert len(np.unique(values)) > 50
