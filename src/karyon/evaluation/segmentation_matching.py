"""Which predicted object stands for which true one: the rules of several papers, all one-to-one."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from karyon.evaluation.overlap import Overlap, best_pairs

# The solver's time grows with the square of what it is handed at once: 5 ms for this many.
BATCH_PAIRS = 2000
NB_DICE = 0.2
JOINT_SHARE = 0.5


def match_by_iou(overlap: Overlap, threshold: float = 0.5) -> np.ndarray:
    """Pairs whose intersection over union is above the threshold (Kirillov et al. 2019, section 4.1).

    Where the objects of a side do not overlap each other, as in a map, no object can be in two such pairs.
    Among overlapping polygons that may happen: then a pair counts if it is the best one of both its objects.

    Args:
        overlap: The table.
        threshold: At least 0.5, below 1; a pair must be above it, not at it.

    Returns:
        Indices of pairs of the table, int64, increasing.

    Raises:
        ValueError: The threshold is below 0.5, where pairs are not unique, or not below 1.
    """
    if not 0.5 <= threshold < 1:
        raise ValueError(
            f"threshold is {threshold!r}; expected at least 0.5, so that pairs are unique, and < 1."
        )
    iou = overlap.iou
    above = np.flatnonzero(iou > threshold)
    best = best_pairs(overlap.predicted[above], iou[above])
    best_of_truth = best_pairs(overlap.truth[above], iou[above])
    return above[np.intersect1d(best, best_of_truth)]


def match_by_truth_share(overlap: Overlap) -> np.ndarray:
    """Pairs in which the prediction covers more than half of the true object (JOINT, section 3.1).

    JOINT counts a predicted nucleus as true positive "if it overlaps with a ground-truth nucleus more than
    50% of the area of the true nucleus"; how it counts one that covers several true nuclei, it does not say.
    Here it stands for the one of which it covers the largest area (of equals the larger share, then the
    smaller id), and the others are missed. In maps the number of true positives does not depend on this
    choice: no true nucleus can be covered by two. Among overlapping polygons it can; then the one that
    covers most of it counts.

    Returns:
        Indices of pairs of the table, int64, increasing.
    """
    share = overlap.area / overlap.truth_area[overlap.truth]
    covered = np.flatnonzero(share > JOINT_SHARE)
    covered = covered[best_pairs(overlap.truth[covered], overlap.area[covered])]
    return np.sort(covered[best_pairs(overlap.predicted[covered], overlap.area[covered], share[covered])])


def match_by_dice(overlap: Overlap) -> np.ndarray:
    """One-to-one pairs of a Dice coefficient of at least 0.2 (NB, section III-A, below equation 5).

    Under 0.5 an object may be in several such pairs. NB says that only one of them corresponds but not
    which; here it is the one-to-one choice with the largest sum of Dice coefficients.

    Returns:
        Indices of pairs of the table, int64, increasing.
    """
    dice = overlap.dice
    return heaviest_pairs(overlap, np.where(dice >= NB_DICE, dice, 0))


def heaviest_pairs(overlap: Overlap, weight: np.ndarray) -> np.ndarray:
    """The one-to-one choice of pairs with the largest sum of weights (assignment problem).

    It never crosses the connected components of the graph of pairs, so it is exact although solved in batches
    of whole components. Between choices that tie, which is taken is arbitrary but always the same.

    Args:
        overlap: The table.
        weight: Of each pair, >= 0, ``(k,)``; a pair of weight 0 is never chosen.

    Returns:
        Indices of pairs of the table, int64, increasing.
    """
    pairs = np.flatnonzero(weight > 0)
    rows, columns = overlap.predicted[pairs], overlap.truth[pairs]
    shape = len(overlap.predicted_id), len(overlap.truth_id)
    graph = coo_array((np.ones(len(pairs)), (rows, columns + shape[0])), shape=(sum(shape), sum(shape)))
    _, label = connected_components(graph, directed=False)
    component = label[rows]
    order = np.argsort(component, kind="stable")
    _, first, size = np.unique(component[order], return_index=True, return_counts=True)
    batch = np.repeat(first // BATCH_PAIRS, size)
    parts = np.split(pairs[order], np.flatnonzero(np.diff(batch)) + 1) if len(pairs) else []
    chosen = [_solve(overlap, np.sort(part), weight) for part in parts]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


def _solve(overlap: Overlap, pairs: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The heaviest choice among some pairs, whose indices increase; gives indices of the table."""
    present, row = np.unique(overlap.predicted[pairs], return_inverse=True)
    others, column = np.unique(overlap.truth[pairs], return_inverse=True)
    height, width = len(present), len(others)
    alone = np.arange(height)
    # Every row takes one edge, a pair or its stand-in, so 1 more on all of them changes nothing; it keeps
    # weights above zero, which the solver would take for no edge.
    edges = np.concatenate([row, alone]), np.concatenate([column, alone + width])
    weights = np.concatenate([1 + weight[pairs], np.ones(height)])
    graph = coo_array((weights, edges), shape=(height, width + height)).tocsr()
    rows, columns = min_weight_full_bipartite_matching(graph, maximize=True)
    paired = columns < width
    # Pairs are sorted by row, then column, and so are their keys.
    return pairs[np.searchsorted(row * width + column, rows[paired] * width + columns[paired])]
