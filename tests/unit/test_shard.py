"""A shard's slides: each on its own, done once, done again only for a reason."""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import karyon.cohort.shard
from karyon.cohort.layout import tile_parts
from karyon.cohort.plan import write_plan
from karyon.cohort.shard import DONE, FAILED, NO_TISSUE, SKIPPED, SlideTask, StageResult, run_shard
from karyon.errors import KaryonError, SlideError


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A job sets the package's log up for its process; give it back as it was."""
    logger = logging.getLogger("karyon")
    before = logger.handlers, logger.level, logger.propagate
    yield
    for handler in set(logger.handlers) - set(before[0]):
        handler.close()
    logger.handlers, logger.level, logger.propagate = before


class Stage:
    """A stage that writes a file per slide, counts its calls, and fails as told."""

    def __init__(self, failures: dict[str, Exception] | None = None, status: str = DONE) -> None:
        self.failures = failures or {}
        self.status = status
        self.calls: list[str] = []

    def __call__(self, task: SlideTask) -> StageResult:
        slide_id = task.row.slide_id
        self.calls.append(slide_id)
        task.files.stain.parent.mkdir(parents=True, exist_ok=True)
        task.files.stain.write_text(f"{slide_id} {task.settings}")
        if slide_id in self.failures:
            raise self.failures[slide_id]
        return StageResult(
            status=self.status, warning="pale", facts={"pixels": len(slide_id)}, outputs=(task.files.stain,)
        )


class Cohort:
    """Three slides in one shard."""

    def __init__(self, folder: Path, ids: tuple[str, ...] = ("a", "b", "c")) -> None:
        self.folder = folder
        self.results = folder / "results" / "cohort"
        self.sheet = pd.DataFrame(
            {
                "slide_id": ids,
                "path": [str(folder / f"{slide_id}.svs") for slide_id in ids],
                "mpp": math.nan,
                "annotation_mpp": math.nan,
                "stain": "HE",
                **dict.fromkeys(
                    (
                        "organ",
                        "patient",
                        "split",
                        "label_quality",
                        "annotations",
                        "annotation_format",
                        "region",
                        "region_format",
                    ),
                    "",
                ),
            }
        )
        for slide_id in ids:
            (folder / f"{slide_id}.svs").write_bytes(b"pixels")

    def run(
        self, process: Callable[[SlideTask], StageResult], stage: str = "tissue", **changes: Any
    ) -> pd.DataFrame:
        """Plan and run one stage; its manifest, one row per slide."""
        (shard,) = write_plan(self.sheet, self.results / "plan", 100)
        manifest = self.manifest(stage)
        arguments: dict[str, Any] = {
            "upstream": None,
            "settings": {"mpp": 8.0},
            "version": 1,
            "threads": 1,
            "last_attempt": True,
            **changes,
        }
        run_shard(
            process,
            stage=stage,
            plan=str(self.results / "plan" / f"{shard}.tsv"),
            manifest=str(manifest),
            log=str(self.results / "logs" / f"{stage}.log"),
            **arguments,
        )
        return pd.read_parquet(manifest).set_index("slide_id")

    def manifest(self, stage: str) -> Path:
        return self.results / "manifests" / stage / "shard-00000.parquet"

    def log(self, stage: str = "tissue") -> str:
        return (self.results / "logs" / f"{stage}.log").read_text()


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path)


def test_manifest_has_a_row_per_slide_with_its_facts(cohort: Cohort) -> None:
    manifest = cohort.run(Stage())
    assert manifest.index.tolist() == ["a", "b", "c"]
    assert manifest["status"].tolist() == [DONE] * 3
    assert manifest["warning"].tolist() == ["pale"] * 3
    assert manifest["error"].tolist() == [""] * 3
    assert manifest["pixels"].tolist() == [1, 1, 1]
    assert manifest["fingerprint"].is_unique
    assert (manifest["seconds"] >= 0).all()


@pytest.mark.parametrize("last_attempt", [False, True])
def test_slide_that_cannot_be_processed_fails_alone(cohort: Cohort, last_attempt: bool) -> None:
    stage = Stage({"b": SlideError("b.svs: truncated; copy it again")})
    manifest = cohort.run(stage, last_attempt=last_attempt)
    assert stage.calls == ["a", "b", "c"]
    assert manifest["status"].tolist() == [DONE, FAILED, DONE]
    assert manifest.loc["b", "error"] == "b.svs: truncated; copy it again"
    assert "b.svs: truncated" in cohort.log()


