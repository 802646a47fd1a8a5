"""What planning a cohort costs: its sheet, its graph of jobs, a rerun, new slides, and each job's start."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from karyon.bench.measurement import Measurement
from karyon.bench.process import Cost, run_measured
from karyon.cohort.plan import planned_shards
from karyon.cohort.shard import STAGE_VERSION
from karyon.io.schemas import REPOSITORY

NEW_SLIDES = 10
MAX_GROWTH = 10.0
DRY_RUN = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--configfile", "my.yaml", "-n"]
READ_SHEET = (
    "from pathlib import Path; from karyon.io.sheets import read_sheet; read_sheet(Path('sheet.tsv'))"
)
# Records every output as made by its job of now. Snakemake waits 0.1 s before it touches a file.
TOUCH = """
import snakemake.executors.touch
from snakemake.cli import main
snakemake.executors.touch.Executor.SLEEPING_TIME = 0
main("--configfile my.yaml --touch --forceall --cores 1 --scheduler greedy --quiet".split())
"""
# As an executor starts a job on another machine.
REMOTE_JOB = shlex.split(
    "--mode remote --cores 1 --force --nolock --ignore-incomplete --force-use-threads --retries 0"
    " --target-files-omit-workdir-adjustment --scheduler greedy"
)
EMPTY_JOB = 'rule empty:\n    output: "empty.txt"\n    script: "empty.py"\n'


def measure_dag(cache: Path, slides: int) -> Iterator[Measurement]:
    """CPU-seconds of a cohort and of one of a tenth of its size, each command in a process of its own.

    Args:
        cache: Where the cohorts lie: a small file for each slide, and empty files for all results.
        slides: Slides of the larger cohort.
    """
    folder = (cache / "dag").resolve()
    small, large = (synthetic_cohort(folder, count) for count in (max(slides // 10, 1), slides))
    limits = {"sheet": 5.0, "dry_run": 10.0, "rerun": 15.0}
    before, after = _planning_costs(small), _planning_costs(large)
    for name, limit in limits.items():
        growth = after[name].seconds / before[name].seconds
        yield Measurement(
            name=f"dag.{name}",
            value=after[name].seconds,
            unit=f"CPU-s for {slides:,} slides",
            peer="a tenth of the slides",
            peer_value=before[name].seconds,
            ratio=growth,
            goal=f"value <= {limit:g} and ratio <= {MAX_GROWTH:g}",
            met=after[name].seconds <= limit and growth <= MAX_GROWTH,
        )
    yield Measurement(
        name="dag.memory",
        value=after["dry_run"].peak_mb,
        unit=f"MB at the peak of the dry run of {slides:,} slides",
        peer="a tenth of the slides",
        peer_value=before["dry_run"].peak_mb,
        ratio=after["dry_run"].peak_mb / before["dry_run"].peak_mb,
        goal="value <= 300",
        met=after["dry_run"].peak_mb <= 300,
    )
    yield _new_slides(large, slides)
    yield from _job_starts(folder / "job")


def synthetic_cohort(folder: Path, slides: int) -> Path:
    """A working directory with the workflow and a sheet, without results.

    Args:
        folder: Where the directory is made, and the slides' files lie.
        slides: How many.
    """
    work = folder / f"cohort-{slides}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in ("Snakefile", "workflow", "config", "profiles", "envs"):
        (work / name).symlink_to(REPOSITORY / name)
    (work / "my.yaml").write_text("cohort: my\nsheet: sheet.tsv\n")
    _write_sheet(work, slides)
    return work


def _write_sheet(work: Path, slides: int) -> None:
    files = work.parent / "slides"
    files.mkdir(exist_ok=True)
    lines = ["slide_id\tpath\torgan\tpatient"]
    for number in range(slides):
        path = files / f"slide-{number:05d}.svs"
        if not path.exists():
            path.write_bytes(b"no pixels")
        lines.append(f"{path.stem}\t{path}\tbreast\tP{number // 2}")
    (work / "sheet.tsv").write_text("\n".join([*lines, ""]))


def _planning_costs(work: Path) -> dict[str, Cost]:
    """Of reading the sheet, a dry run of a new cohort, and one when everything has been done."""
    costs = {
        "sheet": run_measured([sys.executable, "-c", READ_SHEET], work),
        "dry_run": run_measured(DRY_RUN, work),
    }
    pretend_finished(work)
    return {**costs, "rerun": run_measured(DRY_RUN, work)}


def pretend_finished(work: Path) -> None:
    """Make every declared output of a planned cohort as an empty file, with Snakemake's record of it."""
    results = work / "results" / "my"
    outputs = [results / f"{name}.parquet" for name in ("slides", "scores", "curves")]
    outputs += [results / "verdict.txt", results / "report" / "empty.png"]
    for stage in STAGE_VERSION:
        shards = planned_shards(results / "plan")
        outputs += [results / "manifests" / stage / f"{shard}.parquet" for shard in shards]
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run_measured([sys.executable, "-c", TOUCH], work)


def jobs_by_rule(output: str) -> dict[str, int]:
    """How many jobs of each rule a dry run announces, by its table of job stats; none where there is none."""
    table = output.partition("Job stats:")[2].partition("\n\n")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def _new_slides(work: Path, slides: int) -> Measurement:
    """How many shards a few new slides touch in a cohort that has been finished."""
    _write_sheet(work, slides + NEW_SLIDES)
    jobs = jobs_by_rule(run_measured(DRY_RUN, work).output)
    most = max(jobs.get(stage, 0) for stage in STAGE_VERSION)
    return Measurement(
        name="dag.new_slides",
        value=most,
        unit=f"jobs of a stage after {NEW_SLIDES} slides were added",
        goal=f"from 1 to {NEW_SLIDES}",
        met=1 <= most <= NEW_SLIDES,
    )


def _job_starts(folder: Path) -> Iterator[Measurement]:
    """What a job costs on another machine beyond Snakemake's own, by a shard whose slide is no slide."""
    work = synthetic_cohort(folder, 1)
    run_measured(DRY_RUN, work)
    (shard,) = planned_shards(work / "results" / "my" / "plan")
    (folder / "Snakefile").write_text(EMPTY_JOB)
    (folder / "empty.py").write_text('open(snakemake.output[0], "w").close()\n')
    own = _job_cost(folder, ["--target-jobs", "empty:", "--allowed-rules", "empty"]).seconds
    for stage in STAGE_VERSION:
        job = ["--target-jobs", f"{stage}:cohort=my,shard={shard}", "--allowed-rules", stage]
        # The last attempt, which records what fails; without a GPU, for a slide that never gets there.
        job += ["--attempt", "2", "--set-resources", "infer:gpu=0", "--configfiles", "my.yaml"]
        seconds = _job_cost(work, job).seconds
        yield Measurement(
            name=f"dag.start_{stage}",
            value=seconds - own,
            unit="CPU-s of a job that has nothing to do, beyond Snakemake's own",
            peer="Snakemake's own",
            peer_value=own,
            goal="value <= 3",
            met=seconds - own <= 3,
        )


def _job_cost(folder: Path, job: list[str]) -> Cost:
    return run_measured([sys.executable, "-m", "snakemake", *REMOTE_JOB, *job], folder)
