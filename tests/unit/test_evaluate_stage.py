"""Stage `evaluate` on files that the tests write, against counts and distances worked by hand."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from karyon.cohort.layout import SlideFiles
from karyon.cohort.plan import SlideRow, write_plan
from karyon.cohort.shard import (
    DONE,
    FAILED,
    NO_TISSUE,
    NOT_ANNOTATED,
    SKIPPED,
    SlideTask,
    StageResult,
    run_shard,
)
from karyon.cohort.stages.evaluate import evaluate_slide
from karyon.io.slides import SlideFacts
from karyon.tiles.grid import Grid

# 100 x 50 um; 4 um are 16 px, 2.5 um are 10 px, 0.25 um is 1 px.
WIDTH, HEIGHT, MPP = 400, 200, 0.25
RADII = [4.0, 2.5, 0.25]
COLUMNS = ("slide_id", "kind", "x", "y", "truth_x", "truth_y", "distance_um", "nucleus_id", "annotation_id")
NAN = math.nan

# Annotations: x, y, class.
TRUTH = [(50, 50, "tumour"), (100, 50, ""), (150, 50, "stroma"), (300, 150, "tumour")]
# Nuclei: id, x, y, probability, class. 7 and 12 both reach the first annotation (5 and 2 px), 8 the second
# (12 px), 9 lies on the third, and 10 is alone.
FOUND = [
    (7, 53, 54, 0.875, "tumour"),
    (8, 100, 62, 0.5, None),
    (9, 150, 50, 0.75, "tumour"),
    (10, 250, 150, 0.625, "stroma"),
    (12, 52, 50, 0.375, "tumour"),
]
MATCHES = [
    ("TP", 100, 62, 100, 50, 3.0, 8, 1),
    ("TP", 150, 50, 150, 50, 0.0, 9, 2),
    ("TP", 52, 50, 50, 50, 0.5, 12, 0),
    ("FP", 53, 54, None, None, None, 7, None),
    ("FP", 250, 150, None, None, None, 10, None),
    ("FN", 300, 150, 300, 150, None, None, 3),
]


# ---- What a user and the stages before would have left


def write_csv(path: Path, rows: list[tuple[Any, ...]], header: str = "x,y,class") -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])
    return path


def feature(kind: str, coordinates: Any, name: str = "") -> dict[str, Any]:
    classification = {"classification": {"name": name}} if name else {}
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": classification,
    }


def write_geojson(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def ring(left: float, top: float, right: float, bottom: float) -> list[list[list[float]]]:
    return [[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]]


def imagescope(*regions: str) -> str:
    return f'<Annotations><Annotation Id="1"><Regions>{"".join(regions)}</Regions></Annotation></Annotations>'


def imagescope_region(left: float, top: float, right: float, bottom: float, negative: int = 0) -> str:
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    return f'<Region Id="1" NegativeROA="{negative}"><Vertices>{vertices}</Vertices></Region>'


def write_image(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def painted(width: int, height: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """An 8-bit image in which box k, left, top, right and bottom (exclusive), has the value k from 1."""
    pixels = np.zeros((height, width), np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        pixels[top:bottom, left:right] = number
    return pixels


def write_nuclei(path: Path, found: list[tuple[Any, ...]], classes: pa.DataType | None = None) -> None:
    """A table of nuclei as the stage before leaves it, with a column of classes if a type is given."""
    ids, x, y, probability, names = zip(*found, strict=True) if found else ((),) * 5
    columns = {
        "slide_id": pa.array(["slide"] * len(found)).dictionary_encode(),
        "nucleus_id": pa.array(ids, pa.int64()),
        "x": pa.array(x, pa.float64()),
        "y": pa.array(y, pa.float64()),
        "x_um": pa.array(np.multiply(x, MPP), pa.float64()),
        "y_um": pa.array(np.multiply(y, MPP), pa.float64()),
        "probability": pa.array(probability, pa.float32()),
    }
    if classes is not None:
        columns["class_name"] = pa.array(names, pa.string()).cast(classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_facts(files: SlideFiles, bounds: tuple[int, int] = (0, 0)) -> None:
    """Slide facts and tissue mask as the stage `tissue` leaves them."""
    facts = SlideFacts(WIDTH, HEIGHT, MPP, "metadata", ((WIDTH, HEIGHT),), *bounds, "mirax")
    grid = Grid.of_slide(facts, 8.0)
    files.facts.parent.mkdir(parents=True, exist_ok=True)
    files.facts.write_text(json.dumps({"slide": asdict(facts), "mask_grid": asdict(grid)}))
    write_image(files.tissue_mask, np.zeros((grid.height, grid.width), np.uint8))


@dataclass
class Evaluated:
    """What the stage gave of one slide."""

    result: StageResult
    files: SlideFiles

    @property
    def facts(self) -> dict[str, Any]:
        return self.result.facts

    def counts(self, radius: str = "4um") -> tuple[int, int, int]:
        tp, fp, fn = (self.facts[f"{name}_{radius}"] for name in ("tp", "fp", "fn"))
        return tp, fp, fn

    def table(self) -> pd.DataFrame:
        return pq.read_table(self.files.matches).to_pandas()

    def matches(self) -> list[tuple[Any, ...]]:
        """Rows of the match table without slide and classes, ``None`` where a value is missing."""
        rows = pq.read_table(self.files.matches, columns=list(COLUMNS[1:])).to_pylist()
        return [tuple(None if value != value else value for value in row.values()) for row in rows]

    def curve(self) -> list[tuple[float, int, int, int]]:
        table = pd.read_parquet(self.files.curve)
        return list(table[["threshold", "tp", "fp", "fn"]].itertuples(index=False, name=None))

    def geojson(self) -> dict[str, Any]:
        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        text = gzip.decompress(self.files.matches_geojson.read_bytes())
        document: dict[str, Any] = json.loads(text, parse_constant=refuse)
        return document


@dataclass
class Slide:
    """One slide, its files written; call it to evaluate."""

    folder: Path
    found: list[tuple[Any, ...]] = field(default_factory=lambda: FOUND)
    classes: pa.DataType | None = None
    bounds: tuple[int, int] = (0, 0)

    def evaluate(
        self,
        annotations: Path | None,
        annotation_format: str = "points_csv",
        annotation_mpp: float = 0.0,
        region: tuple[Path, str] = (Path(), ""),
        radii_um: list[float] = RADII,
        geojson: bool = False,
    ) -> Evaluated:
        files = SlideFiles(self.folder / "results", "slide")
        write_facts(files, self.bounds)
        write_nuclei(files.nuclei, self.found, self.classes)
        row = SlideRow(
            slide_id="slide",
            path="slide.svs",
            size=0,
            mtime_ns=0,
            mpp=0.0,
            organ="",
            stain="HE",
            patient="",
            split="",
            label_quality="",
            annotations=str(annotations or ""),
            annotation_format=annotation_format,
            annotation_mpp=annotation_mpp,
            annotations_size=0,
            annotations_mtime_ns=0,
            region=str(region[0]) if region[1] else "",
            region_format=region[1],
            region_size=0,
            region_mtime_ns=0,
        )
        task = SlideTask(
            row, files, {"radii_um": radii_um, "geojson": geojson, "outlines": False}, 1, 0, "fingerprint"
        )
        return Evaluated(evaluate_slide(task), files)


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    return Slide(tmp_path)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "truth.csv", TRUTH)


# ---- Counts, distances, match table, curve

CLASS_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.dictionary(pa.int32(), pa.string()),
]


@pytest.mark.parametrize(
    ("radius", "counts", "distances", "figures"),
    [
        ("4um", (3, 2, 1), (3.5, 9.25), (3 / 5, 3 / 4, 6 / 9, 3.5 / 3)),
        ("2.5um", (2, 3, 2), (0.5, 0.25), (2 / 5, 2 / 4, 4 / 9, 0.5 / 2)),
        ("0.25um", (1, 4, 3), (0.0, 0.0), (1 / 5, 1 / 4, 2 / 9, 0.0)),
    ],
)
def test_counts_and_distances_at_each_radius(
    radius: str,
    counts: tuple[int, int, int],
    distances: tuple[float, float],
    figures: tuple[float, ...],
    slide: Slide,
    truth: Path,
) -> None:
    done = slide.evaluate(truth)
    assert done.result.status == DONE
    assert done.facts["annotated"] == 4
    assert done.counts(radius) == counts
    sums = [done.facts[f"{name}_{radius}"] for name in ("distance_sum", "distance_square_sum")]
    assert sums == pytest.approx(distances)
    names = ("precision", "recall", "f1", "distance_mean_um")
    assert [done.facts[f"{name}_{radius}"] for name in names] == pytest.approx(figures)


def test_match_table_is_of_the_first_radius_in_microns(slide: Slide, truth: Path) -> None:
    done = slide.evaluate(truth)
    assert done.matches() == MATCHES
    table = done.table()
    assert table.columns.tolist() == [*COLUMNS, "class_name", "truth_class"]
    assert set(table["slide_id"]) == {"slide"}
    assert pq.read_schema(done.files.matches).field("nucleus_id").type == pa.int64()
    narrow = slide.evaluate(truth, radii_um=[0.25, 4.0])
    assert [row for row in narrow.matches() if row[0] == "TP"] == [MATCHES[1]]
    assert narrow.counts("4um") == (3, 2, 1)


def test_curve_is_of_the_first_radius_and_gives_the_average_precision(slide: Slide, truth: Path) -> None:
    done = slide.evaluate(truth)
    # 7 alone takes the first annotation, 12 comes last and finds it taken.
    assert done.curve() == [
        (0.875, 1, 0, 3),
        (0.75, 2, 0, 2),
        (0.625, 2, 1, 2),
        (0.5, 3, 1, 1),
        (0.375, 3, 2, 1),
    ]
    assert done.facts["average_precision"] == pytest.approx(1 / 4 + 1 / 4 + 1 / 4 * 3 / 4)
    # At 1 px only 9 is right, the second of five.
    narrow = slide.evaluate(truth, radii_um=[0.25, 4.0])
    assert narrow.facts["average_precision"] == pytest.approx(1 / 4 * 1 / 2)


@pytest.mark.parametrize("classes", CLASS_TYPES, ids=["string", "large_string", "dictionary"])
def test_classes_of_both_sides_are_named_and_blank_where_there_is_none(
    classes: pa.DataType, slide: Slide, truth: Path
) -> None:
    slide.classes = classes
    table = slide.evaluate(truth).table()
    assert table["class_name"].tolist() == ["", "tumour", "tumour", "tumour", "stroma", ""]
    assert table["truth_class"].tolist() == ["", "stroma", "tumour", "", "", "tumour"]


def test_nuclei_and_annotations_without_classes_leave_them_blank(slide: Slide, tmp_path: Path) -> None:
    truth = write_csv(tmp_path / "plain.csv", [row[:2] for row in TRUTH], header="x,y")
    done = slide.evaluate(truth)
    assert done.matches() == MATCHES
    table = done.table()
    assert table["class_name"].tolist() == table["truth_class"].tolist() == [""] * 6


def test_classes_of_features_some_without_one_are_those_of_the_match_table(
    slide: Slide, tmp_path: Path
) -> None:
    truth = write_geojson(tmp_path / "t.geojson", *(feature("Point", [x, y], name) for x, y, name in TRUTH))
    done = slide.evaluate(truth, "geojson")
    assert done.matches() == MATCHES
    assert done.table()["truth_class"].tolist() == ["", "stroma", "tumour", "", "", "tumour"]


def test_slide_without_annotations_is_left_alone(slide: Slide) -> None:
    done = slide.evaluate(None, "")
    assert done.result == StageResult(status=NOT_ANNOTATED)
    assert not done.files.matches.exists()


def test_outputs_name_the_files_written(slide: Slide, truth: Path) -> None:
    plain = slide.evaluate(truth)
    assert plain.result.outputs == (plain.files.matches, plain.files.curve)
    assert not plain.files.matches_geojson.exists()
    full = slide.evaluate(truth, geojson=True)
    assert full.result.outputs == (full.files.matches, full.files.curve, full.files.matches_geojson)


# ---- Region of interest: the left half of the slide, which ends at x 199.5

BORDER_TRUTH = [(50, 50), (198, 100), (204, 150), (100, 100), (300, 50)]
BORDER_FOUND = [
    (1, 50, 54, 0.5, ""),  # finds the first
    (2, 204, 100, 0.75, ""),  # is outside, what it finds is inside
    (3, 196, 150, 0.875, ""),  # is inside, what it finds is outside
    (4, 100, 150, 0.625, ""),  # is false, inside
    (5, 350, 50, 1.0, ""),  # is false, outside
]
BORDER_MATCHES = [
    ("TP", 50, 54, 50, 50, 1.0, 1, 0),
    ("TP", 204, 100, 198, 100, 1.5, 2, 1),
    ("FP", 100, 150, None, None, None, 4, None),
    ("FN", 100, 100, 100, 100, None, None, 3),
]


def polygon_region(folder: Path) -> tuple[Path, str]:
    half = feature("Polygon", ring(-0.5, -0.5, 199.5, 199.5))
    return write_geojson(folder / "region.geojson", half), "geojson"


def coarse_mask(folder: Path) -> tuple[Path, str]:
    return write_image(folder / "coarse.png", painted(40, 20, (0, 0, 20, 20))), "instance_png"


def fine_mask(folder: Path) -> tuple[Path, str]:
    return write_image(folder / "fine.png", painted(800, 400, (0, 0, 400, 400))), "instance_png"


def quarters_mask(folder: Path) -> tuple[Path, str]:
    quarters = painted(40, 20, (0, 0, 20, 10), (0, 10, 20, 20))
    return write_image(folder / "quarters.png", quarters), "instance_png"


REGIONS = [polygon_region, coarse_mask, fine_mask, quarters_mask]


@pytest.fixture
def border(tmp_path: Path) -> tuple[Slide, Path]:
    return Slide(tmp_path, BORDER_FOUND), write_csv(tmp_path / "truth.csv", BORDER_TRUTH, header="x,y")


@pytest.mark.parametrize("region", REGIONS)
def test_within_a_region_the_annotation_says_whether_a_pair_counts(
    region: Callable[[Path], tuple[Path, str]], border: tuple[Slide, Path], tmp_path: Path
) -> None:
    slide, truth = border
    done = slide.evaluate(truth, region=region(tmp_path))
    assert done.matches() == BORDER_MATCHES
    assert done.facts["annotated"] == 3
    assert done.counts("4um") == (2, 1, 1)
    assert done.facts["distance_sum_4um"] == pytest.approx(2.5)
    assert done.facts["distance_square_sum_4um"] == pytest.approx(1 + 2.25)
    # At 1 px there are no pairs: all inside are false (1, 3 and 4) and missed.
    assert done.counts("0.25um") == (0, 3, 3)
    assert done.curve() == [(0.75, 1, 0, 2), (0.625, 1, 1, 2), (0.5, 2, 1, 1)]
    assert done.facts["average_precision"] == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)


def test_without_a_region_the_same_slide_counts_as_a_whole(border: tuple[Slide, Path]) -> None:
    slide, truth = border
    done = slide.evaluate(truth)
    assert (done.facts["annotated"], done.counts()) == (5, (3, 2, 2))


def test_what_imagescope_marks_as_negative_is_outside(border: tuple[Slide, Path], tmp_path: Path) -> None:
    slide, truth = border
    path = tmp_path / "region.xml"
    hole = imagescope_region(90, 140, 110, 160, negative=1)  # about the false one
    path.write_text(imagescope(imagescope_region(-0.5, -0.5, 199.5, 199.5), hole))
    done = slide.evaluate(truth, region=(path, "imagescope_xml"))
    assert done.matches() == [row for row in BORDER_MATCHES if row[0] != "FP"]
    assert done.counts() == (2, 0, 1)


# ---- Annotations drawn at 0.5 microns per pixel

# Pixel (25, 25) there covers the pixels 50 and 51 here, so its centre is 50.5.
COARSE = [(25, 25), (50, 25), (75, 25), (150, 75)]
FINE = [(50.5, 50.5), (100.5, 50.5), (150.5, 50.5), (300.5, 150.5)]
SCALED_FOUND = [
    (1, 53.5, 54.5, 0.5, ""),
    (2, 100.5, 50.5, 0.5, ""),
    (3, 150.5, 62.5, 0.5, ""),
    (4, 250, 150, 0.5, ""),
]


def as_csv(folder: Path, points: list[tuple[Any, ...]], pixel: int) -> tuple[Path, str]:
    return write_csv(folder / "points.csv", points, header="x,y"), "points_csv"


def as_geojson(folder: Path, points: list[tuple[Any, ...]], pixel: int) -> tuple[Path, str]:
    half = 4 * pixel
    features = [
        feature("Polygon", ring(x - half, y - half, x + half, y + half))
        if number % 2
        else feature("Point", [x, y])
        for number, (x, y) in enumerate(points)
    ]
    return write_geojson(folder / "points.geojson", *features), "geojson"


def as_png(folder: Path, points: list[tuple[Any, ...]], pixel: int) -> tuple[Path, str]:
    corners = [(math.floor(x), math.floor(y)) for x, y in points]
    boxes = [(x, y, x + pixel, y + pixel) for x, y in corners]
    image = painted(WIDTH * pixel // 2, HEIGHT * pixel // 2, *boxes)
    return write_image(folder / "map.png", image), "instance_png"


@pytest.mark.parametrize("with_region", [False, True])
@pytest.mark.parametrize("write", [as_csv, as_geojson, as_png])
def test_annotations_drawn_at_half_the_size_give_the_same_matches(
    write: Callable[..., tuple[Path, str]], with_region: bool, tmp_path: Path
) -> None:
    slide = Slide(tmp_path, SCALED_FOUND)
    # The region is in level-0 pixels whatever the annotations are in; it leaves out what is alone.
    area = feature("Polygon", ring(40, 40, 160, 100))
    region = (write_geojson(tmp_path / "r.geojson", area), "geojson") if with_region else (Path(), "")
    drawn_fine = slide.evaluate(*write(tmp_path, FINE, 2), region=region)
    fine = drawn_fine.matches(), drawn_fine.facts
    drawn_coarse = slide.evaluate(*write(tmp_path, COARSE, 1), annotation_mpp=0.5, region=region)
    coarse = drawn_coarse.matches(), drawn_coarse.facts
    alone = [
        ("FP", 250, 150, None, None, None, 4, None),
        ("FN", 300.5, 150.5, 300.5, 150.5, None, None, 3),
    ]
    for matches, facts in (fine, coarse):
        assert matches == [
            ("TP", 53.5, 54.5, 50.5, 50.5, 1.25, 1, 0),
            ("TP", 100.5, 50.5, 100.5, 50.5, 0.0, 2, 1),
            ("TP", 150.5, 62.5, 150.5, 50.5, 3.0, 3, 2),
            *alone[: 0 if with_region else 2],
        ]
        lost = 0 if with_region else 1
        assert [facts[f"{name}_4um"] for name in ("tp", "fp", "fn")] == [3, lost, lost]
        assert [facts[f"{name}_2.5um"] for name in ("tp", "fp", "fn")] == [2, 1 + lost, 1 + lost]
        assert facts["distance_sum_4um"] == pytest.approx(4.25)


# ---- For QuPath


def test_geojson_has_three_colours_in_the_frame_of_qupath(slide: Slide, truth: Path) -> None:
    slide.bounds = (40, 30)
    done = slide.evaluate(truth, geojson=True)
    document = done.geojson()
    assert document["type"] == "FeatureCollection"
    found, false, missed = "True positive", "False positive", "False negative"
    # Less the bounds, and half a pixel to the pixel's corner. A missed one has the annotation's number.
    expected = [
        ("8", [60.5, 32.5], found, {"distance um": 3.0}),
        ("9", [110.5, 20.5], found, {"distance um": 0.0}),
        ("12", [12.5, 20.5], found, {"distance um": 0.5}),
        ("7", [13.5, 24.5], false, {}),
        ("10", [210.5, 120.5], false, {}),
        ("3", [260.5, 120.5], missed, {}),
    ]
    colours: dict[str, set[tuple[int, ...]]] = {found: set(), false: set(), missed: set()}
    for item, (name, point, kind, measurements) in zip(document["features"], expected, strict=True):
        assert item["type"] == "Feature"
        assert item["geometry"] == {"type": "Point", "coordinates": point}
        colour = item["properties"]["classification"]["color"]
        colours[kind].add(tuple(colour))
        assert item["properties"] == {
            "objectType": "detection",
            "name": name,
            "classification": {"name": kind, "color": colour},
            "measurements": measurements,
        }
    assert [len(of_kind) for of_kind in colours.values()] == [1, 1, 1]
    assert len(set.union(*colours.values())) == 3
    assert done.matches() == MATCHES  # which are not shifted


# ---- Nothing on one side or both


@pytest.mark.parametrize(
    ("found", "annotated", "counts", "figures", "kinds"),
    [
        ([], TRUTH, (0, 0, 4), (NAN, 0.0, 0.0, 0.0), ["FN"] * 4),
        (FOUND, [], (0, 5, 0), (0.0, NAN, 0.0, NAN), ["FP"] * 5),
        ([], [], (0, 0, 0), (NAN, NAN, NAN, NAN), []),
    ],
    ids=["no nuclei", "no annotations", "neither"],
)
@pytest.mark.parametrize("with_region", [False, True])
def test_what_is_empty_is_counted_and_what_is_undefined_is_nan(
    found: list[tuple[Any, ...]],
    annotated: list[tuple[Any, ...]],
    counts: tuple[int, int, int],
    figures: tuple[float, ...],
    kinds: list[str],
    with_region: bool,
    slide: Slide,
    tmp_path: Path,
) -> None:
    slide.found = found
    whole = write_image(tmp_path / "all.png", painted(40, 20, (0, 0, 40, 20)))
    truth = write_csv(tmp_path / "truth.csv", annotated)
    region = (whole, "instance_png") if with_region else (Path(), "")
    done = slide.evaluate(truth, region=region, geojson=True)
    assert done.result.status == DONE
    assert done.facts["annotated"] == len(annotated)
    for radius in ("4um", "0.25um"):
        assert done.counts(radius) == counts
        values = [done.facts[f"{name}_{radius}"] for name in ("precision", "recall", "f1")]
        assert values == pytest.approx(figures[:3], nan_ok=True)
        assert done.facts[f"distance_sum_{radius}"] == 0
        assert math.isnan(done.facts[f"distance_mean_um_{radius}"])
    assert done.facts["average_precision"] == pytest.approx(figures[3], nan_ok=True)
    assert done.table()["kind"].tolist() == kinds
    assert len(done.curve()) == len(found)
    assert len(done.geojson()["features"]) == len(kinds)


def test_empty_match_table_has_the_types_of_a_full_one(slide: Slide, truth: Path, tmp_path: Path) -> None:
    full = pq.read_schema(slide.evaluate(truth).files.matches)
    slide.found = []
    empty = slide.evaluate(write_csv(tmp_path / "none.csv", [])).files.matches
    assert pq.read_metadata(empty).num_rows == 0
    assert pq.read_schema(empty).equals(full)


def test_empty_curve_has_the_types_of_a_full_one(slide: Slide, truth: Path) -> None:
    full = pq.read_schema(slide.evaluate(truth).files.curve)
    slide.found = []
    empty = slide.evaluate(truth).files.curve
    assert pq.read_metadata(empty).num_rows == 0
    assert pq.read_schema(empty).equals(full)


# ---- A shard of slides


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A job sets the package's log up for its process; give it back as it was."""
    logger = logging.getLogger("karyon")
    before = logger.handlers, logger.level, logger.propagate
    yield
    for handler in set(logger.handlers) - set(before[0]):
        handler.close()
    logger.handlers, logger.level, logger.propagate = before


