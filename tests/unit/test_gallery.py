"""The gallery of errors: which fields are chosen from hand-made points, and what is drawn where."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from karyon.cohort.field import (
    BLUE,
    CAPTION_PX,
    GREEN,
    MARKS,
    YELLOW,
    Field,
    class_marks,
    draw_field,
    draw_marks,
    field_grid,
)
from karyon.cohort.gallery import (
    FIELD_PX,
    count_in_squares,
    draw_error_field,
    error_caption,
    field_starts,
    worst_fields,
)
from karyon.cohort.layout import SlideFiles
from karyon.cohort.plan import SlideRow
from karyon.io.slides import SlideFacts, open_slide
from karyon.nuclei.export import COLOURS
from karyon.tiles.grid import Grid


def points(*rows: tuple[str, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["kind", "x", "y"])
    return table.assign(nucleus_id=range(1, len(table) + 1))


def cluster(kind: str, x: float, y: float, count: int) -> list[tuple[str, float, float]]:
    return [(kind, x + 3 * number, y) for number in range(count)]


def slide_files(cohort: Path, slide_id: str, size: tuple[int, int], table: pd.DataFrame) -> SlideFiles:
    """What the stages leave of a slide of 0.25 um per pixel."""
    files = SlideFiles(cohort, slide_id)
    facts = SlideFacts(*size, 0.25, "sheet", (size,), 0, 0, "image")
    for path in (files.facts, files.matches, files.nuclei):
        path.parent.mkdir(parents=True, exist_ok=True)
    mask_grid = Grid.of_slide(facts, 8.0)
    files.facts.write_text(json.dumps({"slide": asdict(facts), "mask_grid": asdict(mask_grid)}))
    Image.new("L", (mask_grid.width, mask_grid.height), 255).save(files.tissue_mask)
    table.to_parquet(files.matches, index=False)
    table[["x", "y"]].to_parquet(files.nuclei, index=False)
    return files


def plan_row(slide_id: str, path: Path) -> SlideRow:
    names = SlideRow.__dataclass_fields__
    known = {"slide_id": slide_id, "path": str(path), "organ": "lung", "mpp": 0.25}
    kinds = {"int": 0, "float": 0.0, "str": ""}
    return SlideRow(**{name: known.get(name, kinds[str(field.type)]) for name, field in names.items()})


@pytest.mark.parametrize(
    ("length", "starts"),
    [(500, [0]), (800, [0]), (1000, [0, 200]), (1600, [0, 400, 800]), (2100, [0, 400, 800, 1200, 1300])],
)
def test_fields_start_every_half_side_and_end_flush_with_the_edge(length: int, starts: list[int]) -> None:
    assert field_starts(length, 800).tolist() == starts


@given(
    st.lists(st.tuples(st.integers(-8, 200), st.integers(-8, 120)), max_size=60),
    st.integers(20, 190),
    st.integers(10, 110),
)
def test_counts_of_squares_equal_brute_force(where: list[tuple[int, int]], width: int, height: int) -> None:
    side = 16
    lefts, tops = field_starts(width, side), field_starts(height, side)
    spots = np.array(where, np.float64).reshape(-1, 2) / 2  # whole and half pixels, also on the borders
    counts = count_in_squares(spots, lefts, tops, side)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            inside = [
                left - 0.5 <= x < left + side - 0.5 and top - 0.5 <= y < top + side - 0.5 for x, y in spots
            ]
            assert counts[row, column] == sum(inside)


def test_fields_of_most_errors_come_first_whatever_matches_there(tmp_path: Path) -> None:
    calm = points(*cluster("TP", 100, 100, 50), *cluster("FP", 100, 200, 2))
    bad = points(*cluster("FP", 300, 100, 3), *cluster("FN", 300, 500, 4))
    files = [slide_files(tmp_path, name, (800, 800), table) for name, table in (("a", calm), ("b", bad))]
    assert [(slide.slide_id, errors) for slide, _, errors in worst_fields(files)] == [("b", 7), ("a", 2)]


def test_fields_of_one_slide_do_not_overlap_and_are_three_at_most(tmp_path: Path) -> None:
    # Four clusters 1,600 px apart, and a slide that is better than all of them.
    spots = ((200, 9), (1800, 8), (3400, 7), (5000, 6))
    table = points(*(row for x, count in spots for row in cluster("FN", x, 100, count)))
    worse = slide_files(tmp_path, "worse", (6400, 800), table)
    better = slide_files(tmp_path, "better", (800, 800), points(*cluster("FP", 100, 100, 1)))
    found = worst_fields([worse, better])
    assert [(slide.slide_id, errors) for slide, _, errors in found] == [
        ("worse", 9),
        ("worse", 8),
        ("worse", 7),
        ("better", 1),
    ]
    lefts = sorted(field.left for _, field, _ in found[:3])
    assert min(np.diff(lefts)) >= FIELD_PX
    for (_, field, _), x in zip(found, (200, 1800, 3400), strict=False):
        assert field.left <= x < field.left + FIELD_PX - 30


def test_a_field_may_lie_across_the_tiles_of_a_plain_grid(tmp_path: Path) -> None:
    # Two errors on either side of x = 800: fields that started at 0 and 800 alone would split them.
    table = points(("FN", 700, 400), ("FP", 780, 400), ("FN", 820, 400), ("FP", 900, 400))
    files = slide_files(tmp_path, "a", (1600, 800), table)
    assert [(field.left, errors) for _, field, errors in worst_fields([files])] == [(400, 4)]


def test_gallery_has_ten_fields_and_ties_go_by_slide(tmp_path: Path) -> None:
    names = [f"s{number:02d}" for number in range(14)]
    files = [slide_files(tmp_path, name, (800, 800), points(("FP", 9, 9))) for name in reversed(names)]
    assert [slide.slide_id for slide, _, _ in worst_fields(files)] == names[:10]


def test_slides_without_errors_have_no_field(tmp_path: Path) -> None:
    perfect = slide_files(tmp_path, "a", (800, 800), points(("TP", 9, 9)))
    empty = slide_files(tmp_path, "b", (800, 800), points())
    assert worst_fields([perfect, empty]) == []


def near(picture: Image.Image, x: int, y: int, colour: tuple[int, int, int]) -> bool:
    """Whether the pixel or one beside it has exactly the colour."""
    pixels = np.asarray(picture)[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3)
    return bool((pixels == colour).all(axis=1).any())


def test_kinds_differ_in_colour_and_shape() -> None:
    picture = Image.new("RGB", (400, 100), "white")
    draw_marks(picture, np.array([[50, 50], [150, 50], [250, 50]]), np.array(["TP", "FP", "FN"]), 20)
    # A circle of radius 20, a diamond and a triangle that reach 26 from their centre.
    for x, y in ((70, 50), (30, 50), (50, 30), (50, 70), (64, 64)):
        assert near(picture, x, y, GREEN)
    for x, y in ((175, 50), (125, 50), (150, 25), (150, 75), (163, 63)):
        assert near(picture, x, y, YELLOW)
    for x, y in ((250, 25), (250, 63), (235, 63), (265, 63)):
        assert near(picture, x, y, BLUE)
    assert not near(picture, 250, 75, BLUE)
    assert not near(picture, 275, 50, BLUE)
    for x in (50, 150, 250):  # the nucleus itself stays to be seen
        assert np.asarray(picture)[50, x].tolist() == [255, 255, 255]


def test_marks_at_the_border_and_beyond_are_cut() -> None:
    picture = Image.new("RGB", (40, 40), "white")
    draw_marks(picture, np.array([[0, 20], [900, 20], [-60, -60]]), np.array(["TP", "FP", "FN"]), 10)
    assert near(picture, 10, 20, GREEN)
    seen = {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}
    assert not {YELLOW, BLUE} & seen


@pytest.fixture
def white_slide(tmp_path: Path) -> Path:
    path = tmp_path / "white.png"
    Image.new("RGB", (1600, 1000), "white").save(path)
    return path


def test_error_field_marks_each_point_where_the_match_table_has_it(white_slide: Path, tmp_path: Path) -> None:
    table = points(("TP", 500, 300), ("FP", 700, 300), ("FN", 900, 300), ("FN", 1500, 300))
    table = table.assign(truth_x=[540.0, np.nan, 900.0, 1500.0], truth_y=300.0)
    files = slide_files(tmp_path, "w", (1600, 1000), table)
    grid = field_grid(open_slide(str(white_slide), 0.25).facts, FIELD_PX)
    picture = draw_error_field(plan_row("w", white_slide), files, Field(grid, 400, 0, FIELD_PX))
    assert picture.size == (FIELD_PX, FIELD_PX + CAPTION_PX)
    # 3 um are 12 px: a circle about 500 - 400, a diamond about 700 - 400, a triangle about 900 - 400.
    assert near(picture, 112, 300, GREEN)
    assert near(picture, 100, 288, GREEN)
    assert near(picture, 315, 300, YELLOW)
    assert near(picture, 500, 308, BLUE)
    field = np.asarray(picture)[:FIELD_PX]
    assert not (field[:, 130:150] == GREEN).all(axis=2).any()  # about the annotation of the match, nothing
    legend = np.asarray(picture)[FIELD_PX:]
    for kind in ("TP", "FP", "FN"):
        assert (legend == MARKS[kind].colour).all(axis=2).any()


def test_outlines_have_the_colour_of_their_match(white_slide: Path, tmp_path: Path) -> None:
    table = points(("TP", 500, 300), ("FP", 700, 300), ("FN", 900, 300), ("TP", 380, 300), ("TP", 1400, 300))
    table["nucleus_id"] = [1, 2, None, 3, 4]
    files = slide_files(tmp_path, "w", (1600, 1000), table)
    found = table.dropna().astype({"nucleus_id": int})
    # Squares of 80 px about the centres, one with a hole; the third reaches into the field from its left.
    squares = shapely.box(found["x"] - 40, 260, found["x"] + 40, 340)
    squares[0] = squares[0].difference(shapely.box(490, 290, 510, 310))
    found.assign(geometry=shapely.to_wkb(squares)).to_parquet(files.nuclei)
    grid = field_grid(open_slide(str(white_slide), 0.25).facts, FIELD_PX)
    picture = draw_error_field(plan_row("w", white_slide), files, Field(grid, 400, 0, FIELD_PX))
    for x, y in ((60, 300), (140, 300), (100, 260), (100, 340), (90, 300), (110, 300), (20, 280)):
        assert near(picture, x, y, GREEN)
    for x, y in ((260, 300), (340, 300), (315, 300)):  # outline and diamond
        assert near(picture, x, y, YELLOW)
    assert near(picture, 500, 308, BLUE)
    assert not near(picture, 112, 300, GREEN)  # no circle within an outline
    assert not near(picture, 300, 260, GREEN)


def test_outlines_have_the_colours_of_their_classes(white_slide: Path, tmp_path: Path) -> None:
    table = points(("tumour", 500, 300), ("stroma", 700, 300), ("stroma", 830, 300))
    squares = shapely.box(table["x"] - 40, 260, table["x"] + 40, 340)
    table.assign(geometry=shapely.to_wkb(squares)).to_parquet(tmp_path / "nuclei.parquet")
    slide = open_slide(str(white_slide), 0.25)
    field = Field(field_grid(slide.facts, FIELD_PX), 400, 0, FIELD_PX)
    marks = class_marks({"tumour": 1, "stroma": 2, "blood": 3})
    picture = draw_field(slide, field, table, "", marks, tmp_path / "nuclei.parquet")
    for x, colour in ((100, COLOURS[1]), (300, COLOURS[2]), (430, COLOURS[2])):
        for side in ((x - 40, 300), (x + 40, 280), (x, 260), (x + 20, 340)):
            assert near(picture, *side, colour)
        assert np.asarray(picture)[300, x].tolist() == [255, 255, 255]  # the nucleus itself stays to be seen
    legend = np.asarray(picture)[FIELD_PX:]
    shown = [bool((legend == mark.colour).all(axis=2).any()) for mark in marks.values()]
    assert shown == [True, True, False]


def test_field_of_a_coarser_slide_shows_200_um(tmp_path: Path) -> None:
    path = tmp_path / "coarse.png"
    Image.new("RGB", (1000, 1000), "white").save(path)
    slide = open_slide(str(path), 0.5)
    grid = field_grid(slide.facts, FIELD_PX)
    # Level-0 pixel 100 is 50 um from the edge: pixel 200 of 800, and its circle has 12 px as ever.
    picture = draw_field(slide, Field(grid, 0, 0, FIELD_PX), points(("TP", 100, 100)), "")
    assert near(picture, 201 + 12, 201, GREEN)
    assert Field(grid, 0, 0, FIELD_PX).holds(points(("TP", 399, 0), ("TP", 401, 0))).tolist() == [True, False]


@pytest.mark.parametrize(
    ("counts", "caption"),
    [
        ((6, 2, 4), "s1, lung, precision 0.75, recall 0.60"),
        ((0, 3, 0), "s1, lung, precision 0.00, recall undefined"),
        ((0, 0, 3), "s1, lung, precision undefined, recall 0.00"),
    ],
)
def test_caption_gives_precision_and_recall_of_the_field(counts: tuple[int, int, int], caption: str) -> None:
    assert error_caption("s1", "lung", pd.Series(np.repeat(["TP", "FP", "FN"], counts))) == caption
    assert error_caption("s1", "", pd.Series(np.repeat(["TP"], 2))) == "s1, precision 1.00, recall 1.00"
