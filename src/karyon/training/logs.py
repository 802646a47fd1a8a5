"""What a training run writes down at a validation: a row of ``log.parquet``, and points of curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from lightning.fabric.loggers import TensorBoardLogger

from karyon.io.atomic import atomic_path

LOG = "log.parquet"
CURVES = ("loss", "lr", "f1", "threshold", "loader_share")


def open_curves(folder: Path, step: int) -> TensorBoardLogger:
    """A new file of TensorBoard in the run's folder, begun by the first process at its first row.

    Args:
        folder: The run's.
        step: Where training goes on. What earlier files of the folder say of later steps is not shown: it is
            of a run that ended between its log and its checkpoint, or whose checkpoint was removed.
    """
    return TensorBoardLogger(folder, name="", version="", purge_step=step + 1)


def write_log(folder: Path, rows: Sequence[dict[str, float]], curves: TensorBoardLogger) -> None:
    """Replace the log of a run, and add its last row to the curves.

    Args:
        folder: The run's.
        rows: One per validation: ``step``; ``loss``, the mean since the validation before; ``lr``, the
            learning rate of the last step; ``f1`` and ``threshold`` of the decoding chosen on the validation
            images; ``seconds`` since the validation before; ``loader_share``, the share of the steps' time
            in which the network waited for a batch.
        curves: Of the same run.
    """
    with atomic_path(folder / LOG) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
    curves.log_metrics({name: rows[-1][name] for name in CURVES}, int(rows[-1]["step"]))
    curves.save()


def logged_seconds(folder: Path) -> float:
    """Seconds that all parts of a run took together."""
    return float(pd.read_parquet(folder / LOG)["seconds"].sum())
