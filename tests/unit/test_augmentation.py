"""Stain of crops: each amount bounds what it says, and nothing else changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from karyon.stain.inputs import MEDIAN_STAIN
from karyon.training.augmentation import Augmentation, vary_colour, vary_stain

NOTHING = {"scale": (1.0, 1.0), "elastic_px": 0.0, "gain": 1.0, "leak": 0.0, "blur_px": 0.0, "noise": 0.0}


def only(**amounts: float) -> Augmentation:
    return Augmentation(**{**NOTHING, **amounts})


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(first: float, second: float, count: int = 300) -> torch.Tensor:
    """Crops of two even stains, ``(count, 2, 6, 6)``."""
    return torch.tensor([first, second])[:, None, None].expand(count, 2, 6, 6).clone()


@pytest.mark.parametrize("channels", [1, 2])
def test_amounts_of_nothing_leave_the_stains_as_they_are(channels: int) -> None:
    stains = torch.rand(3, 2, 20, 20, generator=seeded(0))
    varied = vary_stain(stains, channels, only(), seeded(1))
    torch.testing.assert_close(varied, stains[:, :channels], rtol=0, atol=1e-6)


def test_the_first_stain_varies_alike_alone_and_beside_the_other() -> None:
    stains = torch.rand(4, 2, 20, 20, generator=seeded(0))
    amounts = only(gain=1.5, leak=0.2, blur_px=0.8)
    alone, both = (vary_stain(stains, channels, amounts, seeded(1)) for channels in (1, 2))
    torch.testing.assert_close(alone[:, 0], both[:, 0])


def test_gain_stays_within_its_factor_and_is_drawn_for_each_crop_and_stain() -> None:
    strengths = vary_stain(flat(1.0, 2.0), 2, only(gain=1.5), seeded(2))[:, :, 3, 3].numpy() / [1.0, 2.0]
    assert 1 / 1.5 - 1e-6 <= strengths.min() < 0.69
    assert 1.45 < strengths.max() <= 1.5 + 1e-6
    assert np.log(strengths).mean() == pytest.approx(0, abs=0.03)
    # The logarithm is uniform: its standard deviation is log(1.5) / sqrt(3).
    assert np.log(strengths).std() == pytest.approx(math.log(1.5) / math.sqrt(3), rel=0.05)
    assert abs(np.corrcoef(strengths.T)[0, 1]) < 0.2


def test_leak_adds_a_share_of_the_other_stain_and_never_goes_below_zero() -> None:
    amounts = only(leak=0.2)
    nothing_of_its_own = vary_stain(flat(0.0, 3.0), 1, amounts, seeded(3))[:, 0, 3, 3]
    assert float(nothing_of_its_own.min()) == 0.0
    assert 0.57 < float(nothing_of_its_own.max()) <= 0.6 + 1e-6
    first, second = vary_stain(flat(1.0, 3.0), 2, amounts, seeded(3))[:, :, 3, 3].T
    assert (float(first.min()), float(first.max())) == (
        pytest.approx(0.4, abs=0.03),
        pytest.approx(1.6, abs=0.03),
    )
    assert (float(second.min()), float(second.max())) == (
        pytest.approx(2.8, abs=0.01),
        pytest.approx(3.2, abs=0.01),
    )


@pytest.mark.parametrize("blur_px", [0.5, 0.8, 1.7])
def test_blur_is_gaussian_and_at_most_as_wide_as_said(blur_px: float) -> None:
    image = np.random.default_rng(0).random((24, 24)).astype(np.float32)
    stains = torch.from_numpy(image).expand(40, 2, 24, 24)
    radius = math.ceil(2.5 * blur_px)
    widest = ndimage.gaussian_filter(image, blur_px, radius=radius, mode="mirror")
    varied = vary_stain(stains, 1, only(blur_px=blur_px), seeded(4))[:, 0].numpy()
    deviations = varied.std(axis=(1, 2))
    assert deviations.min() >= widest.std() - 1e-4
    assert deviations.max() <= image.std() + 1e-4
    # Which width each crop was given is found by trial; every crop is the Gaussian of some width.
    widths = np.linspace(0.02, blur_px, 400)
    trials = np.stack(
        [ndimage.gaussian_filter(image, width, radius=radius, mode="mirror") for width in widths]
    )
    differences = np.abs(trials[None] - varied[:, None]).max(axis=(2, 3))
    assert differences.min(axis=1).max() < 5e-3
    assert np.ptp(widths[differences.argmin(axis=1)]) > 0.5 * blur_px


def test_noise_is_at_most_of_its_standard_deviation_and_differs_between_stains() -> None:
    varied = vary_stain(torch.ones(100, 2, 32, 32), 2, only(noise=0.1), seeded(5)) - 1
    deviations = varied.std(dim=(2, 3)).numpy()
    assert 0.09 < deviations.max() < 0.106
    assert deviations.min() < 0.01
    # One level for a crop, with grains of their own.
    np.testing.assert_allclose(deviations[:, 0], deviations[:, 1], rtol=0.12)
    assert abs(np.corrcoef(varied[:, 0].flatten(), varied[:, 1].flatten())[0, 1]) < 0.02


def test_the_same_generator_gives_the_same_stain_and_another_seed_another() -> None:
    stains = torch.rand(2, 2, 16, 16, generator=seeded(0))
    one, again, other = (vary_stain(stains, 2, Augmentation(), seeded(seed)) for seed in (4, 4, 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def light_missing(first: float, second: float) -> torch.Tensor:
    """Colour of two concentrations in units of the median's percentiles, ``(3,)``."""
    strengths = np.array([first, second]) * MEDIAN_STAIN.p99
    return torch.from_numpy(1 - np.exp(-np.array(MEDIAN_STAIN.stain_matrix) @ strengths)).float()


def test_amounts_of_nothing_leave_colours_as_they_are() -> None:
    missing = torch.randint(0, 255, (4, 3, 20, 20), generator=seeded(0)) / 255
    torch.testing.assert_close(vary_colour(missing, only(), seeded(1)), missing, rtol=0, atol=2e-6)


def test_glass_stays_glass() -> None:
    varied = vary_colour(torch.zeros(20, 3, 8, 8), only(gain=1.5, leak=0.3, blur_px=0.8), seeded(1))
    torch.testing.assert_close(varied, torch.zeros_like(varied), rtol=0, atol=1e-6)


def test_colours_of_the_median_stains_vary_as_its_concentrations_do() -> None:
    missing = light_missing(0.8, 0.5)[:, None, None].expand(50, 3, 6, 6)
    amounts = only(gain=1.5, leak=0.2)
    stains = vary_stain(flat(0.8, 0.5, 50), 2, amounts, seeded(6))[:, :, 0, 0]
    expected = torch.stack([light_missing(*pair) for pair in stains.tolist()])
    torch.testing.assert_close(
        vary_colour(missing, amounts, seeded(6))[:, :, 3, 3], expected, rtol=0, atol=1e-5
    )


def test_colours_stay_in_their_range_even_where_all_light_is_missing() -> None:
    missing = torch.rand(30, 3, 8, 8, generator=seeded(0)).round()
    varied = vary_colour(missing, Augmentation(gain=2.0, leak=0.5, noise=0.5), seeded(7))
    assert bool(torch.isfinite(varied).all())
    assert float(varied.min()) >= 0
    assert float(varied.max()) <= 1
