"""Where nuclei lie and what each looks like: a seeded, hard-core layout that any block can compute alone."""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from scipy.spatial import cKDTree

from karyon.demo.architecture import Architecture, architecture_at
from karyon.demo.look import Look
from karyon.demo.noise import Field, field_seed, uniforms

# Nuclei are laid out cell by cell of a global grid.
CELL_UM = 512.0
# Candidates lie on a jittered grid of this pitch, so at most 27,000 per mm2 are tried.
PITCH_UM = 6.0
# No cell reaches further from its centre than this, its soft edge and halo included.
REACH_UM = 11.0
# No two nuclei conflict that are further apart: the largest spacing, 1.02, times twice the longest axis.
CONFLICT_UM = 14.0
# Rounds of thinning. A candidate depends on no other that is further away than two conflicts per round;
# the margin covers that for a cell's own nuclei and for those that may overlap them.
ROUNDS = 3
MARGIN_UM = 2 * ROUNDS * CONFLICT_UM + 2 * REACH_UM


Values = np.ndarray | float


class Kind(IntEnum):
    """Kinds of cell. A red cell has no nucleus and never counts as truth."""

    EPITHELIAL = 0
    SPINDLE = 1
    LYMPHOCYTE = 2
    RED_CELL = 3


NUCLEUS = np.dtype(
    [
        ("x", "f8"),  # centre, microns
        ("y", "f8"),
        ("a", "f8"),  # semi-axes, microns
        ("b", "f8"),
        ("cos", "f8"),  # direction of the first axis
        ("sin", "f8"),
        ("bend", "f8"),  # curvature, microns at the tip
        ("wave2", "f8"),  # amplitudes and phases of the outline's second to fourth harmonics
        ("phase2", "f8"),
        ("wave3", "f8"),
        ("phase3", "f8"),
        ("density", "f8"),  # hematoxylin, optical density
        ("rim", "f8"),  # 0 to 1, how much of the chromatin lies at the membrane
        ("clump", "f8"),  # 0 to 1, contrast of the chromatin
        ("nucleolus_x", "f8"),  # in units of the semi-axes
        ("nucleolus_y", "f8"),
        ("nucleolus", "f8"),  # its density, 0 for none
        ("soft", "f8"),  # width of the outline's soft edge, microns; wide where out of focus
        ("halo", "f8"),  # 0 to 1, clearing of the cytoplasm around the nucleus
        ("kind", "i8"),
        ("spacing", "f8"),  # least distance to another, as a share of the sum of both radii
        ("rank", "f8"),  # order from bottom to top of the section
    ]
)


def nuclei_of_cell(look: Look, column: int, row: int, margin_um: float) -> np.ndarray:
    """All cells of the layout with their centre in a grid cell or up to ``margin_um`` around it.

    The result within a region does not depend on the cell that asked for it.

    Args:
        look: The slide.
        column: Column of the grid of ``CELL_UM``.
        row: Row of that grid.
        margin_um: At most ``2 * REACH_UM``.

    Returns:
        Structured array of :data:`NUCLEUS`, sorted from bottom to top.
    """
    assert margin_um <= 2 * REACH_UM
    left, top = column * CELL_UM, row * CELL_UM
    candidates = _candidates(look, left - MARGIN_UM, top - MARGIN_UM, CELL_UM + 2 * MARGIN_UM)
    kept = candidates[_thin(candidates)]
    near = (kept["x"] >= left - margin_um) & (kept["x"] < left + CELL_UM + margin_um)
    near &= (kept["y"] >= top - margin_um) & (kept["y"] < top + CELL_UM + margin_um)
    kept = kept[near]
    return kept[np.lexsort((kept["x"], kept["y"], kept["rank"]))]


def outline_points(nuclei: np.ndarray, vertices: int) -> np.ndarray:
    """Points on the outlines.

    Args:
        nuclei: Structured array of :data:`NUCLEUS`, ``(n,)``.
        vertices: Points per outline.

    Returns:
        Microns, float64, ``(n, vertices, 2)``.
    """
    theta = np.arange(vertices) * (2 * np.pi / vertices)
    get = {name: nuclei[name][:, None] for name in NUCLEUS.names or ()}
    rho = (
        1
        + get["wave2"] * np.cos(2 * theta + get["phase2"])
        + get["wave3"] * np.cos(3 * theta + get["phase3"])
    )
    along, across = rho * np.cos(theta), rho * np.sin(theta)
    u = get["a"] * along
    v = get["b"] * across + get["bend"] * along**2
    x = get["x"] + u * get["cos"] - v * get["sin"]
    y = get["y"] + u * get["sin"] + v * get["cos"]
    return np.stack([x, y], axis=-1)


