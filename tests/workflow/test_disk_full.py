"""A disk that fills up: a clear error, nothing half-written, and the same result when there is space."""

from __future__ import annotations

import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import SETTINGS, Workflow, new_workflow
from PIL import Image

DISK_SETTINGS = {**SETTINGS, "shard_size": 64, "report": {"overlays": 0}}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[Path, str], None]]:
    """Mount a disk of a given size on a folder, or give the one that is there another size."""
    mounted: list[Path] = []

    def on(folder: Path, size: str) -> None:
        options = f"size={size}" if folder not in mounted else f"remount,size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)

    if os.geteuid():
        pytest.skip("a small disk cannot be mounted here: only root may mount")
    yield on
    for folder in set(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def assert_whole(path: Path) -> None:
    """The file can be read to its end by what reads its kind."""
    if path.suffix == ".parquet":
        pq.read_table(path)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    elif path.suffix == ".tsv":
        assert path.read_text().endswith("\n")


@pytest.mark.slow
@pytest.mark.parametrize(("free_kb", "stage"), [(36, "tissue"), (128, "infer")])
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_space(
    finished: Workflow,
    sheet: pd.DataFrame,
    tmp_path: Path,
    mount: Callable[[Path, str], None],
    free_kb: int,
    stage: str,
) -> None:
    workflow = new_workflow(tmp_path / "work")
    workflow.write_sheet(sheet.iloc[:2])
    disk = workflow.folder / "results"
    disk.mkdir()
    mount(disk, f"{free_kb}k")
    result = workflow.run(settings=DISK_SETTINGS)
    output = result.stdout + result.stderr
    assert result.returncode != 0
    told = f"{stage} demo-[12]: no space left on the disk of {disk / 'tiny'}; free space and start again"
    assert re.search(told, output), output
    assert "Traceback" not in output
    written = [path for path in disk.rglob("*") if path.is_file() and "logs" not in path.parts]
    assert not [path for path in written if path.name.startswith(".")]
    for path in written:
        if "benchmarks" not in path.parts:
            assert_whole(path)
    done = {path: path.stat().st_mtime_ns for path in disk.glob("tiny/records/*/*.json")}
    mount(disk, "64m")
    again = workflow.run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert list(pd.read_parquet(disk / "tiny" / "slides.parquet")["status"]) == ["done"] * 2
    for path in (disk / "tiny" / "nuclei").glob("*.parquet"):
        undisturbed = finished.folder / "results" / "tiny" / "nuclei" / path.name
        assert path.read_bytes() == undisturbed.read_bytes()
