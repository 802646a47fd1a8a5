"""What a shard's jobs ask of a cluster, against hand-worked values, and Snakemake's own reading of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from karyon.cohort.demand import Demand
from karyon.cohort.plan import shard_of, write_plan


def test_a_shard_asks_by_the_number_and_size_of_its_slides() -> None:
    demand = Demand(slides=64, gigabytes=60.0, largest=3.0)
    assert demand.light_mem_mb() == 1500 + 3 * 200
    assert demand.infer_mem_mb(threads=8) == 1500 + 3 * 200 + 8 * 750
    assert demand.light_minutes() == 10 + 32 + 30
    assert demand.infer_minutes() == 10 + 32 + 240


def test_a_shard_of_tiny_slides_asks_for_little() -> None:
    demand = Demand(slides=1, gigabytes=1e-4, largest=1e-4)
    assert demand.infer_minutes() == demand.light_minutes() == 11


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """The plan of three slides in one shard; one of them does not exist, one has a quote in its name."""
    sizes = {"a": 1_000_000, "b": 2_500_000, "c": None}
    paths = [tmp_path / f'{name}".svs' for name in sizes]
    for path, size in zip(paths, sizes.values(), strict=True):
        if size:
            path.write_bytes(bytes(size))
    text = dict.fromkeys(
        ("organ", "patient", "split", "label_quality", "annotations", "annotation_format", "region"), ""
    )
    sheet = pd.DataFrame({"slide_id": list(sizes), "path": [str(path) for path in paths], **text})
    sheet = sheet.assign(stain="HE", region_format="", mpp=0.5, annotation_mpp=float("nan"))
    write_plan(sheet, tmp_path / "plan", shard_size=3)
    return tmp_path / "plan" / f"{shard_of('a', 1)}.tsv"


def test_sizes_are_read_from_the_plan(plan: Path) -> None:
    demand = Demand.of_plan(plan)
    assert demand.slides == 3
    assert demand.gigabytes == pytest.approx(3.5e-3)
    assert demand.largest == pytest.approx(2.5e-3)
