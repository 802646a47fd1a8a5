"""A SLURM of our own, and a cohort to run on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import pytest
from cluster import UnavailableError, running_cluster

from karyon.cli.link_profiles import link_profiles
from karyon.demo.cohort import render_cohort
from karyon.io.sheets import read_sheet
from workdir import REPOSITORY, Workflow, new_workflow

SLIDES = 5
SETTINGS = {
    "cohort": "tiny",
    "sheet": "cohort.tsv",
    "shard_size": 1,
    "infer": {"tile_px": 256},
    "report": {"overlays": 1},
}
# torch cannot compute on a pretended GPU: SLURM grants one, and the job computes on its CPU threads.
PRETENDED_GPU = ("infer:gpu=0", "infer:gres=gpu:h200:1")


class Slurm:
    """Snakemake on SLURM, as a user starts it after `karyon link-profiles`."""

    def __init__(self, configuration: Path) -> None:
        link_profiles(REPOSITORY / "profiles", configuration / "snakemake")
        self.environment = {**os.environ, "XDG_CONFIG_HOME": str(configuration)}

    @contextmanager
    def start(self, workflow: Workflow, *arguments: str) -> Iterator[subprocess.Popen]:
        """A run that ends with the block at the latest; what it prints goes to `output.txt`."""
        command = [
            *(str(Path(sys.executable).with_name("snakemake")), "--profile", "slurm"),
            *("--configfile", "settings.yaml"),
            *("--slurm-init-seconds-before-status-checks", "7"),
            *arguments,
        ]
        with (
            (workflow.folder / "output.txt").open("ab") as output,
            subprocess.Popen(
                command, cwd=workflow.folder, env=self.environment, stdout=output, stderr=output
            ) as run,
        ):
            try:
                yield run
            finally:
                run.kill()

    def run(self, workflow: Workflow, *arguments: str) -> tuple[int, str]:
        """Exit status of a run, and all that was printed in this folder so far."""
        with self.start(workflow, *arguments) as run:
            status = run.wait()
        return status, (workflow.folder / "output.txt").read_text()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A cluster, while there are tests to run on it; without root or apt they are skipped."""
    with ExitStack() as stack:
        try:
            stack.enter_context(running_cluster(tmp_path_factory.mktemp("slurm")))
        except UnavailableError as reason:
            pytest.skip(str(reason))
        yield Slurm(tmp_path_factory.mktemp("configuration"))


@pytest.fixture(scope="session")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The sheet of five tiny synthetic slides, with absolute paths."""
    folder = tmp_path_factory.mktemp("rendered")
    return read_sheet(render_cohort(folder, slides=SLIDES, width=320, height=256, mpp=0.5, seed=11))


@pytest.fixture(scope="session")
def undisturbed(
    slurm: Slurm, sheet: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The nuclei that this machine finds by itself, and nothing disturbs it."""
    workflow = new_workflow(tmp_path_factory.mktemp("undisturbed") / "work")
    workflow.write_sheet(sheet)
    result = workflow.run("--until", "nuclei", settings={**SETTINGS, "shard_size": SLIDES})
    assert result.returncode == 0, result.stderr
    nuclei = nuclei_of(workflow)
    assert len(nuclei) == SLIDES
    return nuclei


@pytest.fixture(scope="session")
def finished(slurm: Slurm, sheet: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The whole cohort after `snakemake --profile slurm`. Not to be changed."""
    workflow = new_workflow(tmp_path_factory.mktemp("cohort") / "work")
    workflow.write_sheet(sheet)
    workflow.write_settings(SETTINGS)
    status, output = slurm.run(workflow, "--set-resources", *PRETENDED_GPU)
    assert status == 0, output
    return workflow


@pytest.fixture
def until_stain(finished: Workflow, tmp_path: Path) -> Workflow:
    """A copy of the cohort as it was before `infer`."""
    return before_infer(finished, tmp_path / "work")


def before_infer(finished: Workflow, folder: Path) -> Workflow:
    workflow = finished.copy(folder)
    (workflow.folder / "output.txt").unlink()
    results = workflow.folder / "results" / "tiny"
    for stage in ("infer", "stitch", "nuclei", "evaluate"):
        shutil.rmtree(results / "records" / stage)
        shutil.rmtree(results / "manifests" / stage)
    for kind in ("tiles", "maps", "nuclei", "matches", "report"):
        shutil.rmtree(results / kind, ignore_errors=True)  # some go by themselves when they have been read
    for path in (*results.glob("*.parquet"), results / "verdict.txt"):
        path.unlink()
    return workflow


def nuclei_of(workflow: Workflow) -> dict[str, bytes]:
    """Content of every table of nuclei."""
    folder = workflow.folder / "results" / "tiny" / "nuclei"
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*.parquet")}
