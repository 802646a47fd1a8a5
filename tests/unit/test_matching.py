"""Gated matching against brute force, a dense assignment and hand-worked cases."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from karyon.evaluation.matching import Matches, gate_graph, match_points

# Halves: many ties, coincident points and distances exactly at the gate, all exact in float64.
half = st.integers(0, 16).map(lambda n: n / 2)
few_points = st.lists(st.tuples(half, half), max_size=7).map(lambda rows: np.array(rows).reshape(-1, 2))
radii = st.integers(1, 12).map(lambda n: n / 2)


def best_of_all(predicted: np.ndarray, truth: np.ndarray, radius: float) -> tuple[int, float]:
    """Cardinality and cost of the best of all one-to-one assignments, by trying each."""

    def best(row: int, free: frozenset[int]) -> tuple[int, float]:
        if row == len(predicted):
            return 0, 0.0
        options = [best(row + 1, free)]
        for column in free:
            distance = math.dist(predicted[row], truth[column])
            if distance <= radius:
                count, cost = best(row + 1, free - {column})
                options.append((count + 1, cost + distance))
        return min(options, key=lambda option: (-option[0], option[1]))

    return best(0, frozenset(range(len(truth))))


def dense_reference(predicted: np.ndarray, truth: np.ndarray, radius: float) -> tuple[int, float]:
    """The same from one assignment over all pairs, a pair outside the gate costing more than all inside."""
    distance = np.hypot(*(predicted[:, None] - truth[None]).transpose(2, 0, 1))
    forbidden = 2 * radius * (len(predicted) + len(truth))
    rows, columns = linear_sum_assignment(np.where(distance <= radius, distance, forbidden))
    chosen = distance[rows, columns]
    chosen = chosen[chosen <= radius]
    return len(chosen), float(chosen.sum())


def assert_one_to_one_inside_gate(
    matches: Matches, predicted: np.ndarray, truth: np.ndarray, radius: float
) -> None:
    assert (np.diff(matches.predicted) > 0).all()
    assert len(np.unique(matches.truth)) == len(matches.truth)
    expected = [
        math.dist(predicted[p], truth[t]) for p, t in zip(matches.predicted, matches.truth, strict=True)
    ]
    np.testing.assert_allclose(matches.distance, expected, rtol=1e-15)
    assert (matches.distance <= radius).all()


@settings(max_examples=200, deadline=None)
@given(predicted=few_points, truth=few_points, radius=radii)
def test_gated_matching_equals_brute_force(predicted: np.ndarray, truth: np.ndarray, radius: float) -> None:
    matches = match_points(predicted, truth, radius)
    count, cost = best_of_all(predicted, truth, radius)
    assert len(matches.predicted) == count
    assert matches.distance.sum() == pytest.approx(cost, abs=1e-9)
    assert_one_to_one_inside_gate(matches, predicted, truth, radius)


@pytest.mark.parametrize(
    ("side", "radius"),
    [(600, 16), (200, 16), (100, 30), (50, 100)],
    ids=["separate", "crowded", "dense", "all"],
)
@pytest.mark.parametrize("n_truth", [300, 220])
def test_gated_matching_equals_dense_assignment(side: float, radius: float, n_truth: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(4):
        predicted, truth = rng.uniform(0, side, (300, 2)), rng.uniform(0, side, (n_truth, 2))
        assert_equals_dense_assignment(predicted, truth, radius)
        assert_equals_dense_assignment(truth, predicted, radius)


@pytest.mark.parametrize(("n_truth", "side"), [(2000, 1800), (2000, 700), (1600, 400)])
def test_two_thousand_points_equal_dense_assignment(n_truth: int, side: float) -> None:
    # From a component of a few points each to one that holds them all.
    rng = np.random.default_rng(n_truth)
    predicted, truth = rng.uniform(0, side, (2000, 2)), rng.uniform(0, side, (n_truth, 2))
    assert_equals_dense_assignment(predicted, truth, 16)


def test_coincident_points_and_ties_equal_dense_assignment() -> None:
    # 400 points on 36 places, whole-number distances: nearly every choice is a tie.
    rng = np.random.default_rng(5)
    for radius in (1, 2, 5):
        predicted, truth = rng.integers(0, 6, (400, 2)), rng.integers(0, 6, (390, 2))
        assert_equals_dense_assignment(predicted.astype(float), truth.astype(float), radius)


def assert_equals_dense_assignment(predicted: np.ndarray, truth: np.ndarray, radius: float) -> None:
    matches = match_points(predicted, truth, radius)
    count, cost = dense_reference(predicted, truth, radius)
    assert len(matches.predicted) == count
    assert matches.distance.sum() == pytest.approx(cost, rel=1e-12)
    assert_one_to_one_inside_gate(matches, predicted, truth, radius)


def test_nearest_first_would_lose_a_match() -> None:
    # On a line, gate 5: detections at 0 and 4, annotations at 3 and 8. Nearest first pairs 4 with 3 and
    # leaves 0 and 8, which are 8 apart.
    matches = match_points(np.array([[0, 0], [4, 0]]), np.array([[3, 0], [8, 0]]), 5)
    assert matches.predicted.tolist() == [0, 1]
    assert matches.truth.tolist() == [0, 1]
    assert matches.distance.tolist() == [3, 4]


def test_gating_the_ungated_assignment_would_lose_a_match() -> None:
    # Without a gate 0 + sqrt(32) beats 4 + 4, and the gate of 5 then takes sqrt(32) away.
    predicted, truth = np.array([[0, 0], [4, 0]]), np.array([[4, 0], [4, 4]])
    distance = np.hypot(*(predicted[:, None] - truth[None]).transpose(2, 0, 1))
    assert (distance[linear_sum_assignment(distance)] <= 5).sum() == 1
    assert match_points(predicted, truth, 5).distance.tolist() == [4, 4]


def test_more_pairs_beat_any_shorter_total() -> None:
    # A chain of 40 links, detections at 0, 10, 20 ..., annotations at 9.9, 19.9 ...: every detection but the
    # first has an annotation 0.1 away. Only pairing each with the annotation 9.9 ahead uses the last one too.
    predicted = np.stack([np.arange(40) * 10.0, np.zeros(40)], axis=1)
    matches = match_points(predicted, predicted + np.array([9.9, 0]), 10)
    assert matches.truth.tolist() == list(range(40))


def test_gate_includes_its_own_radius() -> None:
    origin = np.zeros((1, 2))
    assert len(match_points(origin, np.array([[3.0, 4.0]]), 5).predicted) == 1
    assert len(match_points(origin, np.array([[3.0, 4.0]]), np.nextafter(5, 0)).predicted) == 0


@settings(max_examples=100, deadline=None)
@given(predicted=few_points, truth=few_points, radius=radii)
def test_exchanging_the_sets_keeps_count_and_cost(
    predicted: np.ndarray, truth: np.ndarray, radius: float
) -> None:
    one, other = match_points(predicted, truth, radius), match_points(truth, predicted, radius)
    assert len(one.predicted) == len(other.predicted)
    assert one.distance.sum() == pytest.approx(other.distance.sum(), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    predicted=few_points,
    truth=few_points,
    radius=radii,
    shift=st.tuples(st.integers(-9999, 9999), st.integers(-9999, 9999)),
    scale=st.sampled_from([0.125, 1.0, 256.0]),
    seed=st.integers(0, 99),
)
def test_order_translation_and_unit_do_not_matter(
    predicted: np.ndarray, truth: np.ndarray, radius: float, shift: tuple[int, int], scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    moved_predicted = (rng.permutation(predicted) + shift) * scale
    moved_truth = (rng.permutation(truth) + shift) * scale
    one, other = (
        match_points(predicted, truth, radius),
        match_points(moved_predicted, moved_truth, radius * scale),
    )
    assert len(one.predicted) == len(other.predicted)
    assert one.distance.sum() * scale == pytest.approx(other.distance.sum(), abs=1e-9 * scale)


def test_many_separate_nuclei_match_their_own_displaced_copies() -> None:
    # Annotations on a grid 20 apart, detections moved by less than 6 and shuffled: in a gate of 8 there is
    # no other candidate.
    rng = np.random.default_rng(0)
    truth = np.stack(np.meshgrid(np.arange(200.0), np.arange(200.0)), axis=-1).reshape(-1, 2) * 20
    order = rng.permutation(len(truth))
    predicted = truth[order] + rng.uniform(-4, 4, truth.shape)
    matches = match_points(predicted, truth, 8)
    assert matches.predicted.tolist() == list(range(len(truth)))
    np.testing.assert_array_equal(matches.truth, order)


def test_one_huge_crowd_needs_no_dense_matrix() -> None:
    # One component: each point has 17 candidates, the graph 87,000 pairs of 16 bytes.
    rng = np.random.default_rng(0)
    predicted, truth = rng.uniform(0, 1200, (5000, 2)), rng.uniform(0, 1200, (5000, 2))
    match_points(predicted[:9], truth[:9], 40)  # compiled before it is watched
    tracemalloc.start()
    matches = match_points(predicted, truth, 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # dense costs alone are 200 MB
    assert len(matches.predicted) > 4900


@settings(max_examples=100, deadline=None)
@given(predicted=few_points, truth=few_points, radius=radii)
def test_gate_graph_holds_every_pair_within_the_radius(
    predicted: np.ndarray, truth: np.ndarray, radius: float
) -> None:
    gate = gate_graph(predicted, truth, radius)
    row = np.repeat(np.arange(len(predicted)), np.diff(gate.start))
    pairs = set(zip(gate.predicted[row].tolist(), gate.truth[gate.column].tolist(), strict=True))
    assert len(pairs) == len(row)
    assert pairs == {
        (p, t)
        for p in range(len(predicted))
        for t in range(len(truth))
        if math.dist(predicted[p], truth[t]) <= radius
    }


@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0)])
def test_an_empty_side_matches_nothing(sizes: tuple[int, int]) -> None:
    matches = match_points(np.ones((sizes[0], 2)), np.ones((sizes[1], 2)), 1)
    assert [len(part) for part in (matches.predicted, matches.truth, matches.distance)] == [0, 0, 0]
    assert (matches.predicted.dtype, matches.truth.dtype, matches.distance.dtype) == (
        np.int64,
        np.int64,
        np.float64,
    )


@pytest.mark.parametrize("radius", [0, -1, np.nan, np.inf])
def test_a_radius_that_is_no_gate_is_refused(radius: float) -> None:
    with pytest.raises(ValueError, match="radius"):
        match_points(np.zeros((1, 2)), np.zeros((1, 2)), radius)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_not_finite_are_refused_with_their_row(value: float) -> None:
    with pytest.raises(ValueError, match=r"truth.*row 1"):
        match_points(np.zeros((1, 2)), np.array([[0, 0], [value, 0]]), 1)


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"predicted has shape \(2, 3\)"):
        match_points(np.zeros((2, 3)), np.zeros((1, 2)), 1)
