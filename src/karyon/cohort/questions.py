"""What a cohort's nuclei say: how many of which class, how near to each other, and where."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from karyon.cohort.figures import STYLE
from karyon.cohort.layout import SlideFiles
from karyon.errors import KaryonError
from karyon.io.atomic import atomic_path

# Side of a heat map's cell: a hundred nuclei or so in dense tissue.
CELL_UM = 100.0
PANEL_INCHES, PANELS_ACROSS = 4.2, 3
# What all nuclei are called by a model that tells no classes apart.
ANY_CLASS = "nucleus"
COUNTS = """
with found as (
    select slide_id, {class_name} as class_name, count(*) as nuclei from read_parquet($files) group by all
),
classes as (select distinct class_name from found)
select
    slide_id,
    class_name,
    coalesce(nuclei, 0) as nuclei,
    coalesce(nuclei, 0) / tissue_mm2 as nuclei_per_mm2,
    coalesce(nuclei, 0) / sum(nuclei) over (partition by slide_id) as fraction
from slides cross join classes left join found using (slide_id, class_name)
order by all
"""
CELLS = """
select
    {class_name} as class_name,
    floor(y_um / $cell)::int as "row",
    floor(x_um / $cell)::int as "column",
    count(*) as nuclei
from read_parquet($files)
group by all
order by all
"""


def read_slides(cohort: Path, wanted: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of ``slides.parquet`` that have nuclei tables.

    Args:
        cohort: ``results/<cohort>``.
        wanted: Slide ids; empty for all.

    Raises:
        KaryonError: The cohort was not run, or a slide is not among those that were finished.
    """
    path = cohort / "slides.parquet"
    if not path.is_file():
        raise KaryonError(f"{path}: not there; run the workflow for this cohort first")
    slides = pd.read_parquet(path)
    slides = slides[slides["status"] == "done"]
    unknown = [slide for slide in wanted if slide not in set(slides["slide_id"])]
    if unknown or slides.empty:
        raise KaryonError(f"{path}: no finished slide {' '.join(unknown[:1])}".rstrip())
    return slides[slides["slide_id"].isin(wanted)] if wanted else slides


def count_nuclei(cohort: Path, slides: pd.DataFrame, threads: int | None = None) -> pd.DataFrame:
    """Nuclei of each class on each slide, a class of the cohort that a slide has none of included.

    Args:
        cohort: ``results/<cohort>``.
        slides: From :func:`read_slides`.
        threads: That DuckDB may use; ``None`` for one a core.

    Returns:
        ``slide_id``, ``class_name``, ``nuclei``, ``nuclei_per_mm2`` of tissue, and ``fraction`` of the
        slide's nuclei, empty of a slide without any.
    """
    files = [str(SlideFiles(cohort, slide).nuclei) for slide in slides["slide_id"]]
    with _connect(threads) as connection:
        connection.register("slides", slides[["slide_id", "tissue_mm2"]])
        query = COUNTS.format(class_name=_class_column(files[0]))
        return connection.execute(query, {"files": files}).df()


def has_classes(nuclei: str | Path) -> bool:
    """Whether a nuclei table tells classes apart; all slides of a cohort are of one model."""
    return "class_name" in pq.read_schema(nuclei).names


def _class_column(nuclei: str | Path) -> str:
    """SQL of the class of a nucleus."""
    return "class_name" if has_classes(nuclei) else f"'{ANY_CLASS}'"


def _connect(threads: int | None) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": threads} if threads else {})


def nearest_distances(cohort: Path, slides: pd.DataFrame) -> pd.DataFrame:
    """How far the nuclei of a class have to the nearest of each class, slide by slide.

    Args:
        cohort: ``results/<cohort>``.
        slides: From :func:`read_slides`.

    Returns:
        ``slide_id``, ``class_name``, ``nearest`` (the other's class), ``nuclei`` (how many distances),
        ``mean_um``, and the quartiles ``q1_um``, ``median_um`` and ``q3_um``; no row where there is no other.
    """
    rows = [
        {"slide_id": slide, **row}
        for slide in slides["slide_id"]
        for row in _distances_of_slide(SlideFiles(cohort, slide).nuclei)
    ]
    columns = ["slide_id", "class_name", "nearest", "nuclei", "mean_um", "q1_um", "median_um", "q3_um"]
    return pd.DataFrame(rows, columns=columns)


