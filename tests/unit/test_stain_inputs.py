"""What feeds a network, against the formulas in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from karyon.stain.channels import INPUT_CHANNELS
from karyon.stain.concentrations import PENALTY, check_stain_matrix, concentrations
from karyon.stain.fit import StainFit, fit_stains
from karyon.stain.inputs import MEDIAN_STAIN, Measured, SlideInput, TargetStain, network_input

COLOURS = np.array([[0.55, 0.77, 0.32], [0.09, 0.95, 0.30]]).T
TARGET = TargetStain((COLOURS / np.linalg.norm(COLOURS, axis=0)).tolist(), [1.9, 1.1])


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


def relative(image: np.ndarray, fit: StainFit) -> np.ndarray:
    """Concentrations in units of their percentiles, ``(n, h, w, 2)``, in numpy."""
    return concentrations(image, fit.stain_matrix, fit.i0) / fit.p99


@pytest.mark.parametrize(("channel", "column"), [("hematoxylin", 0), ("eosin", 1)])
def test_stain_channel_is_the_concentration_over_its_percentile(
    image: np.ndarray, fit: StainFit, channel: str, column: int
) -> None:
    found = SlideInput("H-C", fit, channel)(torch.from_numpy(image))
    assert (found.shape, found.dtype) == ((1, 1, 96, 128), torch.float32)
    np.testing.assert_allclose(found[:, 0].numpy(), relative(image, fit)[..., column], atol=1e-5)


@pytest.mark.parametrize(("channel", "order"), [("hematoxylin", [0, 1]), ("eosin", [1, 0])])
def test_both_stains_come_with_the_one_that_marks_nuclei_first(
    image: np.ndarray, fit: StainFit, channel: str, order: list[int]
) -> None:
    found = SlideInput("HE-C", fit, channel)(torch.from_numpy(image))
    assert (found.shape, found.dtype) == ((1, 2, 96, 128), torch.float32)
    expected = relative(image, fit)[..., order]
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_rgb_is_the_light_that_is_missing(image: np.ndarray, fit: StainFit) -> None:
    found = SlideInput("RGB", fit, "hematoxylin")(torch.from_numpy(image))
    assert (found.shape, found.dtype) == ((1, 3, 96, 128), torch.float32)
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), (255.0 - image) / 255, atol=1e-6)


@pytest.mark.parametrize("name", ["H-C", "HE-C"])
def test_channel_that_the_slide_does_not_carry_is_refused(fit: StainFit, name: str) -> None:
    with pytest.raises(ValueError, match="stained with hematoxylin and eosin, not dab"):
        SlideInput(name, fit, "dab")


@pytest.mark.parametrize("name", ["CN-H&E", "RGB"])
def test_colour_needs_no_channel(image: np.ndarray, fit: StainFit, name: str) -> None:
    batch = torch.from_numpy(image)
    assert torch.equal(SlideInput(name, fit, "dab")(batch), SlideInput(name, fit, "eosin")(batch))


def test_unknown_input_and_missing_stains_are_named(fit: StainFit) -> None:
    with pytest.raises(ValueError, match="unknown input 'H'; expected one of H-C, HE-C, CN-H&E, RGB"):
        Measured("H", fit)
    with pytest.raises(ValueError, match="the input HE-C needs the slide's stains"):
        Measured("HE-C", None)


@pytest.mark.parametrize("name", INPUT_CHANNELS)
def test_measured_then_prepared_is_the_slides_input_to_the_last_bit(
    image: np.ndarray, fit: StainFit, name: str
) -> None:
    batch = torch.from_numpy(image)
    measured = Measured(name, None if name == "RGB" else fit)(batch)
    expected = SlideInput(name, fit, "hematoxylin")(batch)
    assert torch.equal(network_input(measured, name), expected)
    assert expected.shape[1] == INPUT_CHANNELS[name]


def test_normalising_to_the_slides_own_stains_gives_the_image_back(image: np.ndarray, fit: StainFit) -> None:
    own = TargetStain(fit.stain_matrix.tolist(), fit.p99.tolist())
    found = SlideInput("CN-H&E", fit, "eosin", own)(torch.from_numpy(image)).permute(0, 2, 3, 1).numpy()
    # Where both stains are present the penalty takes W (1, 1)' penalty / (1 + g) from the density: the image
    # comes back paler by that. Its 8 bits round off half a level of what the stains painted.
    gram = fit.stain_matrix[:, 0] @ fit.stain_matrix[:, 1]
    paler = np.exp(fit.stain_matrix.sum(axis=1) * PENALTY / (1 + gram))
    share = image / fit.i0
    interior = (concentrations(image, fit.stain_matrix, fit.i0) > 0).all(axis=-1)
    np.testing.assert_allclose(found[interior], (share * paler)[interior], atol=1.5 / 255)
    np.testing.assert_allclose(found, share, atol=0.02)


def test_normalising_to_another_target_equals_the_formula(image: np.ndarray, fit: StainFit) -> None:
    found = SlideInput("CN-H&E", fit, "hematoxylin", TARGET)(torch.from_numpy(image))
    expected = np.exp(-(relative(image, fit) * TARGET.p99) @ np.array(TARGET.stain_matrix).T)
    assert (found.shape, found.dtype) == ((1, 3, 96, 128), torch.float32)
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_glass_is_white_after_normalisation_and_zero_in_all_other_inputs(fit: StainFit) -> None:
    glass = torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    for name in INPUT_CHANNELS:
        found = SlideInput(name, fit, "hematoxylin")(glass).numpy()
        np.testing.assert_array_equal(found, 1.0 if name == "CN-H&E" else 0.0)


def test_the_default_target_is_a_stain_matrix() -> None:
    np.testing.assert_allclose(np.linalg.norm(MEDIAN_STAIN.stain_matrix, axis=0), 1, atol=1e-4)
    check_stain_matrix(
        np.array(MEDIAN_STAIN.stain_matrix) / np.linalg.norm(MEDIAN_STAIN.stain_matrix, axis=0)
    )
