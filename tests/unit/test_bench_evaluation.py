"""The bench of stage `evaluate`: the figures it gives, and that it works on what it says."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from karyon.bench.evaluation import measure_evaluation

COUNT = 5_000


def test_bench_gives_time_and_memory_of_points_within_a_disc(tmp_path: Path) -> None:
    seconds, memory = measure_evaluation(tmp_path, COUNT)
    assert (seconds.name, memory.name) == ("evaluation.time", "evaluation.memory")
    assert 0 < seconds.value < 60
    assert 100 < memory.value < 2000
    assert seconds.met
    assert memory.met
    (path,) = (tmp_path / "evaluation" / "matches").glob("*.parquet")
    table = pd.read_parquet(path)
    # The region is the disc that touches the sides of a square evenly strewn with points.
    annotated = table["annotation_id"].notna().sum()
    assert annotated == pytest.approx(math.pi / 4 * COUNT, rel=0.03)
    assert set(table["kind"]) == {"TP", "FP", "FN"}
    assert 0.85 < (table["kind"] == "TP").sum() / annotated < 0.95
