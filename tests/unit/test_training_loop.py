"""The training loop: it learns, it resumes to the last bit, it stops in time and at nonsense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch import nn

from karyon.errors import KaryonError
from karyon.evaluation.detection import DetectionScore
from karyon.models.card import Decoding
from karyon.tiles.grid import Grid
from karyon.training.augmentation import Augmentation
from karyon.training.data import TrainingImage
from karyon.training.experiment import Dataset, Experiment, Optimiser, Schedule
from karyon.training.logs import logged_seconds
from karyon.training.loop import train
from karyon.training.prediction import predict_maps

# MicroNet drops filters out, at random.
EXPERIMENT = Experiment(
    name="tiny",
    datasets=(Dataset("none", ("train",), ("test",)),),
    mpp=0.5,
    input="H-C",
    architecture="micronet",
    arguments={"width": 2},
    target="shrunken_mask",
    loss="switching",
    decoding="components",
    steps=30,
    batch=4,
    crop_px=32,
    optimiser=Optimiser("adamw", 0.02, weight_decay=0.01),
    schedule=Schedule("onecycle"),
    clip=1.0,
    ema=0.9,
    validate_every=10,
    patience=5,
    seed=7,
    licence="",
    augmentation=Augmentation(elastic_px=0.5),
)


def synthetic_image(image_id: str = "synthetic", side: int = 64) -> TrainingImage:
    """Bright blobs on a noisy ground; the target is their cores."""
    rng = np.random.default_rng(1)
    truth = np.array([(8 + 16 * k, 8 + 16 * j) for k in range(4) for j in range(4)], float)
    truth += rng.uniform(-2, 2, truth.shape)
    y, x = np.mgrid[:side, :side]
    distance = np.min([np.hypot(x - px, y - py) for px, py in truth], axis=0)
    hematoxylin = np.exp(-((distance / 4) ** 2)) + 0.1 * rng.random((side, side))
    stains = np.stack([hematoxylin, 0.3 * rng.random((side, side))]).astype(np.float32)
    return TrainingImage(
        image_id=image_id,
        patient="one",
        dataset=0,
        inputs=torch.from_numpy(stains),
        target=torch.from_numpy((distance < 2.5).astype(np.float32)[None]),
        points=truth,
        grid=Grid(side, side, 1.0, 0, 1.0),
        mpp=0.5,
        truth=truth,
    )


def run(experiment: Experiment, folder: Path) -> nn.Module:
    image = synthetic_image()
    return train(experiment, [image], [image], folder, threads=1)


def log_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "log.parquet")


def checkpoint_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.ckpt", weights_only=True)


def curves_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each curve, as TensorBoard shows them."""
    shown = EventAccumulator(str(folder)).Reload()
    return {
        name: [(point.step, point.value) for point in shown.Scalars(name)] for name in shown.Tags()["scalars"]
    }


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested dictionaries and lists, with where it is."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from leaves(value, f"{name}/{key}")
    else:
        yield name, tree


