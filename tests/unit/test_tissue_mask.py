"""Tissue on glass: synthetic slides whose tissue is known, and colours of stains, blood and ink."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from karyon.errors import SlideError
from karyon.stain.fit import REFERENCE
from karyon.stain.optical_density import optical_density
from karyon.tissue.mask import glass_colour, pen_marks, tissue_mask

MPP = 8.0
MIN_AREA_UM2 = 20_000.0
GLASS = (244, 243, 246)
PURPLE = (170, 120, 185)
INK = {
    "blue": (30, 60, 160),
    "light blue": (60, 120, 190),
    "green": (20, 130, 60),
    "light green": (60, 160, 90),
    "red": (210, 40, 45),
    "dark red": (180, 20, 30),
    "black": (25, 25, 28),
    "worn black": (60, 60, 62),
}


def photographed(picture: np.ndarray, noise: float = 2.0) -> np.ndarray:
    """The picture with a sensor's noise, through JPEG."""
    grain = np.random.default_rng(3).normal(0, noise, picture.shape)
    buffer = io.BytesIO()
    Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer).convert("RGB"))


def empty_slide(glass: tuple[int, int, int] = GLASS) -> np.ndarray:
    return np.full((200, 300, 3), glass, np.float64)


def disc(x: int, y: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:200, :300]
    return np.hypot(rows - y, columns - x) <= radius


def found(picture: np.ndarray, method: str = "otsu") -> np.ndarray:
    return tissue_mask(picture, MPP, method, MIN_AREA_UM2)


@pytest.mark.parametrize("method", ["otsu", "white_share"])
@pytest.mark.parametrize("noise", [0.0, 2.0, 4.0])
def test_blank_slide_has_no_tissue(method: str, noise: float) -> None:
    assert not found(photographed(empty_slide(), noise), method).any()


@pytest.mark.parametrize("glass", [(255, 255, 255), (238, 232, 222), (225, 228, 218), (236, 228, 240)])
def test_tinted_glass_is_not_tissue(glass: tuple[int, int, int]) -> None:
    assert not found(photographed(empty_slide(glass))).any()


@pytest.mark.parametrize("method", ["otsu", "white_share"])
def test_blob_is_found_with_its_area(method: str) -> None:
    picture, blob = empty_slide(), disc(140, 90, 60)
    picture[blob] = PURPLE
    mask = found(photographed(picture), method)
    assert (mask & blob).sum() > 0.97 * blob.sum()
    # One pixel of margin is wanted; patches of 8 pixels end up to a patch away.
    assert (mask & ~disc(140, 90, 64 if method == "otsu" else 74)).sum() == 0


def test_small_lumen_is_filled_and_a_large_one_is_not() -> None:
    picture, blob = empty_slide(), disc(150, 100, 90)
    small, large = disc(100, 100, 11), disc(190, 100, 30)  # 24,000 and 181,000 square microns
    picture[blob] = PURPLE
    picture[small | large] = GLASS
    mask = found(photographed(picture))
    assert mask[small].all()
    assert not mask[disc(190, 100, 25)].any()


def test_specks_are_dropped_and_small_pieces_kept() -> None:
    picture = empty_slide()
    speck, piece = disc(60, 60, 7), disc(200, 120, 12)  # 9,900 and 29,000 square microns
    picture[speck | piece] = PURPLE
    mask = found(photographed(picture))
    assert not mask[disc(60, 60, 20)].any()
    assert mask[piece].all()


@pytest.mark.parametrize("blur", [0.0, 1.5])
@pytest.mark.parametrize("ink", INK.values(), ids=INK.keys())
def test_pen_on_glass_is_not_tissue(ink: tuple[int, int, int], blur: float) -> None:
    picture, tissue = empty_slide(), disc(70, 140, 40)
    picture[20:45, 30:280] = ink
    picture[45:150, 240:265] = ink
    picture = ndimage.gaussian_filter(picture, (blur, blur, 0))
    picture[tissue] = PURPLE
    mask = found(photographed(picture))
    assert not (mask & ~ndimage.binary_dilation(tissue, iterations=4)).any()
    assert mask[tissue].all()


def test_pen_over_tissue_takes_the_tissue_under_it_only() -> None:
    picture, tissue = empty_slide(), disc(150, 100, 80)
    picture[tissue] = PURPLE
    picture[95:105] = INK["black"]
    mask = found(photographed(picture))
    assert not mask[97:103].any()
    assert mask[tissue & (np.abs(np.arange(200) - 100) > 10)[:, None]].all()


