"""From a sheet and an experiment file to a model folder that the slide workflow takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from karyon.cli.main import main
from karyon.errors import KaryonError
from karyon.inference.predict import Predictor, input_layer
from karyon.io.schemas import REPOSITORY
from karyon.models.card import model_folder, read_card
from karyon.models.registry import blocks, build, halo_and_stride
from karyon.models.weights import load_model
from karyon.stain.fit import StainFit, reference_matrix
from karyon.tiles.grid import Grid
from karyon.training.data import load_datasets
from karyon.training.decoding_choice import choose_decoding
from karyon.training.experiment import read_experiment
from karyon.training.prediction import predict_maps
from karyon.training.ship import train_and_ship
from karyon.training.start import starting_point

FIT = StainFit(
    "HE",
    ("hematoxylin", "eosin"),
    reference_matrix("HE"),
    np.array([1.4, 0.9]),
    np.array([245.0, 243.0, 240.0]),
    "fit",
    "",
    0.0,
    50.0,
    1000,
)


@pytest.fixture
def sheet(
    tmp_path: Path,
    stain_image: Callable[[np.ndarray, np.ndarray], np.ndarray],
    known_stains: np.ndarray,
    glass: np.ndarray,
) -> Path:
    """Two images, to train and to validate on."""
    for name in ("train", "val"):
        Image.fromarray(stain_image(known_stains, glass)).save(tmp_path / f"{name}.png")
    instances = np.zeros((96, 128), np.uint8)
    instances[20:32, 30:44], instances[60:70, 80:92] = 1, 2
    Image.fromarray(instances).save(tmp_path / "map.png")
    rows = [
        {"image_id": name, "image": f"{name}.png", "mpp": 0.5, "split": name, "patient": name}
        | {"annotations": "map.png", "annotation_format": "instance_png"}
        for name in ("train", "val")
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "sheet.tsv", sep="\t", index=False)
    return tmp_path / "sheet.tsv"


def write_experiment(sheet: Path, preset: str, **changes: Any) -> Path:
    """A preset on the sheet's two images, with changes."""
    content = yaml.safe_load((REPOSITORY / "config" / "experiments" / f"{preset}.yaml").read_text())
    content["datasets"] = [{"sheet": str(sheet), "train_splits": ["train"], "validation_splits": ["val"]}]
    path = sheet.parent / "small.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


@pytest.mark.parametrize(
    ("preset", "network_input", "channels"),
    [
        ("switch_unet", "H-C", 1),
        ("switch_unet", "HE-C", 2),
        ("switch_unet", "CN-H&E", 3),
        ("micronet", "RGB", 3),
        ("karyon_outline", "CN-H&E", 3),
        ("nb", "CN-H&E", 3),
        ("joint", "CN-H&E", 3),
    ],
)
def test_trained_model_runs_on_slides_by_its_card_alone(
    sheet: Path, preset: str, network_input: str, channels: int
) -> None:
    small = {"width": 2} if preset in ("micronet", "joint", "karyon_outline") else {"width": 2, "depth": 2}
    changes = {"arguments": small, "steps": 2, "batch": 2, "crop_px": 32, "input": network_input}
    changes |= {"mpp": 0.5, "encoder_weights": None, "ema": 0.9, "classes": []}
    experiment = read_experiment(write_experiment(sheet, preset, **changes))
    folder = sheet.parent / "model"
    written = train_and_ship(
        experiment, sheet.parent / "run", folder, threads=1, command="karyon train small.yaml"
    )

    network, card = load_model(folder)
    assert replace(card, training={}) == replace(written, training={})
    assert card.arguments == {"in_channels": channels, "out_channels": len(card.maps), **small}
    assert card.maps == experiment.maps
    assert (card.input, card.output, card.peak) == (network_input, experiment.output, experiment.peak)
    assert (card.halo_px, card.stride) == halo_and_stride(network)
    assert card.training["train_images"] == ["train"]
    assert card.training["validation_images"] == ["val"]
    assert card.training["command"] == f"karyon train small.yaml --output {folder}"
    assert yaml.safe_load((folder / "card.yaml").read_text())["training"]["experiment"]["steps"] == 2

    assert ("left_out" in card.training) == (preset == "joint")

    # The decoding in the card is that of the weights as they lie in the folder.
    trained = build(card.architecture, **card.arguments)
    trained.load_state_dict(load_file(folder / "model.safetensors"))
    _, (validation,) = load_datasets(experiment)
    decoding, score = choose_decoding(trained, [validation], experiment)
    assert decoding == card.decoding
    figure = "instance_f1" if experiment.finds_outlines else "f1"
    assert card.metrics["validation"][figure] == round(score.f1, 4)  # type: ignore[index]

    # On glass, whose measurement is known to be 0, a slide's map is that of the training code.
    side = 2 * card.halo_px + 32
    glass = np.full((side, side, 3), 255, np.uint8)
    predictor = Predictor(network, card.output, torch.device("cpu"), batch_size=1)
    found = next(predictor.predict(iter([glass]), input_layer(card, FIT, "hematoxylin")))
    nothing = torch.zeros(len(validation.inputs), side, side)
    blank = replace(validation, inputs=nothing, grid=Grid(side, side, 1.0, 0, 1.0))
    expected = predict_maps(trained, blank, experiment)
    inner = ..., slice(card.halo_px, -card.halo_px), slice(card.halo_px, -card.halo_px)
    assert np.abs(found.reshape(expected.shape)[inner].astype(int) - expected[inner]).max() <= 1


