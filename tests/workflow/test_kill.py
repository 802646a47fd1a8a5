"""Snakemake and its jobs killed at any moment: no finished slide is redone, and the result is the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import SETTINGS, SNAKEMAKE, Workflow, new_workflow

from karyon.demo.cohort import render_cohort
from karyon.io.sheets import read_sheet

MOMENTS = 20
SLIDES = 6
KILL_SETTINGS = {
    **SETTINGS,
    "shard_size": SLIDES,
    "nuclei": {"csv": True, "geojson": True, "mask": True},
    "report": {"overlays": 0},
}


def results(workflow: Workflow) -> Path:
    return workflow.folder / "results" / "tiny"


def nuclei_of(workflow: Workflow) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (results(workflow) / "nuclei").glob("[!.]*.parquet")}


def records_of(workflow: Workflow) -> dict[Path, int]:
    """Time of each record, which a stage writes last when it is done with a slide."""
    return {path: path.stat().st_mtime_ns for path in (results(workflow) / "records").glob("*/[!.]*.json")}


def outputs_of(record: Path) -> Iterator[tuple[Path, int]]:
    """What a stage wrote of a slide, with sizes; tile predictions only until the slide's map is there."""
    stitched = (record.parents[1] / "stitch" / record.name).exists()
    for name, size in json.loads(record.read_text())["outputs"].items():
        if not (stitched and name.startswith("tiles/")):
            yield record.parents[2] / name, size


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A cohort of six slides that has not been run."""
    folder = tmp_path_factory.mktemp("rendered")
    sheet = read_sheet(render_cohort(folder, slides=SLIDES, width=320, height=256, mpp=0.5, seed=11))
    workflow = new_workflow(tmp_path_factory.mktemp("kill") / "work")
    workflow.write_sheet(sheet)
    workflow.write_settings(KILL_SETTINGS)
    return workflow


@pytest.fixture(scope="module")
def undisturbed(prepared: Workflow, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The nuclei of a run that nothing disturbs."""
    workflow = prepared.copy(tmp_path_factory.mktemp("undisturbed") / "work")
    result = workflow.run()
    assert result.returncode == 0, result.stdout + result.stderr
    nuclei = nuclei_of(workflow)
    assert len(nuclei) == SLIDES
    return nuclei


def kill(run: subprocess.Popen) -> None:
    """As a power cut does: Snakemake and all its jobs, without a word."""
    for process in (*psutil.Process(run.pid).children(recursive=True), run):
        os.kill(process.pid, signal.SIGKILL)
    run.wait()


def run_until_killed(workflow: Workflow, seconds: float) -> int | None:
    """Start Snakemake, and kill it and its jobs after some seconds; its exit status if it ended before."""
    with (workflow.folder / "output.txt").open("ab") as output:
        run = subprocess.Popen(SNAKEMAKE, cwd=workflow.folder, stdout=output, stderr=output)
        try:
            return run.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill(run)
            return None


def is_locked(workflow: Workflow) -> bool:
    return any((workflow.folder / ".snakemake" / "locks").glob("*"))


def unlock(workflow: Workflow) -> None:
    """As the message says, where a killed run left its lock."""
    if is_locked(workflow):
        assert workflow.run("--unlock").returncode == 0


@pytest.mark.slow
def test_a_cohort_killed_at_twenty_moments_ends_as_if_undisturbed(
    prepared: Workflow, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    workflow = prepared.copy(tmp_path / "work")
    moments = random.Random(20)
    killed = 0
    finished: dict[Path, int] = {}
    while killed < MOMENTS:
        status = run_until_killed(workflow, moments.uniform(1, 8))
        now = records_of(workflow)
        assert {path: now.get(path) for path in finished} == finished  # no finished slide was redone
        for record in now.keys() - finished.keys():
            assert all(path.stat().st_size == size for path, size in outputs_of(record))
        if status is None:
            killed += 1
            finished = now
        else:  # it got to its end: check it, and have another round
            assert status == 0, (workflow.folder / "output.txt").read_text()
            assert nuclei_of(workflow) == undisturbed
            shutil.rmtree(workflow.folder / "results")
            finished = {}
        unlock(workflow)
    result = workflow.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert {path: records_of(workflow)[path] for path in finished} == finished
    assert nuclei_of(workflow) == undisturbed
    assert list(pd.read_parquet(results(workflow) / "slides.parquet")["status"]) == ["done"] * SLIDES
    for folder in ("tissue", "stain", "tiles", "maps", "nuclei", "matches"):
        assert not list((results(workflow) / folder).glob(".*"))  # nothing half-written is left behind


@pytest.mark.slow
def test_after_a_kill_snakemake_says_how_to_go_on(prepared: Workflow, tmp_path: Path) -> None:
    workflow = prepared.copy(tmp_path / "work")
    run = subprocess.Popen(
        SNAKEMAKE, cwd=workflow.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not is_locked(workflow):
        assert run.poll() is None
        time.sleep(0.05)
    kill(run)
    refused = workflow.run()
    assert refused.returncode != 0
    assert "--unlock" in refused.stdout + refused.stderr
    assert workflow.run("--unlock").returncode == 0
    assert workflow.run("--until", "tissue").returncode == 0
