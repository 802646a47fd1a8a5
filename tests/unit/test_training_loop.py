"""The training loop: it learns, it resumes to the last bit, it stops at nonsense."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from karyon.errors import KaryonError
from karyon.evaluation.detection import DetectionScore
from karyon.models.registry import build
from karyon.tiles.grid import Grid
from karyon.training.augmentation import Augmentation
from karyon.training.data import TrainingImage
from karyon.training.experiment import Experiment
from karyon.training.loop import choose_decoding, draw_batch, predict_map, train

EXPERIMENT = Experiment(
    name="tiny",
    sheet="none",
    train_splits=("train",),
    validation_splits=("test",),
    mpp=0.5,
    architecture="unet",
    arguments={"width": 4, "depth": 2},
    loss="switching",
    loss_arguments={"weight": 0.8, "tau": 0.2},
    steps=30,
    batch=4,
    crop_px=32,
    learning_rate=0.01,
    weight_decay=0.01,
    clip=1.0,
    ema=0.9,
    validate_every=10,
    seed=7,
    licence="",
    augmentation=Augmentation(elastic_px=0.5),
)


def synthetic_image(side: int = 64) -> TrainingImage:
    """Bright blobs on a noisy ground; the target is their cores."""
    rng = np.random.default_rng(1)
    truth = np.array([(8 + 16 * k, 8 + 16 * j) for k in range(4) for j in range(4)], float)
    truth += rng.uniform(-2, 2, truth.shape)
    y, x = np.mgrid[:side, :side]
    distance = np.min([np.hypot(x - px, y - py) for px, py in truth], axis=0)
    hematoxylin = np.exp(-((distance / 4) ** 2)) + 0.1 * rng.random((side, side))
    stains = np.stack([hematoxylin, 0.3 * rng.random((side, side))]).astype(np.float32)
    target = (distance < 2.5).astype(np.float32)
    return TrainingImage(
        image_id="synthetic",
        stains=torch.from_numpy(stains),
        target=torch.from_numpy(target),
        grid=Grid(side, side, 1.0, 0, 1.0),
        mpp=0.5,
        truth=truth,
    )


class Interrupted(Sequence[TrainingImage]):
    """One image that may be used only so often (8 times a step): then the job is killed."""

    def __init__(self, image: TrainingImage, draws: int) -> None:
        self.image, self.draws = image, draws

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: object) -> TrainingImage:  # type: ignore[override]
        self.draws -= 1
        if self.draws < 0:
            raise KeyboardInterrupt
        return self.image


def log_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, list[dict]]:
    """A run of 30 steps from start to end, and its log."""
    folder, image = tmp_path_factory.mktemp("run"), synthetic_image()
    return train(EXPERIMENT, [image], [image], folder, threads=1), log_rows(folder)


def test_thirty_steps_lower_the_loss(undisturbed: tuple[nn.Module, list[dict]]) -> None:
    rows = undisturbed[1]
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_trained_network_finds_the_blobs(undisturbed: tuple[nn.Module, list[dict]]) -> None:
    image = synthetic_image()
    inside = predict_map(undisturbed[0], image)
    core = image.target.numpy() > 0
    assert inside.shape == (64, 64)
    assert inside[core].mean() > inside[~core].mean() + 15


@pytest.mark.parametrize("draws", [8 * 5, 8 * 14 + 2, 8 * 25])
def test_resumed_run_equals_an_undisturbed_one_to_the_last_bit(
    undisturbed: tuple[nn.Module, list[dict]], tmp_path: Path, draws: int
) -> None:
    image = synthetic_image()
    with pytest.raises(KeyboardInterrupt):
        train(EXPERIMENT, Interrupted(image, draws), [image], tmp_path, threads=1)
    resumed = train(EXPERIMENT, [image], [image], tmp_path, threads=1)
    expected = undisturbed[0].state_dict()
    assert list(resumed.state_dict()) == list(expected)
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected[name]), name
    for row, wanted in zip(log_rows(tmp_path), undisturbed[1], strict=True):
        assert {**row, "seconds": 0} == {**wanted, "seconds": 0}


def test_finished_run_is_not_trained_again(undisturbed: tuple[nn.Module, list[dict]], tmp_path: Path) -> None:
    image = synthetic_image()
    first = train(replace(EXPERIMENT, steps=10), [image], [image], tmp_path, threads=1)
    second = train(replace(EXPERIMENT, steps=10), Interrupted(image, 0), [image], tmp_path, threads=1)
    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name


def test_checkpoint_of_another_experiment_is_refused(tmp_path: Path) -> None:
    image = synthetic_image()
    train(replace(EXPERIMENT, steps=10), [image], [image], tmp_path, threads=1)
    with pytest.raises(KaryonError, match="another experiment"):
        train(replace(EXPERIMENT, steps=10, seed=8), [image], [image], tmp_path, threads=1)


def test_loss_that_is_not_a_number_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    image = synthetic_image()

    class Spoiled(Interrupted):
        def __getitem__(self, index: object) -> TrainingImage:  # type: ignore[override]
            self.draws -= 1
            good = self.draws >= 0
            return self.image if good else replace(self.image, stains=self.image.stains * torch.nan)

    with pytest.raises(FloatingPointError, match="step 2: the loss is nan"):
        train(EXPERIMENT, Spoiled(image, 2 * 8), [image], tmp_path, threads=1)


def test_batch_depends_on_step_and_seed_alone() -> None:
    images = [synthetic_image(), synthetic_image()]
    torch.manual_seed(1)
    one = draw_batch(images, EXPERIMENT, step=3)
    torch.manual_seed(2)
    again = draw_batch(images, EXPERIMENT, step=3)
    assert one[0].shape == one[1].shape == (4, 1, 32, 32)
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    assert not torch.equal(one[0], draw_batch(images, EXPERIMENT, step=4)[0])
    assert not torch.equal(one[0], draw_batch(images, replace(EXPERIMENT, seed=8), step=3)[0])


def test_map_of_an_image_is_its_part_of_a_map_with_much_glass_around() -> None:
    torch.manual_seed(3)
    network = build("unet", width=4, depth=3).eval()
    with torch.no_grad():
        network.head.weight.mul_(400)
    whole = synthetic_image(128)
    # Sides that the stride of 4 does not divide.
    stains, grid = whole.stains[:, :61, :58], Grid(58, 61, 1.0, 0, 1.0)
    found = predict_map(network, replace(whole, stains=stains, grid=grid))
    glass = torch.zeros(1, 1, 240, 240)
    glass[0, 0, 80 : 80 + 61, 80 : 80 + 58] = stains[0]
    with torch.inference_mode():
        expected = torch.sigmoid(network(glass))[0, 0, 80 : 80 + 61, 80 : 80 + 58].numpy() * 255
    assert found.shape == (61, 58)
    assert np.abs(found - expected).max() <= 0.51
    assert found.std() > 5


class Fixed(nn.Module):
    """A network whose logits are a given map, pixel by pixel."""

    stride, reach = 1, 0

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[None, None].expand(len(x), 1, -1, -1)


def test_decoding_with_the_best_f1_is_chosen() -> None:
    # Nuclei reach 0.62 over 9 pixels (2.25 um2), false blobs 0.52, and false specks of a pixel 0.9.
    image = synthetic_image()
    probability = np.full((64, 64), 0.01)
    for px, py in np.rint(image.truth).astype(int):
        probability[py - 1 : py + 2, px - 1 : px + 2] = 0.62
    probability[0:3, 0:3] = probability[60:63, 0:3] = 0.52
    probability[30, 0] = probability[0, 40] = 0.9
    assert ndimage.label(probability > 0.3)[1] == 16 + 4
    network = Fixed(torch.logit(torch.from_numpy(probability).float()))
    decoding, score = choose_decoding(network, [image], mpp=0.5)
    assert decoding.method == "components"
    assert 0.52 < decoding.threshold <= 0.62
    assert 0.25 < decoding.min_area_um2 <= 2.25
    assert score == DetectionScore(16, 0, 0, score.distance_sum, score.distance_square_sum)
