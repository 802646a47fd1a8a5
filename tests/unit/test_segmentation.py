"""Segmentation figures by hand, against loops over masks of the full size, and by laws."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from karyon.evaluation.overlap import Overlap, overlap_of_maps
from karyon.evaluation.segmentation import (
    AggregatedJaccard,
    DiceScore,
    InstanceScore,
    ObjectDiceScore,
    score_aji,
    score_aji_plus,
    score_dice,
    score_instances,
    score_object_dice,
    score_panoptic,
    sweep_iou,
)
from karyon.evaluation.segmentation_matching import match_by_dice, match_by_truth_share
from karyon.io.annotations import read_instances

KUMAR = "kumar30/instances/TCGA-18-5592-01Z-00-DX1.png"
ids = st.sampled_from([0, 0, 1, 2, 5, 70_000])
two_maps = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: st.tuples(*[arrays(np.int32, shape, elements=ids)] * 2)
)
Maps = tuple[np.ndarray, np.ndarray]


def erode(truth: np.ndarray) -> np.ndarray:
    """Nuclei without the pixels within 2 px of another id, as the inside class of NB."""
    footprint = np.hypot(*np.mgrid[-2:3, -2:3]) <= 2
    low, high = (
        rank(truth, footprint=footprint) for rank in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    return np.where(low == high, truth, 0)


@pytest.fixture(params=["eroded", "shifted", "merged"])
def real_maps(request: pytest.FixtureRequest, real_file: Callable[[str], Path]) -> Maps:
    """A prediction made of the true map, and the true map."""
    truth = read_instances(real_file(KUMAR), "instance_png")[:330, :330]
    if request.param == "eroded":
        return erode(truth), truth
    if request.param == "shifted":
        return np.roll(truth, (5, -4), (0, 1)), truth
    return ndimage.label(truth)[0], truth


def masks_of(instances: np.ndarray) -> list[np.ndarray]:
    return [instances == k for k in np.unique(instances) if k]


def naive_tables(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and unions, ``(truths, predictions)``, from every pair's masks."""
    rows, columns = masks_of(truth), masks_of(predicted)
    common = [[np.count_nonzero(t & p) for p in columns] for t in rows]
    either = [[np.count_nonzero(t | p) for p in columns] for t in rows]
    shape = len(rows), len(columns)
    return np.array(common, float).reshape(shape), np.array(either, float).reshape(shape)


def naive_dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    p, t = predicted > 0, truth > 0
    return 2 * (p & t).sum() / (p.sum() + t.sum()) if p.any() or t.any() else math.nan


def naive_object_dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    def one_way(objects: np.ndarray, others: np.ndarray) -> float:
        total = 0.0
        for mask in masks_of(objects):
            hit = others[mask]
            hit = hit[hit > 0]
            if hit.size:
                partner = others == np.argmax(np.bincount(hit))
                dice = 2 * (mask & partner).sum() / (mask.sum() + partner.sum())
                total += mask.sum() / (objects > 0).sum() * dice
        return total

    if not predicted.any() and not truth.any():
        return math.nan
    return (one_way(predicted, truth) + one_way(truth, predicted)) / 2


def naive_aji(predicted: np.ndarray, truth: np.ndarray) -> float:
    common, either, used = 0, 0, set()
    columns = masks_of(predicted)
    for mask in masks_of(truth):
        jaccard = [(mask & p).sum() / (mask | p).sum() for p in columns]
        best = max(
            range(len(columns)), key=lambda k: (jaccard[k], (mask & columns[k]).sum(), -k), default=None
        )
        if best is None or jaccard[best] == 0:
            either += mask.sum()
            continue
        common, either = common + (mask & columns[best]).sum(), either + (mask | columns[best]).sum()
        used.add(best)
    either += sum(p.sum() for k, p in enumerate(columns) if k not in used)
    return common / either if either else math.nan


def aji_plus_of(pairs: list[tuple[int, int]], predicted: np.ndarray, truth: np.ndarray) -> float:
    """AJI+ of given pairs of (truth, prediction), the rest unpaired."""
    rows, columns = masks_of(truth), masks_of(predicted)
    common = sum((rows[t] & columns[p]).sum() for t, p in pairs)
    either = sum((rows[t] | columns[p]).sum() for t, p in pairs)
    either += sum(mask.sum() for t, mask in enumerate(rows) if t not in {pair[0] for pair in pairs})
    either += sum(mask.sum() for p, mask in enumerate(columns) if p not in {pair[1] for pair in pairs})
    return common / either if either else math.nan


