"""Densities of hematoxylin, eosin and pen ink between the cells: fibrous stroma, cytoplasm, lumina, glass."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from karyon.demo.noise import gradient_noise, smooth_step

# The plan of the tissue is sampled on a coarse grid; these of its arrays shape the texture, in this order.
PLAN = (
    "tissue",
    "gland",
    "lumen",
    "vessel",
    "fibre_cos",
    "fibre_sin",
    "loose",
    "warp_x",
    "warp_y",
    "pen",
    "tone",
    "secretion",
    "thickness",
)
(
    TISSUE,
    GLAND,
    LUMEN,
    VESSEL,
    FIBRE_COS,
    FIBRE_SIN,
    LOOSE,
    WARP_X,
    WARP_Y,
    PEN,
    TONE,
    SECRETION,
    THICKNESS,
) = range(len(PLAN))
# Fibres are drawn along this many fixed directions, and a pixel mixes the two nearest to its own. Turning the
# coordinates by the local angle itself would shear the noise more, the further from the slide's corner.
DIRECTIONS = 8
_DIRECTION_X = np.cos(np.arange(DIRECTIONS) * (np.pi / DIRECTIONS))
_DIRECTION_Y = np.sin(np.arange(DIRECTIONS) * (np.pi / DIRECTIONS))


@njit(cache=True)
def _fibres(x: float, y: float, direction: int, seed: np.uint64) -> tuple[float, float, float]:
    """Bundles, fibres and clefts along one of the fixed directions, each about -1 to 1."""
    c, s = _DIRECTION_X[direction], _DIRECTION_Y[direction]
    u, v = x * c + y * s, y * c - x * s
    u += 1000.0 * direction
    bundle = gradient_noise(u / 60, v / 9, seed)
    fibre = gradient_noise(u / 26, v / 3.3, seed + np.uint64(1))
    fibre += 0.7 * gradient_noise(u / 8, v / 1.7, seed + np.uint64(2))
    cleft = gradient_noise(u / 42, v / 6.0, seed + np.uint64(3))
    return bundle, fibre, cleft


@njit(cache=True)
def _stroma(
    x: float, y: float, fibre_cos: float, fibre_sin: float, loose: float, seed: np.uint64
) -> tuple[float, float]:
    """Hematoxylin and eosin of fibrous stroma: collagen bundles, split by pale clefts where it is loose."""
    turn = (math.atan2(fibre_sin, fibre_cos) / (2 * math.pi)) % 1.0 * DIRECTIONS
    first = int(turn)
    weight = smooth_step((turn - first - 0.5) * 1.4)
    bundle, fibre, cleft = _fibres(x, y, first % DIRECTIONS, seed)
    if weight > 0:
        bundle2, fibre2, cleft2 = _fibres(x, y, (first + 1) % DIRECTIONS, seed)
        bundle += weight * (bundle2 - bundle)
        fibre += weight * (fibre2 - fibre)
        cleft += weight * (cleft2 - cleft)
    grain = gradient_noise(x / 1.1, y / 1.1, seed + np.uint64(4))
    body = (0.62 - 0.22 * loose) * (1 + 0.42 * bundle + 0.36 * fibre + 0.12 * grain)
    gap = smooth_step((cleft - 0.62 + 0.40 * loose) * 5.0)
    hematoxylin = 0.07 + 0.06 * loose + 0.05 * fibre + 0.03 * bundle
    return max(hematoxylin, 0.0) * (1 - 0.8 * gap), max(body, 0.05) * (1 - 0.90 * gap)


@njit(cache=True)
def _cytoplasm(x: float, y: float, tone: float, border: float, seed: np.uint64) -> tuple[float, float]:
    """Hematoxylin and eosin of epithelial cytoplasm: granular, with pale vacuoles, somewhat basophilic."""
    cloud = gradient_noise(x / 13, y / 13, seed + np.uint64(5))
    foam = gradient_noise(x / 4.5, y / 4.5, seed + np.uint64(6))
    grain = gradient_noise(x / 1.6, y / 1.6, seed + np.uint64(7))
    vacuole = smooth_step((foam + 0.4 * cloud - 0.60 + 0.12 * tone) * 4.0)
    eosin = (0.48 + 0.13 * tone) * (1 + 0.28 * cloud + 0.20 * foam + 0.30 * grain + 0.35 * border)
    hematoxylin = (0.23 - 0.11 * tone) * (1 + 0.35 * cloud + 0.40 * grain + 0.25 * border)
    return hematoxylin * (1 - 0.6 * vacuole), eosin * (1 - 0.55 * vacuole)


@njit(cache=True)
def paint_tissue(
    borders: np.ndarray,
    left: int,
    top: int,
    mpp: float,
    plan: np.ndarray,
    step: int,
    factors: tuple[float, float],
    seed: np.uint64,
) -> np.ndarray:
    """Paint a block with everything but cells.

    Args:
        borders: Strength of the borders between epithelial cells, 0 to 1, float32, ``(h, w)``.
        left: Level-0 column of the block's first pixel.
        top: Level-0 row of the block's first pixel.
        mpp: Microns per pixel.
        plan: The arrays :data:`PLAN` on the coarse grid, float32, ``(len(PLAN), rows, columns)``; its first
            point lies on the last multiple of ``step`` at or before ``(left, top)``.
        step: Pitch of the coarse grid in pixels.
        factors: Factors on hematoxylin and eosin.
        seed: Seed of the texture.

    Returns:
        Densities of hematoxylin, eosin and pen ink, float32, ``(h, w, 3)``.
    """
    height, width = borders.shape
    densities = np.zeros((height, width, 3), dtype=np.float32)
    line = np.empty((plan.shape[2], plan.shape[0]))
    here = np.empty(plan.shape[0])
    for i in range(height):
        first = (top + i) // step - top // step
        share = (top + i) % step / step
        for column in range(line.shape[0]):
            for name in range(line.shape[1]):
                line[column, name] = (1 - share) * plan[name, first, column] + share * plan[
                    name, first + 1, column
                ]
        for j in range(width):
            first = (left + j) // step - left // step
            share = (left + j) % step / step
            densities[i, j, 2] = (1 - share) * line[first, PEN] + share * line[first + 1, PEN]
            if (1 - share) * line[first, TISSUE] + share * line[first + 1, TISSUE] < -6:
                continue
            for name in range(here.size):
                here[name] = (1 - share) * line[first, name] + share * line[first + 1, name]
            hematoxylin, eosin = _tissue((left + j) * mpp, (top + i) * mpp, here, borders[i, j], seed)
            densities[i, j, 0] = hematoxylin * factors[0]
            densities[i, j, 1] = eosin * factors[1]
    return densities


@njit(cache=True)
def _tissue(x: float, y: float, here: np.ndarray, border: float, seed: np.uint64) -> tuple[float, float]:
    """Hematoxylin and eosin at one point, given the plan there."""
    rough = gradient_noise(x / 6.0, y / 6.0, seed + np.uint64(8))
    fine = gradient_noise(x / 2.3, y / 2.3, seed + np.uint64(9))
    edge = 1.1 * rough + 0.6 * fine
    gland = here[GLAND] + edge
    lumen = smooth_step((here[LUMEN] + edge) / 1.3)
    epithelium = smooth_step(gland / 1.6)
    hematoxylin, eosin = 0.0, 0.0
    if epithelium < 1:
        wavy_x, wavy_y = x + here[WARP_X], y + here[WARP_Y]
        hematoxylin, eosin = _stroma(wavy_x, wavy_y, here[FIBRE_COS], here[FIBRE_SIN], here[LOOSE], seed)
    if epithelium > 0:
        of_cells = _cytoplasm(x, y, here[TONE], border, seed)
        hematoxylin += epithelium * (of_cells[0] - hematoxylin)
        eosin += epithelium * (of_cells[1] - eosin)
    # Fixation shrinks glands away from the stroma here and there; vessels stay attached.
    retreat = gradient_noise(x / 55, y / 55, seed + np.uint64(10))
    crack = smooth_step((retreat - 0.28) * 4) * smooth_step((2.4 - abs(gland + 2.6)) / 1.5)
    crack *= 1 - min(here[VESSEL], 1.0)
    share = (
        smooth_step((here[TISSUE] + 2.5 * rough + 1.5 * fine) / 2.0) * (1 - 0.93 * crack) * here[THICKNESS]
    )
    content = (
        here[SECRETION] * smooth_step((here[LUMEN] - 4 + 6 * retreat) / 3) * (1 + 0.15 * rough + 0.1 * fine)
    )
    content += max(0.0, 0.02 + 0.03 * retreat)
    hematoxylin += lumen * (0.15 * content - hematoxylin)
    eosin += lumen * (content - eosin)
    return share * hematoxylin, share * eosin
