"""Neither the tile size nor the number of reader threads shows in the nuclei, from slide to table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial import KDTree

from karyon.bench.chain import STAGES, stage_task
from karyon.bench.material import synthetic_slide
from karyon.models.card import model_folder

# Tile size, and threads of the job: a CPU job reads with half as many.
CHOICES = ((256, 1), (512, 8), (1024, 2))
SHARE, DISTANCE_PX = 1e-3, 0.1


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_slide(tmp_path_factory.mktemp("synthetic"), 2000)


def nuclei(slide: Path, folder: Path, tile_px: int, threads: int) -> np.ndarray:
    """Positions in level-0 pixels, ``(n, 2)``, by the shipped model."""
    for stage, process in STAGES.items():
        task = stage_task(stage, slide, model_folder("switch_unet"), folder)
        settings = {**task.settings, "tile_px": tile_px} if stage == "infer" else task.settings
        process(replace(task, settings=settings, threads=threads))
    table = pq.read_table(task.files.nuclei, columns=["x", "y"])
    return np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)


def assert_tiling_does_not_show(slide: Path, folder: Path) -> None:
    first, *others = (nuclei(slide, folder / str(tile_px), tile_px, threads) for tile_px, threads in CHOICES)
    assert len(first) > 500
    for other in others:
        assert abs(len(other) - len(first)) <= SHARE * len(first)
        for one, two in ((first, other), (other, first)):
            moved = KDTree(two).query(one)[0] > DISTANCE_PX
            assert moved.sum() <= SHARE * len(first)


def test_tiling_does_not_show_on_a_synthetic_slide(synthetic: Path, tmp_path: Path) -> None:
    assert_tiling_does_not_show(synthetic, tmp_path)


@pytest.mark.slow
def test_tiling_does_not_show_on_a_real_slide(real_file: Callable[[str], Path], tmp_path: Path) -> None:
    assert_tiling_does_not_show(real_file("slides/CMU-1-Small-Region.svs"), tmp_path)
