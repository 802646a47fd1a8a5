"""The matching bench: what it draws and the figures it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from karyon.bench.matching import draw_points, measure_matching


def test_drawn_points_are_as_dense_as_nuclei_and_mostly_found() -> None:
    predicted, truth = draw_points(10_000)
    assert len(predicted) == len(truth) == 10_000
    assert np.ptp(truth, axis=0) == pytest.approx([4000, 4000], rel=0.01)
    nearest = cKDTree(predicted).query(truth)[0]
    assert 0.85 < (nearest <= 16).mean() < 0.95


def test_bench_gives_the_three_figures_with_their_goals(tmp_path: Path) -> None:
    dense, growth, memory = measure_matching(tmp_path, 20_000)
    assert (dense.name, growth.name, memory.name) == (
        "matching.dense",
        "matching.growth",
        "matching.memory",
    )
    assert dense.ratio == pytest.approx((dense.peer_value or 0) / dense.value)
    assert dense.met == (dense.ratio >= 15)
    assert growth.ratio == pytest.approx(growth.value / (growth.peer_value or 1))
    assert growth.met == (growth.ratio <= 12)
    assert 100 < memory.value < 2000
    assert memory.met
