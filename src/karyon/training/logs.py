"""What a training run writes down: a row of ``log.parquet`` per validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from karyon.io.atomic import atomic_path

LOG = "log.parquet"


def write_log(folder: Path, rows: Sequence[dict[str, float]]) -> None:
    """Replace the log of a run.

    Args:
        folder: The run's.
        rows: One per validation: ``step``; ``loss``, the mean since the validation before; ``lr``, the
            learning rate of the last step; ``f1`` and ``threshold`` of the decoding chosen on the validation
            images; ``seconds`` since the validation before; ``loader_share``, the share of the steps' time
            in which the network waited for a batch.
    """
    with atomic_path(folder / LOG) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)


def logged_seconds(folder: Path) -> float:
    """Seconds that all parts of a run took together."""
    return float(pd.read_parquet(folder / LOG)["seconds"].sum())
