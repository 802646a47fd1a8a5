"""The same cohort started twice at once: one run is refused, the other ends right."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import SNAKEMAKE, Workflow, new_workflow


@pytest.mark.slow
def test_a_second_run_of_a_cohort_is_refused_and_the_first_ends_right(
    finished: Workflow, sheet: pd.DataFrame, tmp_path: Path
) -> None:
    workflow = new_workflow(tmp_path / "work")
    workflow.write_sheet(sheet.iloc[:1])
    with (workflow.folder / "first.txt").open("wb") as output:
        first = subprocess.Popen(SNAKEMAKE, cwd=workflow.folder, stdout=output, stderr=output)
        while not any((workflow.folder / ".snakemake" / "locks").glob("*")):
            assert first.poll() is None
            time.sleep(0.05)
        second = workflow.run()
        assert first.poll() is None  # it was still at work
        status = first.wait()
    said = second.stdout + second.stderr
    assert second.returncode != 0
    assert "Directory cannot be locked" in said
    assert "sure that no other Snakemake process" in said
    assert "Traceback" not in said
    assert status == 0, (workflow.folder / "first.txt").read_text()
    results = Path("results", "tiny", "nuclei", f"{sheet['slide_id'].iloc[0]}.parquet")
    assert (workflow.folder / results).read_bytes() == (finished.folder / results).read_bytes()
    assert not list((workflow.folder / "results").rglob("nuclei/.*"))
