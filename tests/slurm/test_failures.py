"""What clusters do to jobs: each ends with the same nuclei as a run that nothing disturbs."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from cluster import ask, end_orphans, job_records, stage_processes, wait_until
from conftest import SETTINGS, Slurm, before_infer, nuclei_of

from workdir import Workflow

# The shard that each failure hits, and on which node if that matters.
SCANCEL, NODE_DOWN, TIME_LIMIT, MEMORY_LIMIT, PREEMPTION = (f"demo-{number}" for number in range(1, 6))
NODES = {SCANCEL: "cpu1", NODE_DOWN: "cpu2", TIME_LIMIT: "cpu1", MEMORY_LIMIT: "cpu1", PREEMPTION: "gpu1"}
# Of infer's first attempts one has a minute, and one not enough memory to import torch.
RESOURCES = (
    "infer:gpu=0",
    f"infer:gres='gpu:h200:1' if wildcards.shard == '{PREEMPTION}' else ''",
    f"infer:slurm_extra='--nodelist={{}}'.format({NODES}[wildcards.shard])",
    f"infer:runtime=1 if wildcards.shard == '{TIME_LIMIT}' and attempt == 1 else 20",
    f"infer:mem_mb=400 if wildcards.shard == '{MEMORY_LIMIT}' and attempt == 1 else 2000",
)
# A job that leaves no room on its node for another.
EVERYTHING = ("--exclusive", "--wrap=true")
ARGUMENTS = ("--until", "nuclei", "--set-threads", "infer=1", "--set-resources", *RESOURCES)


def jobs_of(workflow: Workflow, shard: str) -> list[dict[str, str]]:
    """Records of the jobs that ran `infer` on a shard."""
    records = job_records(workflow.folder)
    return [record for record in records if (record["rule"], record["shard"]) == ("infer", shard)]


def hold(workflow: Workflow, *shards: str) -> dict[str, psutil.Process | None]:
    """Stop the latest job of each shard at its work, as a file server would that does not answer.

    On a slow machine the job of a minute may be over before it gets so far; that is as good.
    """
    held: dict[str, psutil.Process | None] = {}

    def all_held() -> bool:
        processes = stage_processes()
        for shard in set(shards) - set(held):
            jobs = jobs_of(workflow, shard)
            process = processes.get(jobs[-1]["JobId"]) if jobs else None
            if process:
                process.suspend()
            if process or (jobs and jobs[-1]["JobState"] == "TIMEOUT"):
                held[shard] = process
        return len(held) == len(shards)

    wait_until(all_held, 600, f"infer works on {shards}")
    return held


@pytest.fixture(scope="module")
def disturbed(slurm: Slurm, finished: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A run in which every job of `infer` meets another failure in the middle of its work."""
    workflow = before_infer(finished, tmp_path_factory.mktemp("disturbed") / "work")
    workflow.write_settings({**SETTINGS, "retries": 2})
    with slurm.start(workflow, *ARGUMENTS) as run:
        hold(workflow, SCANCEL, NODE_DOWN, PREEMPTION, TIME_LIMIT)  # the last is left to its fate
        ask("scancel", jobs_of(workflow, SCANCEL)[-1]["JobId"])
        ask("scontrol", "update", "nodename=cpu2", "state=down", "reason=test")
        ask("scontrol", "update", "nodename=cpu2", "state=resume")
        ask("sbatch", "--partition=urgent", "--nodelist=gpu1", "--output=/dev/null", *EVERYTHING)
        status = run.wait(timeout=900)
    end_orphans(workflow.folder)
    assert status == 0, (workflow.folder / "output.txt").read_text()
    return workflow


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shard", "ends"),
    [(SCANCEL, "CANCELLED"), (TIME_LIMIT, "TIMEOUT"), (MEMORY_LIMIT, "FAILED")],
    ids=["scancel", "time limit", "memory limit"],
)
def test_a_job_that_slurm_ended_is_started_again_by_snakemake(
    disturbed: Workflow, undisturbed: dict[str, bytes], shard: str, ends: str
) -> None:
    assert [job["JobState"] for job in jobs_of(disturbed, shard)] == [ends, "COMPLETED"]
    assert nuclei_of(disturbed)[f"{shard}.parquet"] == undisturbed[f"{shard}.parquet"]


@pytest.mark.slow
def test_the_second_attempt_has_the_memory_that_the_first_lacked(disturbed: Workflow) -> None:
    first, second = jobs_of(disturbed, MEMORY_LIMIT)
    log = Path(first["StdOut"]).read_text()
    assert "Exceeded job memory limit" in log
    assert "Trying to restart" not in log  # within the same job there is no more memory
    assert [job["TRES"].split(",")[1] for job in (first, second)] == ["mem=400M", "mem=2000M"]


@pytest.mark.slow
@pytest.mark.parametrize("shard", [NODE_DOWN, PREEMPTION], ids=["node down", "preemption"])
def test_a_job_that_lost_its_node_is_started_again_by_slurm_alone(
    disturbed: Workflow, undisturbed: dict[str, bytes], shard: str
) -> None:
    assert [(job["JobState"], job["Restarts"]) for job in jobs_of(disturbed, shard)] == [("COMPLETED", "1")]
    assert nuclei_of(disturbed)[f"{shard}.parquet"] == undisturbed[f"{shard}.parquet"]


@pytest.mark.slow
def test_jobs_that_outlive_a_killed_snakemake_do_no_harm_to_the_next(
    slurm: Slurm, until_stain: Workflow, undisturbed: dict[str, bytes]
) -> None:
    workflow = until_stain
    arguments = ("results/tiny/manifests/nuclei/demo-1.parquet", "--set-resources", "infer:gpu=0")
    with slurm.start(workflow, *arguments) as first:
        orphan = hold(workflow, "demo-1")["demo-1"]
        first.kill()
    assert workflow.run("--unlock").returncode == 0
    with slurm.start(workflow, *arguments) as second:
        wait_until(lambda: len(jobs_of(workflow, "demo-1")) == 2, 600, "the second run has begun")
        successor = hold(workflow, "demo-1")["demo-1"]
        assert orphan.status() == psutil.STATUS_STOPPED  # two at work on one slide
        orphan.resume()
        successor.resume()
        assert second.wait(timeout=900) == 0, (workflow.folder / "output.txt").read_text()
    wait_until(lambda: not orphan.is_running(), 600, "the orphan has ended")
    assert nuclei_of(workflow) == {"demo-1.parquet": undisturbed["demo-1.parquet"]}
    assert not list((workflow.folder / "results" / "tiny").glob("*/.*@*"))  # nothing half-written is left
