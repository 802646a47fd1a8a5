"""A slide that four jobs of `infer` share: the nuclei of one job."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from conftest import SETTINGS, Workflow, new_workflow


@pytest.mark.slow
def test_four_jobs_on_one_slide_find_the_nuclei_of_one_job(
    finished: Workflow, sheet: pd.DataFrame, tmp_path: Path
) -> None:
    workflow = new_workflow(tmp_path / "work")
    workflow.write_sheet(sheet.iloc[:1])
    result = workflow.run("--until", "nuclei", settings={**SETTINGS, "jobs_per_shard": 4})
    assert result.returncode == 0, result.stderr
    slide_id = sheet["slide_id"].iloc[0]
    results = Path("results", "tiny")
    nuclei = results / "nuclei" / f"{slide_id}.parquet"
    assert (workflow.folder / nuclei).read_bytes() == (finished.folder / nuclei).read_bytes()
    manifests = [
        pd.read_parquet(path)
        for folder in (workflow.folder, finished.folder)
        for path in sorted((folder / results / "manifests").glob(f"infer*/{slide_id}.parquet"))
    ]
    gathered, *parts, whole = (manifest.iloc[0] for manifest in manifests)
    assert gathered["tiles"] == sum(part["tiles"] for part in parts) == whole["tiles"]
    assert [part["tiles"] for part in parts] == [3, 3, 3, 2]
    assert not list((workflow.folder / results / "tiles").rglob("*.zip"))  # they have been read
