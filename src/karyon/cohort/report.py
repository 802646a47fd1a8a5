"""Pictures and tables of a cohort for the HTML report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from karyon.cohort.confusion import COLUMNS, count_confusion
from karyon.cohort.figures import (
    STYLE,
    count_distances,
    draw_boxes,
    draw_confusion,
    draw_distances,
    draw_intervals,
    draw_precision_recall,
)
from karyon.cohort.gallery import draw_error_field, worst_fields
from karyon.cohort.layout import SlideFiles
from karyon.cohort.overlay import draw_overlay
from karyon.cohort.pages import (
    class_columns,
    class_score_columns,
    page,
    score_columns,
    segmentation_columns,
    slide_columns,
)
from karyon.cohort.plan import SlideRow, read_plan
from karyon.cohort.questions import count_nuclei, draw_heatmap, has_classes
from karyon.cohort.shard import DONE

logger = logging.getLogger("karyon")
# Name of each figure, and what draws it; it may turn out to have nothing to show.
Drawings = dict[str, Callable[[], Figure | None]]


def write_report(
    slides: str,
    scores: str,
    segmentation: str,
    class_scores: str,
    curves: str,
    plans: Sequence[str],
    overlays: int,
    threads: int,
    folder: str,
    log: str,
) -> None:
    """Write pictures, figures, tables and the worst fields into a folder that `snakemake --report` embeds.

    A picture that cannot be drawn is logged and left out; so is, silently, one that has nothing to show.

    Args:
        slides: The cohort's slide table.
        scores: The cohort's score table.
        segmentation: The cohort's figures of areas.
        class_scores: The cohort's scores of each class.
        curves: The cohort's pooled curves.
        plans: The shards' TSVs.
        overlays: How many slides get an overlay and a heat map; the first by id of each status done.
        threads: That the nuclei are counted with.
        folder: Output folder.
        log: Log file.
    """
    logging.basicConfig(filename=log, level=logging.INFO, force=True)
    target = Path(folder)
    cohort = target.parent
    table, score, areas, by_class = map(pd.read_parquet, (slides, scores, segmentation, class_scores))
    done = table[table["status"] == DONE]
    _write_slides(table, score, target / "Tables")
    _write_scores(score, areas, by_class, target / "Tables")
    shown = done.sort_values("slide_id").head(overlays)
    _write_overlays(_rows(plans, shown["slide_id"]), cohort, target / "Overlays")
    heatmaps: Drawings = {
        slide["slide_id"]: partial(draw_heatmap, cohort, slide, threads) for slide in shown.to_dict("records")
    }
    _write_figures(heatmaps, target / "Heatmaps")
    pictures: Drawings = {"density": lambda: draw_boxes(done, "nuclei_per_mm2", "nuclei per mm² of tissue")}
    pictures |= _classes(cohort, done, threads, target / "Tables")
    if not score.empty:
        annotated = done[done["annotated"].notna()]
        files = [SlideFiles(cohort, slide_id) for slide_id in annotated["slide_id"]]
        pictures |= _evaluation(annotated, score, Path(curves), files)
        _write_errors(plans, files, target / "Errors")
    _write_figures(pictures, target / "Figures")


def _classes(cohort: Path, done: pd.DataFrame, threads: int, folder: Path) -> Drawings:
    """The figures of the classes, and their table, written; nothing of a model that tells none apart."""
    try:
        if done.empty or not has_classes(SlideFiles(cohort, done["slide_id"].iloc[0]).nuclei):
            return {}
        counts = count_nuclei(cohort, done, threads)
    except Exception:
        logger.exception("the classes are left out")
        return {}
    if counts.empty:  # no slide has a nucleus
        return {}
    note = "Nuclei of each class: of all slides together, and how their share differs between slides."
    content = page(class_columns(counts, done), "Classes", note, ["group", "class"])
    (folder / "classes.html").write_text(content, encoding="utf-8")
    return {
        "class_fractions": lambda: draw_boxes(counts, "fraction", "share of a slide's nuclei", "class_name"),
        "class_densities": lambda: draw_boxes(
            counts, "nuclei_per_mm2", "nuclei per mm² of tissue", "class_name"
        ),
    }


def _evaluation(
    annotated: pd.DataFrame, score: pd.DataFrame, curves: Path, files: Sequence[SlideFiles]
) -> Drawings:
    """Name of each figure of the evaluation, and what draws it."""
    radii = [float(radius) for radius in score["radius_um"].unique()]
    main = radii[0]

    def matches(*columns: str) -> Iterator[pd.DataFrame]:
        return (pd.read_parquet(slide.matches, columns=list(columns)) for slide in files)

    def confusion() -> Figure | None:
        counted = count_confusion(matches(*COLUMNS))
        return draw_confusion(counted) if counted else None

    return {
        "precision_recall": lambda: draw_precision_recall(pd.read_parquet(curves), score, main),
        "f1": lambda: draw_boxes(annotated, f"f1_{main:g}um", f"F1 of a slide within {main:g} µm"),
        "intervals": lambda: draw_intervals(score, main),
        "distances": lambda: draw_distances(*count_distances(matches("distance_um"), main), radii),
        "confusion": confusion,
    }


def _write_figures(pictures: Drawings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures.items():
        try:
            with mpl.rc_context(STYLE):
                figure = draw()
                if figure is not None:
                    figure.savefig(folder / f"{name}.png")
        except Exception:  # a picture that cannot be drawn is no reason to lose the report
            logger.exception("figure %s is left out", name)


def _write_overlays(rows: dict[str, SlideRow], cohort: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for slide_id, row in rows.items():
        _save(partial(draw_overlay, row, SlideFiles(cohort, slide_id)), folder / f"{slide_id}.png")


def _write_errors(plans: Sequence[str], files: Sequence[SlideFiles], folder: Path) -> None:
    """The gallery of the worst fields, numbered from the worst on."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        worst = worst_fields(files)
    except Exception:
        logger.exception("the gallery of errors is left out")
        return
    rows = _rows(plans, [slide.slide_id for slide, _, _ in worst])
    for number, (slide, field, _) in enumerate(worst, 1):
        draw = partial(draw_error_field, rows[slide.slide_id], slide, field)
        _save(draw, folder / f"{number:02d}_{slide.slide_id}.png")


