"""Run one stage on the slides of a shard: each on its own, resumable, failures kept apart."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from karyon.cohort.layout import SlideFiles
from karyon.cohort.plan import SlideRow, read_plan
from karyon.errors import KaryonError, SlideError
from karyon.io.atomic import atomic_path, remove_leftovers
from karyon.io.lease import lease

logger = logging.getLogger("karyon")

# Raised by hand when a stage's result changes for the same input and settings: editing the package
# alone re-runs nothing.
STAGE_VERSION = {"tissue": 1, "stain": 2, "infer": 2, "stitch": 1, "nuclei": 1, "evaluate": 3}
# What of the plan each stage depends on, besides the stages before it.
STAGE_COLUMNS = {
    "tissue": ("path", "size", "mtime_ns", "mpp"),
    "stain": ("stain",),
    "evaluate": (
        "annotations",
        "annotation_format",
        "annotation_mpp",
        "annotations_size",
        "annotations_mtime_ns",
        "region",
        "region_format",
        "region_size",
        "region_mtime_ns",
    ),
}
# Between looks at slides that another job has in hand.
WAIT_S = 5.0
# No space, or a quota used up.
FULL = (errno.ENOSPC, errno.EDQUOT)
DONE, NO_TISSUE, NOT_ANNOTATED, SKIPPED, FAILED = "done", "no_tissue", "not_annotated", "skipped", "failed"


@dataclass(frozen=True)
class SlideTask:
    """What a stage is given of one slide.

    Attributes:
        row: The slide's row of the plan.
        files: Where its files lie.
        settings: The stage's part of the configuration.
        threads: CPU threads that may be used.
        gpus: GPUs that may be used.
        fingerprint: Of the slide, the settings and all stages so far.
        blank: No tissue was found on the slide.
        parts: Which parts of the slide's tiles are made or read (:func:`~karyon.cohort.layout.tile_parts`).
    """

    row: SlideRow
    files: SlideFiles
    settings: dict[str, Any]
    threads: int
    gpus: int
    fingerprint: str
    blank: bool = False
    parts: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class StageResult:
    """What a stage reports of one slide.

    Attributes:
        status: ``done``, ``no_tissue`` or ``not_annotated``.
        warning: What a user should know although it went well.
        facts: Counts and measurements, which become columns of the manifest.
        outputs: Files written; should one disappear, the slide is done again.
    """

    status: str = DONE
    warning: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[Path, ...] = ()


def run_shard(
    process: Callable[[SlideTask], StageResult],
    *,
    stage: str,
    plan: str,
    upstream: str | None,
    manifest: str,
    settings: dict[str, Any],
    version: int,
    threads: int,
    last_attempt: bool,
    log: str,
    gpus: int = 0,
    blanks: bool = False,
    discard: Sequence[str] = (),
    later: dict[str, dict[str, Any]] | None = None,
    parts: Sequence[str] = ("",),
) -> None:
    """Process every slide of a shard that is not done yet, and write the shard's manifest.

    Args:
        process: The stage, for one slide.
        stage: Its name.
        plan: The shard's TSV.
        upstream: Manifest of the stage before, if any; slides that failed there are passed over.
        manifest: Where the manifest (Parquet) goes: ``results/<cohort>/manifests/<stage>/<shard>.parquet``.
        settings: What of the configuration matters to this stage; part of the fingerprint.
        version: The stage's version; part of the fingerprint.
        threads: CPU threads of the job.
        last_attempt: No retry will follow: record failures instead of asking for one.
        log: Log file.
        gpus: GPUs of the job.
        blanks: Process slides without tissue as well, instead of passing them over.
        discard: Which files of the stage before nobody needs once a slide is done here: members of
            :class:`~karyon.cohort.layout.SlideFiles`.
        later: Stages after this one that use up its files, in order, each with the ``settings`` and
            ``version`` it will be given: a slide that they have done is done here too, files or not.
        parts: Parts of each slide's tiles that this job makes or reads; a job that makes one of several keeps
            records of its own.

    Raises:
        SystemExit: A slide failed in a way that may pass, and attempts remain; or the model or the
            configuration is at fault, or the disk full. Its message is for the user.
    """
    _log_to(log)
    cohort = Path(manifest).parents[2]
    stage = "_".join([stage, *parts]) if len(parts) == 1 and parts[0] else stage
    before = _read_manifest(upstream)
    tasks = []
    for row in read_plan(Path(plan)):
        previous = before.get(row.slide_id)
        fingerprint = _fingerprint(stage, row, settings, version, previous)
        blank = blanks and previous is not None and previous["status"] == NO_TISSUE
        files = SlideFiles(cohort, row.slide_id)
        tasks.append(SlideTask(row, files, settings, threads, gpus, fingerprint, blank, tuple(parts)))
    remove_leftovers(path for task in tasks for path in _writable(task, stage))
    rows = []
    for task, result in _settle_all(process, tasks, before, stage, later or {}):
        rows.append(result)
        if result["status"] == DONE:
            _discard(task, discard)
        state = result["status"] + (f": {result['error']}" if result["error"] else "")
        count, slide_id, seconds = f"{len(rows)}/{len(tasks)}", task.row.slide_id, result["seconds"]
        logger.info("%s %s %s: %s (%.1f s)", stage, count, slide_id, state, seconds)
    order = {task.row.slide_id: number for number, task in enumerate(tasks)}
    rows.sort(key=lambda row: order[row["slide_id"]])
    if not last_attempt and any(row["retry"] for row in rows):
        failed = [row["slide_id"] for row in rows if row["retry"]]
        names = ", ".join(failed[:5])
        sys.exit(f"{stage}: {len(failed)} slides failed and will be tried again: {names}; see {log}")
    with explain_full_disk(f"{stage}: the manifest", cohort), atomic_path(Path(manifest)) as temporary:
        pd.DataFrame(rows).drop(columns="retry").to_parquet(temporary, index=False)


def _writable(task: SlideTask, stage: str) -> Iterator[Path]:
    """Every file of a slide that a job of the stage may have been writing when it was killed."""
    yield from task.files.every()
    yield from (task.files.tiles_of(part) for part in task.parts)
    yield task.files.record(stage)


def _discard(task: SlideTask, names: Sequence[str]) -> None:
    files = task.files
    for name in names:
        parts = [files.tiles_of(part) for part in task.parts] if name == "tiles" else []
        for path in (getattr(files, name), *parts):
            path.unlink(missing_ok=True)


def _settle_all(
    process: Callable[[SlideTask], StageResult],
    tasks: Sequence[SlideTask],
    before: dict[str, dict[str, Any]],
    stage: str,
    later: dict[str, dict[str, Any]],
) -> Iterator[tuple[SlideTask, dict[str, Any]]]:
    """Each slide with its row, in order; last those that another job had in hand when their turn came.

    That is a job whose Snakemake was killed, and which goes on.
    """
    pending = list(tasks)
    while pending:
        taken = []
        for task in pending:
            row = _passed_over(task, before.get(task.row.slide_id)) or _recorded(task, stage, later)
            row = row or _attempt_alone(process, task, stage, later)
            if row:
                yield task, row
            else:
                taken.append(task)
        pending = taken
        if pending:
            logger.info("%s: waiting for another job that has %d slides in hand", stage, len(pending))
            time.sleep(WAIT_S)


def _attempt_alone(
    process: Callable[[SlideTask], StageResult], task: SlideTask, stage: str, later: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Run the stage on a slide, unless another job is at it now: then nothing."""
    with ExitStack() as stack:
        with explain_full_disk(f"{stage} {task.row.slide_id}", task.files.cohort):
            ours = stack.enter_context(lease(task.files.lease(stage)))
        if not ours:
            return None
        # The other may have ended between our look at the record and our lease.
        return _recorded(task, stage, later) or _attempt(process, task, stage)


