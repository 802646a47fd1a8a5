"""Gated matching against one dense assignment, and how its time and memory grow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from karyon.bench.measurement import Measurement, fastest
from karyon.bench.memory import process_peak_mb
from karyon.evaluation.matching import match_points

GOAL_TIMES, GOAL_GROWTH, GOAL_MB = 15.0, 12.0, 2000.0
# 4 um at 0.25 um/px, and a nucleus every 10 um: a million on 40,000 x 40,000 px.
RADIUS_PX, AREA_PX = 16.0, 1600.0
FOUND, JITTER_PX = 0.85, 3.0


def measure_matching(cache: Path, side: int) -> Iterator[Measurement]:
    """Match drawn detections to drawn annotations, as many of one as of the other.

    Args:
        cache: Not used: the points are drawn in memory.
        side: Number of points on a side in the largest run; a tenth of it is what time is compared with, a
            hundredth what is also solved by a dense assignment.
    """
    yield _against_dense(side // 100)
    small, large = draw_points(side // 10), draw_points(side)
    before = fastest(lambda: match_points(*small, RADIUS_PX))
    after = fastest(lambda: match_points(*large, RADIUS_PX))
    yield Measurement(
        name="matching.growth",
        value=after,
        unit=f"s for {side:,} detections and as many annotations",
        peer=f"the same for {side // 10:,}",
        peer_value=before,
        ratio=after / before,
        goal=f"ratio <= {GOAL_GROWTH:g}",
        met=after / before <= GOAL_GROWTH,
    )
    peak = process_peak_mb(match_drawn, side)
    yield Measurement(
        name="matching.memory",
        value=peak,
        unit=f"MB at the peak for {side:,} detections and as many annotations",
        goal=f"value < {GOAL_MB:g}",
        met=peak < GOAL_MB,
    )


def draw_points(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Detections and annotations in pixels, each ``(count, 2)``, in no order.

    Annotations lie anywhere. Most have a detection close by; the other detections lie anywhere as well.
    """
    rng = np.random.default_rng(0)
    side = np.sqrt(count * AREA_PX)
    truth = rng.uniform(0, side, (count, 2))
    found = truth[: int(count * FOUND)]
    found = found + rng.normal(0, JITTER_PX, found.shape)
    false = rng.uniform(0, side, (count - len(found), 2))
    return rng.permutation(np.concatenate([found, false])), truth


def match_drawn(count: int) -> None:
    """What the measured process does."""
    match_points(*draw_points(count), RADIUS_PX)


def _against_dense(count: int) -> Measurement:
    """Time both on the same points.

    Raises:
        AssertionError: They find another number of pairs, or another total distance.
    """
    predicted, truth = draw_points(count)
    seconds = fastest(lambda: match_points(predicted, truth, RADIUS_PX))
    ours = match_points(predicted, truth, RADIUS_PX).distance
    start = time.perf_counter()
    distance = cdist(predicted, truth)
    # A pair outside the gate costs more than all pairs within it.
    cost = np.where(distance <= RADIUS_PX, distance, RADIUS_PX * (count + 1))
    theirs = distance[linear_sum_assignment(cost)]
    peer_seconds = time.perf_counter() - start
    theirs = theirs[theirs <= RADIUS_PX]
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours.sum(), theirs.sum())
    ratio = peer_seconds / seconds
    return Measurement(
        name="matching.dense",
        value=seconds,
        unit=f"s for {count:,} detections and as many annotations",
        peer="scipy linear_sum_assignment on the gated distance matrix",
        peer_value=peer_seconds,
        ratio=ratio,
        goal=f"ratio >= {GOAL_TIMES:g}",
        met=ratio >= GOAL_TIMES,
    )