def all_assignments(shape: tuple[int, int]) -> list[list[tuple[int, int]]]:
    """Every way to give each object of the smaller side one of the larger."""
    small, large = sorted(shape)
    ways = [list(enumerate(chosen)) for chosen in permutations(range(large), small)]
    return ways if shape[0] <= shape[1] else [[(b, a) for a, b in way] for way in ways]


# Two true nuclei, 1 (4 px) and 2 (4 px); prediction 1 covers both but for a pixel of each, 3 lies apart.
HAND_TRUTH = np.array([[1, 1, 2, 2, 0, 0], [1, 1, 2, 2, 0, 0]])
HAND_PREDICTED = np.array([[0, 1, 1, 1, 0, 3], [1, 1, 1, 0, 0, 0]])


@pytest.fixture
def hand() -> Overlap:
    return overlap_of_maps(HAND_PREDICTED, HAND_TRUTH)


def test_dice_by_hand(hand: Overlap) -> None:
    assert score_dice(hand) == DiceScore(6, 15)
    assert score_dice(hand).dice == 12 / 15


def test_object_dice_by_hand(hand: Overlap) -> None:
    # Each true nucleus shares 3 px with prediction 1: Dice 6 / 10. Prediction 3 has no partner.
    assert score_object_dice(hand).object_dice == pytest.approx((6 / 7 * 0.6 + 0.6) / 2)


def test_aji_takes_a_prediction_repeatedly_and_aji_plus_once(hand: Overlap) -> None:
    # Both true nuclei: intersection 3, union 7. Kumar's algorithm counts prediction 1 for each.
    assert score_aji(hand) == AggregatedJaccard(6, 7 + 7 + 1)
    assert score_aji_plus(hand) == AggregatedJaccard(3, 7 + 4 + 1)


def test_aji_takes_the_larger_common_area_of_equal_indices() -> None:
    # Prediction 1: 1 of 4 px; prediction 2: 2 of 8 px.
    truth = np.array([[9, 9, 9, 9, 0, 0, 0, 0]])
    predicted = np.array([[1, 0, 2, 2, 2, 2, 2, 2]])
    assert score_aji(overlap_of_maps(predicted, truth)) == AggregatedJaccard(2, 8 + 1)


def test_panoptic_quality_by_hand() -> None:
    # IoU 3 / 4 for the first, exactly 1 / 2 for the second, which is no match; one more of each alone.
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3]])
    predicted = np.array([[1, 1, 1, 0, 0, 2, 0, 4, 0]])
    score = score_panoptic(overlap_of_maps(predicted, truth))
    assert score == InstanceScore(tp=1, fp=2, fn=2, iou_sum=0.75)
    assert (score.f1, score.mean_iou, score.panoptic_quality) == (1 / 3, 0.75, 0.25)
    assert (score.precision, score.recall) == (1 / 3, 1 / 3)


def test_sweep_steps_at_the_iou_of_each_pair() -> None:
    # IoUs 9 / 10, 3 / 4 and 3 / 5: matches above, not at, a threshold.
    truth = np.repeat([1, 0, 2, 0, 3], [10, 1, 4, 1, 5])[None]
    predicted = np.repeat([1, 0, 2, 0, 3, 0], [9, 2, 3, 2, 3, 2])[None]
    scores = sweep_iou(overlap_of_maps(predicted, truth))
    assert [score.tp for score in scores] == [3, 3, 2, 2, 2, 1, 1, 1, 0, 0]
    assert [score.f1 for score in scores[:3]] == [1, 1, 2 / 3]


