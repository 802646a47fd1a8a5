"""Glands, solid nests and vessels: one possible structure on each site of a jittered grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karyon.demo.look import Look
from karyon.demo.noise import Field, field_seed, noise_at, uniforms

# A structure reaches at most so far from its site, as a share of the pitch: with a site moved by at most
# 0.28 of the pitch, nothing beyond the 3 x 3 neighbouring sites can reach a point.
REACH = 0.70
SHIFT = 0.28
# Structures on neighbouring sites are kept apart by stroma at least this wide.
SEPTUM_UM = 9.0
NO_LUMEN_UM = 1e4


@dataclass(frozen=True)
class NearestGland:
    """The structure nearest to each of n points. All arrays are float64, ``(n,)``.

    Attributes:
        depth: Depth below its surface in microns, negative outside.
        wall: Thickness of its wall in microns; :data:`NO_LUMEN_UM` in solid nests.
        vessel: 1 for a vessel, else 0.
        tone: Shade of its cytoplasm, -1 to 1.
        secretion: Density of what its lumen holds, 0 to 1.
        angle: Direction from its centre to the point, radians.
    """

    depth: np.ndarray
    wall: np.ndarray
    vessel: np.ndarray
    tone: np.ndarray
    secretion: np.ndarray
    angle: np.ndarray


@dataclass(frozen=True)
class _Sites:
    """The structures of a box of sites; arrays are ``(rows * columns,)``, row by row."""

    column: int
    row: int
    columns: int
    center_x: np.ndarray
    center_y: np.ndarray
    size: np.ndarray
    stretch: np.ndarray
    turn: np.ndarray
    phase: np.ndarray
    wall: np.ndarray
    vessel: np.ndarray
    tone: np.ndarray
    secretion: np.ndarray


def nearest_gland(look: Look, x: np.ndarray, y: np.ndarray) -> NearestGland:
    """The structure nearest to each point, by depth below its surface.

    Where two structures meet, the depth is cut so that a septum of stroma remains between them.

    Args:
        look: The slide.
        x: Microns from the left, float64, ``(n,)``, at least one.
        y: Microns from the top, float64, ``(n,)``.
    """
    pitch = look.gland_pitch_um
    column, row = np.floor(x / pitch).astype(np.int64), np.floor(y / pitch).astype(np.int64)
    sites = _draw_sites(
        look, int(column.min()) - 1, int(column.max()) + 1, int(row.min()) - 1, int(row.max()) + 1
    )
    site = (row - sites.row) * sites.columns + column - sites.column
    best, second = np.full(x.shape, -pitch), np.full(x.shape, -pitch)
    chosen = site.copy()
    for shift in (-1, 0, 1):
        for neighbour in (
            site + shift * sites.columns - 1,
            site + shift * sites.columns,
            site + shift * sites.columns + 1,
        ):
            depth = _depth(sites, neighbour, x, y, pitch)
            nearer = depth > best
            second = np.where(nearer, best, np.maximum(second, depth))
            best = np.where(nearer, depth, best)
            chosen = np.where(nearer, neighbour, chosen)
    return NearestGland(
        depth=np.minimum(best, (best - second) / 2 - SEPTUM_UM / 2),
        wall=sites.wall[chosen],
        vessel=sites.vessel[chosen],
        tone=sites.tone[chosen],
        secretion=sites.secretion[chosen],
        angle=np.arctan2(y - sites.center_y[chosen], x - sites.center_x[chosen]),
    )


def _draw_sites(look: Look, left: int, right: int, top: int, bottom: int) -> _Sites:
    """What stands on the sites of a box of the grid, bounds inclusive."""
    pitch, columns = look.gland_pitch_um, right - left + 1
    row, column = np.divmod(np.arange(columns * (bottom - top + 1), dtype=np.int64), columns)
    column, row = column + left, row + top
    draw = [uniforms(column, row, field_seed(look.seed, Field.GLAND + number)) for number in range(11)]
    center_x = (column + 0.5 + SHIFT * (2 * draw[0] - 1)) * pitch
    center_y = (row + 0.5 + SHIFT * (2 * draw[1] - 1)) * pitch
    rich = noise_at(center_x, center_y, 900.0, field_seed(look.seed, Field.EPITHELIUM_RICH))
    is_gland = draw[2] < look.gland_share * np.clip(0.85 + 1.3 * rich, 0.0, 1.0)
    is_vessel = ~is_gland & (draw[2] > 0.55)
    size = np.where(is_gland, 0.30 + 0.36 * draw[3], np.where(is_vessel, 0.06 + 0.13 * draw[3], 0.0)) * pitch
    wall = np.where(draw[4] < look.lumen_share, 19.0 + 9.0 * draw[5], NO_LUMEN_UM)
    return _Sites(
        column=left,
        row=top,
        columns=columns,
        center_x=center_x,
        center_y=center_y,
        size=size,
        stretch=0.08 + 0.22 * draw[7],
        turn=2 * np.pi * draw[6],
        phase=2 * np.pi * draw[8],
        wall=np.where(is_vessel, 2.5, wall),
        vessel=is_vessel.astype(np.float64),
        tone=2 * draw[9] - 1,
        secretion=np.where((draw[10] < 0.22) & is_gland, 0.2 + 1.5 * draw[10], 0.0),
    )


def _depth(sites: _Sites, site: np.ndarray, x: np.ndarray, y: np.ndarray, pitch: float) -> np.ndarray:
    """Depth of each point below the lobed outline on its given site; ``-pitch`` where nothing stands."""
    offset_x, offset_y = x - sites.center_x[site], y - sites.center_y[site]
    angle = np.arctan2(offset_y, offset_x) - sites.turn[site]
    phase, size = sites.phase[site], sites.size[site]
    lobes = sites.stretch[site] * np.cos(2 * angle) + 0.10 * np.cos(3 * angle + phase)
    lobes += 0.06 * np.cos(5 * angle + 2 * phase)
    radius = np.minimum(size * (1 + lobes), REACH * pitch)
    return np.where(size > 0, radius - np.hypot(offset_x, offset_y), -pitch)
