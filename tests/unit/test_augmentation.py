"""Crops: image and mask move together, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from karyon.training.augmentation import Augmentation, draw_crop, vary_stain

STILL = Augmentation(scale=(1.0, 1.0), elastic_px=0.0, gain=1.0, leak=0.0, blur_px=0.0, noise=0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(height: int = 90, width: int = 70) -> torch.Tensor:
    noise = ndimage.gaussian_filter(np.random.default_rng(2).random((height, width)), 3)
    return torch.from_numpy(noise > np.quantile(noise, 0.6)).float()


def source_coordinates(settings: Augmentation, seed: int, side: int = 16) -> torch.Tensor:
    """Where on the image each pixel of a crop comes from, ``(2, side, side)``: y and x.

    The image is its own map: channel 0 is y, channel 1 is x.
    """
    size = 800
    axis = torch.arange(size, dtype=torch.float32)
    image = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
    crop, _ = draw_crop(image, torch.zeros(size, size), side, settings, seeded(seed))
    return crop


def inner_coordinates(settings: Augmentation, count: int) -> list[torch.Tensor]:
    """Crops that do not touch the border."""
    crops = (source_coordinates(settings, seed) for seed in range(4 * count))
    return [crop for crop in crops if crop.min() > 40 and crop.max() < 759][:count]


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_stay_together(seed: int) -> None:
    mask = blobs()
    crop, target = draw_crop(torch.stack([mask, mask]), mask, 48, Augmentation(elastic_px=3.0), seeded(seed))
    assert crop.shape == (2, 48, 48)
    assert target.shape == (1, 48, 48)
    for channel in crop:
        assert torch.equal((channel > 0.5).float(), target[0])
    assert 0 < float(target.mean()) < 1


def test_same_seed_gives_the_same_crop_and_another_seed_another() -> None:
    mask = blobs()
    one, again, other = (
        draw_crop(mask[None], mask, 32, Augmentation(), seeded(seed))[0] for seed in (4, 4, 5)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_crop_is_a_rotation_at_the_drawn_scale(scale: float) -> None:
    settings = Augmentation(scale=(scale, scale), elastic_px=0.0)
    determinants = []
    for crop in inner_coordinates(settings, 12):
        down, across = crop[:, 1:, :-1] - crop[:, :-1, :-1], crop[:, :-1, 1:] - crop[:, :-1, :-1]
        for step in (down, across):
            np.testing.assert_allclose(step.norm(dim=0), 1 / scale, atol=2e-3)
        np.testing.assert_allclose((down * across).sum(dim=0), 0, atol=4e-3)
        determinants.append(float((down[0] * across[1] - down[1] * across[0]).mean()) * scale**2)
    # Reflected and not, each of area 1.
    assert {round(value, 1) for value in determinants} == {-1.0, 1.0}


def test_scales_and_angles_cover_their_range() -> None:
    settings = Augmentation(scale=(0.5, 2.0), elastic_px=0.0)
    steps = [crop[:, 0, 1] - crop[:, 0, 0] for crop in inner_coordinates(settings, 60)]
    sizes = [1 / float(step.norm()) for step in steps]
    assert min(sizes) == pytest.approx(0.5, abs=0.1)
    assert max(sizes) == pytest.approx(2.0, abs=0.2)
    assert np.median(sizes) == pytest.approx(1.0, abs=0.25)
    quadrants = {(bool(step[0] > 0), bool(step[1] > 0)) for step in steps}
    assert len(quadrants) == 4


def test_elastic_bend_moves_pixels_by_its_standard_deviation() -> None:
    # Of two crops with one seed the bend is the only difference.
    bends = [
        source_coordinates(Augmentation(scale=(1.0, 1.0), elastic_px=3.0), seed)
        - source_coordinates(STILL, seed)
        for seed in range(80)
    ]
    inner = [bend for bend in bends if bend.abs().max() < 30]
    corners = torch.stack([bend[:, 0, 0] for bend in inner])
    assert float(corners.std()) == pytest.approx(3.0, rel=0.2)


def test_outside_of_the_image_is_glass() -> None:
    image = torch.ones(1, 40, 30)
    crop, target = draw_crop(image, image[0], 160, STILL, seeded(1))
    assert set(crop.unique().tolist()) >= {0.0, 1.0}
    # Turned and shifted, all of the image or, where it reaches over the crop, less.
    assert 0 < float(crop.sum()) <= 40 * 30 * 1.05
    assert torch.equal(target, (crop > 0.5).float())


def test_settings_of_nothing_leave_the_stain_as_it_is() -> None:
    stains = torch.rand(3, 2, 20, 20, generator=seeded(0))
    for column in (0, 1):
        varied = vary_stain(stains, column, STILL, seeded(1))
        torch.testing.assert_close(varied, stains[:, column : column + 1], rtol=0, atol=1e-6)


def test_gain_stays_within_its_factor_and_differs_between_crops() -> None:
    settings = Augmentation(gain=1.5, leak=0.0, blur_px=0.0, noise=0.0)
    varied = vary_stain(torch.ones(200, 2, 6, 6), 0, settings, seeded(2))
    strengths = varied[:, 0, 3, 3]
    assert 1 / 1.5 <= float(strengths.min()) < 0.75
    assert 1.35 < float(strengths.max()) <= 1.5 + 1e-6
    assert float(strengths.log().mean()) == pytest.approx(0, abs=0.08)


def test_leak_adds_a_share_of_the_other_stain_and_never_goes_below_zero() -> None:
    stains = torch.zeros(200, 2, 6, 6)
    stains[:, 1] = 1.0
    settings = Augmentation(gain=1.0, leak=0.2, blur_px=0.0, noise=0.0)
    varied = vary_stain(stains, 0, settings, seeded(3))[:, 0, 3, 3]
    assert float(varied.min()) == 0.0
    assert 0.18 < float(varied.max()) <= 0.2
    on_top = vary_stain(stains + 1, 0, settings, seeded(3))[:, 0, 3, 3]
    assert float(on_top.min()) == pytest.approx(1 - 0.2 * 2, abs=0.03)


def test_blur_is_gaussian() -> None:
    image = np.random.default_rng(0).random((24, 24)).astype(np.float32)
    stains = torch.from_numpy(np.stack([image, image]))[None].repeat(6, 1, 1, 1)
    settings = Augmentation(gain=1.0, leak=0.0, blur_px=0.8, noise=0.0)
    uniform = torch.rand(4, 6, 1, 1, 1, generator=seeded(4))
    for crop, share in zip(vary_stain(stains, 0, settings, seeded(4)), uniform[2].flatten(), strict=True):
        sigma = max(0.8 * float(share), 0.05)
        expected = ndimage.gaussian_filter(image, sigma, radius=2, mode="mirror")
        np.testing.assert_allclose(crop[0], expected, atol=1e-5)


def test_noise_is_at_most_of_its_standard_deviation() -> None:
    settings = Augmentation(gain=1.0, leak=0.0, blur_px=0.0, noise=0.1)
    varied = vary_stain(torch.ones(100, 2, 32, 32), 0, settings, seeded(5))
    deviations = varied.std(dim=(1, 2, 3))
    assert 0.09 < float(deviations.max()) < 0.106
    assert float(deviations.min()) < 0.01
