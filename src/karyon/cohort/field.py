"""A square of a slide at full resolution, with a mark for each nucleus that was found or missed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from PIL import Image, ImageDraw, ImageFont

from karyon.cohort.layout import SlideFiles
from karyon.evaluation.export import KINDS
from karyon.io.slides import Slide, SlideFacts
from karyon.nuclei.export import COLOURS
from karyon.nuclei.query import read_nuclei
from karyon.tiles.grid import Grid, read_window

FIELD_UM = 200.0
MARK_UM = 3.0  # radius: inside most nuclei, so that their outline stays to be seen
REACH_UM = 25.0  # from a nucleus' centroid to its farthest corner, of all but giants
SCALE_BAR_UM = 50.0
CAPTION_PX = 44
TEXT_PX = 14
LEGEND_MARK_PX = 6
LINE_PX, EDGE_PX = 2, 1
OVERSAMPLING, OUTLINE_OVERSAMPLING = 8, 4  # Pillow draws lines without antialiasing

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Mark:
    """How a kind of nucleus is drawn: by colour and by shape, for one in twelve men sees few colours.

    Attributes:
        colour: RGB; also the kind's colour in figures.
        corners: Of the outline, a regular polygon with a corner on top; 0 for a circle.
        reach: From the centre to a corner, in radii of the circle, so that shapes look equally large.
        edge: RGB of a thin edge on both sides of the line, which lifts it off the tissue; None for none.
        legend: What the kind is called below the picture.
    """

    colour: Colour
    corners: int
    reach: float
    edge: Colour | None
    legend: str


# Far apart for all kinds of colour vision, and from the tissue's pink and purple.
GREEN, YELLOW, BLUE = (KINDS[kind][1] for kind in ("TP", "FP", "FN"))
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
MARKS = {
    "nucleus": Mark(GREEN, 0, 1.0, None, "nuclei"),
    "TP": Mark(GREEN, 0, 1.0, None, "matched (TP)"),
    "FP": Mark(YELLOW, 4, 1.3, BLACK, "without annotation (FP)"),
    "FN": Mark(BLUE, 3, 1.3, WHITE, "missed (FN)"),
}
ERRORS = ("FP", "FN")
# Corners and reach of the marks of classes, by their numbers.
CLASS_SHAPES = ((0, 1.0), (3, 1.3), (4, 1.3), (0, 1.0), (5, 1.15), (6, 1.1))


@dataclass(frozen=True)
class Field:
    """A square of a slide, in pixels of a grid.

    Attributes:
        grid: The grid, of about ``FIELD_UM / side`` microns per pixel.
        left: Its first column.
        top: Its first row.
        side: Its width and height.
    """

    grid: Grid
    left: int
    top: int
    side: int

    def place(self, points: pd.DataFrame) -> np.ndarray:
        """Pixel of each point, float64, ``(n, 2)``, x first.

        Args:
            points: Columns ``x`` and ``y``, level-0 pixels.
        """
        return self.grid.from_level0(points[["x", "y"]].to_numpy(np.float64)) - (self.left, self.top)

    def box(self, margin: float) -> shapely.Polygon:
        """Its place on the slide and ``margin`` more on every side, both in level-0 pixels."""
        corners = np.array([(self.left, self.top), (self.left + self.side, self.top + self.side)]) - 0.5
        (x0, y0), (x1, y1) = self.grid.to_level0(corners)
        return shapely.box(x0 - margin, y0 - margin, x1 + margin, y1 + margin)

    def holds(self, points: pd.DataFrame) -> np.ndarray:
        """Whether each point lies on one of the field's pixels, bool, ``(n,)``."""
        pixel = self.place(points)
        return np.asarray(((pixel >= -0.5) & (pixel < self.side - 0.5)).all(axis=1))


def field_grid(facts: SlideFacts, side: int) -> Grid:
    """The grid on which ``FIELD_UM`` measures about ``side`` pixels; a level's own pixels are kept."""
    return Grid.of_slide(facts, FIELD_UM / side)


def class_marks(classes: Mapping[str, int]) -> dict[str, Mark]:
    """Marks of classes of nuclei, in their colours as QuPath shows them and each of its own shape.

    Args:
        classes: Their ``class_id`` by name.
    """
    return {
        name: Mark(COLOURS[number % len(COLOURS)], *CLASS_SHAPES[number % len(CLASS_SHAPES)], BLACK, name)
        for name, number in classes.items()
    }


