"""What every job of a cohort pays before it begins: torch is imported only where a network is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SNAKEMAKE, new_workflow


def imported(command: list[str], folder: Path) -> set[str]:
    """Every module that a Python command imports."""
    python, *arguments = command
    result = subprocess.run(
        [python, "-X", "importtime", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip() for line in lines}


@pytest.mark.parametrize("mode", ["default", "remote"])
def test_neither_planning_nor_a_jobs_own_snakemake_imports_torch(tmp_path: Path, mode: str) -> None:
    workflow = new_workflow(tmp_path / "work")
    (workflow.folder / "a.svs").write_bytes(b"any")
    (workflow.folder / "cohort.tsv").write_text("slide_id\tpath\na\ta.svs\n")
    assert workflow.planned()
    modules = imported([*SNAKEMAKE, "--dry-run", "--nolock", "--mode", mode], workflow.folder)
    assert "karyon.cohort.plan" in modules
    assert "torch" not in modules


@pytest.mark.parametrize("stage", ["tissue", "stitch", "nuclei", "evaluate", "summary"])
def test_the_script_of_a_stage_without_a_network_imports_no_torch(stage: str) -> None:
    lines = (REPOSITORY / "workflow" / "scripts" / f"{stage}.py").read_text().splitlines()
    imports = [line for line in lines if line.startswith("from ")]
    modules = imported([sys.executable, "-c", "\n".join(imports)], REPOSITORY)
    assert "karyon.cohort" in modules
    assert "torch" not in modules
