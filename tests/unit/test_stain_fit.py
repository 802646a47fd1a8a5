"""The stains of a slide, from mixtures whose stains are known."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from PIL import Image

from karyon.io.slides import Slide, open_slide
from karyon.stain.fit import StainFit, dictionary, fit_stains, reference_matrix
from karyon.stain.optical_density import optical_density
from karyon.stain.sample import estimate_i0, sample_tissue, separate_slide

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture
def pixels(stain_image: Paint, known_stains: np.ndarray, glass: np.ndarray) -> np.ndarray:
    return stain_image(known_stains, glass).reshape(-1, 3)


def degrees_between(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Angle of each column to its own, by the chord."""
    return np.degrees(2 * np.arcsin(np.linalg.norm(found - expected, axis=0) / 2))


def test_known_stains_are_recovered(pixels: np.ndarray, known_stains: np.ndarray, glass: np.ndarray) -> None:
    fit = fit_stains(pixels, glass, "HE")
    assert (fit.source, fit.reason, fit.columns) == ("fit", "", ("hematoxylin", "eosin"))
    assert degrees_between(fit.stain_matrix, known_stains).max() < 3
    assert degrees_between(reference_matrix("HE"), known_stains).max() > 4  # it was not there to start with
    np.testing.assert_allclose(np.linalg.norm(fit.stain_matrix, axis=0), 1, rtol=1e-12)
    own = fit.stain_matrix
    assert fit.angle == pytest.approx(np.degrees(np.arccos(own[:, 0] @ own[:, 1])))
    assert fit.residual < 0.05


def test_percentiles_are_those_of_the_stained_pixels(
    pixels: np.ndarray, known_stains: np.ndarray, glass: np.ndarray
) -> None:
    fit = fit_stains(pixels, glass, "HE")
    density = np.log(glass / np.maximum(pixels, 1)).clip(0)
    stained = density[density.mean(axis=1) > 0.15]
    assert fit.pixels == len(stained)
    amounts = np.linalg.lstsq(known_stains, stained.T, rcond=None)[0]
    np.testing.assert_allclose(fit.p99, np.percentile(amounts, 99, axis=1), rtol=0.12)