class Shard:
    """Slides of one shard, each with the scene's nuclei and its own annotations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results" / "cohort"
        self.rows: list[dict[str, Any]] = []
        self.upstream: list[dict[str, str]] = []

    def add(
        self,
        slide_id: str,
        annotations: tuple[Path | None, str],
        region: tuple[Path | None, str] = (None, ""),
        annotation_mpp: float = NAN,
        status: str = DONE,
        nuclei: bool = True,
    ) -> None:
        files = SlideFiles(self.results, slide_id)
        write_facts(files)
        if nuclei:
            write_nuclei(files.nuclei, FOUND)
        self.rows.append(
            {
                "slide_id": slide_id,
                "path": str(self.folder / f"{slide_id}.svs"),
                "mpp": NAN,
                "stain": "HE",
                **dict.fromkeys(("organ", "patient", "split", "label_quality"), ""),
                "annotations": str(annotations[0] or ""),
                "annotation_format": annotations[1],
                "annotation_mpp": annotation_mpp,
                "region": str(region[0] or ""),
                "region_format": region[1],
            }
        )
        error = "truncated" if status == FAILED else ""
        self.upstream.append(
            {"slide_id": slide_id, "status": status, "error": error, "fingerprint": slide_id}
        )

    def run(self) -> pd.DataFrame:
        """The manifest, a row per slide. A slide that asks for a retry would end the job."""
        (shard,) = write_plan(pd.DataFrame(self.rows), self.results / "plan", 1000)
        above, manifest = (
            self.results / "manifests" / stage / f"{shard}.parquet" for stage in ("nuclei", "evaluate")
        )
        above.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.upstream).to_parquet(above)
        run_shard(
            evaluate_slide,
            stage="evaluate",
            plan=str(self.results / "plan" / f"{shard}.tsv"),
            upstream=str(above),
            manifest=str(manifest),
            settings={"radii_um": RADII, "geojson": True, "outlines": False},
            version=1,
            threads=1,
            last_attempt=False,
            log=str(self.results / "logs" / "evaluate.log"),
            blanks=True,
        )
        return pd.read_parquet(manifest).set_index("slide_id")


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path)


@pytest.mark.parametrize("stale_nuclei", [False, True])
def test_slide_without_tissue_misses_all_of_its_annotations(
    stale_nuclei: bool, shard: Shard, truth: Path
) -> None:
    shard.add("glass", (truth, "points_csv"), status=NO_TISSUE, nuclei=stale_nuclei)
    shard.add("tissue", (truth, "points_csv"))
    manifest = shard.run()
    glass = manifest.loc["glass"]
    assert manifest["status"].tolist() == [NO_TISSUE, DONE]
    assert glass[["annotated", "tp_4um", "fp_4um", "fn_4um"]].tolist() == [4, 0, 0, 4]
    assert glass[["recall_4um", "f1_4um", "average_precision"]].tolist() == [0, 0, 0]
    assert math.isnan(glass["precision_4um"])
    files = SlideFiles(shard.results, "glass")
    table = pd.read_parquet(files.matches)
    assert table["kind"].tolist() == ["FN"] * 4
    assert table["annotation_id"].tolist() == [0, 1, 2, 3]
    assert table["truth_class"].tolist() == ["tumour", "", "stroma", "tumour"]
    assert pd.read_parquet(files.curve).empty
    assert manifest.loc["tissue", ["tp_4um", "fp_4um", "fn_4um"]].tolist() == [3, 2, 1]


def test_slides_that_failed_or_have_no_annotations_have_a_row_each(shard: Shard, truth: Path) -> None:
    shard.add("blank-plain", (None, ""), status=NO_TISSUE, nuclei=False)
    shard.add("failed", (truth, "points_csv"), status=FAILED, nuclei=False)
    shard.add("plain", (None, ""))
    shard.add("good", (truth, "points_csv"))
    manifest = shard.run()
    assert manifest["status"].to_dict() == {
        "blank-plain": NOT_ANNOTATED,
        "failed": SKIPPED,
        "plain": NOT_ANNOTATED,
        "good": DONE,
    }
    assert manifest.loc["failed", "error"] == "truncated"
    assert manifest["annotated"].dropna().to_dict() == {"good": 4}


@dataclass(frozen=True)
class Malformed:
    """A file that cannot be used, what its error says, and what it says to do."""

    name: str
    annotation_format: str
    content: bytes | None
    says: tuple[str, ...]
    annotation_mpp: float = NAN


def collection(*features: dict[str, Any]) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def png(pixels: np.ndarray, folder: Path) -> bytes:
    return write_image(folder / "drawn.png", pixels).read_bytes()


BOWTIE = feature("Polygon", [[[0, 0], [40, 40], [40, 0], [0, 40], [0, 0]]])
ENTITIES = b'<!DOCTYPE a [<!ENTITY b "c">]>' + imagescope(imagescope_region(0, 0, 9, 9)).encode()


def malformed_annotations(folder: Path) -> list[Malformed]:
    map_of = [(50, 50, 52, 52)]
    whole, cut = png(painted(WIDTH, HEIGHT, *map_of), folder), png(painted(WIDTH, HEIGHT), folder)[:60]
    return [
        Malformed("bowtie.geojson", "geojson", collection(BOWTIE), ("feature 1", "draw it again")),
        Malformed("empty.geojson", "geojson", b"", ("0 bytes", "copy it again")),
        Malformed("empty.csv", "points_csv", b"", ("0 bytes", "copy it again")),
        Malformed("empty.png", "instance_png", b"", ("0 bytes", "copy it again")),
        Malformed("empty.xml", "imagescope_xml", b"", ("0 bytes", "copy it again")),
        Malformed(
            "small.png",
            "instance_png",
            png(painted(200, 100), folder),
            ("200 x 100", "400 x 200", "say in annotation_mpp"),
        ),
        Malformed(
            "not-half.png", "instance_png", whole, ("400 x 200", "200 x 100", "correct annotation_mpp"), 0.5
        ),
        Malformed("garbage.png", "instance_png", b"\x89PNG\r\n\x1a\n" + b"\0" * 99, ("write it again",)),
        Malformed("cut.png", "instance_png", cut, ("write it again",)),
        Malformed("text.png", "instance_png", b"no image", ("write it again",)),
        Malformed("entities.xml", "imagescope_xml", ENTITIES, ("entities", "remove them")),
        Malformed("cut.xml", "imagescope_xml", b"<Annotations><Anno", ("not XML", "export it again")),
        Malformed("cut.geojson", "geojson", collection(BOWTIE)[:-9], ("not JSON", "export it again")),
        Malformed("nan.csv", "points_csv", b"x,y\n5,5\n7,nan\n", ("number 2", "x 7, y nan", "remove them")),
        Malformed("infinite.csv", "points_csv", b"x,y\ninf,5\n", ("not finite", "remove them")),
        Malformed("word.csv", "points_csv", b"x,y\n5,here\n", ("line 2", "'here'", "expected")),
        Malformed(
            "outside.csv", "points_csv", b"x,y\n5,5\n5,900\n", ("x 5, y 900", "400 x 200", "Check that")
        ),
        Malformed("scaled.csv", "points_csv", b"x,y\n300,5\n", ("x 600.5, y 10.5", "annotation_mpp"), 0.5),
        Malformed("bare.csv", "points_csv", b"5,5\n6,6\n", ("header", "'5,5'", "columns x, y")),
        Malformed("missing.csv", "points_csv", None, ("cannot be read", "check its path")),
        Malformed("wrong.mat", "points_mat", b"no matrix", ("not a MATLAB file", "save it again")),
    ]


def malformed_regions(folder: Path) -> list[Malformed]:
    wide = png(painted(100, 20, (0, 0, 50, 20)), folder)
    point = collection(feature("Point", [5, 5]))
    return [
        Malformed("r-wide.png", "instance_png", wide, ("100 x 20", "400 x 200", "cover the whole slide")),
        Malformed(
            "r-dark.png", "instance_png", png(painted(40, 20), folder), ("region is empty", "expected")
        ),
        Malformed("r-none.geojson", "geojson", collection(), ("region is empty", "at least one outline")),
        Malformed("r-zero.geojson", "geojson", b"", ("0 bytes", "copy it again")),
        Malformed("r-bowtie.geojson", "geojson", collection(BOWTIE), ("feature 1", "draw it again")),
        Malformed("r-point.geojson", "geojson", point, ("feature 1", "an outline is needed")),
        Malformed("r-entities.xml", "imagescope_xml", ENTITIES, ("entities", "remove them")),
        Malformed(
            "r-outside.geojson",
            "geojson",
            collection(feature("Polygon", ring(900, 0, 990, 90))),
            ("outside the slide", "400 x 200", "Check that"),
        ),
        Malformed("r-missing.png", "instance_png", None, ("cannot be read", "check its path")),
    ]


def add_malformed(shard: Shard, truth: Path) -> dict[str, Malformed]:
    """One slide for each file that cannot be used; the file by slide."""
    added = {}
    annotations = malformed_annotations(shard.folder)
    for case in (*annotations, *malformed_regions(shard.folder)):
        path = shard.folder / case.name
        if case.content is not None:
            path.write_bytes(case.content)
        given = (path, case.annotation_format)
        slide_id = case.name.replace(".", "-")
        added[slide_id] = case
        if case in annotations:
            shard.add(slide_id, given, annotation_mpp=case.annotation_mpp)
        else:
            shard.add(slide_id, (truth, "points_csv"), region=given)
    return added


def test_each_malformed_file_fails_its_own_slide_and_says_what_to_do(shard: Shard, truth: Path) -> None:
    shard.add("first-good", (truth, "points_csv"))
    cases = add_malformed(shard, truth)
    none = write_geojson(shard.folder / "no-nuclei.geojson")  # no mistake: nothing was there to annotate
    shard.add("no-nuclei", (none, "geojson"))
    shard.add("last-good", (truth, "points_csv"))
    manifest = shard.run()
    assert manifest.index.tolist() == [row["slide_id"] for row in shard.rows]
    assert manifest["fingerprint"].is_unique
    for slide_id, case in cases.items():
        row = manifest.loc[slide_id]
        assert row["status"] == FAILED, slide_id
        for words in (str(shard.folder / case.name), *case.says):
            assert words in row["error"], slide_id
        assert math.isnan(row["annotated"]), slide_id
        assert not SlideFiles(shard.results, slide_id).record("evaluate").exists()
    good = manifest.drop(list(cases))
    assert good["status"].tolist() == [DONE] * 3
    assert good["error"].tolist() == [""] * 3
    counts = good[["annotated", "tp_4um", "fp_4um", "fn_4um"]].astype(int).to_numpy().tolist()
    assert counts == [[4, 3, 2, 1], [0, 0, 5, 0], [4, 3, 2, 1]]


def test_areas_too_large_for_arithmetic_fail_their_own_slide(shard: Shard) -> None:
    path = shard.folder / "huge.geojson"
    path.write_bytes(collection(feature("MultiPolygon", [ring(5, 5, 1e308, 50), ring(20, 20, 30, 1e308)])))
    shard.add("huge", (path, "geojson"))
    row = shard.run().loc["huge"]
    assert row["status"] == FAILED
    assert str(path) in row["error"]


def test_a_mended_file_is_evaluated_by_the_next_run(shard: Shard, truth: Path) -> None:
    annotations, region = shard.folder / "mine.csv", shard.folder / "mine.png"
    annotations.write_text("5,5\n")
    write_image(region, painted(40, 20))
    shard.add("a", (annotations, "points_csv"))
    shard.add("b", (truth, "points_csv"), region=(region, "instance_png"))
    assert shard.run()["status"].tolist() == [FAILED, FAILED]
    write_csv(annotations, TRUTH)
    write_image(region, painted(40, 20, (0, 0, 40, 20)))
    mended = shard.run()
    assert mended["status"].tolist() == [DONE, DONE]
    assert mended["tp_4um"].tolist() == [3, 3]
