"""Data that several tests share: real files where they are to be had, a stained image, a pyramid."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from karyon.io.schemas import REPOSITORY

DATA = Path(os.environ.get("KARYON_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture
def real_file() -> Callable[[str], Path]:
    """A file of the real data by its name; the test is skipped where there is none."""

    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"no real data: {DATA / name} is missing (set KARYON_DATA)")
        return DATA / name

    return find


@pytest.fixture
def known_stains() -> np.ndarray:
    """A slide's two stains, ``(3, 2)``, unit columns, hematoxylin first; not the reference's colours."""
    columns = np.array([[0.60, 0.72, 0.35], [0.15, 0.95, 0.27]]).T
    return columns / np.linalg.norm(columns, axis=0)


@pytest.fixture
def glass() -> np.ndarray:
    """Intensity of empty glass, ``(3,)``."""
    return np.array([244.0, 241.0, 246.0])


@pytest.fixture
def stain_image() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Paint nuclei on stroma and glass, ``(96, 128, 3)`` uint8, with the given stains and light."""

    def paint(stain_matrix: np.ndarray, glass: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(7)
        kind = random.choice(3, size=(96, 128), p=[0.4, 0.5, 0.1])  # nucleus, stroma, glass
        first = np.choose(kind, [random.gamma(8, 0.12, kind.shape), random.gamma(1, 0.02, kind.shape), 0])
        second = np.choose(kind, [random.gamma(1, 0.03, kind.shape), random.gamma(6, 0.1, kind.shape), 0])
        density = np.stack([first, second], axis=-1) @ stain_matrix.T
        return np.rint(glass * np.exp(-density)).clip(0, 255).astype(np.uint8)

    return paint


@pytest.fixture(scope="session")
def scene() -> np.ndarray:
    """A picture with coarse and fine detail, ``(480, 640, 3)`` uint8."""
    y, x = np.mgrid[:480, :640]
    waves = [127 + 90 * np.sin(x / step) * np.cos(y / (step + 3)) for step in (4, 11, 29)]
    noise = np.random.default_rng(1).integers(-30, 31, (480, 640, 3))
    return (np.stack(waves, axis=-1) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pyramid(scene: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene as a tiled TIFF at 0.25 microns per pixel, with levels that skip pixels 1:2 and 1:8."""
    path = tmp_path_factory.mktemp("pyramid") / "scene.tif"
    with tifffile.TiffWriter(path) as writer:
        for number, step in enumerate((1, 2, 8)):
            writer.write(
                np.ascontiguousarray(scene[::step, ::step]),
                tile=(64, 64),
                photometric="rgb",
                compression="zlib",
                subfiletype=min(number, 1),
                resolution=(40_000 / step, 40_000 / step),
                resolutionunit="CENTIMETER",
            )
    return path
