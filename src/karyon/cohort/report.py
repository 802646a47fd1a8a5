"""Pictures and tables of a cohort for the HTML report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from karyon.cohort.layout import SlideFiles
from karyon.cohort.overlay import draw_overlay
from karyon.cohort.plan import read_plan
from karyon.cohort.shard import DONE

mpl.use("Agg")
import matplotlib.pyplot as plt

logger = logging.getLogger("karyon")

SLIDE_COLUMNS = (
    "slide_id",
    "organ",
    "split",
    "status",
    "error",
    "warning",
    "mpp",
    "tissue_mm2",
    "nuclei",
    "nuclei_per_mm2",
    "annotated",
    "stain_source",
    "gpx_per_min",
)

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body {{font: 14px sans-serif; margin: 1em}} table {{border-collapse: collapse}}
th, td {{padding: 3px 10px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap}}
</style>{rows}</html>"""


def write_report(
    slides: str, scores: str, plans: Sequence[str], overlays: int, folder: str, log: str
) -> None:
    """Write overlays, figures and tables into a folder that `snakemake --report` embeds.

    Args:
        slides: The cohort's slide table.
        scores: The cohort's score table.
        plans: The shards' TSVs.
        overlays: How many slides get an overlay; the first by id of each status done.
        folder: Output folder.
        log: Log file.
    """
    logging.basicConfig(filename=log, level=logging.INFO, force=True)
    target = Path(folder)
    table, score = pd.read_parquet(slides), pd.read_parquet(scores)
    _overlays(table, plans, overlays, target / "Overlays")
    tables = target / "Tables"
    tables.mkdir(parents=True, exist_ok=True)
    _page(table[[column for column in SLIDE_COLUMNS if column in table]], tables / "slides.html")
    if not score.empty:
        _page(score, tables / "scores.html")
    figures = target / "Figures"
    figures.mkdir(parents=True, exist_ok=True)
    done = table[table["status"] == DONE]
    if len(done):
        _dots(done, "nuclei_per_mm2", "nuclei per mm² of tissue", figures / "density.png")
    main_radius = score["radius_um"].iloc[0] if len(score) else None
    if main_radius is not None:
        annotated = done[done["annotated"].notna()]
        tp, fp, fn = (annotated[f"{name}_{main_radius:g}um"] for name in ("tp", "fp", "fn"))
        named = annotated.assign(f1=2 * tp / (2 * tp + fp + fn))
        _dots(named, "f1", f"F1 at {main_radius:g} µm", figures / "f1.png")


def _overlays(table: pd.DataFrame, plans: Sequence[str], count: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cohort = folder.parent.parent
    chosen = set(table.loc[table["status"] == DONE, "slide_id"].sort_values().head(count))
    for row in (row for plan in plans for row in read_plan(Path(plan)) if row.slide_id in chosen):
        try:
            draw_overlay(row, SlideFiles(cohort, row.slide_id)).save(folder / f"{row.slide_id}.png")
        except Exception:  # a picture that cannot be drawn is no reason to lose the report
            logger.exception("overlay of %s", row.slide_id)


def _page(table: pd.DataFrame, path: Path) -> None:
    """A table as a page of its own, which the report shows."""
    rows = table.to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format)
    path.write_text(PAGE.format(title=path.stem, rows=rows), encoding="utf-8")


def _dots(table: pd.DataFrame, column: str, label: str, path: Path) -> None:
    """One dot per slide, a row per organ, with the median of each."""
    organs = table["organ"].replace("", "not stated")
    groups = sorted(organs.unique())
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.4 * len(groups)), layout="constrained")
    for height, organ in enumerate(groups):
        values = table.loc[organs == organ, column].to_numpy(float)
        spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(values, height + spread, "o", color="#6a3d9a", markersize=4, alpha=0.7, markeredgewidth=0)
        axes.plot(np.nanmedian(values), height, "|", color="black", markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