@settings(max_examples=150, deadline=None)
@given(maps=two_maps)
def test_figures_of_random_maps_equal_loops_over_masks(maps: Maps) -> None:
    overlap = overlap_of_maps(*maps)
    same = {"abs": 1e-9, "nan_ok": True}
    assert score_dice(overlap).dice == pytest.approx(naive_dice(*maps), **same)
    assert score_object_dice(overlap).object_dice == pytest.approx(naive_object_dice(*maps), **same)
    assert score_aji(overlap).index == pytest.approx(naive_aji(*maps), **same)
    common, either = naive_tables(*maps)
    iou = common / np.maximum(either, 1)
    # Of assignments that tie in their sum any may be taken.
    ways = all_assignments(iou.shape)
    sums = np.array([sum(iou[pair] for pair in way) for way in ways])
    tied = [
        [pair for pair in way if iou[pair]]
        for way, total in zip(ways, sums, strict=True)
        if total >= sums.max() - 1e-12
    ]
    plus = score_aji_plus(overlap).index
    assert any(plus == pytest.approx(aji_plus_of(pairs, *maps), **same) for pairs in tied)
    assert_counts_equal(overlap, common, either)


def assert_counts_equal(overlap: Overlap, common: np.ndarray, either: np.ndarray) -> None:
    """PQ, the sweep and JOINT's rule against tables of (truths, predictions) from masks."""
    iou = common / np.maximum(either, 1)
    tp = (iou > 0.5).sum()
    halves = tp + (iou.shape[0] - tp) / 2 + (iou.shape[1] - tp) / 2
    expected = iou[iou > 0.5].sum() / halves if halves else math.nan
    assert score_panoptic(overlap).panoptic_quality == pytest.approx(expected, abs=1e-9, nan_ok=True)
    thresholds = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    assert [s.tp for s in sweep_iou(overlap)] == [(iou > threshold).sum() for threshold in thresholds]
    share = common / overlap.truth_area[:, None]
    covering = (share > 0.5).any(axis=0).sum()
    score = score_instances(overlap, match_by_truth_share(overlap))
    assert (score.tp, score.fp, score.fn) == (covering, iou.shape[1] - covering, iou.shape[0] - covering)


def test_figures_of_real_maps_equal_loops_over_masks(real_maps: Maps) -> None:
    overlap = overlap_of_maps(*real_maps)
    common, either = naive_tables(*real_maps)
    iou = common / either
    assert (iou > 0).sum() > 40
    assert score_dice(overlap).dice == pytest.approx(naive_dice(*real_maps), abs=1e-9)
    assert score_object_dice(overlap).object_dice == pytest.approx(naive_object_dice(*real_maps), abs=1e-9)
    assert score_aji(overlap).index == pytest.approx(naive_aji(*real_maps), abs=1e-9)
    pairs = [pair for pair in zip(*linear_sum_assignment(-iou), strict=True) if iou[pair]]
    assert score_aji_plus(overlap).index == pytest.approx(aji_plus_of(pairs, *real_maps), abs=1e-9)
    assert_counts_equal(overlap, common, either)


@settings(max_examples=50, deadline=None)
@given(maps=two_maps)
def test_identity_is_perfect(maps: Maps) -> None:
    assume(maps[0].any())
    overlap = overlap_of_maps(maps[0], maps[0])
    panoptic = score_panoptic(overlap)
    assert panoptic.fp == panoptic.fn == 0
    figures = [
        score_dice(overlap).dice,
        score_object_dice(overlap).object_dice,
        score_aji(overlap).index,
        score_aji_plus(overlap).index,
        panoptic.panoptic_quality,
        sweep_iou(overlap)[-1].f1,
        score_instances(overlap, match_by_truth_share(overlap)).f1,
        score_instances(overlap, match_by_dice(overlap)).f1,
    ]
    assert figures == [1] * len(figures)


@settings(max_examples=100, deadline=None)
@given(maps=two_maps)
def test_exchanging_the_sides_exchanges_false_and_missed(maps: Maps) -> None:
    one, other = overlap_of_maps(*maps), overlap_of_maps(*reversed(maps))
    same = {"abs": 1e-12, "nan_ok": True}
    assert score_dice(one) == score_dice(other)
    assert score_object_dice(one).object_dice == pytest.approx(score_object_dice(other).object_dice, **same)
    first, second = score_panoptic(one), score_panoptic(other)
    assert (first.tp, first.fp, first.fn) == (second.tp, second.fn, second.fp)
    assert first.panoptic_quality == pytest.approx(second.panoptic_quality, **same)


