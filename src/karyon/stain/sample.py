"""Sample tissue pixels over a slide, and fit its stains to them."""

from __future__ import annotations

import numpy as np

from karyon.io.slides import Slide
from karyon.stain.fit import StainFit, fit_stains
from karyon.tiles.grid import Grid, read_window

# Stains are fitted at 20x: fine enough to see nuclei apart from stroma.
SAMPLE_MPP = 0.5
PATCH_PX = 128
PATCHES = 64
# Share of the slide that must be glass before its colour is measured there.
MIN_GLASS_SHARE = 0.005


def separate_slide(
    slide: Slide, mask: np.ndarray, thumbnail: np.ndarray, stain: str, pixels: int
) -> StainFit:
    """Fit the stains of a slide.

    Args:
        slide: An open slide.
        mask: Tissue mask over the whole slide, bool, ``(h, w)``.
        thumbnail: RGB, uint8, ``(h, w, 3)``, on the mask's grid.
        stain: ``HE`` or ``IHC``.
        pixels: How many pixels to sample; the whole tissue where it has fewer.
    """
    sampled = sample_tissue(slide, mask, pixels)
    return fit_stains(sampled, estimate_i0(thumbnail, mask, sampled), stain)


def estimate_i0(thumbnail: np.ndarray, mask: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """Colour of empty glass: the median outside tissue, else the brightest of what was sampled.

    Held to 200 to 255: darker "glass" is something else (a coverslip's edge, a dark border).

    Args:
        thumbnail: RGB, uint8, ``(h, w, 3)``.
        mask: bool, ``(h, w)``.
        sampled: Pixels from tissue, uint8, ``(n, 3)``.

    Returns:
        float64, ``(3,)``.
    """
    background = thumbnail[~mask]
    background = background[background.min(axis=1) >= 200]
    if len(background) > max(MIN_GLASS_SHARE * mask.size, 16):
        return np.median(background, axis=0).astype(np.float64)
    if not len(sampled):
        return np.full(3, 255.0)
    return np.clip(np.percentile(sampled, 99.9, axis=0), 220.0, 255.0)


def sample_tissue(slide: Slide, mask: np.ndarray, pixels: int) -> np.ndarray:
    """Pixels from patches spread evenly over the tissue, the same in every run.

    Args:
        slide: An open slide.
        mask: Tissue mask over the whole slide, bool, ``(h, w)``.
        pixels: How many to return; up to one more per patch, and fewer where the tissue has fewer.

    Returns:
        uint8, ``(n, 3)``.
    """
    grid = Grid.of_slide(slide.facts, SAMPLE_MPP)
    corners = _tissue_patches(grid, mask)
    if not len(corners):
        return np.empty((0, 3), np.uint8)
    chosen = corners[np.unique(np.linspace(0, len(corners) - 1, PATCHES).astype(int))]
    per_patch = -(-pixels // len(chosen))
    samples = []
    for x, y in chosen:
        width, height = min(PATCH_PX, grid.width - x), min(PATCH_PX, grid.height - y)
        patch = read_window(slide, grid, int(x), int(y), int(width), int(height)).reshape(-1, 3)
        keep = np.unique(np.linspace(0, len(patch) - 1, min(per_patch, len(patch))).astype(int))
        samples.append(patch[keep])
    return np.concatenate(samples)


def _tissue_patches(grid: Grid, mask: np.ndarray) -> np.ndarray:
    """Corners ``(x, y)`` of the patches whose centre lies in tissue, in boustrophedon order.

    Rows run left to right and right to left in turn, so that an even choice from the list is spread
    in both directions.
    """
    columns = np.arange(0, max(grid.width - PATCH_PX // 2, 1), PATCH_PX)
    corners = []
    for number, y in enumerate(range(0, max(grid.height - PATCH_PX // 2, 1), PATCH_PX)):
        row = min(int((y + PATCH_PX / 2) * mask.shape[0] / grid.height), mask.shape[0] - 1)
        positions = np.minimum(
            ((columns + PATCH_PX / 2) * mask.shape[1] / grid.width).astype(int), mask.shape[1] - 1
        )
        inside = columns[mask[row, positions]]
        corners += [(x, y) for x in (inside if number % 2 == 0 else inside[::-1])]
    return np.array(corners, dtype=np.int64).reshape(-1, 2)
