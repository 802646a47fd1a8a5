"""A cohort on a real SLURM: its own records say which jobs had a GPU, and when."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from cluster import GPUS, job_records
from conftest import SETTINGS, SLIDES, Slurm, nuclei_of

from karyon.cli.main import main
from karyon.cohort.demand import Demand
from workdir import Workflow, new_workflow

STAGES = ("tissue", "stain", "infer", "stitch", "nuclei", "evaluate")


@pytest.mark.slow
def test_every_stage_of_every_shard_was_one_job(finished: Workflow) -> None:
    records = job_records(finished.folder)
    assert {record["JobState"] for record in records} == {"COMPLETED"}
    assert sorted(record["rule"] for record in records) == sorted(
        [*STAGES * SLIDES, "summary", "report"]
    )  # the verdict is read where Snakemake runs


@pytest.mark.slow
def test_jobs_of_infer_had_a_gpu_each_and_no_others_had(finished: Workflow) -> None:
    for record in job_records(finished.folder):
        granted = record.get("JOB_GRES", "(null)")
        expected = ("gpu", "gpu:h200:1") if record["rule"] == "infer" else ("cpu", "(null)")
        assert (record["Partition"], granted) == expected, record


@pytest.mark.slow
def test_jobs_ask_for_what_their_shard_demands(finished: Workflow) -> None:
    for record in job_records(finished.folder):
        if record["shard"]:
            demand = Demand.of_plan(finished.folder / "results" / "tiny" / "plan" / f"{record['shard']}.tsv")
            infer = record["rule"] == "infer"
            minutes = demand.infer_minutes() if infer else demand.light_minutes()
            memory = demand.infer_mem_mb(threads=8) if infer else demand.light_mem_mb()
            asked = (record["TimeLimit"], record["TRES"].split(",")[1])
            assert asked == (f"00:{minutes}:00", f"mem={memory}M"), record


@pytest.mark.slow
def test_no_more_gpu_jobs_ran_at_once_than_there_are_gpus(finished: Workflow) -> None:
    jobs = [record for record in job_records(finished.folder) if record["rule"] == "infer"]
    spans = [tuple(datetime.fromisoformat(job[name]) for name in ("StartTime", "EndTime")) for job in jobs]
    at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(at_once) == GPUS < len(jobs)


@pytest.mark.slow
def test_the_cluster_finds_the_nuclei_that_one_machine_finds(
    finished: Workflow, undisturbed: dict[str, bytes]
) -> None:
    assert nuclei_of(finished) == undisturbed
    slides = pd.read_parquet(finished.folder / "results" / "tiny" / "slides.parquet")
    assert list(slides["status"]) == ["done"] * SLIDES


@pytest.mark.slow
def test_a_node_without_its_gpu_is_told(slurm: Slurm, until_stain: Workflow) -> None:
    workflow = until_stain
    workflow.write_settings({**SETTINGS, "retries": 0})
    target = "results/tiny/manifests/infer/demo-1.parquet"
    status, output = slurm.run(workflow, target, "--set-resources", "infer:gpu_model=h200")
    (job,) = job_records(workflow.folder)
    assert job["JOB_GRES"] == "gpu:h200:1"  # `gpu: 1` of the rule, and the model
    assert status != 0
    assert "was given a GPU but torch sees none: leave the node out" in output
    assert "Traceback" not in output.partition("torch sees none")[0]


@pytest.mark.slow
def test_doctor_asks_the_cluster_for_the_profiles_partitions(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow = new_workflow(tmp_path / "work")
    monkeypatch.chdir(workflow.folder)
    assert main(["doctor", "--profile", "slurm"]) == 0
    found = capsys.readouterr().out
    assert re.search(r"^ok +SLURM +answers; partitions cpu, gpu, urgent$", found, re.MULTILINE)
    assert re.search(r"^ok +partitions +cpu, gpu named in the profile$", found, re.MULTILINE)
    assert re.search(r"^ok +GPU partitions +gpu$", found, re.MULTILINE)
    partitions = workflow.folder / "profiles" / "slurm" / "partitions.yaml"
    partitions.write_text(partitions.read_text().replace("  gpu:", "  a100:"))
    assert main(["doctor", "--profile", "slurm"]) == 1
    found = capsys.readouterr().out
    wrong = r"^fail +partitions +a100 named in the profile, but there are cpu, gpu, urgent; see"
    assert re.search(wrong, found, re.MULTILINE)
    assert re.search(r"^warn +GPU partitions +no partition of the profile offers", found, re.MULTILINE)