def read_points(files: SlideFiles) -> tuple[pd.DataFrame, Mapping[str, Mark]]:
    """What :func:`draw_field` shows of a slide: its matches where they are, else its nuclei by class.

    Args:
        files: Where its files lie.

    Returns:
        ``nucleus_id``, ``x``, ``y`` and ``kind``; and how each kind is drawn.
    """
    if files.matches.is_file():
        return pd.read_parquet(files.matches, columns=["nucleus_id", "x", "y", "kind"]), MARKS
    columns = ["nucleus_id", "x", "y"]
    if "class_name" not in pq.read_schema(files.nuclei).names:
        return pd.read_parquet(files.nuclei, columns=columns).assign(kind="nucleus"), MARKS
    points = pd.read_parquet(files.nuclei, columns=[*columns, "class_id", "class_name"])
    points = points.astype({"class_name": str}).rename(columns={"class_name": "kind"})
    classes = points[["kind", "class_id"]].drop_duplicates().sort_values("class_id")
    return points, class_marks(dict(classes.itertuples(index=False, name=None)))


def draw_field(
    slide: Slide,
    field: Field,
    points: pd.DataFrame,
    title: str,
    marks: Mapping[str, Mark] = MARKS,
    nuclei: Path | None = None,
) -> Image.Image:
    """The field's pixels with marks and a scale bar, and below them the title and the legend with counts.

    What was found and has an outline shows it, in the colour of its kind; only errors keep their mark then.

    Args:
        slide: The open slide.
        field: What to draw.
        points: As of :func:`read_points`. Those outside are left out of the counts, and drawn as far as they
            reach into the field.
        title: First line of the caption.
        marks: How each kind is drawn.
        nuclei: The slide's table of nuclei, of which the outlines are taken if it has any.

    Returns:
        RGB, ``side`` wide and ``side + CAPTION_PX`` high.
    """
    side = field.side
    pixels = read_window(slide, field.grid, field.left, field.top, side, side)
    pixel_um = slide.facts.mpp * field.grid.scale
    picture, marked = Image.fromarray(pixels), points
    if nuclei and "geometry" in pq.read_schema(nuclei).names:
        outlined = _outlines(nuclei, field, REACH_UM / slide.facts.mpp).merge(points, on="nucleus_id")
        for kind, some in outlined.groupby("kind"):
            draw_outlines(picture, some["geometry"].to_numpy(), field, marks[str(kind)])
        marked = points[points["kind"].isin(ERRORS)]
    draw_marks(picture, field.place(marked), marked["kind"].to_numpy(), MARK_UM / pixel_um, marks)
    _scale_bar(picture, pixel_um)
    captioned = with_caption(picture, side, title)
    _legend(captioned, side + 24, points["kind"][field.holds(points)], marks)
    return captioned


def _outlines(nuclei: Path, field: Field, reach: float) -> pd.DataFrame:
    """``nucleus_id`` and ``geometry``, in level-0 pixels, of nuclei with a centroid in or about the field."""
    columns = ["nucleus_id", "geometry"]
    schema = pa.schema([pq.read_schema(nuclei).field(name) for name in columns])
    batches = read_nuclei(nuclei, columns, field.box(reach))
    found = pa.Table.from_batches(batches, schema).to_pandas()
    return found.assign(geometry=shapely.from_wkb(found["geometry"]))


def draw_outlines(picture: Image.Image, polygons: np.ndarray, field: Field, mark: Mark) -> None:
    """Draw the rings of polygons.

    Args:
        picture: The field's, RGB; drawn on.
        polygons: In level-0 pixels.
        field: Where the picture lies.
        mark: Of their kind, whose colour and edge they get.
    """
    side = field.side * OUTLINE_OVERSAMPLING
    places = [
        field.grid.from_level0(shapely.get_coordinates(ring)) - (field.left, field.top) + 0.5
        for ring in shapely.get_rings(polygons)
    ]
    edge = [(mark.edge, LINE_PX + EDGE_PX)] if mark.edge is not None else []
    for colour, width in [*edge, (mark.colour, LINE_PX)]:
        canvas = Image.new("L", (side, side))
        draw = ImageDraw.Draw(canvas)
        for place in places:
            path = (place * OUTLINE_OVERSAMPLING).ravel().tolist()
            draw.line(path, 255, width * OUTLINE_OVERSAMPLING, joint="curve")
        small = canvas.resize(picture.size, Image.Resampling.BOX)
        picture.paste(colour, (0, 0, *picture.size), small)


