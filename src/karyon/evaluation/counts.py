"""What all scores share: they add up over images, and their rates are quotients of counts."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Protocol, Self


def ratio(part: float, whole: float) -> float:
    """``part / whole``; NaN, that is undefined, where the denominator is 0."""
    return part / whole if whole else math.nan


class Additive:
    """A dataclass of sums: with ``+`` field by field, scores of several images are pooled."""

    def __add__(self, other: Self) -> Self:
        sums = (getattr(self, one.name) + getattr(other, one.name) for one in fields(self))  # type: ignore[arg-type]
        return type(self)(*sums)


class Counted(Protocol):
    """Has true positives, false positives and false negatives."""

    @property
    def tp(self) -> int: ...
    @property
    def fp(self) -> int: ...
    @property
    def fn(self) -> int: ...


class Rates:
    """Precision, recall and F1 of whatever is counted."""

    @property
    def precision(self: Counted) -> float:
        """``tp / (tp + fp)``; NaN without predictions."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self: Counted) -> float:
        """``tp / (tp + fn)``; NaN without truth."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self: Counted) -> float:
        """``2 tp / (2 tp + fp + fn)``; 0 where either side alone is empty, NaN where both are."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)
