"""Outlines in the stage `evaluate`: by hand, and against the figures of whole maps."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from skimage.measure import label

from karyon.bench.chain import STAGES, stage_task
from karyon.bench.material import SLIDE_MPP, synthetic_slide
from karyon.cli.main import main
from karyon.cohort.classes import RULES, class_table
from karyon.cohort.layout import SlideFiles
from karyon.cohort.segmentation import FIGURES, SUMS
from karyon.cohort.shard import NO_TISSUE, SlideTask
from karyon.cohort.stages.evaluate import evaluate_slide
from karyon.evaluation.overlap import Overlap, overlap_of_maps
from karyon.evaluation.segmentation import (
    score_aji,
    score_aji_plus,
    score_dice,
    score_object_dice,
    score_panoptic,
)
from karyon.evaluation.segmentation_errors import count_errors
from karyon.io.slides import SlideFacts
from karyon.models.card import model_folder, read_card
from karyon.nuclei.instances import label_map
from karyon.tiles.grid import Grid
from karyon.tiles.store import open_store

WIDTH, HEIGHT, MPP = 120, 80, 0.25
# Rows from and to, columns from and to. The first is found, 10 x 10 as 10 x 8 within it; the second, 5 x 10,
# is missed; a false one has 2 x 10 pixels.
TRUTH = [(0, 10, 0, 10), (20, 25, 0, 10)]
FOUND = [(0, 10, 0, 8), (60, 62, 100, 110)]
BY_HAND = {
    "aji": 80 / 170,
    "aji_plus": 80 / 170,
    "dq": 1 / 2,
    "sq": 0.8,
    "pq": 0.4,
    "dice": 160 / 250,
    "object_dice": (80 / 100 + 100 / 150) * (160 / 180) / 2,
    "nb_f1": 1 / 2,
    "nb_dice": 160 / 180,
    "mdr": 1 / 2,
    "fdr": 1 / 2,
    "usr": 0,
    "osr": 0,
}

Box = tuple[int, int, int, int]


def outline(box: Box) -> shapely.Polygon:
    """Along the edges of the pixels of a box."""
    top, bottom, left, right = box
    return shapely.box(left - 0.5, top - 0.5, right - 0.5, bottom - 0.5)


def write_geojson(
    path: Path, boxes: list[Box], *points: tuple[float, float], class_name: str = ""
) -> tuple[Path, str]:
    shapes = [outline(box) for box in boxes] + [shapely.Point(point) for point in points]
    properties = {"classification": {"name": class_name}}
    features = [
        {"type": "Feature", "properties": properties, "geometry": json.loads(shapely.to_geojson(shape))}
        for shape in shapes
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path, "geojson"


def write_map(path: Path, boxes: list[Box]) -> tuple[Path, str]:
    instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    for number, (top, bottom, left, right) in enumerate(boxes, start=1):
        instances[top:bottom, left:right] = 3 * number
    tifffile.imwrite(path, instances)
    return path, "instance_tiff"


def write_nuclei(path: Path, boxes: list[Box], class_names: tuple[str, ...] = ()) -> None:
    shapes = [outline(box) for box in boxes]
    x, y = np.reshape([shape.centroid.coords[0] for shape in shapes], (-1, 2)).T
    columns = {
        "nucleus_id": pa.array(range(1, len(shapes) + 1), pa.int64()),
        "x": pa.array(x, pa.float64()),
        "y": pa.array(y, pa.float64()),
        "probability": pa.array([0.5] * len(shapes), pa.float32()),
        "geometry": pa.array(shapely.to_wkb(shapes), pa.binary()),
    }
    if class_names:
        columns["class_name"] = pa.array(class_names).dictionary_encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, metadata={"mpp": str(MPP)}), path)


def annotated(task: SlideTask, truth: tuple[Path, str], **row: Any) -> SlideTask:
    path, annotation_format = truth
    row = {"annotations": str(path), "annotation_format": annotation_format, **row}
    settings = {"radii_um": [4.0], "geojson": False, "outlines": True}
    return replace(task, row=replace(task.row, **row), settings=settings)


@pytest.fixture
def task(tmp_path: Path) -> SlideTask:
    """A slide whose nuclei are found; what is annotated is up to the test."""
    files = SlideFiles(tmp_path / "results", "slide")
    facts = SlideFacts(WIDTH, HEIGHT, MPP, "metadata", ((WIDTH, HEIGHT),), 0, 0, "image")
    grid = Grid.of_slide(facts, 8.0)
    files.facts.parent.mkdir(parents=True)
    files.facts.write_text(json.dumps({"slide": asdict(facts), "mask_grid": asdict(grid)}))
    tifffile.imwrite(files.tissue_mask, np.zeros((grid.height, grid.width), np.uint8))
    write_nuclei(files.nuclei, FOUND)
    chain = stage_task("tissue", tmp_path / "slide.svs", Path(), tmp_path / "results")
    return replace(chain, files=files)


@pytest.mark.parametrize("write", [write_map, write_geojson])
def test_areas_by_hand(write: Any, task: SlideTask, tmp_path: Path) -> None:
    result = evaluate_slide(annotated(task, write(tmp_path / "truth", TRUTH)))
    assert {name: result.facts[name] for name in FIGURES} == pytest.approx(BY_HAND)
    assert result.facts["aji_intersection_um2"] == pytest.approx(80 * MPP**2)
    assert result.facts["aji_union_um2"] == pytest.approx(170 * MPP**2)
    assert set(SUMS) <= set(result.facts)
    assert (result.facts["tp_4um"], result.warning) == (1, "")


@pytest.mark.parametrize("write", [write_map, write_geojson])
def test_karyon_evaluate_says_the_same_of_the_table(
    write: Any, task: SlideTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, annotation_format = write(tmp_path / "truth", TRUTH)
    names = ["evaluate", str(task.files.nuclei), str(path), "--truth-format", annotation_format, "--json"]
    assert main(names) == 0
    areas = json.loads(capsys.readouterr().out)["areas"]
    assert {name: areas[name] for name in BY_HAND if name in areas} == pytest.approx(
        {name: figure for name, figure in BY_HAND.items() if not name.startswith("nb_")}
    )


def test_a_map_of_half_the_size_is_laid_over_the_slide(task: SlideTask, tmp_path: Path) -> None:
    halves = [tuple(side // 2 for side in box) for box in [(0, 10, 0, 10), (20, 24, 0, 10)]]
    instances = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
    for number, (top, bottom, left, right) in enumerate(halves, start=1):
        instances[top:bottom, left:right] = number
    tifffile.imwrite(tmp_path / "half.tif", instances)
    half = annotated(task, (tmp_path / "half.tif", "instance_tiff"), annotation_mpp=2 * MPP)
    assert evaluate_slide(half).facts["aji"] == pytest.approx(80 / (100 + 40 + 20))


@pytest.mark.parametrize("write", [write_map, write_geojson])
def test_in_a_region_only_its_nuclei_are_scored(write: Any, task: SlideTask, tmp_path: Path) -> None:
    # The left half: the false one lies outside, the missed one below it as well.
    region, region_format = write_geojson(tmp_path / "region.geojson", [(0, 15, 0, 60)])
    truth = write(tmp_path / "truth", TRUTH)
    inside = annotated(task, truth, region=str(region), region_format=region_format)
    facts = evaluate_slide(inside).facts
    assert (facts["annotated"], facts["pq_tp"], facts["pq_fp"], facts["pq_fn"]) == (1, 1, 0, 0)
    assert facts["aji"] == pytest.approx(0.8)


def test_classes_of_outlines_are_scored_as_those_of_points_are(task: SlideTask, tmp_path: Path) -> None:
    write_nuclei(task.files.nuclei, FOUND, ("tumour", "stroma"))
    truth = write_geojson(tmp_path / "truth.geojson", TRUTH, class_name="tumour")
    facts = evaluate_slide(annotated(task, truth)).facts
    assert facts["aji"] == pytest.approx(BY_HAND["aji"])
    known = dict.fromkeys(("patient", "organ", "stain", "split", "label_quality"), "")
    slides = pd.DataFrame([{"slide_id": "slide", "mpp": MPP, **known, **facts}])
    table = class_table(slides, 4.0, task.files.cohort, "a_model")
    counts = table.set_index(["rule", "class_name"])[["tp", "fp", "fn"]].T.to_dict("list")
    of_each = {"tumour": [1, 0, 1], "stroma": [0, 1, 0]}
    assert counts == {(rule, name): of_each[name] for rule in RULES for name in of_each}
    assert table["accuracy"].tolist() == [1.0] * 4


def test_points_leave_areas_empty(task: SlideTask, tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("x,y\n4.5,4.5\n")
    result = evaluate_slide(annotated(task, (path, "points_csv")))
    assert (result.facts["tp_4um"], result.warning) == (1, "")
    assert not set(FIGURES) & set(result.facts)
    mixed = write_geojson(tmp_path / "mixed.geojson", TRUTH, (50, 50))
    result = evaluate_slide(annotated(task, mixed))
    assert result.facts["tp_4um"] == 1
    assert not set(FIGURES) & set(result.facts)
    assert result.warning == (
        f"areas are not scored: {mixed[0]}, feature 3: a point; an outline is needed here, a Polygon or "
        "MultiPolygon."
    )


def test_a_model_of_centres_leaves_areas_empty(task: SlideTask, tmp_path: Path) -> None:
    given = annotated(task, write_map(tmp_path / "truth.tif", TRUTH))
    result = evaluate_slide(replace(given, settings={**given.settings, "outlines": False}))
    assert not set(FIGURES) & set(result.facts)


def test_what_is_missing_on_one_side_is_nothing_and_on_both_is_undefined(
    task: SlideTask, tmp_path: Path
) -> None:
    truth = write_map(tmp_path / "truth.tif", TRUTH)
    glass = evaluate_slide(replace(annotated(task, truth), blank=True))
    assert glass.status == NO_TISSUE
    assert [glass.facts[name] for name in ("aji", "pq", "dice", "object_dice", "mdr")] == [0, 0, 0, 0, 1]
    assert math.isnan(glass.facts["fdr"])
    empty = evaluate_slide(annotated(task, write_map(tmp_path / "empty.tif", [])))
    assert [empty.facts[name] for name in ("aji", "pq", "dice", "object_dice", "fdr")] == [0, 0, 0, 0, 1]
    write_nuclei(task.files.nuclei, [])
    nothing = evaluate_slide(annotated(task, write_map(tmp_path / "empty.tif", [])))
    assert all(math.isnan(nothing.facts[name]) for name in FIGURES)


def figures_of(overlap: Overlap) -> dict[str, float]:
    panoptic, errors = score_panoptic(overlap), count_errors(overlap)
    return {
        "aji": score_aji(overlap).index,
        "aji_plus": score_aji_plus(overlap).index,
        "dq": panoptic.f1,
        "sq": panoptic.mean_iou,
        "pq": panoptic.panoptic_quality,
        "dice": score_dice(overlap).dice,
        "object_dice": score_object_dice(overlap).object_dice,
        "nb_f1": errors.f1,
        "nb_dice": errors.dice,
        "mdr": errors.missed_rate,
        "fdr": errors.false_rate,
        "usr": errors.under_segmentation_rate,
        "osr": errors.over_segmentation_rate,
    }


def test_the_shipped_model_scores_as_its_map_of_the_whole_slide_does(tmp_path: Path) -> None:
    slide, model = synthetic_slide(tmp_path, 400), model_folder("karyon_outline")
    for stage, run in STAGES.items():
        task = stage_task(stage, slide, model, tmp_path / "results")
        run(task)
    card = read_card(model)
    with open_store(task.files.map) as store:
        maps = np.asarray(store["map"])
    scale = round(card.mpp / SLIDE_MPP)
    labels = label_map(maps, card.decoding, card.maps, card.mpp)
    predicted = np.kron(labels, np.ones((scale, scale), np.int32))
    truth = np.roll(predicted, (6, -5), (0, 1)).astype(np.uint16)
    truth[:80] = label(truth[:80] > 0)  # what touches is one
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    facts = evaluate_slide(annotated(task, (tmp_path / "truth.tif", "instance_tiff"))).facts
    expected = figures_of(overlap_of_maps(predicted, truth.astype(np.int32)))
    assert 0.1 < expected["aji"] < 0.9
    assert {name: facts[name] for name in FIGURES} == pytest.approx(expected)
