"""The fields of a cohort with the most errors, each drawn with its matches, false detections and misses."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from PIL import Image

from karyon.cohort.field import Field, draw_field, field_grid, read_points
from karyon.cohort.layout import SlideFiles
from karyon.cohort.plan import SlideRow
from karyon.cohort.stages.tissue import TissueFiles, open_planned
from karyon.evaluation.detection import DetectionScore
from karyon.io.slides import PatchedSlide, SlideFacts

FIELDS = 10
FIELDS_PER_SLIDE = 3  # a slide that failed as a whole would fill the gallery alone
FIELD_PX = 800  # 0.25 um per pixel, the resolution of a 40x scan


def worst_fields(slides: Iterable[SlideFiles]) -> list[tuple[SlideFiles, Field, int]]:
    """The ``FIELDS`` of most errors (false detections and misses), ``FIELDS_PER_SLIDE`` at most of one slide.

    Slides are read one after the other; only the best candidates of each are kept. Fields of one slide do not
    overlap. Ties go to the slide that sorts first, then to the field further up, then left.

    Args:
        slides: Files of the annotated slides.

    Returns:
        The slide, the field, and its errors, at least 1 each; worst first.
    """
    candidates = (
        (files, field, errors)
        for files in slides
        for field, errors in _worst_of_slide(
            TissueFiles.read(files).facts, pd.read_parquet(files.matches, columns=["x", "y", "kind"])
        )
    )
    return heapq.nsmallest(
        FIELDS, candidates, key=lambda found: (-found[2], found[0].slide_id, found[1].top, found[1].left)
    )


def draw_error_field(row: SlideRow, files: SlideFiles, field: Field) -> Image.Image:
    """A field with its marks; the caption gives slide, organ, counts, precision and recall of the field.

    Args:
        row: The slide's row of the plan.
        files: Where its files lie.
        field: From :func:`worst_fields`.
    """
    points, marks = read_points(files)
    title = error_caption(row.slide_id, row.organ, points["kind"][field.holds(points)])
    with PatchedSlide(open_planned(row), limit=1.0) as slide:
        return draw_field(slide, field, points, title, marks, files.nuclei)


def error_caption(slide_id: str, organ: str, kind: pd.Series) -> str:
    """Where a field lies, and precision and recall within it.

    Args:
        slide_id: The slide.
        organ: Of the sheet; '' where not stated.
        kind: ``TP``, ``FP`` or ``FN`` of each point of the field.
    """
    score = DetectionScore(*(int((kind == name).sum()) for name in ("TP", "FP", "FN")))
    figures = [
        f"{name} {'undefined' if np.isnan(value) else f'{value:.2f}'}"
        for name, value in (("precision", score.precision), ("recall", score.recall))
    ]
    return ", ".join([slide_id, *filter(None, [organ]), *figures])


def _worst_of_slide(facts: SlideFacts, points: pd.DataFrame) -> Iterator[tuple[Field, int]]:
    """Up to ``FIELDS_PER_SLIDE`` fields that do not overlap, each the worst of those that are left."""
    grid = field_grid(facts, FIELD_PX)
    wrong = grid.from_level0(points.loc[points["kind"] != "TP", ["x", "y"]].to_numpy(np.float64))
    lefts, tops = field_starts(grid.width, FIELD_PX), field_starts(grid.height, FIELD_PX)
    errors = count_in_squares(wrong, lefts, tops, FIELD_PX)
    for _ in range(FIELDS_PER_SLIDE):
        row, column = np.unravel_index(np.argmax(errors), errors.shape)
        if errors[row, column] == 0:
            return
        yield Field(grid, int(lefts[column]), int(tops[row]), FIELD_PX), int(errors[row, column])
        beside = abs(lefts - lefts[column]) < FIELD_PX
        errors[np.ix_(abs(tops - tops[row]) < FIELD_PX, beside)] = 0


def field_starts(length: int, side: int) -> np.ndarray:
    """First pixels of fields along one axis: every half side, and the last one flush with the far edge.

    A field is cut by the edge only where the axis is shorter than the field.

    Args:
        length: Pixels of the axis.
        side: Pixels of a field.
    """
    last = max(length - side, 0)
    return np.append(np.arange(0, last, side // 2), last)


def count_in_squares(points: np.ndarray, lefts: np.ndarray, tops: np.ndarray, side: int) -> np.ndarray:
    """How many points lie on the pixels of each square.

    A histogram between all edges of the squares, summed up along both axes, gives each square by four of its
    entries: time and memory do not grow with how much squares overlap.

    Args:
        points: Float64, ``(n, 2)``, x first, in pixels with their centres at integers.
        lefts: First columns of the squares, increasing, ``(w,)``.
        tops: First rows, increasing, ``(h,)``.
        side: Pixels of a square.

    Returns:
        Int64, ``(h, w)``.
    """
    # The last bin of a histogram is closed on both sides: infinity keeps that from the last edge.
    across, down = (np.append(np.union1d(starts, starts + side) - 0.5, np.inf) for starts in (lefts, tops))
    histogram = np.histogram2d(points[:, 1], points[:, 0], bins=(down, across))[0]
    before = np.pad(histogram.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0))).astype(np.int64)
    left, right = (np.searchsorted(across, lefts + shift - 0.5) for shift in (0, side))
    top, bottom = (np.searchsorted(down, tops + shift - 0.5) for shift in (0, side))
    rows = before[bottom] - before[top]
    return rows[:, right] - rows[:, left]