def _attempt(process: Callable[[SlideTask], StageResult], task: SlideTask, stage: str) -> dict[str, Any]:
    """Run the stage on a slide; whatever it raises becomes the slide's row."""
    _forget(task.files, stage)
    start = time.perf_counter()
    try:
        with explain_full_disk(f"{stage} {task.row.slide_id}", task.files.cohort):
            result = process(task)
    except SlideError as error:
        logger.warning("%s %s: %s", stage, task.row.slide_id, error)
        return _row(task, FAILED, str(error), time.perf_counter() - start)
    except KaryonError as error:  # the model or the configuration: every slide would fail alike
        _stop(f"{stage}: {error}")
    except Exception as error:
        logger.exception("%s %s", stage, task.row.slide_id)
        message = f"{type(error).__name__}: {error}"
        return {**_row(task, FAILED, message, time.perf_counter() - start), "retry": True}
    row = _row(task, result.status, "", time.perf_counter() - start, result.warning)
    row.update(result.facts)
    content = {
        "row": {key: value for key, value in row.items() if key != "retry"},
        "outputs": {str(path.relative_to(task.files.cohort)): path.stat().st_size for path in result.outputs},
    }
    what, record = f"{stage} {task.row.slide_id}", task.files.record(stage)
    with explain_full_disk(what, task.files.cohort), atomic_path(record) as temporary:
        temporary.write_text(json.dumps(content))
    return row


