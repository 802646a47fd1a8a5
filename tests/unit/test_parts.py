"""A slide's tiles dealt to several jobs: the same map and nuclei as of one, and one manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from karyon.bench.chain import STAGES, stage_task
from karyon.bench.material import synthetic_slide, trivial_model
from karyon.cohort.gather import gather_parts
from karyon.cohort.layout import SlideFiles, tile_parts
from karyon.cohort.shard import DONE, FAILED, SKIPPED
from karyon.cohort.stages.infer import part_of_tiles


def run_chain(slide: Path, model: Path, results: Path, jobs: int) -> SlideFiles:
    """All stages, with as many jobs for infer; the slide's files."""
    parts = tile_parts(jobs)
    for stage, process in STAGES.items():
        task = stage_task(stage, slide, model, results)
        if stage == "infer":
            for part in parts:
                process(replace(task, parts=(part,), settings={**task.settings, "tile_px": 128}))
        else:
            process(replace(task, parts=parts))
    return task.files


@pytest.mark.parametrize("jobs", [4, 40])  # 40 are more than there are tiles
def test_a_slide_shared_by_several_jobs_gives_the_same_bytes(tmp_path: Path, jobs: int) -> None:
    slide, model = synthetic_slide(tmp_path, 1200), trivial_model(tmp_path)
    one = run_chain(slide, model, tmp_path / "one", 1)
    several = run_chain(slide, model, tmp_path / "several", jobs)
    assert len(list((tmp_path / "several" / "tiles").glob(f"*of{jobs}/*.zarr.zip"))) == jobs
    assert not several.tiles.exists()
    assert len(pd.read_parquet(one.nuclei)) > 20
    assert several.nuclei.read_bytes() == one.nuclei.read_bytes()


def test_parts_are_bands_that_hold_every_tile_once_in_order() -> None:
    tiles = np.arange(30).reshape(10, 3)
    parts = [part_of_tiles(tiles, part) for part in tile_parts(4)]
    assert [len(part) for part in parts] == [3, 3, 2, 2]
    np.testing.assert_array_equal(np.concatenate(parts), tiles)
    assert part_of_tiles(tiles, "") is tiles


def manifest_of(path: Path, *rows: dict[str, object]) -> str:
    common = {"error": "", "warning": "", "seconds": 1.0, "fingerprint": "f", "status": DONE}
    pd.DataFrame([{**common, **row} for row in rows]).to_parquet(path)
    return str(path)


def test_manifests_of_the_parts_become_one(tmp_path: Path) -> None:
    whole = {"slide_id": "a", "seconds": 60.0, "tiles": 30, "lost_share": 0.0, "gpx_per_min": 3.0}
    rest = {
        "slide_id": "a",
        "seconds": 40.0,
        "tiles": 10,
        "lost_share": 0.4,
        "gpx_per_min": 1.0,
        "warning": "w",
    }
    failed = {"slide_id": "b", "status": FAILED, "error": "damaged"}
    done = {"slide_id": "b", "tiles": 5, "lost_share": 0.0, "gpx_per_min": 1.0}
    passed = {"slide_id": "c", "status": SKIPPED, "error": "no stain"}
    parts = [
        manifest_of(tmp_path / "1.parquet", whole, done, passed),
        manifest_of(tmp_path / "2.parquet", rest, failed, passed),
    ]
    path = tmp_path / "results" / "manifests" / "infer" / "shard.parquet"
    gather_parts(parts, str(path))
    table = pd.read_parquet(path).set_index("slide_id")
    assert table["status"].to_dict() == {"a": DONE, "b": FAILED, "c": SKIPPED}
    assert table["error"].to_dict() == {"a": "", "b": "damaged", "c": "no stain"}
    a = table.loc["a"]
    assert (a["seconds"], a["tiles"], a["warning"], a["fingerprint"]) == (100.0, 40, "w", "f")
    assert a["lost_share"] == pytest.approx(0.1)
    # 30 tiles at 3 and 10 at 1: 40 tiles in the time of 20.
    assert a["gpx_per_min"] == pytest.approx(2.0)
