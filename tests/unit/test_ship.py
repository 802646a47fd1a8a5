"""From a sheet and an experiment file to a model folder that the slide workflow takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from karyon.inference.predict import Predictor, input_layer
from karyon.io.schemas import REPOSITORY
from karyon.models.registry import build, halo_and_stride
from karyon.models.weights import load_model
from karyon.stain.fit import StainFit, reference_matrix
from karyon.tiles.grid import Grid
from karyon.training.data import load_datasets
from karyon.training.decoding_choice import choose_decoding, predict_map
from karyon.training.experiment import read_experiment
from karyon.training.ship import train_and_ship

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
    Image.fromarray(stain_image(known_stains, glass)).save(tmp_path / "image.png")
    instances = np.zeros((96, 128), np.uint8)
    instances[20:32, 30:44], instances[60:70, 80:92] = 1, 2
    Image.fromarray(instances).save(tmp_path / "map.png")
    rows = [
        {"image_id": name, "image": "image.png", "mpp": 0.5, "split": name, "patient": name}
        | {"annotations": "map.png", "annotation_format": "instance_png"}
        for name in ("train", "val")
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "sheet.tsv", sep="\t", index=False)
    return tmp_path / "sheet.tsv"


@pytest.mark.parametrize(
    ("preset", "network_input", "channels"),
    [
        ("switch_unet", "H-C", 1),
        ("switch_unet", "HE-C", 2),
        ("switch_unet", "CN-H&E", 3),
        ("micronet", "RGB", 3),
    ],
)
def test_trained_model_runs_on_slides_by_its_card_alone(
    sheet: Path, preset: str, network_input: str, channels: int
) -> None:
    content = yaml.safe_load((REPOSITORY / "config" / "experiments" / f"{preset}.yaml").read_text())
    small = {"width": 2, "depth": 2} if preset == "switch_unet" else {"width": 2}
    content |= {"arguments": small, "steps": 2, "batch": 2, "crop_px": 32, "input": network_input}
    content["datasets"] = [{"sheet": str(sheet), "train_splits": ["train"], "validation_splits": ["val"]}]
    (sheet.parent / "small.yaml").write_text(yaml.safe_dump(content))
    experiment = read_experiment(sheet.parent / "small.yaml")
    folder = sheet.parent / "model"
    written = train_and_ship(
        experiment, sheet.parent / "run", folder, threads=1, command="karyon train small.yaml"
    )

    network, card = load_model(folder)
    assert replace(card, training={}) == replace(written, training={})
    assert card.arguments == {"in_channels": channels, **small}
    assert (card.input, card.output, card.peak) == (network_input, experiment.output, experiment.peak)
    assert (card.halo_px, card.stride) == halo_and_stride(network)
    assert card.training["train_images"] == ["train"]
    assert card.training["validation_images"] == ["val"]
    assert card.training["command"] == f"karyon train small.yaml --output {folder}"
    assert yaml.safe_load((folder / "card.yaml").read_text())["training"]["experiment"]["steps"] == 2

    # The decoding in the card is that of the weights as they lie in the folder.
    trained = build(card.architecture, **card.arguments)
    trained.load_state_dict(load_file(folder / "model.safetensors"))
    _, (validation,) = load_datasets(experiment)
    decoding, score = choose_decoding(trained, [validation], experiment)
    assert decoding == card.decoding
    assert card.metrics["validation"]["f1"] == round(score.f1, 4)  # type: ignore[index]

    # On glass, whose measurement is known to be 0, a slide's map is that of the training code.
    side = 2 * card.halo_px + 32
    glass = np.full((side, side, 3), 255, np.uint8)
    predictor = Predictor(network, card.output, torch.device("cpu"), batch_size=1)
    found = next(predictor.predict(iter([glass]), input_layer(card, FIT, "hematoxylin")))
    nothing = torch.zeros(len(validation.inputs), side, side)
    blank = replace(validation, inputs=nothing, grid=Grid(side, side, 1.0, 0, 1.0))
    expected = predict_map(trained, blank, experiment)
    inner = slice(card.halo_px, -card.halo_px)
    assert np.abs(found[inner, inner].astype(int) - expected[inner, inner]).max() <= 1