def test_black_ink_changes_nothing(pixels: np.ndarray, glass: np.ndarray) -> None:
    ink = np.random.default_rng(3).integers(20, 45, (len(pixels) // 6, 1)) + np.array([0, 4, 8])
    inked = fit_stains(np.concatenate([pixels, ink.astype(np.uint8)]), glass, "HE")
    clean = fit_stains(pixels, glass, "HE")
    assert inked.pixels == clean.pixels
    np.testing.assert_array_equal(inked.stain_matrix, clean.stain_matrix)
    np.testing.assert_array_equal(inked.p99, clean.p99)


def test_hematoxylin_is_first_whatever_the_order_of_the_start(
    pixels: np.ndarray, known_stains: np.ndarray, glass: np.ndarray
) -> None:
    density = optical_density(pixels, glass)
    density = density[density.mean(axis=1) > 0.15]
    for start in (reference_matrix("HE"), reference_matrix("HE")[:, ::-1]):
        assert degrees_between(dictionary(density, start), known_stains).max() < 3


def test_ihc_separates_hematoxylin_and_dab(stain_image: Paint, glass: np.ndarray) -> None:
    dab = np.array([[0.68, 0.66, 0.32], [0.30, 0.55, 0.78]]).T
    dab /= np.linalg.norm(dab, axis=0)
    fit = fit_stains(stain_image(dab, glass).reshape(-1, 3), glass, "IHC")
    assert (fit.stain, fit.source, fit.columns) == ("IHC", "fit", ("hematoxylin", "dab"))
    assert (fit.column("hematoxylin"), fit.column("dab")) == (0, 1)
    assert degrees_between(fit.stain_matrix, dab).max() < 3
    with pytest.raises(ValueError, match="stained with hematoxylin and dab, not eosin"):
        fit.column("eosin")


def test_two_runs_are_equal_to_the_last_bit_also_in_another_process(
    pixels: np.ndarray, glass: np.ndarray, tmp_path: Path
) -> None:
    first, second = (json.dumps(fit_stains(pixels, glass, "HE").to_json()) for _ in range(2))
    np.savez(tmp_path / "pixels.npz", pixels=pixels, glass=glass)
    code = (
        "import json, sys; import numpy as np; from karyon.stain.fit import fit_stains\n"
        "given = np.load(sys.argv[1])\n"
        "print(json.dumps(fit_stains(given['pixels'], given['glass'], 'HE').to_json()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    other = run(
        [sys.executable, "-c", code, str(tmp_path / "pixels.npz")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert first == second == other.stdout.strip()


def test_json_round_trip_is_exact(pixels: np.ndarray, glass: np.ndarray) -> None:
    fit = fit_stains(pixels, glass / 1.1, "HE")
    back = StainFit.from_json(json.loads(json.dumps(fit.to_json())))
    for name, value in vars(fit).items():
        copy = getattr(back, name)
        assert type(copy) is type(value), name
        np.testing.assert_array_equal(copy, value, err_msg=name, strict=isinstance(value, np.ndarray))


def in_one_stain(stain: np.ndarray) -> np.ndarray:
    amounts = np.random.default_rng(0).gamma(3, 0.3, 5000)
    return np.rint(245 * np.exp(-np.outer(amounts, stain))).astype(np.uint8)


@pytest.mark.parametrize(
    ("rgb", "reason"),
    [
        (in_one_stain(np.ones(3)), "degrees apart (a gray or single-stain slide)"),
        (in_one_stain(np.array([0.6, 0.75, 0.28])), "degrees apart (a gray or single-stain slide)"),
        (np.zeros((5000, 3), np.uint8), "only 0 stained pixels"),
    ],
    ids=["gray", "one stain", "black"],
)
@pytest.mark.parametrize("stain", ["HE", "IHC"])
def test_slide_without_two_stains_falls_back_to_the_reference(
    rgb: np.ndarray, reason: str, stain: str
) -> None:
    fit = fit_stains(rgb, np.full(3, 245.0), stain)
    assert fit.source == f"reference_{stain}"
    assert reason in fit.reason
    np.testing.assert_array_equal(fit.stain_matrix, reference_matrix(stain))
    assert fit.angle < 5
    assert np.isfinite(fit.p99).all()
    assert (fit.p99 > 0).all()


@pytest.mark.parametrize("count", [0, 1, 999])
def test_too_few_stained_pixels_fall_back_to_the_reference(
    pixels: np.ndarray, glass: np.ndarray, count: int
) -> None:
    stained = pixels[pixels.mean(axis=1) < 180][:count]
    white = np.full((5000, 3), 240, np.uint8)  # these do not count
    fit = fit_stains(np.concatenate([white, stained]), glass, "HE")
    assert (fit.source, fit.reason, fit.pixels) == ("reference_HE", f"only {count} stained pixels", count)
    assert np.isfinite(fit.p99).all()


def test_reference_is_ruifrok_and_johnstons() -> None:
    np.testing.assert_allclose(reference_matrix("HE")[:, 0], [0.65, 0.704, 0.286], atol=2e-3)
    np.testing.assert_allclose(reference_matrix("HE")[:, 1], [0.0722, 0.9926, 0.1053], atol=1e-3)
    np.testing.assert_allclose(reference_matrix("IHC")[:, 1], [0.268, 0.570, 0.776], atol=2e-3)


@pytest.fixture
def numbered(tmp_path: Path) -> Slide:
    """Patches of 128 pixels, 5 down and 6 across, each of its own gray: 10, 14, 18 and so on."""
    grays = np.kron(10 + 4 * np.arange(30, dtype=np.uint8).reshape(5, 6), np.ones((128, 128), np.uint8))
    Image.fromarray(np.repeat(grays[..., None], 3, axis=-1)).save(tmp_path / "a.png")
    return open_slide(tmp_path / "a.png", mpp=0.5)


def test_sample_comes_from_every_patch_whose_centre_is_tissue_and_no_other(numbered: Slide) -> None:
    tissue = np.random.default_rng(0).random((5, 6)) < 0.5
    sampled = sample_tissue(numbered, np.kron(tissue, np.ones((8, 8), bool)), 3000)
    values, counts = np.unique(sampled, return_counts=True)
    np.testing.assert_array_equal(values, 10 + 4 * np.flatnonzero(tissue))
    assert counts.max() == counts.min()
    assert 3000 <= len(sampled) <= 3000 + tissue.sum()


def test_sample_is_the_same_in_two_runs(scene: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(scene).save(tmp_path / "a.png")
    mask = np.ones((30, 40), bool)
    with open_slide(tmp_path / "a.png", mpp=0.3) as slide:
        np.testing.assert_array_equal(sample_tissue(slide, mask, 5000), sample_tissue(slide, mask, 5000))


def test_slide_with_fewer_pixels_than_wanted_gives_all_of_them(tmp_path: Path, scene: np.ndarray) -> None:
    Image.fromarray(scene[:100, :70]).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", mpp=0.5) as slide:
        sampled = sample_tissue(slide, np.ones((6, 4), bool), 1_000_000)
    np.testing.assert_array_equal(sampled, scene[:100, :70].reshape(-1, 3))


def test_mask_without_tissue_gives_no_pixels(numbered: Slide) -> None:
    assert sample_tissue(numbered, np.zeros((40, 48), bool), 1000).shape == (0, 3)


def test_light_is_the_median_of_the_glass() -> None:
    thumbnail = np.full((40, 50, 3), (242, 238, 245), np.uint8)
    thumbnail[:3] = (250, 250, 250)
    mask = np.zeros((40, 50), bool)
    mask[20:] = True
    thumbnail[mask] = 90
    thumbnail[5:8] = 30  # the edge of a coverslip
    np.testing.assert_array_equal(estimate_i0(thumbnail, mask, np.empty((0, 3), np.uint8)), [242, 238, 245])


def test_light_of_a_slide_without_glass_is_the_brightest_of_its_tissue() -> None:
    thumbnail, mask = np.full((40, 50, 3), 100, np.uint8), np.ones((40, 50), bool)
    sampled = np.repeat(np.arange(256, dtype=np.uint8), 100)[:, None] * np.array([1, 1, 0], np.uint8)
    np.testing.assert_array_equal(estimate_i0(thumbnail, mask, sampled), [255, 255, 220])
    np.testing.assert_array_equal(estimate_i0(thumbnail, mask, sampled[:0]), [255, 255, 255])


def test_stains_of_a_slide_are_found_from_the_slide(
    stain_image: Paint, known_stains: np.ndarray, glass: np.ndarray, tmp_path: Path
) -> None:
    picture = np.full((512, 640, 3), glass, np.float64)
    picture[128:384, 128:512] = np.tile(stain_image(known_stains, glass), (3, 3, 1))[:256, :384]
    picture = np.rint(picture).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    mask = np.zeros((64, 80), bool)
    mask[16:48, 16:64] = True
    with open_slide(tmp_path / "a.png", mpp=0.5) as slide:
        fit = separate_slide(slide, mask, picture[::8, ::8], "HE", pixels=50_000)
    assert fit.source == "fit"
    np.testing.assert_array_equal(fit.i0, glass)
    assert degrees_between(fit.stain_matrix, known_stains).max() < 3