def test_unexpected_error_asks_for_a_retry_that_does_only_the_failed(cohort: Cohort) -> None:
    with pytest.raises(SystemExit) as caught:
        cohort.run(Stage({"b": OSError("stale file handle")}), last_attempt=False)
    assert isinstance(caught.value.code, str)  # which the interpreter prints, and ends with status 1
    assert "1 slides failed" in caught.value.code
    assert not cohort.manifest("tissue").exists()
    retry = Stage()
    manifest = cohort.run(retry, last_attempt=False)
    assert retry.calls == ["b"]
    assert manifest["status"].tolist() == [DONE] * 3
    assert manifest["pixels"].tolist() == [1, 1, 1]


def test_last_attempt_records_an_unexpected_error(cohort: Cohort) -> None:
    manifest = cohort.run(Stage({"b": ZeroDivisionError("division by zero")}), last_attempt=True)
    assert manifest["status"].tolist() == [DONE, FAILED, DONE]
    assert manifest.loc["b", "error"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in cohort.log()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is always full")
@pytest.mark.parametrize("last_attempt", [False, True])
def test_full_disk_ends_the_job_without_a_row_and_the_next_run_goes_on(
    cohort: Cohort, last_attempt: bool
) -> None:
    def stage(task: SlideTask) -> StageResult:
        if task.row.slide_id == "b":
            Path("/dev/full").write_bytes(b"pixels")
        return Stage()(task)

    with pytest.raises(SystemExit) as caught:
        cohort.run(stage, last_attempt=last_attempt)
    expected = f"tissue b: no space left on the disk of {cohort.results}; free space and start again"
    assert caught.value.code == expected
    assert not cohort.manifest("tissue").exists()
    later = Stage()
    assert cohort.run(later)["status"].tolist() == [DONE] * 3
    assert later.calls == ["b", "c"]


def test_what_a_killed_job_left_is_removed_by_the_next(cohort: Cohort) -> None:
    tiles = cohort.results / "tiles"
    tiles.mkdir(parents=True)
    gone, here = f".{socket.gethostname()}@{2**22 + 1}", f".{socket.gethostname()}@{os.getpid()}"
    names = [f"{gone}.a.zarr.zip", f"{gone}.other.zarr.zip", f"{here}.a.zarr.zip"]
    for name in names:  # a process that is no more, a slide of another shard, a process that runs
        (tiles / name).write_bytes(b"half")
    cohort.run(Stage())
    assert {path.name for path in tiles.iterdir()} == set(names[1:])


def test_error_of_the_model_ends_the_job(cohort: Cohort) -> None:
    stage = Stage({"b": KaryonError("model.safetensors: sha256 differs")})
    with pytest.raises(SystemExit, match=r"^tissue: model\.safetensors: sha256 differs$"):
        cohort.run(stage)
    assert stage.calls == ["a", "b"]
    assert not cohort.manifest("tissue").exists()


def test_finished_slide_is_not_processed_again(cohort: Cohort) -> None:
    first = cohort.run(Stage())
    again = Stage()
    pd.testing.assert_frame_equal(cohort.run(again), first)
    assert again.calls == []


def test_failed_slide_is_tried_again_by_the_next_run(cohort: Cohort) -> None:
    cohort.run(Stage({"b": SlideError("truncated")}))
    again = Stage()
    assert cohort.run(again).loc["b", "status"] == DONE
    assert again.calls == ["b"]


@pytest.mark.parametrize("changes", [{"settings": {"mpp": 4.0}}, {"version": 2}], ids=["settings", "version"])
def test_new_settings_or_version_do_every_slide_again(cohort: Cohort, changes: dict[str, Any]) -> None:
    cohort.run(Stage())
    again = Stage()
    cohort.run(again, **changes)
    assert again.calls == ["a", "b", "c"]


def test_threads_and_key_order_do_not_matter(cohort: Cohort) -> None:
    cohort.run(Stage(), settings={"mpp": 8.0, "method": "otsu"}, threads=1)
    again = Stage()
    cohort.run(again, settings={"method": "otsu", "mpp": 8.0}, threads=8, gpus=1)
    assert again.calls == []


def grow(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(b"more pixels")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def touch(path: Path) -> None:
    os.utime(path, ns=(10**18, 10**18))


@pytest.mark.parametrize("change", [grow, touch], ids=["size", "mtime"])
def test_changed_slide_file_does_that_slide_again(cohort: Cohort, change: Callable[[Path], None]) -> None:
    cohort.run(Stage())
    change(cohort.folder / "b.svs")
    again = Stage()
    cohort.run(again)
    assert again.calls == ["b"]


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("")], ids=["gone", "truncated"])
def test_slide_whose_output_was_lost_is_done_again(cohort: Cohort, change: Callable[[Path], object]) -> None:
    cohort.run(Stage())
    change(cohort.results / "stain" / "b.json")
    again = Stage()
    cohort.run(again)
    assert again.calls == ["b"]


