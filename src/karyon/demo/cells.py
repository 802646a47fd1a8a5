"""Densities of cells: borders between epithelial cells, nuclei with their chromatin, red cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from karyon.demo.noise import gradient_noise, smooth_step
from karyon.demo.nuclei import Kind

EPITHELIAL, RED_CELL = int(Kind.EPITHELIAL), int(Kind.RED_CELL)
# Epithelial cells reach at most so far from the membrane of their nucleus.
CELL_REACH_UM = 5.5
# The cytoplasm is cleared, and the soft edge fades, within this distance of a nucleus.
HALO_UM = 2.1


@njit(cache=True)
def cell_borders(height: int, width: int, left: int, top: int, mpp: float, cells: np.ndarray) -> np.ndarray:
    """Borders between neighbouring epithelial cells: where two nuclei are about equally near.

    Args:
        height: Height of the block in pixels.
        width: Width of the block in pixels.
        left: Level-0 column of the block's first pixel.
        top: Level-0 row of the block's first pixel.
        mpp: Microns per pixel.
        cells: As in :func:`paint_cells`.

    Returns:
        0 to 1, float32, ``(height, width)``.
    """
    nearest = np.full((height, width), np.float32(CELL_REACH_UM))
    second = np.full((height, width), np.float32(CELL_REACH_UM))
    for k in range(cells.size):
        cell = cells[k]
        if cell.kind != EPITHELIAL:
            continue
        radius = 0.5 * (cell.a + cell.b)
        first_row, last_row = _span(cell.y, radius + CELL_REACH_UM, top, mpp, height)
        first_column, last_column = _span(cell.x, radius + CELL_REACH_UM, left, mpp, width)
        for i in range(first_row, last_row):
            for j in range(first_column, last_column):
                distance = math.hypot((left + j) * mpp - cell.x, (top + i) * mpp - cell.y) - radius
                if distance < nearest[i, j]:
                    nearest[i, j], second[i, j] = distance, nearest[i, j]
                elif distance < second[i, j]:
                    second[i, j] = distance
    for i in range(height):
        for j in range(width):
            between = second[i, j] - nearest[i, j]
            outer = smooth_step((CELL_REACH_UM - 0.8 - second[i, j]) / 1.5)
            nearest[i, j] = outer * smooth_step((0.9 - between) / 0.9)
    return nearest


@njit(cache=True)
def _span(center: float, reach: float, start: int, mpp: float, length: int) -> tuple[int, int]:
    """Pixels of a block, along one axis, within reach of a centre: the first and one past the last."""
    first = math.ceil((center - reach) / mpp) - start
    last = math.floor((center + reach) / mpp) - start
    return max(first, 0), min(last + 1, length)


@njit(cache=True)
def paint_cells(
    densities: np.ndarray, left: int, top: int, mpp: float, cells: np.ndarray, eosin: float, seed: np.uint64
) -> None:
    """Paint cells over a block, from the bottom of the section to its top.

    Args:
        densities: From :func:`karyon.demo.texture.paint_tissue`; hematoxylin and eosin are changed in place.
        left: Level-0 column of the block's first pixel.
        top: Level-0 row of the block's first pixel.
        mpp: Microns per pixel.
        cells: All cells that reach the block, sorted from bottom to top.
        eosin: Factor on eosin.
        seed: Seed of the texture.
    """
    height, width = densities.shape[:2]
    for k in range(cells.size):
        cell = cells[k]
        reach = (1 + cell.wave2 + cell.wave3) * cell.a + 1.3 * abs(cell.bend) + HALO_UM
        first_row, last_row = _span(cell.y, reach, top, mpp, height)
        first_column, last_column = _span(cell.x, reach, left, mpp, width)
        for i in range(first_row, last_row):
            for j in range(first_column, last_column):
                x, y = (left + j) * mpp, (top + i) * mpp
                if cell.kind == RED_CELL:
                    _paint_red_cell(densities[i, j], cell, x, y, eosin)
                else:
                    _paint_nucleus(densities[i, j], cell, x, y, eosin, seed)


@njit(cache=True)
def _paint_red_cell(pixel: np.ndarray, cell: Any, x: float, y: float, eosin: float) -> None:
    distance = math.hypot(x - cell.x, y - cell.y)
    radius = cell.a
    cover = smooth_step((radius - distance) / 0.8)
    biconcave = 0.75 + 0.25 * min(distance / radius, 1.0)
    pixel[0] *= 1 - cover
    pixel[1] += cover * (1.15 * biconcave * eosin - pixel[1])


@njit(cache=True)
def _paint_nucleus(pixel: np.ndarray, cell: Any, x: float, y: float, eosin: float, seed: np.uint64) -> None:
    """One pixel of one nucleus: soft outline, membrane, clumped chromatin, nucleolus, clearing around it."""
    dx, dy = x - cell.x, y - cell.y
    u, v = dx * cell.cos + dy * cell.sin, dy * cell.cos - dx * cell.sin
    along = u / cell.a
    across = (v - cell.bend * along * along) / cell.b
    radius = math.hypot(along, across)
    theta = math.atan2(across, along)
    outline = (
        1 + cell.wave2 * math.cos(2 * theta + cell.phase2) + cell.wave3 * math.cos(3 * theta + cell.phase3)
    )
    rho = radius / outline
    # Microns per unit of rho along this ray, and so the distance from the outline.
    scale = math.hypot(dx, dy) / rho if rho > 1e-6 else cell.b
    inward = (1 - rho) * scale
    if inward < -HALO_UM:
        return
    cover = smooth_step(inward / cell.soft)
    halo = cell.halo * smooth_step((inward + HALO_UM) / 1.6 - 0.5) * (1 - cover)
    pixel[0] *= 1 - 0.6 * halo
    pixel[1] *= 1 - 0.6 * halo
    if cover <= 0:
        return
    jump = 17.0 * cell.rank
    coarse = gradient_noise(x / 2.3 + jump, y / 2.3, seed + np.uint64(11))
    fine = gradient_noise(x / 1.15 + jump, y / 1.15, seed + np.uint64(12))
    membrane = smooth_step((1.0 - abs(inward - 0.55)) / 0.9)
    chromatin = 1 - 0.55 * cell.rim + 1.15 * cell.rim * membrane
    chromatin *= 1 + cell.clump * (0.9 * coarse + 0.7 * fine)
    body = cell.density * max(chromatin, 0.25)
    spot = math.hypot(along - cell.nucleolus_x, across - cell.nucleolus_y) * 0.5 * (cell.a + cell.b)
    body += cell.nucleolus * smooth_step((0.95 - spot) / 0.7)
    # A nucleus below shines through the one above: sections are about as thick as half a nucleus.
    pixel[0] = pixel[0] * (1 - cover) + cover * (body + 0.15 * min(pixel[0], 1.5))
    pixel[1] *= 1 - 0.45 * cover
