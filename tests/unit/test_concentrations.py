"""Concentrations against spams' lasso, the optimality conditions, and torch against numba."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spams
import torch
from PIL import Image

from karyon.stain.concentrations import PENALTY, angle_degrees, concentrations
from karyon.stain.fit import reference_matrix
from karyon.stain.optical_density import density_table, optical_density
from karyon.stain.torch_concentrations import TorchConcentrations

# Within 1e-5 of 1; amounts reach 5, of which float32 holds no more.
NEAR = {"atol": 1e-5, "rtol": 1e-5}


def random_pairs(count: int) -> list[np.ndarray]:
    """Stain matrices at least 8 degrees wide, some with columns at right angles."""
    random = np.random.default_rng(5)
    pairs = []
    while len(pairs) < count:
        matrix = random.random((3, 2)) * (random.random((3, 2)) < 0.9)
        matrix /= np.maximum(np.linalg.norm(matrix, axis=0), 1e-9)
        if angle_degrees(matrix) > 8 and (matrix.sum(axis=0) > 0).all():
            pairs.append(matrix)
    return [*pairs, np.eye(3)[:, :2], reference_matrix("HE"), reference_matrix("IHC")]


def log_density(rgb: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """``ln(I0 / I)`` in float64, ``(n, 3)``."""
    return np.maximum(np.log(glass / np.maximum(rgb.reshape(-1, 3), 1)), 0)


def lasso(rgb: np.ndarray, matrix: np.ndarray, glass: np.ndarray) -> np.ndarray:
    density = np.asfortranarray(log_density(rgb, glass).T)
    found = spams.lasso(density, D=np.asfortranarray(matrix), mode=2, lambda1=PENALTY, pos=True, numThreads=1)
    return found.toarray().T.reshape(*rgb.shape[:-1], 2)


@pytest.fixture
def pixels() -> np.ndarray:
    """Every kind of pixel: uniform over the cube, near white, near black."""
    random = np.random.default_rng(0)
    kinds = [random.integers(low, high, (700, 3)) for low, high in ((0, 256), (225, 256), (0, 12))]
    return np.concatenate(kinds).astype(np.uint8)


@pytest.mark.parametrize("matrix", random_pairs(12))
def test_concentrations_equal_spams_lasso(pixels: np.ndarray, glass: np.ndarray, matrix: np.ndarray) -> None:
    found = concentrations(pixels, matrix, glass)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, lasso(pixels, matrix, glass), **NEAR)


def test_concentrations_of_real_pixels_equal_spams_lasso(
    real_file: Callable[[str], Path], glass: np.ndarray
) -> None:
    image = np.asarray(Image.open(real_file("kumar30/images/TCGA-18-5592-01Z-00-DX1.png")).convert("RGB"))
    image = image[::5, ::5]
    matrix = reference_matrix("HE")
    np.testing.assert_allclose(concentrations(image, matrix, glass), lasso(image, matrix, glass), **NEAR)


@pytest.mark.parametrize("matrix", random_pairs(12))
def test_no_change_of_the_concentrations_lowers_the_objective(
    pixels: np.ndarray, glass: np.ndarray, matrix: np.ndarray
) -> None:
    found = concentrations(pixels, matrix, glass).astype(np.float64)
    slope = (found @ matrix.T - log_density(pixels, glass)) @ matrix + PENALTY
    assert (found >= 0).all()
    assert slope.min() > -1e-5  # no stain should be added
    assert np.abs(slope[found > 0]).max() < 1e-5  # nor taken away


@pytest.mark.parametrize("matrix", random_pairs(12))
def test_torch_equals_numba(pixels: np.ndarray, glass: np.ndarray, matrix: np.ndarray) -> None:
    batch = pixels.reshape(2, 30, 35, 3)
    expected = concentrations(batch, matrix, glass)
    separate = TorchConcentrations(matrix, glass)
    for found in (separate(torch.from_numpy(batch)), separate.on_device(torch.from_numpy(batch))):
        assert (found.shape, found.dtype) == ((2, 2, 30, 35), torch.float32)
        np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), expected, **NEAR)


def test_known_amounts_are_found_but_for_the_penaltys_share(known_stains: np.ndarray) -> None:
    # In the open interior c = G^-1 (W'v - penalty): each amount is lower by penalty / (1 + g).
    amounts = np.array([[0.4, 0.6], [1.0, 0.2], [0.3, 0.3]])
    glass = np.full(3, 255.0)
    rgb = np.rint(255 * np.exp(-amounts @ known_stains.T)).astype(np.uint8)
    shrink = PENALTY / (1 + known_stains[:, 0] @ known_stains[:, 1])
    np.testing.assert_allclose(concentrations(rgb, known_stains, glass), amounts - shrink, atol=0.03)


@pytest.mark.parametrize("solver", [concentrations, lambda rgb, *constants: TorchConcentrations(*constants)])
def test_matrices_that_separate_nothing_are_refused(solver: Callable[..., object], glass: np.ndarray) -> None:
    def columns(*vectors: tuple[float, ...]) -> np.ndarray:
        return np.array([np.array(vector) / np.linalg.norm(vector) for vector in vectors]).T

    rgb = np.zeros((1, 3), np.uint8)
    with pytest.raises(ValueError, match="closer than 5 degrees"):
        solver(rgb, columns((0.6, 0.7, 0.3), (0.6, 0.75, 0.3)), glass)
    with pytest.raises(ValueError, match="unit length"):
        solver(rgb, 2 * columns((0.6, 0.7, 0.3), (0.1, 0.9, 0.1)), glass)
    with pytest.raises(ValueError, match="non-negative"):
        solver(rgb, columns((0.6, 0.7, 0.3), (-0.1, 0.9, 0.1)), glass)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        solver(rgb, columns((0.6, 0.7, 0.3), (0.1, 0.9, 0.1)).T, glass)


def test_optical_density_by_hand() -> None:
    glass = np.array([240.0, 200.0, 255.0])
    table = density_table(glass)
    np.testing.assert_allclose(table[0, 120], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(table[2, [0, 1]], np.log(255), rtol=1e-6)  # intensity 0 counts as 1
    assert (table[1, 200:] == 0).all()  # as bright as the light, or brighter
    rgb = np.array([[[60, 100, 255], [240, 50, 51]]], np.uint8)
    expected = np.log([[[4, 2, 1], [1, 4, 5]]])
    np.testing.assert_allclose(optical_density(rgb, glass), expected, rtol=1e-6, atol=1e-7)


def test_angle_between_stains_by_hand() -> None:
    diagonal = np.array([[1, 0, 0], [0.5**0.5, 0.5**0.5, 0]]).T
    assert angle_degrees(diagonal) == pytest.approx(45)
