"""Pair detections with annotated points: as many pairs as the gate allows, then the shortest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

# A component with more cells than this is solved on its sparse graph: measured, faster from 200 x 200 on.
DENSE_CELLS = 40_000


@dataclass(frozen=True)
class Matches:
    """One-to-one pairs of detections and annotations, ordered by ``predicted``.

    Attributes:
        predicted: Rows of the predicted points, int64, ``(k,)``, increasing.
        truth: Rows of the true points, int64, ``(k,)``, each at most once.
        distance: Euclidean distance of each pair in the points' unit, float64, ``(k,)``.
    """

    predicted: np.ndarray
    truth: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class _Gate:
    """The pairs within the radius, sorted by connected component.

    ``row`` and ``column`` are the two sides, ``distance`` and ``component`` belong to the pair, ``rows`` and
    ``columns`` count the points on each side of every component.
    """

    row: np.ndarray
    column: np.ndarray
    distance: np.ndarray
    component: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def match_points(predicted: np.ndarray, truth: np.ndarray, radius: float) -> Matches:
    """The assignment of most pairs within ``radius``, and among those the one of least total distance.

    Pairs within the radius form a sparse graph, and an assignment never crosses its connected components, so
    each component is solved on its own and exactly (Hungarian method). Gating comes first: the cheapest
    assignment of *all* points, gated afterwards, loses matches. Source: the NUCLEI paper's evaluation
    (minimum total Euclidean distance within 16 px at 40x, which is 4 um, maximum cardinality first).

    Args:
        predicted: Detected points, ``(n, 2)``, any unit.
        truth: Annotated points, ``(m, 2)``, in the same unit.
        radius: Largest distance of a pair, inclusive, > 0, in the same unit.

    Returns:
        The pairs. Cardinality and total distance do not change when the two sets are exchanged or their rows
        reordered; between assignments that tie in both, the choice is arbitrary but always the same.

    Raises:
        ValueError: A coordinate or the radius is not finite, the radius is not above 0, or an array is not
            ``(n, 2)``.
    """
    predicted, truth = _checked(predicted, "predicted"), _checked(truth, "truth")
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"radius is {radius!r}; expected a finite number above 0.")
    if not len(predicted) or not len(truth):
        return Matches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
    gate = _gate_graph(predicted, truth, radius)
    chosen = np.concatenate([_match_stars(gate), *_match_others(gate, radius)])
    chosen = chosen[np.argsort(gate.row[chosen])]
    return Matches(gate.row[chosen], gate.column[chosen], gate.distance[chosen])


def _checked(points: np.ndarray, name: str) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.size == 0:
        return points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{name} has shape {points.shape}; expected (n, 2).")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise ValueError(f"{name} has {bad.size} points that are not finite, the first in row {bad[0]}.")
    return points


def _gate_graph(predicted: np.ndarray, truth: np.ndarray, radius: float) -> _Gate:
    # The tree compares squares; a hair more here, and the gate itself is the rounded distance that we report.
    near = cKDTree(predicted).sparse_distance_matrix(
        cKDTree(truth), radius * (1 + 1e-9), output_type="ndarray"
    )
    row, column = near["i"].astype(np.int64), near["j"].astype(np.int64)
    offset = predicted[row] - truth[column]
    distance = np.hypot(offset[:, 0], offset[:, 1])
    inside = distance <= radius
    row, column, distance = row[inside], column[inside], distance[inside]

    size = len(predicted) + len(truth)
    graph = coo_array((np.ones(row.size, np.uint8), (row, column + len(predicted))), shape=(size, size))
    number, label = connected_components(graph, directed=False)
    rows = np.bincount(label[: len(predicted)], minlength=number)
    columns = np.bincount(label[len(predicted) :], minlength=number)
    component = label[row]
    order = np.lexsort((column, row, component))
    return _Gate(row[order], column[order], distance[order], component[order], rows, columns)


def _match_stars(gate: _Gate) -> np.ndarray:
    """Components with one point on a side hold one pair: the nearest. Returns indices of pairs."""
    star = np.minimum(gate.rows, gate.columns)[gate.component] == 1
    edges = np.flatnonzero(star)
    edges = edges[np.lexsort((edges, gate.distance[edges], gate.component[edges]))]
    _, first = np.unique(gate.component[edges], return_index=True)
    return edges[first]


def _match_others(gate: _Gate, radius: float) -> list[np.ndarray]:
    """Every other component by the Hungarian method. Returns indices of pairs, an array per component."""
    edges = np.flatnonzero(np.minimum(gate.rows, gate.columns)[gate.component] > 1)
    component = gate.component[edges]
    row, column = _rank_within(gate.row[edges], component), _rank_within(gate.column[edges], component)
    starts = np.flatnonzero(np.diff(component, prepend=-1)).tolist()
    found = []
    for start, end in zip(starts, [*starts[1:], edges.size], strict=False):
        part = slice(start, end)
        which = component[start]
        shape = int(gate.rows[which]), int(gate.columns[which])
        solve = _solve_dense if shape[0] * shape[1] <= DENSE_CELLS else _solve_sparse
        found.append(edges[part][solve(row[part], column[part], gate.distance[edges[part]], shape, radius)])
    return found


def _rank_within(point: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Number the points of each component from 0, as they are ordered."""
    present, index = np.unique(point, return_inverse=True)
    home = np.empty(present.size, dtype=np.int64)
    home[index] = component
    order = np.argsort(home, kind="stable")
    position = np.empty(present.size, dtype=np.int64)
    position[order] = np.arange(present.size)
    start_of = np.searchsorted(home[order], home)
    return (position - start_of)[index]


def _solve_dense(
    row: np.ndarray, column: np.ndarray, distance: np.ndarray, shape: tuple[int, int], radius: float
) -> np.ndarray:
    """Indices of the chosen pairs of one component, by a dense cost matrix."""
    # Fewer pairs can save at most min(shape) radii of distance, so a pair is worth one radius more than that.
    worth = (min(shape) + 1) * radius
    cost = np.zeros(shape)
    cost[row, column] = distance - worth
    pair = np.full(shape, -1, dtype=np.int32)
    pair[row, column] = np.arange(row.size, dtype=np.int32)
    chosen = pair[linear_sum_assignment(cost)]
    return chosen[chosen >= 0]


def _solve_sparse(
    row: np.ndarray, column: np.ndarray, distance: np.ndarray, shape: tuple[int, int], radius: float
) -> np.ndarray:
    """The same on the gate graph alone: each point of the smaller side may take a stand-in of its own."""
    if shape[0] > shape[1]:
        row, column, shape = column, row, shape[::-1]
    size, width = shape
    stand_in = np.arange(size)
    # Every point takes one edge, so adding the radius to all of them changes nothing; it keeps weights above
    # zero, which the solver would take for no edge at all. A stand-in costs what a lost pair is worth.
    weight = np.concatenate([distance + radius, np.full(size, (size + 2) * radius)])
    graph = coo_array(
        (weight, (np.concatenate([row, stand_in]), np.concatenate([column, stand_in + width]))),
        shape=(size, width + size),
    ).tocsr()
    rows, columns = min_weight_full_bipartite_matching(graph)
    real = columns < width
    keys, wanted = row * width + column, rows[real] * width + columns[real]
    order = np.argsort(keys)
    return order[np.searchsorted(keys, wanted, sorter=order)]