def test_damaged_record_does_the_slide_again(cohort: Cohort) -> None:
    cohort.run(Stage())
    (cohort.results / "records" / "tissue" / "b.json").write_text('{"row": {')
    again = Stage()
    cohort.run(again)
    assert again.calls == ["b"]


def test_change_upstream_comes_down(cohort: Cohort) -> None:
    upstream = str(cohort.manifest("tissue"))
    cohort.run(Stage())
    cohort.run(Stage(), "stain", upstream=upstream)
    untouched = Stage()
    cohort.run(untouched, "stain", upstream=upstream)
    assert untouched.calls == []
    touch(cohort.folder / "c.svs")
    cohort.run(Stage())
    again = Stage()
    cohort.run(again, "stain", upstream=upstream)
    assert again.calls == ["c"]


def test_stage_depends_on_its_own_columns_only(cohort: Cohort) -> None:
    cohort.run(Stage())
    cohort.run(Stage(), "stain", upstream=str(cohort.manifest("tissue")))
    cohort.sheet.loc[1, "stain"] = "IHC"
    cohort.sheet.loc[2, "organ"] = "lung"
    tissue, stain = Stage(), Stage()
    cohort.run(tissue)
    cohort.run(stain, "stain", upstream=str(cohort.manifest("tissue")))
    assert (tissue.calls, stain.calls) == ([], ["b"])


def test_record_of_files_that_a_failed_attempt_overwrote_is_not_believed(cohort: Cohort) -> None:
    cohort.run(Stage(), settings={"mpp": 8.0})
    # The attempt writes its file, of the same size, and dies.
    cohort.run(Stage({"b": MemoryError()}), settings={"mpp": 4.0})
    again = Stage()
    cohort.run(again, settings={"mpp": 8.0})
    assert "b" in again.calls
    assert (cohort.results / "stain" / "b.json").read_text() == "b {'mpp': 8.0}"


def test_slide_that_now_fails_keeps_nothing_of_the_settings_before(cohort: Cohort) -> None:
    def fail(task: SlideTask) -> StageResult:
        raise SlideError(f"{task.row.path}: truncated; copy it again")

    cohort.run(Stage(), settings={"mpp": 8.0})
    cohort.run(fail, settings={"mpp": 4.0})
    assert not list((cohort.results / "stain").iterdir())


def test_stage_that_asks_for_blank_slides_gets_them(cohort: Cohort) -> None:
    cohort.run(Stage(status=NO_TISSUE))
    blanks = []

    def count(task: SlideTask) -> StageResult:
        blanks.append(task.blank)
        return StageResult(status=NO_TISSUE)

    cohort.run(count, "stain", upstream=str(cohort.manifest("tissue")), blanks=True)
    assert blanks == [True] * 3


def test_slide_that_failed_upstream_is_skipped_with_the_reason(cohort: Cohort) -> None:
    cohort.run(Stage({"b": SlideError("b.svs: truncated")}))
    upstream = str(cohort.manifest("tissue"))
    stain = Stage()
    manifest = cohort.run(stain, "stain", upstream=upstream, last_attempt=False)
    assert stain.calls == ["a", "c"]
    assert manifest.loc["b", ["status", "error"]].tolist() == [SKIPPED, "b.svs: truncated"]
    below = cohort.run(Stage(), "infer", upstream=str(cohort.manifest("stain")))
    assert below.loc["b", ["status", "error"]].tolist() == [SKIPPED, "b.svs: truncated"]


def test_slide_mended_upstream_is_picked_up(cohort: Cohort) -> None:
    cohort.run(Stage({"b": SlideError("b.svs: truncated")}))
    upstream = str(cohort.manifest("tissue"))
    cohort.run(Stage(), "stain", upstream=upstream)
    cohort.run(Stage())
    again = Stage()
    assert cohort.run(again, "stain", upstream=upstream).loc["b", "status"] == DONE
    assert again.calls == ["b"]


