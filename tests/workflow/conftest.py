"""A real cohort run through the real workflow, once, and copies of it to change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from karyon.demo.cohort import render_cohort
from karyon.io.sheets import read_sheet

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = {
    "cohort": "tiny",
    "sheet": "cohort.tsv",
    "shard_size": 1,
    "infer": {"tile_px": 256},
    "nuclei": {"geojson": True},
}

SNAKEMAKE = (
    sys.executable,
    *("-m", "snakemake"),
    *("--profile", "profiles/local"),
    *("--configfile", "settings.yaml"),
)


class Workflow:
    """A working directory with the workflow, a cohort and its results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, settings: dict | None = None) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with the local profile; settings replace those of the last run."""
        if settings is not None:
            self.write_settings(settings)
        return subprocess.run(
            [*SNAKEMAKE, *arguments], cwd=self.folder, capture_output=True, text=True, check=False
        )

    def write_settings(self, settings: dict) -> None:
        """Settings of the runs that follow."""
        (self.folder / "settings.yaml").write_text(yaml.safe_dump(settings))

    def planned(self, *arguments: str, settings: dict | None = None) -> list[str]:
        """The rules that a dry run would run, one entry per job, without `all`."""
        result = self.run("--dry-run", *arguments, settings=settings)
        assert result.returncode == 0, result.stderr
        lines = (result.stdout + result.stderr).splitlines()
        rules = [line.split()[-1].rstrip(":") for line in lines if line.startswith(("rule ", "localrule "))]
        return sorted(rule for rule in rules if rule != "all")

    def write_sheet(self, sheet: pd.DataFrame) -> None:
        """Write the cohort sheet; paths must be absolute, so that copies share the slides."""
        sheet.to_csv(self.folder / "cohort.tsv", sep="\t", index=False)

    def copy(self, folder: Path) -> Workflow:
        """The same, elsewhere; times of files are kept."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workflow(folder)


def new_workflow(folder: Path) -> Workflow:
    """A working directory with the workflow but without sheet or results."""
    for name in ("workflow", "config", "profiles", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    workflow = Workflow(folder)
    workflow.write_settings(SETTINGS)
    return workflow


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
