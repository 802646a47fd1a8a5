"""The reading of maps that is chosen, on maps whose best reading is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from karyon.evaluation.detection import DetectionScore
from karyon.evaluation.matching import match_points
from karyon.models.card import Decoding
from karyon.models.registry import build
from karyon.nuclei.decode import decode
from karyon.tiles.grid import Grid
from karyon.training.data import TrainingImage
from karyon.training.decoding_choice import DISTANCES_UM, SHARES, choose_decoding
from karyon.training.experiment import Dataset, Experiment, Optimiser, Schedule
from karyon.training.prediction import predict_maps

EXPERIMENT = Experiment(
    name="none",
    datasets=(Dataset("none", ("train",), ("test",)),),
    mpp=0.5,
    input="H-C",
    architecture="unet",
    target="shrunken_mask",
    loss="bce",
    decoding="components",
    steps=1,
    batch=1,
    crop_px=8,
    optimiser=Optimiser("adamw", 0.01),
    schedule=Schedule("constant"),
    validate_every=1,
    licence="",
)
PEAKS = replace(EXPERIMENT, decoding="peaks", target="proximity_map", loss="weighted_mse")
# Centres of nuclei in model pixels, 16 of them and 12 px (6 um) apart.
NUCLEI = np.array([(8 + 12 * k, 8 + 12 * j) for j in range(4) for k in range(4)])


def image_of(inputs: np.ndarray) -> TrainingImage:
    height, width = inputs.shape[-2:]
    return TrainingImage(
        image_id="drawn",
        patient="one",
        dataset=0,
        inputs=torch.from_numpy(inputs.astype(np.float32)),
        target=torch.zeros(1, height, width),
        points=NUCLEI.astype(float),
        grid=Grid(width, height, 1.0, 0, 1.0),
        mpp=0.5,
        truth=NUCLEI.astype(float),
    )


class Passing(nn.Module):
    """A network whose output is its first input channel."""

    stride, reach = 1, 0

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1]


def of_probability(probability: np.ndarray) -> TrainingImage:
    """An image of which ``Passing`` predicts this map."""
    logits = np.log(probability / (1 - probability))
    return image_of(np.stack([logits, logits]))


def test_components_with_the_best_f1_are_chosen() -> None:
    # Nuclei reach 0.62 over 9 pixels (2.25 um2), false blobs 0.52, and false specks of a pixel 0.9.
    probability = np.full((60, 60), 0.01)
    for x, y in NUCLEI:
        probability[y - 1 : y + 2, x - 1 : x + 2] = 0.62
    probability[0:3, 0:3] = probability[57:60, 0:3] = 0.52
    probability[30, 0] = probability[0, 40] = 0.9
    assert ndimage.label(probability > 0.3)[1] == 16 + 4
    decoding, score = choose_decoding(Passing(), [of_probability(probability)], EXPERIMENT)
    assert decoding.method == "components"
    assert 0.52 < decoding.threshold <= 0.62
    assert 0.25 < decoding.min_area_um2 <= 2.25
    assert score == DetectionScore(16, 0, 0)


@pytest.mark.parametrize(
    ("per_side", "threshold", "false_positives"),
    # The false detection costs 1 / 451 of F1 beside 225 true ones, and 1 / 33 beside 16.
    [(15, 0.35, 1), (4, 0.45, 0)],
)
def test_threshold_stays_near_the_papers_unless_f1_says_otherwise(
    per_side: int, threshold: float, false_positives: int
) -> None:
    nuclei = np.array([(8 + 12 * k, 8 + 12 * j) for j in range(per_side) for k in range(per_side)])
    probability = np.full((12 * per_side + 12, 12 * per_side + 12), 0.01)
    probability[nuclei[:, 1], nuclei[:, 0]] = 0.9
    probability[0, 0] = 0.42
    image = replace(of_probability(probability), truth=nuclei.astype(float))
    decoding, score = choose_decoding(Passing(), [image], EXPERIMENT)
    assert decoding.threshold == threshold
    assert score == DetectionScore(per_side**2, false_positives, 0)


def test_peaks_with_the_best_f1_are_chosen() -> None:
    # In units of the peak: nuclei 0.8 or 0.6, false ones 0.59, and 2 um from the brighter nuclei a shoulder
    # that is brighter than the fainter ones: no threshold parts them, a distance of 2 um does.
    values = np.zeros((60, 60))
    for number, (x, y) in enumerate(NUCLEI):
        values[y, x] = 0.8 if number % 2 else 0.6
        values[y, x + 4] = 0.65 if number % 2 else 0
    values[0, 0] = values[59, 30] = 0.59
    image = image_of(np.stack([values, values]) * PEAKS.peak)
    decoding, score = choose_decoding(Passing(), [image], PEAKS)
    assert decoding.method == "peaks"
    # Shares of the map's maximum, 0.8: the false ones lie at 0.7375, the fainter nuclei at 0.75.
    assert decoding.threshold == 0.75
    assert decoding.distance_um == 2.0
    assert score == DetectionScore(16, 0, 0)


def test_score_of_the_choice_is_what_the_slide_workflow_finds() -> None:
    random = np.random.default_rng(5)
    values = ndimage.gaussian_filter(random.random((60, 60)), 1.5)
    values = (values - values.min()) / np.ptp(values) * PEAKS.peak
    image = image_of(np.stack([values, values]))
    decoding, score = choose_decoding(Passing(), [image], PEAKS)
    stored = predict_maps(Passing(), image, PEAKS)[0]
    best = {}
    for share, distance in product(SHARES, DISTANCES_UM):
        rule = Decoding("peaks", share, distance_um=distance)
        found = decode(stored, rule, int(stored.max()), PEAKS.mpp)
        pairs = len(match_points(np.stack([found.x, found.y], axis=1), image.truth, 8.0).predicted)
        best[rule] = 2 * pairs / (len(found.x) + len(image.truth))
    assert best[decoding] == score.f1 == max(best.values())
    assert len(set(best.values())) > 20


def test_pooled_f1_decides_and_not_the_mean_of_images() -> None:
    # The large image is best read above 0.5, the small one below; the large one holds more nuclei.
    large, small = np.full((60, 60), 0.01), np.full((60, 60), 0.01)
    large[NUCLEI[:, 1], NUCLEI[:, 0]] = 0.7
    large[0, ::4] = 0.5
    small[8, 8] = 0.4
    images = [of_probability(large), replace(of_probability(small), truth=NUCLEI[:1].astype(float))]
    decoding, score = choose_decoding(Passing(), images, EXPERIMENT)
    assert decoding.threshold > 0.5
    assert (score.tp, score.fp, score.fn) == (16, 0, 1)


def test_map_of_an_image_is_its_part_of_a_map_with_much_glass_around() -> None:
    torch.manual_seed(3)
    network = build("unet", width=4, depth=3).eval()
    with torch.no_grad():
        network.head.weight.mul_(400)
    # Sides that the stride of 4 does not divide.
    stains = np.random.default_rng(1).random((2, 61, 58))
    image = image_of(stains)
    found = predict_maps(network, image, EXPERIMENT)[0]
    glass = torch.zeros(1, 1, 240, 240)
    glass[0, 0, 80 : 80 + 61, 80 : 80 + 58] = image.inputs[0]
    with torch.inference_mode():
        expected = torch.sigmoid(network(glass))[0, 0, 80 : 80 + 61, 80 : 80 + 58].numpy() * 255
    assert found.shape == (61, 58)
    assert np.abs(found - expected).max() <= 0.51
    assert found.std() > 5


def test_values_are_mapped_over_their_peak_and_clipped() -> None:
    values = np.array([[-1.0, 0.0, 1.0, 2.5, 5.0, 7.0]])
    found = predict_maps(Passing(), image_of(np.stack([values, values])), PEAKS)[0]
    assert found.tolist() == [[0, 0, 51, 128, 255, 255]]