def test_slide_without_tissue_passes_through(cohort: Cohort) -> None:
    assert cohort.run(Stage(status=NO_TISSUE))["status"].tolist() == [NO_TISSUE] * 3
    stain, infer = Stage(), Stage()
    cohort.run(stain, "stain", upstream=str(cohort.manifest("tissue")))
    manifest = cohort.run(infer, "infer", upstream=str(cohort.manifest("stain")))
    assert stain.calls == infer.calls == []
    assert manifest["status"].tolist() == [NO_TISSUE] * 3
    assert manifest["error"].tolist() == [""] * 3


def test_task_carries_what_the_job_was_given(cohort: Cohort) -> None:
    tasks = []

    def note(task: SlideTask) -> StageResult:
        tasks.append(task)
        return StageResult()

    manifest = cohort.run(note, threads=3, gpus=1, settings={"tile_px": 512})
    assert {(task.threads, task.gpus, task.settings["tile_px"]) for task in tasks} == {(3, 1, 512)}
    assert [task.fingerprint for task in tasks] == manifest["fingerprint"].tolist()
    assert tasks[0].files.cohort == cohort.results


def test_log_names_every_slide_and_grows_over_attempts(cohort: Cohort) -> None:
    cohort.run(Stage())
    cohort.run(Stage())
    for slide_id in ("1/3 a: done", "2/3 b: done", "3/3 c: done"):
        assert cohort.log().count(slide_id) == 2


class Chain:
    """Three stages of which each uses up what the one before wrote: tiles, map, nuclei."""

    FILES = {"infer": "tiles", "stitch": "map", "nuclei": "nuclei"}  # noqa: RUF012

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.keep_maps = False
        self.settings = {stage: {"key": 1} for stage in self.FILES}

    def run(self) -> dict[str, list[str]]:
        """Run the stages as the rules do; which slides each of them processed."""
        self.cohort.run(Stage())
        done: dict[str, list[str]] = {}
        before = "tissue"
        given = {stage: {"settings": self.settings[stage], "version": 1} for stage in self.FILES}
        users = {"infer": ["stitch"], "stitch": [], "nuclei": []}
        if not self.keep_maps:
            users = {"infer": ["stitch", "nuclei"], "stitch": ["nuclei"], "nuclei": []}
        for stage in self.FILES:
            done[stage] = []
            self.cohort.run(
                lambda task, stage=stage: self.process(stage, task, done[stage]),
                stage,
                upstream=str(self.cohort.manifest(before)),
                settings=self.settings[stage],
                discard={"stitch": ["tiles"], "nuclei": [] if self.keep_maps else ["map"]}.get(stage, []),
                later={name: given[name] for name in users[stage]},
            )
            before = stage
        return done

    def process(self, stage: str, task: SlideTask, done: list[str]) -> StageResult:
        names = list(self.FILES.values())
        position = names.index(self.FILES[stage])
        if position:
            getattr(task.files, names[position - 1]).read_bytes()  # what it works from must be there
        output = getattr(task.files, names[position])
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(f"{stage} {task.settings}")
        done.append(task.row.slide_id)
        return StageResult(outputs=(output,))

    def left(self) -> set[str]:
        """Folders in which files are left."""
        folders = ("tiles", "maps", "nuclei")
        return {folder for folder in folders if any((self.cohort.results / folder).glob("*"))}


EVERY, NONE = ["a", "b", "c"], list[str]()


def test_intermediates_go_when_the_next_stage_has_them_and_nothing_is_redone(cohort: Cohort) -> None:
    chain = Chain(cohort)
    assert chain.run() == dict.fromkeys(Chain.FILES, EVERY)
    assert chain.left() == {"nuclei"}
    assert chain.run() == dict.fromkeys(Chain.FILES, NONE)


def test_kept_maps_spare_the_inference_of_another_threshold(cohort: Cohort) -> None:
    chain = Chain(cohort)
    chain.keep_maps = True
    chain.run()
    assert chain.left() == {"maps", "nuclei"}
    chain.settings["nuclei"] = {"key": 2}
    assert chain.run() == {"infer": NONE, "stitch": NONE, "nuclei": EVERY}


