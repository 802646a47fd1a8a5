"""A day in a cluster's life: hundreds of tiny slides on a real SLURM, while jobs die at random.

    PYTHONPATH=tests python tests/slurm/day.py --slides 300 --shard-size 8 --failures 0.05 --seed 1

It takes too long to be a test. It ends with an error if a slide is lost or is there twice, or if a table of
nuclei is not that of the same picture elsewhere in the cohort.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from cluster import ask, job_records, running_cluster, stage_processes
from conftest import PRETENDED_GPU, SETTINGS, Slurm

from karyon.demo.cohort import render_cohort
from karyon.io.sheets import read_sheet
from workdir import Workflow, new_workflow

PICTURES = 10


def main() -> None:
    """Run the day and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slides", type=int, default=300)
    parser.add_argument("--shard-size", type=int, default=8)
    parser.add_argument("--failures", type=float, default=0.05, help="share of jobs that are killed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=6, help="jobs at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="day") as temporary:
        folder = Path(temporary)
        workflow = cohort_of(folder, options.slides, options.shard_size)
        (folder / "slurm").mkdir()
        with running_cluster(folder / "slurm"):
            start = time.perf_counter()
            killed = run(Slurm(folder / "configuration"), workflow, options)
            report(workflow, time.perf_counter() - start, killed)
        check(workflow, options.slides)


def cohort_of(folder: Path, slides: int, shard_size: int) -> Workflow:
    """A cohort in which each of a few pictures is the file of many slides."""
    pictures = read_sheet(render_cohort(folder, PICTURES, width=320, height=256, mpp=0.5, seed=11))
    rows = [pictures.iloc[number % PICTURES] for number in range(slides)]
    workflow = new_workflow(folder / "work")
    workflow.write_sheet(pd.DataFrame(rows).assign(slide_id=ids_of(slides)))
    workflow.write_settings({**SETTINGS, "shard_size": shard_size, "retries": 3})
    return workflow


def ids_of(slides: int) -> list[str]:
    return [f"slide-{number:05d}" for number in range(slides)]


def run(slurm: Slurm, workflow: Workflow, options: argparse.Namespace) -> Counter[str]:
    """Run the cohort; jobs that the seed has chosen die at work, one way or the other.

    Returns:
        How often each way was taken.
    """
    killed: Counter[str] = Counter()
    seen: set[str] = set()
    with slurm.start(workflow, "--jobs", str(options.jobs), "--set-resources", *PRETENDED_GPU) as snakemake:
        while snakemake.poll() is None:
            records = job_records(workflow.folder)
            attempts = Counter((record["rule"], record["shard"]) for record in records)
            for record in records:
                key = (record["rule"], record["shard"])
                chance = random.Random(f"{options.seed} {key} {attempts[key]}")
                if record["JobState"] != "RUNNING" or record["JobId"] in seen:
                    continue
                if chance.random() > options.failures:
                    seen.add(record["JobId"])
                elif process := stage_processes().get(record["JobId"]):
                    seen.add(record["JobId"])
                    way = chance.choice(["scancel", "SIGKILL"])
                    killed[way] += 1
                    ask("scancel", record["JobId"]) if way == "scancel" else process.kill()
            time.sleep(0.5)
    if snakemake.returncode:
        raise SystemExit((workflow.folder / "output.txt").read_text()[-3000:])
    return killed


def report(workflow: Workflow, seconds: float, killed: Counter[str]) -> None:
    """What the day cost."""
    jobs = job_records(workflow.folder)
    slides = pd.read_parquet(workflow.folder / "results" / "tiny" / "slides.parquet")
    work = float(slides.filter(regex="^seconds_").sum().sum())
    spans = [
        datetime.fromisoformat(job["EndTime"]) - datetime.fromisoformat(job["StartTime"]) for job in jobs
    ]
    busy = sum(span.total_seconds() for span in spans)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(slides)} slides in {seconds:.0f} s: {len(slides) / seconds * 3600:.0f} an hour")
    print(f"{len(jobs)} jobs: {dict(Counter(job['JobState'] for job in jobs))}; killed: {dict(killed)}")
    overhead = busy - work
    print(f"jobs lasted {busy:.0f} s together, of which slides took {work:.0f} s")
    print(f"overhead: {overhead / len(slides):.1f} s a slide, {overhead / len(jobs):.1f} s a job")
    print(f"Snakemake, sbatch and squeue: {usage.ru_utime + usage.ru_stime:.0f} s of CPU, beside the jobs")


def check(workflow: Workflow, slides: int) -> None:
    """Nothing lost, nothing twice.

    Raises:
        AssertionError: A slide or a shard is missing or doubled, or its nuclei are others.
    """
    results = workflow.folder / "results" / "tiny"
    table = pd.read_parquet(results / "slides.parquet")
    assert sorted(table["slide_id"]) == ids_of(slides)
    assert set(table["status"]) == {"done"}
    for stage in (results / "manifests").iterdir():
        manifests = pd.concat([pd.read_parquet(path) for path in stage.glob("*.parquet")])
        assert sorted(manifests["slide_id"]) == sorted(table["slide_id"]), stage
    nuclei = {
        row.slide_id: pq.read_table(results / "nuclei" / f"{row.slide_id}.parquet").drop_columns("slide_id")
        for row in table.itertuples()
    }
    assert len(list((results / "nuclei").iterdir())) == slides
    first = {row.path: nuclei[row.slide_id] for row in table[::-1].itertuples()}
    assert all(nuclei[row.slide_id].equals(first[row.path]) for row in table.itertuples())
    print(f"nothing lost, nothing twice: {slides} slides, {sum(map(len, nuclei.values()))} nuclei")


if __name__ == "__main__":
    main()
