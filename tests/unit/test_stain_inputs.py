"""What feeds a network, against the formulas in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from karyon.stain.concentrations import PENALTY, concentrations
from karyon.stain.fit import StainFit, fit_stains
from karyon.stain.inputs import NormalisedColour, StainChannel

TARGET = np.array([[0.55, 0.77, 0.32], [0.09, 0.95, 0.30]]).T / np.linalg.norm(
    [[0.55, 0.77, 0.32], [0.09, 0.95, 0.30]], axis=1
)
TARGET_P99 = np.array([1.9, 1.1])


@pytest.fixture
def image(
    stain_image: Callable[[np.ndarray, np.ndarray], np.ndarray], known_stains: np.ndarray, glass: np.ndarray
) -> np.ndarray:
    """A batch of one."""
    return stain_image(known_stains, glass)[None]


@pytest.fixture
def fit(image: np.ndarray, known_stains: np.ndarray, glass: np.ndarray) -> StainFit:
    """The slide's fit, but with the very stains that painted it."""
    found = fit_stains(image.reshape(-1, 3), glass, "HE")
    return StainFit(**{**vars(found), "stain_matrix": known_stains})


@pytest.mark.parametrize(("channel", "column"), [("hematoxylin", 0), ("eosin", 1)])
def test_stain_channel_is_the_concentration_over_its_percentile(
    image: np.ndarray, fit: StainFit, channel: str, column: int
) -> None:
    found = StainChannel(fit, channel)(torch.from_numpy(image))
    expected = concentrations(image, fit.stain_matrix, fit.i0)[..., column] / fit.p99[column]
    assert (found.shape, found.dtype) == ((1, 1, 96, 128), torch.float32)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=1e-5)


def test_channel_that_the_slide_does_not_carry_is_refused(fit: StainFit) -> None:
    with pytest.raises(ValueError, match="stained with hematoxylin and eosin, not dab"):
        StainChannel(fit, "dab")


def test_normalising_to_the_slides_own_stains_gives_the_image_back(image: np.ndarray, fit: StainFit) -> None:
    found = (
        NormalisedColour(fit, fit.stain_matrix, fit.p99)(torch.from_numpy(image)).permute(0, 2, 3, 1).numpy()
    )
    # Where both stains are present the penalty takes W (1, 1)' penalty / (1 + g) from the density: the image
    # comes back paler by that. Its 8 bits round off half a level of what the stains painted.
    gram = fit.stain_matrix[:, 0] @ fit.stain_matrix[:, 1]
    paler = np.exp(fit.stain_matrix.sum(axis=1) * PENALTY / (1 + gram))
    share = image / fit.i0
    interior = (concentrations(image, fit.stain_matrix, fit.i0) > 0).all(axis=-1)
    np.testing.assert_allclose(found[interior], (share * paler)[interior], atol=1.5 / 255)
    np.testing.assert_allclose(found, share, atol=0.02)


def test_normalising_to_another_target_equals_the_formula(image: np.ndarray, fit: StainFit) -> None:
    found = NormalisedColour(fit, TARGET, TARGET_P99)(torch.from_numpy(image))
    amounts = concentrations(image, fit.stain_matrix, fit.i0).astype(np.float64)
    expected = np.exp(-(amounts * TARGET_P99 / fit.p99) @ TARGET.T)
    assert (found.shape, found.dtype) == ((1, 3, 96, 128), torch.float32)
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_normalised_glass_is_white(fit: StainFit) -> None:
    glass = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    np.testing.assert_array_equal(NormalisedColour(fit, TARGET, TARGET_P99)(glass).numpy(), 1.0)