def _distances_of_slide(nuclei: Path) -> list[dict[str, object]]:
    columns = [name for name in ("x_um", "y_um", "class_name") if name in pq.read_schema(nuclei).names]
    table = pq.read_table(nuclei, columns=columns).to_pandas()
    classes = table["class_name"].astype(str) if "class_name" in table else ANY_CLASS
    points = {
        str(name): group[["x_um", "y_um"]].to_numpy()
        for name, group in table.assign(class_name=classes).groupby("class_name")
    }
    trees = {name: cKDTree(places) for name, places in points.items()}
    rows: list[dict[str, object]] = []
    for name, places in points.items():
        for other, tree in trees.items():
            if name == other and len(places) == 1:
                continue
            # The nearest of its own class is itself.
            distance = tree.query(places, k=[2 if name == other else 1])[0]
            q1, median, q3 = np.percentile(distance, [25, 50, 75])
            figures = {"mean_um": distance.mean(), "q1_um": q1, "median_um": median, "q3_um": q3}
            rows.append({"class_name": name, "nearest": other, "nuclei": len(places), **figures})
    return rows


def draw_heatmaps(cohort: Path, slides: pd.DataFrame) -> Iterator[Path]:
    """Write ``<cohort>/heatmaps/<slide_id>.png``: the density of all nuclei and of each class.

    Args:
        cohort: ``results/<cohort>``.
        slides: From :func:`read_slides`.

    Yields:
        The pictures, as they are written.
    """
    for slide in slides.to_dict("records"):
        path = cohort / "heatmaps" / f"{slide['slide_id']}.png"
        with rc_context(STYLE), atomic_path(path) as temporary:
            draw_heatmap(cohort, slide).savefig(temporary, format="png")
        yield path


def draw_heatmap(cohort: Path, slide: Mapping[Hashable, Any], threads: int | None = None) -> Figure:
    """The density of all nuclei and of each class, each map with its scale; white where there is no nucleus.

    Args:
        cohort: ``results/<cohort>``.
        slide: Its row of :func:`read_slides`.
        threads: As in :func:`count_nuclei`.
    """
    name, mpp = slide["slide_id"], slide["mpp"]
    size_um = slide["width"] * mpp, slide["height"] * mpp
    return _figure(name, density_maps(SlideFiles(cohort, name).nuclei, *size_um, threads))


def density_maps(
    nuclei: Path, width_um: float, height_um: float, threads: int | None = None
) -> dict[str, np.ndarray]:
    """Nuclei per mm2 in every cell of ``CELL_UM`` of a slide: of all nuclei and of each class.

    The last cells of a row or column end with the slide, and are half a cell to one and a half long.

    Args:
        nuclei: The slide's table.
        width_um: Of the slide.
        height_um: Of the slide.
        threads: As in :func:`count_nuclei`.

    Returns:
        Class to float64, ``(rows, columns)``; all nuclei first, under ``ANY_CLASS``.
    """
    with _connect(threads) as connection:
        query = CELLS.format(class_name=_class_column(nuclei))
        cells = connection.execute(query, {"files": [str(nuclei)], "cell": CELL_UM}).df()
    area_mm2 = np.outer(_cell_lengths(height_um), _cell_lengths(width_um)) / 1e6
    shape = area_mm2.shape
    maps = {ANY_CLASS: np.zeros(shape)}
    for name, row, column, number in cells.itertuples(index=False, name=None):
        # Microns count from the first pixel's centre: a centroid may lie just beyond the first or last cell.
        place = min(max(row, 0), shape[0] - 1), min(max(column, 0), shape[1] - 1)
        for key in {ANY_CLASS, name}:
            maps.setdefault(key, np.zeros(shape))[place] += number / area_mm2[place]
    return maps


def _cell_lengths(side_um: float) -> np.ndarray:
    """Microns of every cell along a side; the last takes a rest that is too short to have a density."""
    cells = max(round(side_um / CELL_UM), 1)
    return np.append(np.full(cells - 1, CELL_UM), side_um - (cells - 1) * CELL_UM)


def _figure(title: str, maps: dict[str, np.ndarray]) -> Figure:
    rows, columns = maps[ANY_CLASS].shape
    extent = (0, columns * CELL_UM / 1000, rows * CELL_UM / 1000, 0)
    across = min(len(maps), PANELS_ACROSS)
    down = -(-len(maps) // across)
    # A map keeps its shape: beside it a panel has room for the colour bar, above and below it for words.
    height = 0.9 + (PANEL_INCHES - 1.5) * min(rows / columns, 2)
    size = (PANEL_INCHES * across, 0.3 + height * down)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (name, density) in zip(panels, maps.items(), strict=False):
        seen = np.where(maps[ANY_CLASS] > 0, density, np.nan)
        picture = axes.imshow(seen, extent=extent, cmap="viridis", vmin=0)
        axes.set(title="all nuclei" if name == ANY_CLASS else name, xlabel="mm", ylabel="mm")
        figure.colorbar(picture, ax=axes, label="nuclei per mm²")
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    figure.suptitle(title)
    return figure