def test_decoding_of_another_model_frees_all_images_for_training(sheet: Path) -> None:
    every = [{"sheet": str(sheet), "train_splits": ["train", "val"]}]
    small = {"arguments": {"width": 2, "depth": 2}, "steps": 2, "batch": 2, "crop_px": 32}
    path = write_experiment(sheet, "switch_unet", **small, datasets=every, decoding_of="switch_unet")
    folder = sheet.parent / "model"
    card = train_and_ship(read_experiment(path), sheet.parent / "run", folder, threads=1, command="")
    assert card is not None
    assert card.decoding == read_card(model_folder("switch_unet")).decoding
    assert card.training["train_images"] == ["train", "val"]
    assert card.metrics == {}
    assert Image.open(folder / "curves.png").size[0] > 500

    peaks = {"decoding": "peaks"}
    path = write_experiment(sheet, "switch_unet", **small, **peaks, datasets=every, decoding_of="switch_unet")
    with pytest.raises(KaryonError, match="switch_unet is read by components, the experiment is by peaks"):
        train_and_ship(read_experiment(path), sheet.parent / "other", folder, threads=1, command="")


def test_command_trains_on_a_sheet_in_place_of_the_experiments_own(sheet: Path) -> None:
    small = {"arguments": {"width": 2, "depth": 2}, "steps": 2, "batch": 2, "crop_px": 32, "mpp": 0.5}
    path = write_experiment(sheet, "nb", **small)
    split = sheet.with_name("split_1.tsv")
    split.write_text(sheet.read_text().replace("\tval\t", "\tvalidation\t"))
    sheet.unlink()
    folders = {"output": sheet.parent / "model", "run": sheet.parent / "run"}
    words = [f"--{key}={folder}" for key, folder in folders.items()]
    assert main(["train", str(path), "--sheet", str(split), "--threads", "1", *words]) == 0
    card = read_card(folders["output"])
    assert card.name == "nb_split_1"
    assert card.training["train_images"] == ["train"]
    assert card.training["validation_images"] == ["val"]
    assert f" --sheet {split} --output {folders['output']}" in str(card.training["command"])