def draw_marks(
    picture: Image.Image,
    pixel: np.ndarray,
    kind: np.ndarray,
    radius: float,
    marks: Mapping[str, Mark] = MARKS,
) -> None:
    """Draw each kind's outline about its pixels, errors last so that they lie above.

    Args:
        picture: RGB; drawn on.
        pixel: Centres, float64, ``(n, 2)``, x first; rounded to whole pixels.
        kind: Key of ``marks`` of each, ``(n,)``.
        radius: In pixels.
        marks: How each kind is drawn.
    """
    for name, mark in marks.items():
        stamp = _stamp(mark, radius)
        corner = np.rint(pixel[kind == name]).astype(np.int64) - stamp.width // 2
        for x, y in corner[((corner > -stamp.width) & (corner < picture.size)).all(axis=1)]:
            picture.paste(stamp, (int(x), int(y)), stamp)


def _stamp(mark: Mark, radius: float) -> Image.Image:
    """The mark on nothing: RGBA, square, its centre in the middle of the middle pixel."""
    half = math.ceil(radius * mark.reach + LINE_PX / 2 + EDGE_PX + 1)
    side = (2 * half + 1) * OVERSAMPLING
    stamp = Image.new("RGBA", (side, side), (*mark.colour, 0))
    draw = ImageDraw.Draw(stamp)
    steps = mark.corners or 90
    turn = np.linspace(0, 2 * np.pi, steps + 1)
    reach = radius * mark.reach * OVERSAMPLING
    outline = np.stack([side / 2 + reach * np.sin(turn), side / 2 - reach * np.cos(turn)], axis=1)
    path = [(float(x), float(y)) for x, y in [*outline, outline[1]]]
    if mark.edge is not None:
        draw.line(path, (*mark.edge, 255), (LINE_PX + 2 * EDGE_PX) * OVERSAMPLING, joint="curve")
    draw.line(path, (*mark.colour, 255), LINE_PX * OVERSAMPLING, joint="curve")
    return stamp.resize((2 * half + 1, 2 * half + 1), Image.Resampling.BOX)


def with_caption(picture: Image.Image, height: int, text: str) -> Image.Image:
    """The picture on white, ``height`` high and at least as wide as the text in the ``CAPTION_PX`` below."""
    width = max(picture.width, 12 + round(_font().getlength(text)))
    canvas = Image.new("RGB", (width, height + CAPTION_PX), "white")
    canvas.paste(picture, (0, 0))
    _write(ImageDraw.Draw(canvas), 6, height + 3, text)
    return canvas


def _legend(picture: Image.Image, top: float, kind: pd.Series, marks: Mapping[str, Mark]) -> None:
    """A mark and a count for each kind that occurs, in a line from ``top`` on."""
    draw = ImageDraw.Draw(picture)
    left = 6.0
    for name, mark in marks.items():
        count = int((kind == name).sum())
        if not count:
            continue
        draw_marks(picture, np.array([[left + 8, top + 9]]), np.array([name]), LEGEND_MARK_PX, marks)
        text = f"{count:,} {mark.legend}"
        _write(draw, left + 21, top, text)
        left += 21 + _font().getlength(text) + 18


def _scale_bar(picture: Image.Image, pixel_um: float) -> None:
    draw = ImageDraw.Draw(picture)
    length, (right, bottom) = SCALE_BAR_UM / pixel_um, (picture.width - 12, picture.height - 11)
    draw.rectangle((right - length - 8, bottom - 27, right + 8, bottom + 6), fill="white")
    draw.rectangle((right - length, bottom - 5, right, bottom), fill="black")
    _write(draw, right - length / 2, bottom - 25, f"{SCALE_BAR_UM:g} µm", anchor="ma")


def _write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, anchor: str = "la") -> None:
    draw.text((x, y), text, fill="black", font=_font(), anchor=anchor)


def _font() -> ImageFont.FreeTypeFont:
    """The figures' font: Pillow's own has no Greek letter for microns."""
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), TEXT_PX)