def _forget(files: SlideFiles, stage: str) -> None:
    """Remove what the stage wrote of a slide before, and then the record that vouches for it.

    Else a slide that now fails would keep the nuclei of an earlier model.
    """
    record = files.record(stage)
    try:
        outputs = json.loads(record.read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError):
        outputs = {}
    for name in outputs:
        (files.cohort / name).unlink(missing_ok=True)
    record.unlink(missing_ok=True)


@contextmanager
def explain_full_disk(what: str, folder: Path) -> Iterator[None]:
    """End the job with a message where there is no space left.

    That is no slide's fault, and would be every slide's fate: as a row of the manifest it would be
    taken for settled, and the slides not be done when there is space again.

    Args:
        what: What was being done: the stage, and the slide if there is one.
        folder: Where files are written.

    Raises:
        SystemExit: The disk is full, or a quota used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        _stop(f"{what}: no space left on the disk of {folder.resolve()}; free space and start again")


def _recorded(task: SlideTask, stage: str, later: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The row of an earlier run, if it was of the same fingerprint and its files are there or used up."""
    content = _read_record(task.files, stage, task.fingerprint)
    if content is None or not (_outputs_are_there(task.files, content) or _is_used_up(task, later)):
        return None
    return {**content["row"], "retry": False}


def _is_used_up(task: SlideTask, later: dict[str, dict[str, Any]]) -> bool:
    """Whether a later stage has made what it would make of this one's files, and still has it."""
    fingerprint = task.fingerprint
    for stage, given in later.items():
        before = {"fingerprint": fingerprint}
        fingerprint = _fingerprint(stage, task.row, given["settings"], given["version"], before)
        content = _read_record(task.files, stage, fingerprint)
        if content is None:
            return False
        if _outputs_are_there(task.files, content):
            return True
    return False


def _read_record(files: SlideFiles, stage: str, fingerprint: str) -> dict[str, Any] | None:
    """What a stage noted of a slide, if that was of this fingerprint."""
    try:
        content = json.loads(files.record(stage).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if content["row"]["fingerprint"] == fingerprint else None


def _outputs_are_there(files: SlideFiles, content: dict[str, Any]) -> bool:
    outputs = [(files.cohort / name, size) for name, size in content["outputs"].items()]
    return all(path.is_file() and path.stat().st_size == size for path, size in outputs)


def _passed_over(task: SlideTask, previous: dict[str, Any] | None) -> dict[str, Any] | None:
    """The row of a slide that the stage before could not finish."""
    if previous is None or previous["status"] == DONE or task.blank:
        return None
    if previous["status"] in (NO_TISSUE, NOT_ANNOTATED):
        return _row(task, previous["status"], "", 0.0)
    return _row(task, SKIPPED, previous["error"], 0.0)


def _row(task: SlideTask, status: str, error: str, seconds: float, warning: str = "") -> dict[str, Any]:
    return {
        "slide_id": task.row.slide_id,
        "status": status,
        "error": error,
        "warning": warning,
        "seconds": round(seconds, 3),
        "fingerprint": task.fingerprint,
        "retry": False,
    }


def _fingerprint(
    stage: str, row: SlideRow, settings: dict[str, Any], version: int, previous: dict[str, Any] | None
) -> str:
    columns = asdict(row)
    content = {
        "slide": {name: columns[name] for name in STAGE_COLUMNS.get(stage, ())},
        "settings": settings,
        "version": version,
        "upstream": previous["fingerprint"] if previous else "",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _read_manifest(path: str | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    records = pd.read_parquet(path).to_dict("records")
    return {str(record["slide_id"]): {str(key): value for key, value in record.items()} for record in records}


def _log_to(path: str) -> None:
    """Send the package's log to the job's file, and a line per slide to the terminal."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    logger.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not the news
    logger.handlers = [
        logging.FileHandler(path, mode="a", encoding="utf-8"),
        logging.StreamHandler(sys.stderr),
    ]
    logger.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers[1].setFormatter(logging.Formatter("%(message)s"))
    logger.propagate = False


def _stop(message: str) -> NoReturn:
    """End the job with a message, in its log too: of a job on another machine Snakemake shows that alone."""
    logger.error(message)
    sys.exit(message)
