"""The contact sheet of crops: right colours, points on their nuclei, and a picture of the asked size."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage

from karyon.cli import preview_augmentation
from karyon.errors import KaryonError
from karyon.stain.inputs import MEDIAN_STAIN
from karyon.tiles.grid import Grid
from karyon.training.augmentation import Augmentation
from karyon.training.data import TrainingImage
from karyon.training.experiment import Dataset, Experiment, Optimiser, Schedule
from karyon.training.preview import draw_contact_sheet, to_colour

EXPERIMENT = Experiment(
    name="drawn $5",
    datasets=(Dataset("one.tsv", ("TD",)),),
    mpp=0.5,
    input="H-C",
    architecture="unet",
    target="shrunken_mask",
    loss="bce",
    decoding="components",
    steps=10,
    batch=2,
    crop_px=96,
    optimiser=Optimiser("adamw", 0.01),
    schedule=Schedule("constant"),
    validate_every=10,
    licence="none",
    augmentation=Augmentation(elastic_px=0.5, gain=1.0, leak=0.0, blur_px=0.0, noise=0.0),
)


def discs() -> TrainingImage:
    """Dark discs in rows, each with its centre as a point and as target."""
    y, x = np.mgrid[:200, :240]
    points = np.array([(a, b) for a in range(12, 240, 24) for b in range(12, 200, 24)], float)
    inside = np.hypot(y[None] - points[:, 1, None, None], x[None] - points[:, 0, None, None]) < 5
    mask = inside.any(axis=0).astype(np.float32)
    return TrainingImage(
        image_id="discs",
        patient="discs",
        dataset=0,
        inputs=torch.from_numpy(np.stack([mask, 0 * mask])),
        target=torch.from_numpy(mask[None]),
        points=points,
        grid=Grid(240, 200, 1.0, 0, 1.0),
        mpp=0.5,
        truth=points,
    )


def preview(*words: str) -> int:
    parser = argparse.ArgumentParser()
    preview_augmentation.configure(parser)
    return preview_augmentation.run(parser.parse_args(words))


@pytest.mark.parametrize("count", [1, 3, 6])
def test_points_are_drawn_on_their_nuclei(count: int) -> None:
    figure = draw_contact_sheet([discs()], EXPERIMENT, count)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == count
    for axes in shown:
        picture = np.asarray(axes.images[0].get_array())
        points = np.asarray(axes.lines[0].get_xydata())
        labels, found = ndimage.label(picture[..., 0] < 0.7)
        assert len(points) > 0
        assert found > 0
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, found + 1)))[:, ::-1]
        within = points[((points > 10) & (points < 85)).all(axis=1)]
        for point in within:
            assert np.linalg.norm(centres - point, axis=1).min() < 1.0


def test_the_target_is_outlined_where_it_is() -> None:
    figure = draw_contact_sheet([discs()], EXPERIMENT, 1)
    outline = figure.axes[0].collections[0].get_paths()[0].vertices
    picture = np.asarray(figure.axes[0].images[0].get_array())[..., 0]
    # Along the outline the stain goes from all to nothing: between the two, it is neither.
    around = ndimage.map_coordinates(picture, outline[:, ::-1].T, order=1)
    dark, light = picture.min(), 1.0
    assert np.abs(around - (dark + light) / 2).mean() < 0.2 * (light - dark)


def test_another_seed_shows_other_crops() -> None:
    one, again, other = (
        np.asarray(
            draw_contact_sheet([discs()], replace(EXPERIMENT, seed=seed), 1).axes[0].images[0].get_array()
        )
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_stains_have_the_colours_of_the_median() -> None:
    first, second = (np.array(MEDIAN_STAIN.stain_matrix) * MEDIAN_STAIN.p99).T
    inputs = torch.tensor([[0.5, 2.0]]).reshape(1, 2, 1, 1)
    expected = np.exp(-(0.5 * first + 2.0 * second))
    np.testing.assert_allclose(to_colour(inputs, "HE-C")[0, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(to_colour(inputs[:, :1], "H-C")[0, 0, 0], np.exp(-0.5 * first), rtol=1e-5)


def test_colours_are_shown_as_they_are() -> None:
    inputs = torch.tensor([0.1, 0.4, 1.2]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(to_colour(inputs, "RGB")[0, 0, 0], [0.9, 0.6, 0.0], atol=1e-6)
    np.testing.assert_allclose(to_colour(inputs, "CN-H&E")[0, 0, 0], [0.1, 0.4, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "a.png", "--count", "0"], "--count is 0; expected 1 or more"),
        (["--output", "a.jpg"], "--output is a.jpg; expected a name that ends in .png"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str) -> None:
    with pytest.raises(KaryonError, match=message):
        preview("any.yaml", *words)


def test_the_command_draws_real_crops(
    real_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = pd.read_csv(real_file("kumar30/kumar30.tsv"), sep="\t", dtype=str, keep_default_na=False)
    folder = real_file("kumar30")
    rows = sheet[sheet["split"] == "TD"].head(1)
    rows = rows.assign(**{name: [str(folder / rows[name].item())] for name in ("image", "annotations")})
    rows.to_csv(tmp_path / "one.tsv", sep="\t", index=False)
    experiment = tmp_path / "one.yaml"
    experiment.write_text(
        f"""
name: one
datasets: [{{sheet: {tmp_path}/one.tsv, train_splits: [TD], validation_splits: [VD]}}]
mpp: 0.5
input: H-C
architecture: unet
target: shrunken_mask
loss: bce
decoding: components
steps: 10
batch: 2
crop_px: 64
optimiser: {{name: adamw, learning_rate: 0.01}}
schedule: {{name: constant}}
validate_every: 10
licence: none
"""
    )
    output = tmp_path / "new" / "sheet.png"
    assert preview(str(experiment), "--output", str(output), "--count", "5", "--seed", "3") == 0
    picture = np.asarray(Image.open(output).convert("RGB"))
    # Four panels of 4 inches beside each other at 120 dots an inch, in two rows.
    assert picture.shape[1] == 4 * 480
    assert picture.shape[0] > 2 * 480
    assert (picture.reshape(-1, 3) < 128).all(axis=1).any()  # stained
