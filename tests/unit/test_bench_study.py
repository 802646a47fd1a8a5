"""`karyon bench study`: a study that can be planned and scored, on three groups."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from karyon.bench.study import IMAGES, NETWORKS, NUCLEI, measure_study


@pytest.mark.slow
def test_the_study_is_planned_and_its_matrix_is_complete(tmp_path: Path) -> None:
    dry, score = measure_study(tmp_path, 3)
    assert dry.unit == f"CPU-s of 3 groups, {len(NETWORKS)} networks and 3 seeds"
    assert dry.value > 0
    assert score.value > 0
    matrix = pd.read_parquet(tmp_path / "study" / "matrix.parquet")
    assert len(matrix) == 3 * 3 * IMAGES
    assert (matrix["tp"] + matrix["fn"] == NUCLEI).all()
    assert matrix["f1"].mean() > 0.9  # detections were drawn near the annotations
