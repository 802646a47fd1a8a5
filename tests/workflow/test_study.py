"""A matrix of tiny networks through the real workflow: grown, killed, repeated, always the same table."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import SNAKEMAKE, Workflow
from test_kill import kill, unlock

from tiny_study import ORGANS, new_study, render_fields


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Fields of three organs."""
    return render_fields(tmp_path_factory.mktemp("fields"))


def results(workflow: Workflow) -> Path:
    return workflow.folder / "results" / "studies" / "tiny"


def snakemake(workflow: Workflow, *options: str) -> str:
    """What Snakemake says of the study."""
    result = workflow.run(*options, "--", "matrix")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def planned(workflow: Workflow) -> dict[str, list[str]]:
    """The runs of each rule that a dry run would do."""
    jobs: dict[str, set[str]] = {}
    rule = ""
    for line in snakemake(workflow, "--dry-run").splitlines():
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[-1].rstrip(":")
            jobs.setdefault(rule, set())
        if "wildcards: " in line and "run=" in line:
            jobs[rule].add(line.split("run=")[1])
    return {rule: sorted(runs) for rule, runs in jobs.items() if rule != "matrix"}


@pytest.fixture(scope="module")
def grown(fields: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A study of two organs to which a third was added: see the first test."""
    workflow = new_study(tmp_path_factory.mktemp("grown") / "work", fields, organs=2)
    snakemake(workflow)
    assert planned(workflow) == {}
    fields.to_csv(workflow.folder / "fields.tsv", sep="\t", index=False)
    (workflow.folder / "jobs.yaml").write_text(yaml.safe_dump(planned(workflow)))
    snakemake(workflow)
    return workflow


@pytest.mark.slow
def test_a_new_organ_is_learnt_alone_and_fills_its_row_and_column(grown: Workflow) -> None:
    jobs = yaml.safe_load((grown.folder / "jobs.yaml").read_text())
    assert jobs["study_train"] == ["unet-lung-1"]
    assert jobs["study_predict"] == ["unet-breast-1", "unet-kidney-1", "unet-lung-1"]
    assert [len(jobs[rule]) for rule in ("study_score", "study_report")] == [0, 0]  # one job each, of no run
    logs = {path.stem: path.read_text() for path in (results(grown) / "logs" / "predict").glob("*.log")}
    assert [logs["unet-breast-1"].count(f"{organ}: 1 images in") for organ in ORGANS] == [0, 0, 1]
    assert [logs["unet-breast-1"].count(f"{organ}: done before") for organ in ORGANS] == [1, 1, 0]
    assert "9 cells, 9 images" in (results(grown) / "logs" / "score.log").read_text()
    matrix = pd.read_parquet(results(grown) / "matrix.parquet")
    assert sorted(set(zip(matrix["train_groups"], matrix["test_group"], strict=True))) == [
        (train, test) for train in ORGANS for test in ORGANS
    ]
    assert (matrix["tp"] + matrix["fn"]).min() > 0
    assert matrix["tp"].sum() > 0
    assert (results(grown) / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_killed_in_mid_study_and_from_scratch_the_matrix_is_the_same(
    grown: Workflow, fields: pd.DataFrame, tmp_path: Path
) -> None:
    workflow = new_study(tmp_path / "work", fields, organs=3)
    with (workflow.folder / "output.txt").open("wb") as output:
        run = subprocess.Popen(
            [*SNAKEMAKE, "--", "matrix"], cwd=workflow.folder, stdout=output, stderr=output
        )
        while not list(results(workflow).glob("runs/*/checkpoint.ckpt")):
            assert run.poll() is None, (workflow.folder / "output.txt").read_text()
            time.sleep(0.05)
        kill(run)
    unlock(workflow)
    snakemake(workflow)
    for name in ("matrix.parquet", "curves.parquet"):
        assert (results(workflow) / name).read_bytes() == (results(grown) / name).read_bytes(), name


@pytest.mark.slow
def test_snakemake_finds_no_fault_with_the_rules_of_a_study(fields: pd.DataFrame, tmp_path: Path) -> None:
    workflow = new_study(tmp_path / "work", fields, organs=1)
    result = workflow.run("--lint")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_mistake_in_a_study_is_told_before_anything_runs(fields: pd.DataFrame, tmp_path: Path) -> None:
    workflow = new_study(tmp_path / "work", fields, organs=1)
    content = yaml.safe_load((workflow.folder / "settings.yaml").read_text())
    content["study"]["variants"]["unet"]["target"] = ["breats"]
    result = workflow.run(settings=content)
    assert result.returncode != 0
    assert "there is no group 'breats' (did you mean 'breast'?)" in result.stderr
    assert "Traceback" not in result.stderr
