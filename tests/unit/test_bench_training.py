"""The bench of training: its figures, what it draws to train on, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from karyon.bench import training
from karyon.bench.training import EXPERIMENT, drawn_image, measure_training
from karyon.training.experiment import read_experiment


def test_bench_gives_speeds_as_ratios_and_the_share_of_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "THREADS", 1)  # two wait for each other where the machine has more to do
    monkeypatch.setattr(training, "STEPS", 2)
    lines = {line.name: line for line in measure_training(tmp_path, 64)}
    assert list(lines) == ["training.float32", "training.bfloat16", "training.loader_share"]
    full, half, share = lines.values()
    for line in (full, half):
        assert line.peer_value is not None
        assert line.value > 0
        assert line.ratio == pytest.approx(line.value / line.peer_value)
        assert line.unit == "crops/s, 3 crops of 64 px a step"
    assert half.peer_value == full.value
    assert 0 < share.value < 1
    assert (share.goal, share.met) == ("<= 0.10", share.value <= 0.1)
    assert not list(tmp_path.iterdir())


def test_drawn_image_is_dark_where_its_nuclei_and_their_target_are() -> None:
    side = 200
    image = drawn_image(read_experiment(EXPERIMENT), side)
    hematoxylin, eosin = image.inputs.numpy()
    # One nucleus in each cell of 40 px.
    cells = {tuple(cell) for cell in (image.truth // 40).astype(int)}
    assert len(image.truth) == len(cells) == 25
    core = image.target[0].numpy() > 0
    labels, count = ndimage.label(core)
    assert count == 25
    found = np.array(ndimage.center_of_mass(core, labels, range(1, 26)))[:, ::-1]
    distance = np.hypot(*(found[:, None] - image.truth[None]).transpose(2, 0, 1)).min(axis=1)
    # Cores at the border are cut off.
    assert np.median(distance) < 0.5
    assert hematoxylin[core].mean() > hematoxylin[~core].mean() + 0.7
    assert eosin[core].mean() == pytest.approx(eosin[~core].mean(), abs=0.02)


def test_drawn_target_is_that_of_the_experiment() -> None:
    experiment = read_experiment(EXPERIMENT)
    quarter, whole = (
        drawn_image(replace(experiment, target_arguments={"share": share}), 200).target.sum()
        for share in (0.25, 1.0)
    )
    assert quarter / whole == pytest.approx(0.25, rel=0.1)
