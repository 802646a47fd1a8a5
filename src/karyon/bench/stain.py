"""Stain concentrations against spams, one thread each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import spams

from karyon.bench.material import SLIDE_MPP
from karyon.bench.measurement import Measurement, fastest
from karyon.demo.look import draw_look
from karyon.demo.slide import SlideRenderer
from karyon.stain.concentrations import PENALTY, concentrations
from karyon.stain.fit import reference_matrix
from karyon.stain.optical_density import optical_density

GOAL_TIMES, GOAL_ERROR = 50.0, 1e-5


def measure_stain(cache: Path, side: int) -> Iterator[Measurement]:
    """Pixels a second from RGB to concentrations; spams is handed optical densities, ready made.

    Args:
        cache: Not used: the picture is rendered in memory.
        side: Of the picture in pixels.
    """
    look = draw_look(0, 0, side * SLIDE_MPP, side * SLIDE_MPP)
    rgb = SlideRenderer(look, SLIDE_MPP).block(0, 0, side, side)
    matrix, i0 = reference_matrix("HE"), np.ceil(look.i0)
    density = np.asfortranarray(optical_density(rgb, i0).reshape(-1, 3).T, dtype=np.float64)
    columns = np.asfortranarray(matrix)

    def solve() -> np.ndarray:
        return concentrations(rgb, matrix, i0)

    def lasso() -> Any:
        return spams.lasso(density, D=columns, mode=2, lambda1=PENALTY, pos=True, numThreads=1)

    seconds, peer_seconds = fastest(solve), fastest(lasso)
    error = float(np.abs(solve().reshape(-1, 2) - lasso().toarray().T).max())
    ratio = peer_seconds / seconds
    yield Measurement(
        name="stain.concentrations",
        value=side * side / seconds / 1e6,
        unit="Mpx/s on one thread",
        peer="spams.lasso",
        peer_value=side * side / peer_seconds / 1e6,
        ratio=ratio,
        goal=f"ratio >= {GOAL_TIMES:g}",
        met=ratio >= GOAL_TIMES,
    )
    yield Measurement(
        name="stain.error",
        value=error,
        unit="largest difference of a concentration",
        peer="spams.lasso",
        goal=f"<= {GOAL_ERROR:g}",
        met=error <= GOAL_ERROR,
    )
