"""Batches: the same for a step whatever came before, and in the shares that the experiment asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from karyon.stain.channels import INPUT_CHANNELS
from karyon.tiles.grid import Grid
from karyon.training.augmentation import Augmentation
from karyon.training.batches import batches, crop_shares, draw_batch
from karyon.training.data import TrainingImage
from karyon.training.experiment import Dataset, Experiment, Optimiser, Schedule

STILL = Augmentation(scale=(1.0, 1.0), elastic_px=0.0, gain=1.0, leak=0.0, blur_px=0.0, noise=0.0)
EXPERIMENT = Experiment(
    name="drawn",
    datasets=(Dataset("one.tsv", ("TD",)), Dataset("two.tsv", ("TD",), weight=3.0)),
    mpp=0.5,
    input="H-C",
    architecture="unet",
    target="shrunken_mask",
    loss="bce",
    decoding="components",
    steps=7,
    batch=5,
    crop_px=24,
    optimiser=Optimiser("adamw", 0.01),
    schedule=Schedule("constant"),
    validate_every=10,
    licence="none",
)


def image(name: str, dataset: int, height: int, width: int, channels: int = 2) -> TrainingImage:
    random = np.random.default_rng(height)
    return TrainingImage(
        image_id=name,
        patient=name,
        dataset=dataset,
        inputs=torch.from_numpy(random.random((channels, height, width), np.float32)),
        target=torch.from_numpy((random.random((1, height, width)) > 0.7).astype(np.float32)),
        points=np.zeros((0, 2)),
        grid=Grid(width, height, 1.0, 0, 1.0),
        mpp=0.5,
        truth=np.zeros((0, 2)),
    )


@pytest.fixture
def images() -> list[TrainingImage]:
    return [image("a", 0, 40, 60), image("b", 1, 90, 30), image("c", 0, 50, 50)]


def test_a_step_gives_the_same_batch_whatever_came_before(images: list[TrainingImage]) -> None:
    first = draw_batch(images, EXPERIMENT, step=4)
    torch.manual_seed(99)
    torch.rand(17)
    for step in (0, 5):
        draw_batch(images, EXPERIMENT, step)
    again = draw_batch(images, EXPERIMENT, step=4)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.target, again.target)
    assert first.image_ids == again.image_ids


def test_other_steps_and_other_seeds_give_other_batches(images: list[TrainingImage]) -> None:
    settings = [(EXPERIMENT, 3), (EXPERIMENT, 4), (replace(EXPERIMENT, seed=2), 3)]
    one, *others = (draw_batch(images, *setting).inputs for setting in settings)
    for other in others:
        assert not torch.equal(one, other)


@pytest.mark.parametrize("first", [0, 3, 7])
def test_batches_drawn_ahead_are_those_of_their_steps(images: list[TrainingImage], first: int) -> None:
    drawn = list(batches(images, EXPERIMENT, first))
    assert len(drawn) == 7 - first
    for step, batch in enumerate(drawn, start=first):
        expected = draw_batch(images, EXPERIMENT, step)
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.target, expected.target)
        assert batch.image_ids == expected.image_ids


def test_a_mistake_while_drawing_ahead_reaches_the_loop(images: list[TrainingImage]) -> None:
    wrong = replace(images[0], inputs=torch.zeros(5, 40, 60))
    with pytest.raises(RuntimeError):
        list(batches([*images, wrong], replace(EXPERIMENT, batch=64), 0))


def test_drawing_ahead_leaves_the_threads_of_the_loop(images: list[TrainingImage]) -> None:
    before = torch.get_num_threads()
    list(batches(images, EXPERIMENT, 5))
    assert torch.get_num_threads() == before


def test_datasets_share_crops_by_weight_and_their_images_alike(images: list[TrainingImage]) -> None:
    # Weights 1 and 3: a quarter for a and c together, three quarters for b.
    assert crop_shares(images, EXPERIMENT).tolist() == pytest.approx([0.125, 0.75, 0.125])
    drawn = draw_batch(images, replace(EXPERIMENT, batch=2000, crop_px=4), step=0).image_ids
    for name, share in {"a": 0.125, "b": 0.75, "c": 0.125}.items():
        assert drawn.count(name) / 2000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("name", INPUT_CHANNELS)
def test_every_input_has_its_channels(name: str) -> None:
    images = [image("a", 0, 40, 60, channels=3 if name == "RGB" else 2)]
    batch = draw_batch(images, replace(EXPERIMENT, input=name), step=0)
    assert batch.inputs.shape == (5, INPUT_CHANNELS[name], 24, 24)
    assert batch.target.shape == (5, 1, 24, 24)
    assert batch.inputs.dtype == batch.target.dtype == torch.float32


def test_masks_stay_masks_and_continuous_targets_are_not_made_binary(images: list[TrainingImage]) -> None:
    mask = draw_batch(images, EXPERIMENT, step=1).target
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    peaks = replace(EXPERIMENT, target="proximity_map", loss="weighted_mse", decoding="peaks")
    values = draw_batch(images, peaks, step=1).target
    assert len(values.unique()) > 100
    # The same crops: the mask is where the continuous one is above a half.
    assert torch.equal((values > 0.5).float(), mask)


def test_several_maps_of_a_target_move_together(images: list[TrainingImage]) -> None:
    # The second map is the first one's rest, as far as the image goes: so it stays, whatever the geometry.
    several = [replace(one, target=torch.cat([one.target, 1 - one.target, one.target])) for one in images]
    outlines = {"target": "inside_boundary", "loss": "patch_weighted", "decoding": "dilation"}
    inside, boundary, background = draw_batch(several, replace(EXPERIMENT, **outlines), step=1).target.unbind(
        1
    )
    assert torch.equal(inside + boundary + background, torch.ones_like(inside))
    (mask,) = draw_batch(images, EXPERIMENT, step=1).target.unbind(1)
    rest = [replace(one, target=1 - one.target) for one in images]
    (other,) = draw_batch(rest, EXPERIMENT, step=1).target.unbind(1)
    assert torch.equal(boundary, other)
    assert bool((inside[mask == 1] == 1).all())


def test_a_crop_shows_its_own_image_where_its_geometry_says(images: list[TrainingImage]) -> None:
    batch = draw_batch(images, replace(EXPERIMENT, augmentation=STILL, batch=12), step=2)
    sources = batch.geometry.sources().numpy()
    for k, number in enumerate(batch.chosen):
        assert batch.image_ids[k] == images[number].image_id
        height, width = images[number].inputs.shape[1:]
        x, y = sources[k]
        inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
        left, top = np.floor(x[inside]).astype(int), np.floor(y[inside]).astype(int)
        a, b = x[inside] - left, y[inside] - top
        values = images[number].inputs[0].numpy()
        expected = (
            values[top, left] * (1 - a) * (1 - b)
            + values[top, left + 1] * a * (1 - b)
            + values[top + 1, left] * (1 - a) * b
            + values[top + 1, left + 1] * a * b
        )
        np.testing.assert_allclose(batch.inputs[k, 0].numpy()[inside], expected, atol=1e-4)
