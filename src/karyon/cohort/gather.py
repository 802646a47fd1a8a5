"""One manifest of a shard whose inference several jobs shared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from karyon.cohort.shard import DONE, explain_full_disk
from karyon.io.atomic import atomic_path


def gather_parts(parts: Sequence[str], manifest: str) -> None:
    """Join the manifests of the parts into the one that an undivided job would have written.

    Args:
        parts: Manifests of ``infer``, one for each part of the slides' tiles.
        manifest: Where the shard's goes.
    """
    rows = pd.concat([pd.read_parquet(path) for path in parts])
    joined = [join_rows(group) for _, group in rows.groupby("slide_id", sort=False)]
    cohort = Path(manifest).parents[2]
    with explain_full_disk("gather", cohort), atomic_path(Path(manifest)) as temporary:
        pd.DataFrame(joined).to_parquet(temporary, index=False)


def join_rows(rows: pd.DataFrame) -> dict[str, Any]:
    """A slide's row: done when every part is, else the row of the first part that is not.

    Seconds and tiles are added, shares are weighted by tiles; the rate is that of one job.
    """
    unfinished = rows[rows["status"] != DONE]
    first = (rows if unfinished.empty else unfinished).iloc[0].to_dict()
    first["seconds"] = rows["seconds"].sum()
    if unfinished.empty:
        weights = rows["tiles"] / max(rows["tiles"].sum(), 1)
        minutes = (rows["tiles"] / rows["gpx_per_min"])[rows["tiles"] > 0].sum()
        first["tiles"] = rows["tiles"].sum()
        first["lost_share"] = (weights * rows["lost_share"]).sum()
        first["gpx_per_min"] = rows["tiles"].sum() / minutes if minutes else 0.0
        first["warning"] = "; ".join(text for text in rows["warning"].unique() if text)
    return {str(key): value for key, value in first.items()}
