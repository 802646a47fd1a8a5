"""A tiny cross-organ matrix on a real SLURM: trainings and inferences have a GPU, the rest has none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from cluster import job_records
from conftest import Slurm

from tiny_study import ORGANS, new_study, render_fields

GPU_RULES = ("study_train", "study_predict")
# torch cannot compute on a pretended GPU: SLURM grants one, and the job computes on its CPU threads.
PRETENDED_GPUS = [f"{rule}:{value}" for rule in GPU_RULES for value in ("gpu=0", "gres=gpu:h200:1")]


@pytest.mark.slow
def test_a_matrix_is_filled_by_jobs_of_which_trainings_and_inferences_have_a_gpu(
    slurm: Slurm, tmp_path: Path
) -> None:
    workflow = new_study(tmp_path / "work", render_fields(tmp_path / "fields"), organs=2)
    status, output = slurm.run(workflow, "--set-resources", *PRETENDED_GPUS, "--", "matrix")
    assert status == 0, output
    records = job_records(workflow.folder)
    rules = Counter(record["rule"] for record in records)
    assert rules == {"study_train": 2, "study_predict": 2, "study_score": 1, "study_report": 1}
    for record in records:
        granted = record.get("JOB_GRES", "(null)")
        assert granted == ("gpu:h200:1" if record["rule"] in GPU_RULES else "(null)"), record
    matrix = pd.read_parquet(workflow.folder / "results" / "studies" / "tiny" / "matrix.parquet")
    cells = set(zip(matrix["train_groups"], matrix["test_group"], strict=True))
    assert cells == {(train, test) for train in ORGANS[:2] for test in ORGANS[:2]}