def _candidates(look: Look, left: float, top: float, size: float) -> np.ndarray:
    first_column, first_row = math.floor(left / PITCH_UM), math.floor(top / PITCH_UM)
    count = math.ceil(size / PITCH_UM) + 1
    row, column = np.divmod(np.arange(count * count, dtype=np.int64), count)
    column, row = column + first_column, row + first_row

    def draw(number: int) -> np.ndarray:
        return uniforms(column, row, field_seed(look.seed, Field.NUCLEUS + number))

    x = (column + 0.5 + 0.95 * (draw(0) - 0.5)) * PITCH_UM
    y = (row + 0.5 + 0.95 * (draw(1) - 0.5)) * PITCH_UM
    plan = architecture_at(look, x, y)
    kind = _choose_kind(plan, draw(2))
    chosen = kind >= 0
    column, row, x, y, kind = column[chosen], row[chosen], x[chosen], y[chosen], kind[chosen]
    angle = _axis_angle(plan, kind, chosen, draw(3), draw(4))
    return _shape_nuclei(look, kind, x, y, angle, [draw(number) for number in range(5, 22)])


def _choose_kind(plan: Architecture, chance: np.ndarray) -> np.ndarray:
    """Kind of each candidate, -1 for none."""
    kind = np.full(chance.shape, -1, dtype=np.int64)
    stroma = plan.gland < -2.5
    lymphocytes = 0.65 * plan.infiltrate
    kind[stroma & (chance < lymphocytes)] = Kind.LYMPHOCYTE
    kind[stroma & (chance > 0.915 - 0.03 * plan.loose)] = Kind.SPINDLE
    vessel = plan.vessel > 0.5
    kind[vessel & (np.abs(plan.gland - 1.0) < 2.5) & (chance < 0.35)] = Kind.SPINDLE
    kind[vessel & (plan.lumen > 3.0)] = np.where(
        chance[vessel & (plan.lumen > 3.0)] < 0.55, Kind.RED_CELL, -1
    )
    # In a gland the nuclei lie in its wall, away from the lumen; a solid nest is full of them.
    wall = ~vessel & (plan.gland > 3.0) & (plan.lumen < -7.5)
    kind[wall & (chance < 0.93)] = Kind.EPITHELIAL
    kind[wall & (chance > 0.99)] = Kind.LYMPHOCYTE
    kind[plan.tissue < 5.0] = -1
    return kind


