"""When training stops, on F1 scores made by hand."""

from __future__ import annotations

import math

import pytest

from karyon.training.stopping import EarlyStopping


def validations_until_over(scores: list[float], patience: int) -> int | None:
    stopping = EarlyStopping(patience)
    for number, f1 in enumerate(scores, start=1):
        stopping.update(f1)
        if stopping.is_over:
            return number
    return None


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([0.5, 0.6, 0.55, 0.6, 0.7, 0.69, 0.68, 0.9], 2, 4),  # 0.6 again is no better
        ([0.5, 0.6, 0.55, 0.6, 0.7, 0.69, 0.68, 0.66, 0.9], 3, 8),
        ([0.5, 0.4], 1, 2),
        ([0.1, 0.2, 0.3, 0.4], 1, None),
        ([math.nan, 0.0, math.nan, math.nan], 2, 4),
        ([0.5] * 100, 0, None),
    ],
)
def test_training_stops_after_so_many_validations_without_a_better_one(
    scores: list[float], patience: int, expected: int | None
) -> None:
    assert validations_until_over(scores, patience) == expected


def test_best_validation_is_told_from_the_others() -> None:
    stopping = EarlyStopping(5)
    assert [stopping.update(f1) for f1 in (0.0, math.nan, 0.3, 0.3, 0.2, 0.31)] == [
        True,
        False,
        True,
        False,
        False,
        True,
    ]


def test_interrupted_count_goes_on() -> None:
    first, second = EarlyStopping(2), EarlyStopping(2)
    first.update(0.7)
    first.update(0.6)
    second.load_state_dict(first.state_dict())
    assert not second.is_over
    assert not second.update(0.65)
    assert second.is_over
