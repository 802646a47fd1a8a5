"""The reading of outlines that is chosen, on maps whose best reading is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_decoding_choice import EXPERIMENT
from torch import nn

from karyon.evaluation.detection import DetectionScore
from karyon.evaluation.segmentation import AggregatedJaccard, InstanceScore
from karyon.tiles.grid import Grid
from karyon.training.data import TrainingImage
from karyon.training.decoding_choice import choose_decoding
from karyon.training.outline_choice import OutlineScore

WATERSHED = replace(
    EXPERIMENT, input="HE-C", target="nucleus_distance", loss="nucleus_distance", decoding="watershed"
)
DILATION = replace(
    EXPERIMENT, input="RGB", target="inside_boundary", loss="patch_weighted", decoding="dilation"
)
SIDE = 60


class Passing(nn.Module):
    """A network whose outputs are its inputs."""

    stride, reach = 1, 0

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def image_of(outputs: list[np.ndarray], instances: np.ndarray) -> TrainingImage:
    """An image for which ``Passing`` gives these outputs."""
    centre = np.array([[5.0, 5.0]])
    return TrainingImage(
        image_id="drawn",
        patient="one",
        dataset=0,
        inputs=torch.from_numpy(np.stack(outputs).astype(np.float32)),
        target=torch.zeros(len(outputs), SIDE, SIDE),
        points=centre,
        grid=Grid(SIDE, SIDE, 1.0, 0, 1.0),
        mpp=0.5,
        truth=centre,
        instances=instances,
    )


def pairs_of_squares() -> np.ndarray:
    """Nine pairs of squares of 8 x 8 pixels that touch by a side."""
    instances = np.zeros((SIDE, SIDE), np.int32)
    for number in range(18):
        row, column = divmod(number, 6)
        left = 4 + 18 * (column // 2) + 8 * (column % 2)
        instances[4 + 18 * row : 12 + 18 * row, left : left + 8] = number + 1
    return instances


def logit(probability: np.ndarray) -> np.ndarray:
    return np.log(probability / (1 - probability))


def test_watershed_that_parts_and_fills_nuclei_best_is_chosen() -> None:
    # Nuclei are 0.58, a rim of a pixel round them 0.52, specks of 9 pixels (2.25 um2) 0.9. The hearts are
    # 0.65, bridges between them 0.45.
    instances = pairs_of_squares()
    nucleus, distance = np.full((2, SIDE, SIDE), 0.01)
    rows, columns = np.nonzero(instances)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            nucleus[rows + down, columns + across] = 0.52
    nucleus[instances > 0] = 0.58
    distance[instances > 0] = 0.45
    for label in range(1, 19):
        y, x = (int(place.min()) for place in np.nonzero(instances == label))
        distance[y + 3 : y + 5, x + 3 : x + 5] = 0.65
    for corner in (0, 18, 36):
        nucleus[corner : corner + 3, 57:] = 0.9
    image = image_of([logit(nucleus), logit(distance)], instances)
    decoding, score = choose_decoding(Passing(), [image, image], WATERSHED)
    assert decoding.method == "watershed"
    assert 0.52 < decoding.threshold <= 0.58
    assert 0.45 < decoding.marker_threshold <= 0.65
    assert 2.25 < decoding.min_area_um2 <= 16
    assert score == OutlineScore((InstanceScore(18, 0, 0, 18.0),) * 2, (AggregatedJaccard(1152, 1152),) * 2)
    assert (score.f1, score.aji, score.panoptic_quality) == (1, 1, 1)


def test_dilation_gives_back_the_boundary_and_drops_what_is_small() -> None:
    # Insides of nuclei of 12 x 12 pixels, 8 x 8 and clear; specks of two pixels (0.5 um2) are as clear.
    instances = np.zeros((SIDE, SIDE), np.int32)
    inside = np.full((SIDE, SIDE), -3.0)
    for number, left in enumerate((4, 24, 44), start=1):
        instances[10:22, left : left + 12] = number
        inside[12:20, left + 2 : left + 10] = 3.0
    inside[40, [10, 11, 30, 31]] = 3.0
    image = image_of([inside, np.full_like(inside, -5.0), np.zeros_like(inside)], instances)
    decoding, score = choose_decoding(Passing(), [image], DILATION)
    assert (decoding.method, decoding.threshold, decoding.dilation_um) == ("dilation", 0.5, 1.0)
    assert 0.5 < decoding.min_area_um2 <= 16
    # Only the squares' corners, three pixels each, do not come back.
    assert score.aji == pytest.approx((144 - 12) / 144)
    wider = replace(DILATION, target_arguments={"boundary_px": 3.0})
    assert choose_decoding(Passing(), [image], wider)[0].dilation_um == 1.5


def test_outlines_of_images_with_centres_alone_are_chosen_by_detection() -> None:
    # Three nuclei, and specks of two pixels (0.5 um2) that are as clear; where nuclei end is not annotated.
    inside = np.full((SIDE, SIDE), -3.0)
    for left in (4, 24, 44):
        inside[12:20, left + 2 : left + 10] = 3.0
    inside[40, [10, 11, 30, 31]] = 3.0
    centres = np.array([[9.5, 15.5], [29.5, 15.5], [49.5, 15.5]])
    outputs = [inside, np.full_like(inside, -5.0), np.zeros_like(inside)]
    image = replace(image_of(outputs, np.zeros((SIDE, SIDE), np.int32)), instances=None, truth=centres)
    decoding, score = choose_decoding(Passing(), [image], DILATION)
    assert isinstance(score, DetectionScore)
    assert (score.tp, score.fp, score.fn) == (3, 0, 0)
    assert (decoding.method, decoding.dilation_um) == ("dilation", 1.0)
    assert 0.5 < decoding.min_area_um2 <= 16
    # One whose outlines are those of no nucleus says nothing of where nuclei end.
    empty = replace(image_of(outputs, np.zeros((SIDE, SIDE), np.int32)), truth=np.empty((0, 2)))
    empty = replace(empty, inputs=torch.full_like(empty.inputs, -5.0))
    assert choose_decoding(Passing(), [empty, image], DILATION) == (decoding, score)
    # An image with outlines decides, whatever is found in the others.
    instances = np.zeros((SIDE, SIDE), np.int32)
    instances[10:22, 4:16] = 1
    outlined = image_of(outputs, instances)
    assert isinstance(choose_decoding(Passing(), [image, outlined], DILATION)[1], OutlineScore)


def test_threshold_of_joints_insides_is_chosen() -> None:
    # Insides are 0.46, and two of them are joined by 0.38.
    joint = replace(DILATION, target="classes_contour", loss="joint")
    inside = np.full((SIDE, SIDE), 0.01)
    for left in (4, 24, 44):
        inside[12:20, left : left + 8] = 0.46
    inside[14:18, 12:24] = 0.38
    contour = np.full_like(inside, 0.05)
    outputs = [np.log(values) for values in (1 - inside - contour, inside, contour)]
    centres = np.array([[7.5, 15.5], [27.5, 15.5], [47.5, 15.5]])
    image = replace(image_of(outputs, np.zeros((SIDE, SIDE), np.int32)), instances=None, truth=centres)
    decoding, score = choose_decoding(Passing(), [image], joint)
    assert score.f1 == 1
    assert 0.38 < decoding.threshold <= 0.46


def test_score_is_the_mean_of_images_and_f1_that_of_all_nuclei() -> None:
    one = OutlineScore((InstanceScore(3, 1, 1, 2.4),), (AggregatedJaccard(50, 100),))
    other = OutlineScore((InstanceScore(1, 0, 0, 0.8),), (AggregatedJaccard(7, 10),))
    both = one + other
    assert both.aji == pytest.approx((0.5 + 0.7) / 2)
    assert both.panoptic_quality == pytest.approx((2.4 / 4 + 0.8) / 2)
    assert both.f1 == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))


def test_image_with_nothing_to_find_nor_found_is_left_out() -> None:
    nothing = OutlineScore((InstanceScore(0, 0, 0, 0.0),), (AggregatedJaccard(0, 0),))
    one = OutlineScore((InstanceScore(3, 1, 1, 2.4),), (AggregatedJaccard(50, 100),))
    assert (one + nothing).aji == 0.5
    assert (one + nothing).panoptic_quality == pytest.approx(0.6)
