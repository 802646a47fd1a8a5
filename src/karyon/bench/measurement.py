"""One measured figure, beside its peer and its goal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

REPEATS = 5


@dataclass(frozen=True)
class Measurement:
    """A figure measured in this run.

    Attributes:
        name: What was measured, the bench's name first.
        value: The figure.
        unit: Of both values.
        peer: What it is compared with, measured in the same run; empty where there is none.
        peer_value: The peer's figure.
        ratio: How many times the peer the value is, or how many times faster, as the goal says.
        goal: What is asked of it; empty where nothing is.
        met: Whether it is so; ``None`` where nothing is asked.
    """

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None

    def to_json(self) -> str:
        """One line of JSON, figures to four digits."""
        return json.dumps({key: _short(value) for key, value in asdict(self).items()})


@dataclass(frozen=True)
class Bench:
    """A measurement that `karyon bench` knows by name.

    Attributes:
        summary: What it measures, in a line.
        measure: Takes the cache folder and a size, gives the figures one by one.
        side: The size at which the goals are stated: side of the slide or map in pixels, or number
            of points, slides or images.
    """

    summary: str
    measure: Callable[[Path, int], Iterator[Measurement]]
    side: int


def fastest(work: Callable[[], object]) -> float:
    """Least seconds of several runs after one that warms up: what else the machine does only slows them."""
    work()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _short(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