def assert_equal_to_the_last_bit(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for (name, one), (wanted, other) in zip(leaves(found), leaves(expected), strict=True):
        assert name == wanted
        if "/log/" in name and ("seconds" in name or "loader_share" in name):
            continue
        if isinstance(other, torch.Tensor):
            assert torch.equal(one, other), name
        else:
            assert one == other, name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A run of 30 steps from start to end, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    return run(EXPERIMENT, folder), folder


def test_log_has_a_row_per_validation(undisturbed: tuple[nn.Module, Path]) -> None:
    rows = log_of(undisturbed[1])
    assert rows["step"].tolist() == [10, 20, 30]
    assert rows["loss"].iloc[-1] < 0.9 * rows["loss"].iloc[0]
    # One-cycle falls from 0.02 at 0.05 * 30 - 1 steps to nearly 0 at 29, by half a cosine.
    fall = (np.array([9, 19, 29]) - 0.5) / 28.5
    assert rows["lr"].to_numpy() == pytest.approx(0.01 * (1 + np.cos(np.pi * fall)), abs=1e-7)
    assert rows["loader_share"].between(0, 1).all()
    assert logged_seconds(undisturbed[1]) == pytest.approx(rows["seconds"].sum())
    assert rows["seconds"].gt(0).all()


def test_trained_network_finds_the_blobs(tmp_path: Path) -> None:
    experiment = replace(EXPERIMENT, architecture="unet", arguments={"width": 4, "depth": 2})
    image, network = synthetic_image(), run(experiment, tmp_path)
    values = predict_maps(network, image, experiment)[0]
    core = image.target[0].numpy() > 0
    assert values[core].mean() > values[~core].mean() + 15


# Runs in a process of its own, which kills itself in the middle of a step, as `kill -9` does.
KILLED = """
import os, signal, sys
from pathlib import Path
from torch.nn.modules.module import register_module_forward_pre_hook
from karyon.models.micronet import MicroNet
from test_training_loop import EXPERIMENT, run

steps = 0
def count(module, inputs):
    global steps
    steps += isinstance(module, MicroNet) and module.training
    if steps > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

register_module_forward_pre_hook(count)
run(EXPERIMENT, Path(sys.argv[1]))
"""


def test_killed_run_ends_as_an_undisturbed_one_to_the_last_bit(
    undisturbed: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    network, folder = undisturbed
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    # Killed in the 17th step; goes on from the checkpoint after the 10th.
    command = [sys.executable, "-c", KILLED, str(tmp_path), "16"]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert log_of(tmp_path)["step"].tolist() == [10]
    resumed = run(EXPERIMENT, tmp_path)
    assert_equal_to_the_last_bit(dict(resumed.state_dict()), dict(network.state_dict()))
    # Optimiser, schedule, average, early stopping, best weights and log as well.
    found, expected = checkpoint_of(tmp_path), checkpoint_of(folder)
    assert set(expected) >= {"network", "average", "optimiser", "schedule", "stopping", "best", "log"}
    assert_equal_to_the_last_bit(found, expected)
    assert log_of(tmp_path)["step"].tolist() == [10, 20, 30]


def test_run_that_died_in_a_snapshot_goes_on_and_its_curves_have_no_step_twice(
    undisturbed: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TensorBoard reads files by the second in which they were begun: here a minute lies between any two.
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=count(1e9, 60).__next__))
    experiment, image, seen = replace(EXPERIMENT, snapshot_every=20), synthetic_image(), []

    def snapshot(step: int, network: nn.Module, decoding: Decoding, score: DetectionScore) -> None:
        seen.append((step, decoding.threshold, score.f1))
        if len(seen) == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(experiment, [image], [image], tmp_path, threads=1, snapshot=snapshot)
    assert checkpoint_of(tmp_path)["step"] == 10
    assert len(curves_of(tmp_path)["loss"]) == 2
    resumed = train(experiment, [image], [image], tmp_path, threads=1, snapshot=snapshot)
    assert_equal_to_the_last_bit(dict(resumed.state_dict()), dict(undisturbed[0].state_dict()))
    rows = log_of(tmp_path)
    assert seen == [(20, rows["threshold"][1], rows["f1"][1])] * 2
    assert len(list(tmp_path.glob("events.*"))) == 2
    curves = curves_of(tmp_path)
    assert set(curves) == {"loss", "lr", "f1", "threshold", "loader_share"}
    for name, points in curves.items():
        assert [step for step, _ in points] == [10, 20, 30]
        assert [value for _, value in points] == pytest.approx(rows[name].tolist(), rel=1e-6)


def test_finished_run_is_not_trained_again(undisturbed: tuple[nn.Module, Path]) -> None:
    network, folder = undisturbed
    before = checkpoint_of(folder)
    again = run(EXPERIMENT, folder)
    assert_equal_to_the_last_bit(dict(again.state_dict()), dict(network.state_dict()))
    assert_equal_to_the_last_bit(checkpoint_of(folder), before)
    assert len(log_of(folder)) == 3


def test_checkpoint_of_another_experiment_is_refused(undisturbed: tuple[nn.Module, Path]) -> None:
    with pytest.raises(KaryonError, match="another experiment"):
        run(replace(EXPERIMENT, arguments={"width": 3}), undisturbed[1])


# No batch norm and steps too small for float32: the weights stay, and with them F1.
STILL = replace(
    EXPERIMENT,
    architecture="vgg_unet",
    arguments={"width": 2},
    optimiser=Optimiser("sgd", 1e-30, momentum=0.5),
    schedule=Schedule("constant"),
    steps=100,
    validate_every=1,
    batch=1,
)


def test_training_stops_once_f1_stands_still(tmp_path: Path) -> None:
    network = run(replace(STILL, patience=3), tmp_path)
    # The first validation is the best; three more are no better.
    assert log_of(tmp_path)["step"].tolist() == [1, 2, 3, 4]
    assert not network.training
    run(replace(STILL, patience=3), tmp_path)
    assert len(log_of(tmp_path)) == 4


def test_training_stops_once_the_plateau_has_lowered_the_rate_enough(tmp_path: Path) -> None:
    schedule = Schedule("plateau", factor=0.1, patience=2, until=5e-32)
    run(replace(STILL, patience=0, schedule=schedule), tmp_path)
    rows = log_of(tmp_path)
    # 1e-30 until two validations are no better than the first, 1e-31 for two more, then 1e-32.
    assert rows["lr"].tolist() == pytest.approx([1e-30] * 3 + [1e-31] * 2, abs=0)


def test_with_patience_the_best_validation_is_returned_else_the_end(tmp_path: Path) -> None:
    # A rate that ruins the network after a good start.
    wild = replace(
        EXPERIMENT,
        architecture="unet",
        arguments={"width": 4, "depth": 2},
        optimiser=Optimiser("adamw", 0.02),
        schedule=Schedule("step", factor=1.0, every=1),
        steps=40,
        ema=0.0,
    )
    patient, impatient = (run(replace(wild, patience=n), tmp_path / str(n)) for n in (3, 0))
    f1 = log_of(tmp_path / "3")["f1"]
    state = checkpoint_of(tmp_path / "3")
    assert f1.idxmax() < len(f1) - 1, "the end is the best; nothing is shown"
    assert f1.max() == state["stopping"]["best"]
    assert_equal_to_the_last_bit(dict(patient.state_dict()), state["best"])
    average = {
        name.removeprefix("module."): value
        for name, value in checkpoint_of(tmp_path / "0")["average"].items()
    }
    for name, value in impatient.state_dict().items():
        assert torch.equal(value, average[name]), name


def test_nonsense_stops_the_run_and_names_the_images(tmp_path: Path) -> None:
    good, bad = synthetic_image("good"), synthetic_image("bad")
    bad = replace(bad, inputs=torch.full_like(bad.inputs, torch.nan))
    with pytest.raises(KaryonError, match=r"the loss is nan.*bad.*lower learning_rate"):
        train(replace(EXPERIMENT, batch=8), [good, bad], [good], tmp_path, threads=1)
    saved = json.loads((tmp_path / "bad_batch.json").read_text())
    assert saved["loss"] == "nan"
    assert len(saved["image_ids"]) == 8
    assert set(saved["image_ids"]) == {"good", "bad"}


def test_validation_without_a_nucleus_is_refused_before_training(tmp_path: Path) -> None:
    image = synthetic_image()
    with pytest.raises(KaryonError, match="no annotated nucleus"):
        train(EXPERIMENT, [image], [replace(image, truth=np.empty((0, 2)))], tmp_path, threads=1)
    assert not list(tmp_path.iterdir())


def test_bfloat16_learns_as_float32_does(tmp_path: Path) -> None:
    experiment = replace(EXPERIMENT, architecture="unet", arguments={"width": 4, "depth": 2}, steps=20)
    run(experiment, tmp_path / "float32")
    run(replace(experiment, precision="bfloat16"), tmp_path / "bfloat16")
    full, half = (log_of(tmp_path / name)["loss"].to_numpy() for name in ("float32", "bfloat16"))
    assert not np.array_equal(full, half)
    assert half == pytest.approx(full, rel=0.03)