def test_snapshot_is_a_model_to_go_on_from(sheet: Path) -> None:
    small = {"arguments": {"width": 2, "depth": 2}, "batch": 2, "crop_px": 32}
    often = {"steps": 4, "validate_every": 1, "snapshot_every": 2}
    experiment = read_experiment(write_experiment(sheet, "switch_unet", **small, **often))
    run, output = sheet.parent / "run", sheet.parent / "model"
    train_and_ship(experiment, run, output, threads=1, command="")
    assert sorted(path.name for path in (run / "snapshots").iterdir()) == ["2", "4"]
    # The last one is the model itself: its weights, and the decoding that suits them.
    early, first = load_model(run / "snapshots" / "2")
    (_, last), (_, card) = load_model(run / "snapshots" / "4"), load_model(output)
    assert last == replace(card, name="switch_unet_4")
    assert (first.name, first.mpp, first.halo_px) == ("switch_unet_2", card.mpp, card.halo_px)
    assert first.sha256 != last.sha256
    assert 0 < float(str(first.training["seconds"])) < float(str(last.training["seconds"]))
    _, validation = load_datasets(experiment)
    decoding, score = choose_decoding(early, validation, experiment)
    assert first.decoding == decoding
    assert first.metrics["validation"]["f1"] == round(score.f1, 4)  # type: ignore[index]

    start = {"start": {"model": str(run / "snapshots" / "2")}}
    tuned = read_experiment(write_experiment(sheet, "switch_unet", **small, **often, **start))
    begun = starting_point(tuned).network.state_dict()
    for name, weights in early.state_dict().items():
        assert torch.equal(begun[name], weights)


def test_two_processes_train_as_one_does(sheet: Path) -> None:
    # No batch norm, a loss that is a mean over pixels; F1 lowers the rate, and the first blocks are frozen.
    folder = sheet.parent
    changes: dict[str, Any] = {
        "architecture": "vgg_unet",
        "arguments": {"width": 2},
        "loss": "bce",
        "loss_arguments": {},
        "batch": 4,
        "crop_px": 32,
        "steps": 12,
        "validate_every": 2,
        "snapshot_every": 6,
        "optimiser": {"name": "sgd", "learning_rate": 0.2},
        "schedule": {"name": "plateau", "factor": 0.5, "patience": 1},
        "ema": 0.5,
    }
    base = read_experiment(write_experiment(sheet, "switch_unet", **changes | {"steps": 1}))
    train_and_ship(base, folder / "base_run", folder / "base", threads=1, command="")
    changes |= {"start": {"model": str(folder / "base"), "freeze": 2}}
    path = write_experiment(sheet, "switch_unet", **changes)
    train_and_ship(read_experiment(path), folder / "run_1", folder / "model_1", threads=1, command="")

    command = [sys.executable, "-m", "karyon.cli.main", "train", str(path), "--devices", "2"]
    command += ["--run", str(folder / "run_2"), "--output", str(folder / "model_2"), "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model_2") == 1, "the second process has written too"

    for name in ("snapshots/6", "snapshots/12"):
        (one, _), (two, card) = (load_model(folder / f"run_{number}" / name) for number in (1, 2))
        assert_nearly_equal(one, two)
        assert card.name == f"switch_unet_{name.removeprefix('snapshots/')}"
    (start, _), (one, _), (two, _) = (load_model(folder / name) for name in ("base", "model_1", "model_2"))
    assert_nearly_equal(one, two)
    # All weights went much further than the two differ, but for the frozen ones.
    for k, (before, after) in enumerate(zip(blocks(start), blocks(two), strict=True)):
        for old, new in zip(before.parameters(), after.parameters(), strict=True):
            assert torch.equal(old, new) if k < 2 else (old - new).abs().max() > 50 * CLOSE
    rows = [pd.read_parquet(folder / f"run_{number}" / "log.parquet") for number in (1, 2)]
    same = ["step", "loss", "lr", "f1", "threshold"]
    np.testing.assert_allclose(rows[1][same], rows[0][same], rtol=1e-5)
    assert rows[0]["lr"].nunique() > 1
    # One file of each kind, and nothing half written.
    names = sorted(path.name.split(".")[0] for path in (folder / "run_2").iterdir())
    assert names == ["checkpoint", "events", "log", "snapshots"]


CLOSE = 1e-6


def assert_nearly_equal(one: nn.Module, two: nn.Module) -> None:
    for (name, first), second in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert (first - second).abs().max() <= CLOSE, name


@pytest.mark.parametrize("devices", [0, 2])
def test_batch_that_the_devices_cannot_share_is_refused(sheet: Path, devices: int) -> None:
    experiment = read_experiment(write_experiment(sheet, "switch_unet", batch=3))
    with pytest.raises(KaryonError, match=f"--devices is {devices} and the experiment's batch 3"):
        train_and_ship(experiment, sheet.parent / "run", sheet.parent / "model", 1, "", devices=devices)