def _save(draw: Callable[[], Image.Image], path: Path) -> None:
    try:
        draw().save(path)
    except Exception:
        logger.exception("picture %s is left out", path.name)


def _rows(plans: Sequence[str], slide_ids: Sequence[str] | pd.Series) -> dict[str, SlideRow]:
    """Rows of the plan of some slides."""
    wanted = set(slide_ids)
    every = (row for plan in plans for row in read_plan(Path(plan)))
    return {row.slide_id: row for row in every if row.slide_id in wanted}


def _write_slides(slides: pd.DataFrame, score: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    main = None if score.empty else float(score["radius_um"].iloc[0])
    note = "How each slide ended, and what was found."
    if main is not None:
        note += f" Scores are within {main:g} µm."
    words = ["slide", "organ", "split", "status", "error", "warning"]
    content = page(slide_columns(slides, main), "Slides", note, words)
    (folder / "slides.html").write_text(content, encoding="utf-8")


def _write_scores(score: pd.DataFrame, areas: pd.DataFrame, by_class: pd.DataFrame, folder: Path) -> None:
    """A page of the scores of centres, of areas and of classes, where there are any."""
    main = "" if score.empty else f"{score['radius_um'].iloc[0]:g} µm"
    average = (
        "of all slides of a group together (micro average) and as the mean of the slides (mean slide), with "
        "95 % intervals by bootstrap over patients; none for a single patient."
    )
    pages = {
        "Scores": (
            score,
            score_columns,
            f"Centres against annotations, {average} Average precision and best threshold are of the pooled "
            f"curve within {main}.",
            ["grouping", "group", "model"],
        ),
        "Outlines": (
            areas,
            segmentation_columns,
            f"Outlines against annotated areas, {average}",
            ["grouping", "group", "figure"],
        ),
        "Class scores": (
            by_class,
            class_score_columns,
            f"Nuclei of each class within {main}, {average} Strict: each class matched on its own. Detection "
            "first: matched without classes, then compared. Class accuracy: share of the matched nuclei with "
            "an annotated class that were given that class.",
            ["grouping", "group", "rule", "class"],
        ),
    }
    for title, (table, columns, note, words) in pages.items():
        if not table.empty:
            path = folder / f"{title.lower().replace(' ', '_')}.html"
            path.write_text(page(columns(table), title, note, words), encoding="utf-8")
