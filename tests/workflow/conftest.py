"""A real cohort run through the real workflow, once, and copies of it to change."""

from __future__ import annotations

import pandas as pd
import pytest

from karyon.demo.cohort import render_cohort
from karyon.io.sheets import read_sheet
from workdir import REPOSITORY, SETTINGS, SNAKEMAKE, Workflow, new_workflow

__all__ = ["REPOSITORY", "SETTINGS", "SNAKEMAKE", "Workflow", "new_workflow"]


@pytest.fixture(scope="session")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The sheet of three small synthetic slides, with absolute paths."""
    folder = tmp_path_factory.mktemp("rendered")
    return read_sheet(render_cohort(folder, slides=3, width=900, height=700, mpp=0.5, seed=7))


@pytest.fixture(scope="session")
def finished(sheet: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The cohort after a first run. Not to be changed: take a copy."""
    workflow = new_workflow(tmp_path_factory.mktemp("cohort") / "work")
    workflow.write_sheet(sheet)
    result = workflow.run()
    assert result.returncode == 0, result.stdout + result.stderr
    return workflow