@settings(max_examples=100, deadline=None)
@given(maps=two_maps, seed=st.integers(0, 99))
def test_names_of_the_objects_do_not_matter(maps: Maps, seed: int) -> None:
    rng = np.random.default_rng(seed)
    renamed = []
    for instances in maps:
        present = np.unique(instances[instances > 0])
        names = np.zeros(70_001, np.int64)
        names[present] = rng.choice(10**12, len(present), replace=False) + 1
        renamed.append(names[instances])
    one, other = overlap_of_maps(*maps), overlap_of_maps(*renamed)
    # A tie is settled by the ids.
    assume(len(np.unique(one.iou)) == len(one.iou) and len(np.unique(one.area)) == len(one.area))
    same = {"abs": 1e-12, "nan_ok": True}
    assert score_dice(one) == score_dice(other)
    assert score_object_dice(one).object_dice == pytest.approx(score_object_dice(other).object_dice, **same)
    assert score_aji(one) == score_aji(other)
    assert score_panoptic(one).iou_sum == pytest.approx(score_panoptic(other).iou_sum, **same)


@settings(max_examples=100, deadline=None)
@given(maps=two_maps)
def test_aggregated_indices_never_exceed_the_foregrounds_jaccard_index(maps: Maps) -> None:
    overlap = overlap_of_maps(*maps)
    assume(len(overlap.predicted_id) + len(overlap.truth_id))
    dice = score_dice(overlap).dice
    for score in (score_aji(overlap), score_aji_plus(overlap)):
        assert 0 <= score.index <= dice / (2 - dice) + 1e-12


def test_aji_equals_aji_plus_where_no_object_has_two_partners(real_file: Callable[[str], Path]) -> None:
    truth = read_instances(real_file(KUMAR), "instance_png")
    overlap = overlap_of_maps(erode(truth), truth)
    assert len(np.unique(overlap.truth)) == len(overlap.truth) > 300
    assert score_aji(overlap) == score_aji_plus(overlap)


def test_matched_counts_fall_as_the_iou_rises(real_maps: Maps) -> None:
    tp = [score.tp for score in sweep_iou(overlap_of_maps(*real_maps))]
    assert tp == sorted(tp, reverse=True)
    assert tp[0] > tp[-1]


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [(0, 0, math.nan), (1, 0, 0.0), (0, 1, 0.0)],
    ids=["both empty", "no truth", "no prediction"],
)
def test_empty_sides_are_zero_and_two_of_them_undefined(predicted: int, truth: int, expected: float) -> None:
    overlap = overlap_of_maps(np.full((2, 2), predicted), np.full((2, 2), truth))
    figures = [
        score_dice(overlap).dice,
        score_object_dice(overlap).object_dice,
        score_aji(overlap).index,
        score_aji_plus(overlap).index,
        score_panoptic(overlap).panoptic_quality,
        score_instances(overlap, match_by_truth_share(overlap)).f1,
        score_instances(overlap, match_by_dice(overlap)).f1,
    ]
    np.testing.assert_equal(figures, [expected] * len(figures))
    assert math.isnan(score_panoptic(overlap).mean_iou)


def test_pooled_figures_equal_those_of_the_images_side_by_side() -> None:
    rng = np.random.default_rng(5)
    one, other = (rng.integers(0, 4, (2, 6, 6)) for _ in range(2))
    apart = np.where(other > 0, other + 10, 0)
    images = [overlap_of_maps(*one), overlap_of_maps(*apart), overlap_of_maps(*np.zeros((2, 1, 1), int))]
    whole = overlap_of_maps(*np.concatenate([one, apart], axis=2))
    for score in (score_dice, score_aji, score_aji_plus):
        assert sum_of(score, images) == score(whole)
    pooled = sum_of(score_object_dice, images)
    assert pooled.object_dice == pytest.approx(score_object_dice(whole).object_dice)
    assert isinstance(pooled, ObjectDiceScore)
    assert sum_of(score_panoptic, images).panoptic_quality == score_panoptic(whole).panoptic_quality


def sum_of(score: Callable, images: list[Overlap]) -> object:
    first, *rest = map(score, images)
    for part in rest:
        first += part
    return first
