"""The bench of nuclei with outlines: the figures it gives, and that it works on what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from karyon.bench.instances import CARD, THRESHOLD, measure_instances
from karyon.bench.material import MODEL_MPP
from karyon.nuclei.instances import label_map
from karyon.tiles.store import open_store

SIDE = 300


def test_bench_measures_shapes_against_skimage_and_the_way_to_the_table(tmp_path: Path) -> None:
    shapes, seconds, memory = measure_instances(tmp_path, SIDE)
    assert (shapes.name, seconds.name, memory.name) == (
        "instances.shapes",
        "instances.time",
        "instances.memory",
    )
    assert shapes.ratio == pytest.approx((shapes.peer_value or 0) / shapes.value)
    assert seconds.goal == f"<= {180 * (SIDE / 40_000) ** 2:.3g} s"
    assert 100 < memory.value < 2000
    table = pq.read_table(tmp_path / "instances" / f"nuclei-{SIDE}.parquet")
    with open_store(tmp_path / "instances" / f"maps-{SIDE}.zarr.zip") as store:
        maps = np.asarray(store["map"])
    labels = label_map(maps, CARD.decoding, CARD.maps, MODEL_MPP)
    assert table.num_rows == labels.max() > 50
    assert f" {table.num_rows} nuclei on 300 x 300" in seconds.unit
    # One nucleus is drawn in every 40 x 40 pixels; markers part those that touch.
    assert table.num_rows == pytest.approx((SIDE / 40) ** 2, rel=0.15)
    assert sum(table["area_um2"].to_pylist()) == (maps[0] >= THRESHOLD).sum() * MODEL_MPP**2
