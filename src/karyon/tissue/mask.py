"""Where on the slide there is tissue."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from karyon.errors import SlideError
from karyon.stain.optical_density import optical_density

# Otsu's threshold on mean optical density is kept within these. The floor makes a blank slide empty
# (glass after division by its own colour stays under 0.03); the ceiling keeps pale stroma and fat
# when dark epithelium would draw the threshold up, and whole images of nothing but tissue.
DENSITY_FLOOR, DENSITY_CEILING = 0.05, 0.10
# A bright field has a bright background. Below this the image is fluorescence, or not a slide.
DARKEST_GLASS = 120
# Signals of fluorescence may be bright, but most of its slide is darker than any stain, and next to
# nothing is glass. (Scanners fill what they skipped with black, yet some glass is always beside tissue.)
DARK, MAX_DARK_SHARE = 60, 0.5
GLASS, MIN_GLASS_SHARE = 200, 0.1
# Lumina and vessels up to this size are searched too: blood and epithelium lie in them.
HOLE_AREA_UM2 = 50_000.0
# The SWITCH paper's filter (section 3.5): a patch is skipped when over 60 % of it is brighter than 220.
WHITE_INTENSITY, WHITE_SHARE, WHITE_PATCH_UM = 220, 0.6, 64.0


def glass_colour(thumbnail: np.ndarray) -> np.ndarray:
    """Intensity of empty glass per channel, from the brightest hundredth of the slide.

    Held to 220 or more, for an image that is full of tissue has no glass to see.

    Args:
        thumbnail: RGB, uint8, ``(h, w, 3)``.

    Returns:
        float64, ``(3,)``.

    Raises:
        SlideError: The brightest parts are dark, or most of it is and next to nothing is glass.
    """
    brightest = np.percentile(thumbnail.reshape(-1, 3), 99, axis=0)
    if brightest.max() < DARKEST_GLASS:
        raise SlideError(
            f"the brightest parts of the slide have intensity {brightest.max():.0f} of 255: not a "
            "bright-field slide (fluorescence, or black). Only bright-field stains can be separated."
        )
    dark_share = float((thumbnail.max(axis=-1) < DARK).mean())
    if dark_share > MAX_DARK_SHARE and (thumbnail.min(axis=-1) >= GLASS).mean() < MIN_GLASS_SHARE:
        raise SlideError(
            f"{dark_share:.0%} of the slide is dark (intensity below {DARK} of 255) and next to nothing is "
            "clear glass: not a bright-field slide (fluorescence, or black). Only bright-field stains can be "
            "separated."
        )
    return np.clip(brightest, 220.0, 255.0)


def tissue_mask(thumbnail: np.ndarray, mpp: float, method: str, min_area_um2: float) -> np.ndarray:
    """Tissue on a thumbnail.

    Args:
        thumbnail: RGB, uint8, ``(h, w, 3)``, of the whole slide.
        mpp: Microns per pixel of the thumbnail, about 8.
        method: ``otsu`` (optical density) or ``white_share`` (SWITCH paper, section 3.5).
        min_area_um2: Smaller pieces are dropped.

    Returns:
        bool, ``(h, w)``.

    Raises:
        SlideError: The slide is not bright-field.
    """
    glass = glass_colour(thumbnail)
    density = optical_density(thumbnail, glass)
    if method == "otsu":
        mask = _above_otsu(ndimage.gaussian_filter(density.mean(axis=-1), sigma=1.0))
    else:
        mask = ~_white_patches(thumbnail, mpp)
    ink = pen_marks(density)
    mask = _without_ink(mask, ink)
    pixel_area = mpp * mpp
    mask = ndimage.binary_closing(np.pad(mask, 2, mode="edge"), iterations=2)[2:-2, 2:-2]
    mask = remove_small_objects(mask, max_size=int(min_area_um2 / pixel_area))
    if mask.any():  # without tissue, a small slide would be one hole
        mask = remove_small_holes(mask, max_size=int(HOLE_AREA_UM2 / pixel_area))
    mask &= ~ink
    return ndimage.binary_dilation(mask)  # one pixel, so that nuclei on the very edge are inside


def _above_otsu(density: np.ndarray) -> np.ndarray:
    if density.max() - density.min() < 1e-6:
        threshold = DENSITY_FLOOR
    else:
        threshold = float(np.clip(threshold_otsu(density), DENSITY_FLOOR, DENSITY_CEILING))
    return density > threshold


def _white_patches(thumbnail: np.ndarray, mpp: float) -> np.ndarray:
    """Patches of fixed size on the slide (not tiles), so that the tile size does not show."""
    side = max(1, round(WHITE_PATCH_UM / mpp))
    white = (thumbnail.min(axis=-1) > WHITE_INTENSITY).astype(np.float32)
    height, width = white.shape
    padded = np.pad(white, ((0, -height % side), (0, -width % side)), mode="edge")
    share = padded.reshape(padded.shape[0] // side, side, -1, side).mean(axis=(1, 3))
    return np.kron(share > WHITE_SHARE, np.ones((side, side), bool))[:height, :width]


def _without_ink(mask: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Drop ink, and the whole of a piece that is mostly ink: its blurred rim has no telling colour."""
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    inked = np.bincount(pieces.ravel(), weights=ink.ravel()) / np.maximum(np.bincount(pieces.ravel()), 1)
    return mask & ~ink & (inked <= 0.5)[pieces]


def pen_marks(density: np.ndarray) -> np.ndarray:
    """Ink of felt pens, by the proportions of its optical densities.

    Hematoxylin and eosin absorb green most; blue and green ink absorb red most (a blue counterstain
    does too, but is paler), red ink absorbs blue as much as green (red blood cells about 0.8 of it), and
    black ink absorbs all three alike and strongly.

    Args:
        density: Optical density, ``(h, w, 3)``.

    Returns:
        bool, ``(h, w)``, grown by two pixels.
    """
    red, green, blue = (np.maximum(density[..., k], 1e-3) for k in range(3))
    strongest = density.max(axis=-1)
    blue_or_green = (red > 1.3 * np.maximum(green, 0.8 * blue)) & (red > 0.6)
    # Dark ink is too dark in green to be measured there; no blood is.
    red_ink = (blue > 0.88 * np.minimum(green, 1.8)) & (red < 0.25 * green) & (green > 0.6)
    black = (density.min(axis=-1) > 0.75 * strongest) & (strongest > 1.2)
    ink = ndimage.binary_opening(blue_or_green | red_ink | black)
    return ndimage.binary_dilation(ink, iterations=2)
