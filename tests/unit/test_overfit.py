"""Networks and losses learn: narrow networks overfit a real crop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from karyon.io.sheets import read_sheet
from karyon.models.registry import ARCHITECTURES
from karyon.tiles.grid import Grid
from karyon.training.augmentation import Augmentation
from karyon.training.data import TrainingImage, load_image
from karyon.training.decoding_choice import choose_decoding
from karyon.training.experiment import Dataset, Experiment, Optimiser, Schedule
from karyon.training.loop import train
from karyon.training.losses import LOSSES

# Of a prostate at 40x: 32 nuclei, dark and pale ones, some that touch, few that the border cuts.
IMAGE, LEFT, TOP, SIDE = "TCGA-G9-6356-01Z-00-DX1", 274, 744, 256

# Crops are of any place, angle and reflection still, and see the glass beyond the image.
MASKS = Experiment(
    name="overfit",
    datasets=(Dataset("none", ("train",), ("test",)),),
    mpp=0.25,
    input="H-C",
    architecture="unet",
    arguments={"width": 8},
    target="shrunken_mask",
    loss="switching",
    decoding="components",
    steps=100,
    batch=2,
    crop_px=192,
    optimiser=Optimiser("adamw", 0.01),
    schedule=Schedule("onecycle"),
    ema=0.0,
    validate_every=1000,
    licence="",
    augmentation=Augmentation(scale=(1, 1), elastic_px=0, gain=1, leak=0, blur_px=0, noise=0),
)
PROXIMITY = replace(MASKS, target="proximity_map", loss="weighted_mse", decoding="peaks")
HEARTS = replace(MASKS, target="nucleus_distance", loss="nucleus_distance", decoding="watershed")
RIMS = replace(MASKS, target="inside_boundary", loss="patch_weighted", decoding="dilation")
SETS = replace(MASKS, target="classes_contour", loss="joint", decoding="dilation")


def with_network(
    architecture: str, experiment: Experiment, rate: float = 0.01, **changes: Any
) -> tuple[str, Experiment]:
    changes = {"arguments": {"width": 8}, "optimiser": Optimiser("adamw", rate)} | changes
    return architecture, replace(experiment, architecture=architecture, **changes)


# Networks without batch norm learn at lower rates. GCN sees far: its crops show it more glass.
NETWORKS = dict(
    [
        with_network("efficientnet_unet", MASKS, rate=0.005, steps=300),
        with_network("fcn8s", MASKS, rate=0.002, steps=350),
        with_network("fcrn_a", PROXIMITY),
        with_network("fcrn_b", PROXIMITY, steps=150, crop_px=128),
        with_network("frcn", PROXIMITY, rate=0.002, steps=350, crop_px=128),
        with_network("gcn", MASKS, arguments={"width": 8, "depth": 50}, batch=1, crop_px=384),
        with_network("micronet", PROXIMITY, steps=200, crop_px=128),
        with_network("nb", RIMS, rate=0.002, steps=600),
        with_network("resnet34_unet", MASKS, rate=0.003, steps=300),
        with_network("segnet", MASKS, steps=250),
        with_network("unet", MASKS),
        with_network("vgg_unet", MASKS, rate=0.002, steps=250),
    ]
)
# The switching loss is that of the networks. Two of the others are slow to tell touching nuclei apart.
SURELY: dict[str, Any] = {"steps": 200, "optimiser": Optimiser("adamw", 0.003), "ema": 0.95}
OTHER_LOSSES = {loss: replace(MASKS, loss=loss, **SURELY) for loss in LOSSES if loss != MASKS.loss} | {
    "focal": replace(MASKS, loss="focal", steps=300, ema=0.95),
    "inverted_dice": replace(MASKS, loss="inverted_dice", **SURELY | {"steps": 300}),
    "weighted_mse": replace(PROXIMITY, **SURELY),
    "nucleus_distance": replace(HEARTS, **SURELY),
    "patch_weighted": replace(RIMS, loss="patch_weighted", **SURELY | {"steps": 450}),
    "joint": replace(SETS, **SURELY | {"steps": 450}),
}


def load_crop(sheet: Path, experiment: Experiment) -> TrainingImage:
    """The crop as an image of its own; its nuclei are those whose centroid lies in it."""
    rows = read_sheet(sheet).set_index("slide_id", drop=False)
    image = load_image(rows.loc[IMAGE], experiment, 0)
    assert image.grid.scale == 1, "the crop's level-0 pixels are the model's"
    window = ..., slice(TOP, TOP + SIDE), slice(LEFT, LEFT + SIDE)
    points = image.points - (LEFT, TOP)
    points = points[((points >= -0.5) & (points < SIDE - 0.5)).all(axis=1)]
    return replace(
        image,
        inputs=image.inputs[window],
        target=image.target[window],
        points=points,
        grid=Grid(SIDE, SIDE, 1.0, 0, 1.0),
        truth=points,
        instances=None if image.instances is None else image.instances[window],
    )


def assert_overfits(experiment: Experiment, sheet: Path, folder: Path) -> None:
    crop = load_crop(sheet, experiment)
    network = train(experiment, [crop], [crop], folder, threads=1)
    decoding, score = choose_decoding(network, [crop], experiment)
    assert score.f1 >= 0.95, f"{score} with {decoding}"


def test_every_network_is_tested_here() -> None:
    assert set(NETWORKS) == set(ARCHITECTURES)


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_network_overfits_a_crop(name: str, real_file: Callable[[str], Path], tmp_path: Path) -> None:
    assert_overfits(NETWORKS[name], real_file("kumar30/kumar30.tsv"), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("loss", sorted(OTHER_LOSSES))
def test_loss_makes_a_network_overfit_a_crop(
    loss: str, real_file: Callable[[str], Path], tmp_path: Path
) -> None:
    assert_overfits(OTHER_LOSSES[loss], real_file("kumar30/kumar30.tsv"), tmp_path)