def _axis_angle(
    plan: Architecture, kind: np.ndarray, chosen: np.ndarray, chance: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Long axes: along the fibres in stroma, across the wall in glands, any way in solid nests."""
    fibre = np.arctan2(plan.fibre_sin, plan.fibre_cos)[chosen] / 2
    spread = chance - 0.5
    in_gland = plan.lumen[chosen] > -100.0
    epithelial = np.where(in_gland, plan.radial[chosen] + 0.9 * spread, 2 * np.pi * other)
    return np.where(kind == Kind.SPINDLE, fibre + 0.5 * spread, epithelial)


def _shape_nuclei(
    look: Look, kind: np.ndarray, x: np.ndarray, y: np.ndarray, angle: np.ndarray, draws: list[np.ndarray]
) -> np.ndarray:
    """Draw every attribute; ``draws`` are uniform numbers, one array per attribute."""
    u = iter(draws)
    nuclei = np.zeros(x.size, dtype=NUCLEUS)
    size, ratio, dark = next(u), next(u), next(u)
    spindle, lymphocyte, red = (kind == k for k in (Kind.SPINDLE, Kind.LYMPHOCYTE, Kind.RED_CELL))

    def per_kind(epithelial: Values, of_spindle: Values, of_lymphocyte: Values) -> np.ndarray:
        return np.select([spindle, lymphocyte | red], [of_spindle, of_lymphocyte], epithelial)

    nuclei["x"], nuclei["y"], nuclei["kind"] = x, y, kind
    mean_radius = per_kind((2.9 + 1.5 * size**1.5) * look.nucleus_scale, 2.3 + 0.7 * size, 2.35 + 0.9 * size)
    stretch = np.sqrt(per_kind(1.08 + 0.65 * ratio, 2.2 + 2.4 * ratio, 1.0 + 0.35 * ratio))
    nuclei["a"], nuclei["b"] = mean_radius * stretch, mean_radius / stretch
    nuclei["cos"], nuclei["sin"] = np.cos(angle), np.sin(angle)
    nuclei["bend"] = per_kind(0.5, 0.9, 0.0) * (next(u) - 0.5) * nuclei["b"]
    nuclei["wave2"], nuclei["phase2"] = per_kind(0.05, 0.06, 0.06) * next(u), 2 * np.pi * next(u)
    nuclei["wave3"], nuclei["phase3"] = per_kind(0.055, 0.06, 0.07) * next(u), 2 * np.pi * next(u)
    density = per_kind(0.52 + 0.55 * dark + 0.5 * dark**6, 0.75 + 0.65 * dark, 1.0 + 0.75 * dark)
    blurred = next(u) ** 3
    nuclei["soft"] = 0.6 + 1.5 * blurred
    nuclei["density"] = density * (1 - 0.25 * blurred) * look.hematoxylin
    nuclei["rim"] = per_kind(0.25 + 0.45 * next(u), 0.1, 0.1)
    nuclei["clump"] = per_kind(0.35 + 0.40 * next(u), 0.30, 0.45)
    place, turn, has = 0.45 * next(u), 2 * np.pi * next(u), next(u)
    nuclei["nucleolus_x"], nuclei["nucleolus_y"] = place * np.cos(turn), place * np.sin(turn)
    nuclei["nucleolus"] = np.where((kind == Kind.EPITHELIAL) & (has < 0.5), 0.65 * density, 0.0)
    nuclei["halo"] = per_kind(0.6 * next(u), 0.15, 0.35)
    nuclei["spacing"] = look.crowding + 0.24 * (next(u) - 0.5)
    nuclei["rank"] = next(u)
    return nuclei


def _thin(candidates: np.ndarray) -> np.ndarray:
    """Keep candidates so that no two kept ones are closer than their ``spacing`` times the sum of radii.

    In each round a candidate is kept when it ranks above every open candidate it conflicts with, and those
    are struck out. What is still open after the last round goes. Unlike throwing darts one after another, the
    outcome at a place depends on a bounded neighbourhood only.
    """
    points = np.stack([candidates["x"], candidates["y"]], axis=1)
    pairs = cKDTree(points).query_pairs(CONFLICT_UM, output_type="ndarray")
    offset = points[pairs[:, 1]] - points[pairs[:, 0]]
    distance = np.hypot(offset[:, 0], offset[:, 1])
    reach = _radius_towards(candidates[pairs[:, 0]], offset) + _radius_towards(
        candidates[pairs[:, 1]], offset
    )
    spacing = (candidates["spacing"][pairs[:, 0]] + candidates["spacing"][pairs[:, 1]]) / 2
    pairs = pairs[distance < spacing * reach]
    rank = candidates["rank"]
    below = rank[pairs[:, 0]] < rank[pairs[:, 1]]
    low, high = np.where(below, pairs[:, 0], pairs[:, 1]), np.where(below, pairs[:, 1], pairs[:, 0])
    is_open, kept = np.ones(len(points), dtype=bool), np.zeros(len(points), dtype=bool)
    for _ in range(ROUNDS):
        contest = is_open[low] & is_open[high]
        wins = is_open.copy()
        wins[low[contest]] = False
        kept |= wins
        is_open &= ~wins
        is_open[low[wins[high]]] = False
    return kept


def _radius_towards(nuclei: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Radius of each nucleus' ellipse along a direction, given as a vector of any length."""
    length = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-9)
    along = (offset[:, 0] * nuclei["cos"] + offset[:, 1] * nuclei["sin"]) / length
    across = (offset[:, 1] * nuclei["cos"] - offset[:, 0] * nuclei["sin"]) / length
    return 1 / np.hypot(along / nuclei["a"], across / nuclei["b"])
