"""A working directory with the workflow in it, to run and to change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
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