def test_without_maps_another_threshold_begins_with_inference(cohort: Cohort) -> None:
    chain = Chain(cohort)
    chain.run()
    chain.settings["nuclei"] = {"key": 2}
    assert chain.run() == dict.fromkeys(Chain.FILES, EVERY)
    assert chain.left() == {"nuclei"}


@pytest.mark.parametrize("keep_maps", [False, True])
def test_another_assembly_begins_with_inference(cohort: Cohort, keep_maps: bool) -> None:
    chain = Chain(cohort)
    chain.keep_maps = keep_maps
    chain.run()
    chain.settings["stitch"] = {"key": 2}
    assert chain.run() == dict.fromkeys(Chain.FILES, EVERY)


def test_maps_that_are_no_longer_kept_go_without_any_work(cohort: Cohort) -> None:
    chain = Chain(cohort)
    chain.keep_maps = True
    chain.run()
    chain.keep_maps = False
    assert chain.run() == dict.fromkeys(Chain.FILES, NONE)
    assert chain.left() == {"nuclei"}


def test_lost_map_is_made_again_from_inference_on_for_its_slide_alone(cohort: Cohort) -> None:
    chain = Chain(cohort)
    chain.keep_maps = True
    chain.run()
    (cohort.results / "maps" / "b.zarr.zip").unlink()
    assert chain.run() == {"infer": ["b"], "stitch": ["b"], "nuclei": NONE}


def test_a_slide_that_failed_keeps_what_it_was_made_from(cohort: Cohort) -> None:
    chain = Chain(cohort)
    process = chain.process

    def fail_once(stage: str, task: SlideTask, done: list[str]) -> StageResult:
        if (stage, task.row.slide_id) == ("nuclei", "b"):
            raise OSError("stale file handle")
        return process(stage, task, done)

    chain.process = fail_once  # type: ignore[method-assign]
    chain.run()
    assert [path.name for path in (cohort.results / "maps").iterdir()] == ["b.zarr.zip"]
    chain.process = process  # type: ignore[method-assign]
    assert chain.run() == {"infer": NONE, "stitch": NONE, "nuclei": ["b"]}


def test_parts_of_a_slide_have_records_of_their_own_and_go_when_it_is_stitched(cohort: Cohort) -> None:
    def infer(task: SlideTask) -> StageResult:
        (part,) = task.parts
        output = task.files.tiles_of(part)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(part)
        calls.append(f"{task.row.slide_id} {part}")
        return StageResult(outputs=(output,))

    given = {"settings": {"mpp": 8.0}, "version": 1}
    later = {"stitch": given}
    calls: list[str] = []
    for part in tile_parts(2):
        cohort.run(infer, "infer", parts=[part], later=later)
    assert calls == ["a 1of2", "b 1of2", "c 1of2", "a 2of2", "b 2of2", "c 2of2"]
    stitch = Stage()
    cohort.run(
        stitch, "stitch", upstream=str(cohort.manifest("infer")), discard=["tiles"], parts=tile_parts(2)
    )
    assert stitch.calls == ["a", "b", "c"]
    assert not list((cohort.results / "tiles").rglob("*.zip"))
    calls.clear()
    for part in tile_parts(2):
        cohort.run(infer, "infer", parts=[part], later=later)
    assert calls == []


SECOND_JOB = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_shard import Cohort, slow
Cohort(Path(sys.argv[2]), IDS).run(slow)
"""
IDS = tuple("abcdefgh")


def slow(task: SlideTask) -> StageResult:
    """Write the slide's file in a while, and note who did."""
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    with (task.files.cohort / "calls").open("a") as stream:
        stream.write(f"{task.row.slide_id} {os.getpid()}\n")
    return Stage()(task)


def test_two_jobs_of_a_shard_share_its_slides_and_do_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(karyon.cohort.shard, "WAIT_S", 0.05)
    cohort = Cohort(tmp_path, IDS)
    code = SECOND_JOB.replace("IDS", repr(IDS))
    other = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)])
    records = cohort.results / "records" / "tissue"
    while not list(records.glob("*.lease")):  # it has begun
        assert other.poll() is None
    manifest = cohort.run(slow)
    assert other.wait() == 0
    calls = [line.split() for line in (cohort.results / "calls").read_text().splitlines()]
    assert sorted(slide_id for slide_id, _ in calls) == list(IDS)
    assert len({process for _, process in calls}) == 2
    assert manifest.index.tolist() == list(IDS)
    assert manifest["status"].tolist() == [DONE] * len(IDS)
    assert not list(records.glob("*.lease"))