def flat(density: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """A field of one optical density, as it is after 8-bit rounding."""
    colour = np.rint(245 * np.exp(-np.asarray(density)))
    return optical_density(np.full((9, 9, 3), colour).astype(np.uint8), np.full(3, 245.0))


@pytest.mark.parametrize("amount", [0.3, 0.8, 1.5, 2.0])
@pytest.mark.parametrize("stain", REFERENCE)
def test_stains_are_not_pen(stain: str, amount: float) -> None:
    assert not pen_marks(flat(amount * np.array(REFERENCE[stain]))).any()


@pytest.mark.parametrize(
    "rgb",
    [(200, 88, 108), (197, 56, 74), (219, 111, 128), (181, 52, 69), (211, 70, 93)],  # seen on real slides
)
def test_red_blood_cells_are_not_pen(rgb: tuple[int, int, int]) -> None:
    assert not pen_marks(flat(np.log(245 / np.array(rgb)))).any()


def test_dark_nuclei_and_blue_counterstain_are_not_pen() -> None:
    for rgb in ((51, 41, 85), (45, 25, 80), (120, 138, 170), (140, 160, 205)):
        assert not pen_marks(flat(np.log(245 / np.array(rgb)))).any(), rgb


@pytest.mark.parametrize("image", ["TCGA-AR-A1AK-01Z-00-DX1", "TCGA-B0-5698-01Z-00-DX1"])
def test_real_image_full_of_tissue_is_all_tissue(real_file: Callable[[str], Path], image: str) -> None:
    picture = Image.open(real_file(f"kumar30/images/{image}.png")).convert("RGB")
    thumbnail = np.asarray(picture.resize((100, 100), Image.Resampling.BOX))
    assert tissue_mask(thumbnail, 2.5, "otsu", MIN_AREA_UM2).mean() > 0.99


def test_image_full_of_tissue_is_all_tissue() -> None:
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, (200, 300)), 3)
    amount = 0.8 + 0.2 * texture / texture.std()
    picture = 245 * np.exp(-amount.clip(0.45)[..., None] * np.array([0.45, 0.8, 0.25]))
    assert found(photographed(picture)).all()


def test_black_image_is_refused() -> None:
    with pytest.raises(SlideError, match=r"intensity 0 of 255: not a bright-field slide"):
        found(np.zeros((50, 50, 3), np.uint8))


def test_fluorescence_is_refused() -> None:
    picture = np.random.default_rng(0).poisson(6, (100, 100, 3)).astype(np.uint8)
    picture[20:25, 30:35] = (10, 20, 255)
    with pytest.raises(SlideError, match="fluorescence"):
        found(picture)


@pytest.mark.parametrize(("white_percent", "kept"), [(59, True), (60, True), (61, False)])
def test_patch_is_skipped_when_over_sixty_percent_of_it_is_white(white_percent: int, kept: bool) -> None:
    # 64 microns are 10 pixels of 6.4; one patch holds gray pixels, all others are white.
    picture = np.full((80, 90, 3), 230, np.uint8)
    patch = np.full(100, 150, np.uint8)
    patch[np.random.default_rng(0).permutation(100)[:white_percent]] = 221
    picture[30:40, 50:60] = patch.reshape(10, 10, 1)
    mask = tissue_mask(picture, 6.4, "white_share", 0.0)
    expected = np.zeros((80, 90), bool)
    expected[30:40, 50:60] = kept
    np.testing.assert_array_equal(mask, ndimage.binary_dilation(expected))


def test_white_means_brighter_than_220_in_every_channel() -> None:
    picture = np.full((80, 90, 3), 230, np.uint8)
    picture[30:40, 50:60] = (255, 255, 220)
    assert tissue_mask(picture, 6.4, "white_share", 0.0)[30:40, 50:60].all()
    picture[30:40, 50:60] = (221, 221, 221)
    assert not tissue_mask(picture, 6.4, "white_share", 0.0).any()


def test_glass_colour_is_the_brightest_hundredth_and_at_least_220() -> None:
    picture = np.full((100, 100, 3), 100, np.uint8)
    picture[:2] = (240, 230, 200)
    np.testing.assert_array_equal(glass_colour(picture), [240, 230, 220])


def test_fluorescence_is_refused_however_bright_its_signals_are() -> None:
    y, x = np.mgrid[:200, :200]
    cells = (x % 20 - 10) ** 2 + (y % 20 - 10) ** 2 < 36  # 28 % of the area
    for colour in ((90, 130, 250), (230, 230, 180)):
        slide = np.where(cells[..., None], colour, (9, 5, 12)).astype(np.uint8)
        with pytest.raises(SlideError, match=r"7[0-9]% of the slide is dark .*fluorescence"):
            glass_colour(slide)


def test_black_that_a_scanner_fills_in_does_not_make_a_slide_dark() -> None:
    slide = np.zeros((200, 200, 3), np.uint8)
    slide[:60] = 244
    slide[20:40, 50:150] = (190, 110, 170)
    assert glass_colour(slide).tolist() == [244.0] * 3


@pytest.mark.parametrize("side", [1, 4, 20])
def test_a_small_blank_image_has_no_tissue(side: int) -> None:
    assert not tissue_mask(np.full((side, side, 3), 244, np.uint8), 8.0, "otsu", 2000.0).any()
