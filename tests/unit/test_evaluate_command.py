"""`karyon evaluate` on files that the tests write, against hand-worked values and other libraries."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import tifffile
from PIL import Image
from skimage.metrics import hausdorff_distance

from karyon.cli.main import main

KUMAR = "kumar30/instances/TCGA-18-5592-01Z-00-DX1.png"
KUMAR_XML = "kumar30/xml/TCGA-B0-5698-01Z-00-DX1.xml"
RATES = ("mdr", "fdr", "usr", "osr")
SHARES = ("dice", "object_dice", "aji", "aji_plus", "dq", "sq", "pq", "mean_f1", "joint_f1")

Command = Callable[..., Any]


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command; gives what it printed."""

    def command(*words: object) -> str:
        assert main(["evaluate", *map(str, words)]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return command


@pytest.fixture
def report(evaluate: Command) -> Command:
    """Run the command with ``--json``; gives the object."""
    return lambda *words: json.loads(evaluate(*words, "--json"))


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command, which has to end with status 1; gives its message."""

    def command(*words: object) -> str:
        assert main(["evaluate", *map(str, words)]) == 1
        printed = capsys.readouterr()
        assert not printed.out
        return printed.err

    return command


def write_points(path: Path, *rows: str, header: str = "x,y") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def write_nuclei(path: Path, points: list[tuple[float, float]], probability: list[float], mpp: str) -> Path:
    columns = {
        "nucleus_id": np.arange(1, len(points) + 1),
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "probability": np.array(probability, np.float32),
    }
    pq.write_table(pa.table(columns).replace_schema_metadata({"mpp": mpp}), path)
    return path


def square(left: float, top: float, side: float) -> list[list[float]]:
    right, bottom = left + side, top + side
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def write_squares(path: Path, *corners: tuple[float, float], side: float = 10, name: str = "") -> Path:
    properties = {"classification": {"name": name}} if name else {}
    features = [
        {
            "type": "Feature",
            "properties": properties,
            "geometry": {"type": "Polygon", "coordinates": [square(x, y, side)]},
        }
        for x, y in corners
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def write_map(path: Path, *boxes: tuple[int, int, int, int], size: int = 40) -> Path:
    """Rows and columns from and to, one object each, as a 16-bit TIFF."""
    instances = np.zeros((size, size), np.uint16)
    for number, (top, bottom, left, right) in enumerate(boxes, start=1):
        instances[top:bottom, left:right] = number
    tifffile.imwrite(path, instances)
    return path


def figure(printed: str, name: str) -> str:
    """The line of a figure, single spaces."""
    (line,) = (line for line in printed.splitlines() if line.startswith(name + "  "))
    return " ".join(line.split())


def test_points_are_scored_at_each_radius(tmp_path: Path, report: Command) -> None:
    # Pairs at 2, 6 and 20 px, which at 0.5 um/px are 1, 3 and 10 um; one detection far away.
    truth = write_points(tmp_path / "t.csv", "0,0", "100,0", "200,0")
    found = write_points(tmp_path / "p.csv", "2,0", "100,6", "200,20", "900,900")
    near, far = report(found, truth, "--mpp", 0.5, "--radius", 4, 10)["points"]
    assert (near["radius_um"], near["radius_px"]) == (4, 8)
    assert (near["tp"], near["fp"], near["fn"]) == (2, 2, 1)
    assert near["precision"] == pytest.approx(1 / 2)
    assert near["recall"] == pytest.approx(2 / 3)
    assert near["f1"] == pytest.approx(4 / 7)
    assert near["distance_mean_um"] == pytest.approx(2)
    assert near["distance_sd_um"] == pytest.approx(1)
    assert (far["tp"], far["fp"], far["fn"]) == (3, 1, 0)
    assert far["distance_mean_um"] == pytest.approx((1 + 3 + 10) / 3)


def test_table_labels_each_figure_with_its_source(tmp_path: Path, evaluate: Command) -> None:
    truth = write_points(tmp_path / "t.csv", "0,0", "100,0", "200,0")
    found = write_points(tmp_path / "p.csv", "2,0", "100,6")
    printed = evaluate(found, truth, "--mpp", 0.5)
    assert "Points, matched within 4 um (8 px)" in printed
    assert figure(printed, "recall") == "recall 0.6667 MICRONET"
    assert figure(printed, "distance of pairs, mean, um") == "distance of pairs, mean, um 2.0000 MICRONET"


@pytest.mark.parametrize(
    ("rows", "true_rows", "reasons"),
    [
        ([], ["1,1"], {"precision": "no prediction", "distance of pairs, mean, px": "no prediction"}),
        (["1,1"], [], {"recall": "no truth", "distance of pairs, s.d., px": "no truth"}),
        (["1,1"], ["99,1"], {"distance of pairs, mean, px": "no match"}),
        ([], [], {"F1": "no prediction and no truth"}),
    ],
    ids=["no prediction", "no truth", "no match", "neither"],
)
def test_undefined_figures_say_why(
    tmp_path: Path,
    evaluate: Command,
    report: Command,
    rows: list[str],
    true_rows: list[str],
    reasons: dict[str, str],
) -> None:
    found, truth = write_points(tmp_path / "p.csv", *rows), write_points(tmp_path / "t.csv", *true_rows)
    printed = evaluate(found, truth, "--radius-px", 5)
    for name, why in reasons.items():
        assert figure(printed, name) == f"{name} undefined ({why}) MICRONET"
    assert report(found, truth, "--radius-px", 5)["points"][0]["distance_mean_px"] is None


def test_nuclei_table_brings_its_resolution_and_a_curve(tmp_path: Path, report: Command) -> None:
    # Falling: right, wrong, right, wrong; of three true nuclei one is never found.
    found = write_nuclei(
        tmp_path / "n.parquet", [(0, 0), (50, 50), (100, 0), (70, 70)], [0.9, 0.8, 0.7, 0.6], mpp="0.25"
    )
    truth = write_points(tmp_path / "t.csv", "1,0", "101,0", "500,500")
    result = report(found, truth)
    (points,) = result["points"]
    assert (result["mpp"], points["radius_px"]) == (0.25, 16)
    assert points["average_precision"] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    # F1 is 2/4, 2/5, 4/6, 4/7 at the four thresholds.
    assert points["best_threshold"] == pytest.approx(0.7)


def test_csv_has_no_curve(tmp_path: Path, report: Command) -> None:
    found = write_points(tmp_path / "p.csv", "1,1")
    assert "average_precision" not in report(found, found, "--radius-px", 1)["points"][0]


def test_classes_are_scored_by_both_rules(tmp_path: Path, report: Command, evaluate: Command) -> None:
    # The nearest detection of true b at 100 is an a; a b lies further off, within the radius.
    header = "x,y,class"
    truth = write_points(tmp_path / "t.csv", "0,0,a", "100,0,b", "300,0,", header=header)
    found = write_points(tmp_path / "p.csv", "0,1,a", "101,0,a", "105,0,b", "301,0,b", header=header)
    classes = report(found, truth, "--radius-px", 8)["points"][0]["classes"]

    def counts(rule: str, name: str) -> tuple[int, int, int]:
        score = classes[rule][name]
        return score["tp"], score["fp"], score["fn"]

    assert classes["names"] == ["a", "b"]
    assert counts("strict", "a") == (1, 1, 0)
    assert counts("strict", "b") == (1, 0, 0)  # the b on the annotation without a class is no error
    assert counts("detection_first", "a") == (1, 1, 0)
    assert counts("detection_first", "b") == (0, 1, 1)
    assert classes["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert classes["accuracy"] == pytest.approx(1 / 2)
    printed = evaluate(found, truth, "--radius-px", 8)
    assert "Class accuracy of the pairs (JOINT): 0.5000" in printed
    assert printed.split("Confusion")[1].splitlines()[1:5] == [
        "         a  b  (missed)",
        "a        1  0  0",
        "b        1  0  0",
        "(false)  0  1  0",
    ]


def test_detection_without_a_class_is_a_class_of_its_own(tmp_path: Path, report: Command) -> None:
    header = "x,y,class"
    truth = write_points(tmp_path / "t.csv", "0,0,a", "100,0,a", header=header)
    found = write_points(tmp_path / "p.csv", "0,0,a", "100,0,", header=header)
    classes = report(found, truth, "--radius-px", 8)["points"][0]["classes"]
    assert classes["names"] == ["a", "(none)"]
    assert classes["confusion"] == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_classes_that_never_meet_are_named(tmp_path: Path, report: Command) -> None:
    found = write_points(tmp_path / "p.csv", "0,0,Tumor", header="x,y,class")
    truth = write_points(tmp_path / "t.csv", "0,0,tumour", header="x,y,class")
    result = report(found, truth, "--radius-px", 1)
    assert "classes" not in result["points"][0]
    assert any("Tumor" in note and "tumour" in note for note in result["notes"])


def test_real_map_against_itself_is_perfect(real_file: Command, report: Command) -> None:
    path = real_file(KUMAR)
    result = report(path, path, "--mpp", 0.25)
    (points,) = result["points"]
    nuclei = len(np.unique(np.asarray(Image.open(path)))) - 1
    assert (points["tp"], points["fp"], points["fn"]) == (nuclei, 0, 0)
    assert points["distance_mean_um"] == 0
    assert [result["areas"][name] for name in SHARES] == pytest.approx([1.0] * len(SHARES))
    assert [result["areas"][name] for name in RATES] == [0] * len(RATES)
    assert [value for name, value in result["areas"].items() if name.endswith("hausdorff_um")] == [0, 0, 0]


@pytest.fixture
def shifted(tmp_path: Path, real_file: Command) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """A real map moved 4 px down and 3 px right, and itself: both files and both arrays."""
    truth_file = real_file(KUMAR)
    truth = np.asarray(Image.open(truth_file)).astype(np.int32)
    moved = np.zeros_like(truth)
    moved[4:, 3:] = truth[:-4, :-3]
    np.save(tmp_path / "moved.npy", moved)
    return tmp_path / "moved.npy", truth_file, moved, truth


def test_moved_real_map_has_the_figures_of_other_libraries(
    shifted: tuple[Path, Path, np.ndarray, np.ndarray], report: Command
) -> None:
    moved_file, truth_file, moved, truth = shifted
    areas = report(moved_file, truth_file, "--mpp", 0.25)["areas"]
    foreground, real = moved > 0, truth > 0
    dice = 2 * (foreground & real).sum() / (foreground.sum() + real.sum())
    assert areas["dice"] == pytest.approx(dice)
    assert areas["hausdorff_um"] == pytest.approx(0.25 * hausdorff_distance(foreground, real))
    common = np.zeros((moved.max() + 1, truth.max() + 1))
    np.add.at(common, (moved, truth), 1)
    union = common.sum(axis=1, keepdims=True) + common.sum(axis=0) - common
    iou = (common / np.maximum(union, 1))[1:, 1:]
    hits = iou[iou > 0.5]
    n_moved, n_truth = len(np.unique(moved)) - 1, len(np.unique(truth)) - 1
    assert areas["dq"] == pytest.approx(2 * len(hits) / (n_moved + n_truth))
    assert areas["sq"] == pytest.approx(hits.mean())
    sweep = [2 * (iou > percent / 100).sum() / (n_moved + n_truth) for percent in range(50, 100, 5)]
    assert areas["mean_f1"] == pytest.approx(np.mean(sweep))


def test_moved_real_map_obeys_the_laws(
    shifted: tuple[Path, Path, np.ndarray, np.ndarray], report: Command
) -> None:
    moved_file, truth_file, _, _ = shifted
    forth = report(moved_file, truth_file, "--mpp", 0.25)
    back = report(truth_file, moved_file, "--mpp", 0.25)
    areas, other = forth["areas"], back["areas"]
    assert areas["pq"] == pytest.approx(areas["dq"] * areas["sq"])
    for name in ("dice", "object_dice", "aji_plus", "dq", "sq", "pq", "hausdorff_um", "object_hausdorff_um"):
        assert areas[name] == pytest.approx(other[name]), name
    assert (areas["mdr"], areas["usr"]) == pytest.approx((other["fdr"], other["osr"]))
    points, reverse = forth["points"][0], back["points"][0]
    assert points["precision"] == pytest.approx(reverse["recall"])
    # Nuclei that the move cuts at the edge keep no exact distance; the others are 5 px away, 1.25 um.
    assert points["distance_mean_um"] == pytest.approx(1.25, abs=0.03)


def test_areas_of_two_maps_by_hand(tmp_path: Path, report: Command, evaluate: Command) -> None:
    # One nucleus of 10 x 10 found as 10 x 8 within it; one of 5 x 10 missed; a false one of 2 x 10.
    truth = write_map(tmp_path / "t.tif", (0, 10, 0, 10), (20, 25, 0, 10))
    found = write_map(tmp_path / "p.tif", (0, 10, 0, 8), (30, 32, 0, 10))
    areas = report(found, truth, "--mpp", 0.5)["areas"]
    assert areas["dice"] == pytest.approx(2 * 80 / (100 + 150))
    assert areas["aji"] == pytest.approx(80 / (100 + 50 + 20))
    assert (areas["dq"], areas["sq"], areas["pq"]) == pytest.approx((1 / 2, 0.8, 0.4))
    # At an IoU of 0.8 it matches above 0.5 to 0.75, six of ten thresholds.
    assert areas["mean_f1"] == pytest.approx(6 / 10 / 2)
    assert areas["joint_f1"] == pytest.approx(1 / 2)
    assert [areas[name] for name in RATES] == pytest.approx([1 / 2, 1 / 2, 0, 0])
    # Farthest from the other side are the true row 20, 10 px from row 30, and the predicted row 31, 7 px.
    assert areas["hausdorff_um"] == pytest.approx(0.5 * 10)
    assert figure(evaluate(found, truth, "--mpp", 0.5), "panoptic quality (PQ)").endswith(
        "0.4000 Kirillov 2019"
    )


def test_areas_of_two_outline_files_by_hand(tmp_path: Path, report: Command) -> None:
    # Two of side 10; the first moved by 2 (IoU 80/120), the second by 20 (none).
    truth = write_squares(tmp_path / "t.geojson", (0, 0), (100, 0))
    found = write_squares(tmp_path / "p.geojson", (2, 0), (120, 0))
    result = report(found, truth, "--radius-px", 5)
    areas = result["areas"]
    assert areas["dice"] == pytest.approx(2 * 80 / 400)
    assert areas["aji"] == pytest.approx(80 / (120 + 100 + 100))
    assert (areas["dq"], areas["sq"]) == pytest.approx((1 / 2, 2 / 3))
    assert not any("hausdorff" in name for name in areas)
    assert result["points"][0]["distance_mean_px"] == pytest.approx(2)


def test_outlines_that_overlap_each_other_count_once_in_dice(tmp_path: Path, report: Command) -> None:
    path = write_squares(tmp_path / "t.geojson", (0, 0), (5, 0))
    assert report(path, path, "--radius-px", 1)["areas"]["dice"] == pytest.approx(1)


def test_real_outlines_against_themselves_are_perfect(real_file: Command, report: Command) -> None:
    # Many cross themselves, and stay a hair from valid when repaired once.
    path = real_file(KUMAR_XML)
    areas = report(path, path, "--radius-px", 1)["areas"]
    assert [areas[name] for name in SHARES] == pytest.approx([1.0] * len(SHARES))


def test_real_outlines_can_be_moved(real_file: Command, report: Command) -> None:
    path = real_file(KUMAR_XML)
    result = report(path, path, "--radius-px", 6, "--pred-shift", 3, -4)
    assert result["points"][0]["tp"] == result["truth"]["nuclei"]
    assert 0 < result["areas"]["dice"] < 1


def test_map_against_outlines_is_refused_but_for_points(
    tmp_path: Path, refusal: Command, report: Command
) -> None:
    found = write_map(tmp_path / "p.tif", (0, 10, 0, 10))
    truth = write_squares(tmp_path / "t.geojson", (0, 0))
    message = refusal(found, truth, "--radius-px", 3)
    assert str(found) in message
    assert str(truth) in message
    assert "--points-only" in message
    result = report(found, truth, "--radius-px", 3, "--points-only")
    assert result["areas"] is None
    # Centre of the pixels 0 to 9 against the centre of the square from 0 to 10, half a pixel each way.
    assert result["points"][0]["distance_mean_px"] == pytest.approx(math.sqrt(0.5))
    assert any("--pred-shift" in note for note in result["notes"])
    corrected = report(found, truth, "--radius-px", 3, "--points-only", "--pred-shift", 0.5, 0.5)
    assert corrected["points"][0]["distance_mean_px"] == 0
    assert not any("--pred-shift" in note for note in corrected["notes"])


def test_map_against_points_is_scored_by_centroids(tmp_path: Path, report: Command) -> None:
    found = write_map(tmp_path / "p.tif", (0, 10, 0, 10))
    result = report(found, write_points(tmp_path / "t.csv", "4.5,4.5"), "--radius-px", 1)
    assert result["areas"] is None
    assert result["points"][0]["tp"] == 1


def test_maps_of_different_sizes_are_refused_by_name(tmp_path: Path, refusal: Command) -> None:
    found = write_map(tmp_path / "p.tif", (0, 10, 0, 10), size=40)
    truth = write_map(tmp_path / "t.tif", (0, 10, 0, 10), size=50)
    message = refusal(found, truth, "--mpp", 0.25)
    assert f"{found} has 40 x 40 pixels, {truth} 50 x 50" in message
    message = refusal(found, truth, "--mpp", 0.25, "--pred-mpp", 0.5)
    assert str(found) in message
    assert str(truth) in message


def test_map_of_half_the_resolution_is_laid_over(tmp_path: Path, report: Command) -> None:
    found = write_map(tmp_path / "p.tif", (1, 6, 2, 9), (10, 15, 3, 8), size=20)
    truth = tmp_path / "t.npy"
    np.save(truth, np.kron(tifffile.imread(found), np.ones((2, 2), np.uint16)))
    result = report(found, truth, "--mpp", 0.25, "--pred-mpp", 0.5)
    assert [result["areas"][name] for name in SHARES] == pytest.approx([1.0] * len(SHARES))
    assert result["points"][0]["distance_mean_um"] == pytest.approx(0)


def test_points_of_another_resolution_are_scaled_about_the_corner(tmp_path: Path, report: Command) -> None:
    # Pixel 10 of 0.5 um covers pixels 20 and 21 of 0.25 um, so its centre is at 20.5.
    found, truth = write_points(tmp_path / "p.csv", "10,20"), write_points(tmp_path / "t.csv", "20.5,40.5")
    points = report(found, truth, "--mpp", 0.25, "--pred-mpp", 0.5)["points"][0]
    assert points["distance_mean_um"] == pytest.approx(0)
    table = write_nuclei(tmp_path / "n.parquet", [(10, 20)], [0.5], "0.5")
    points = report(table, truth, "--mpp", 0.25, "--pred-mpp", 0.5)["points"][0]
    assert points["distance_mean_um"] == pytest.approx(0)


def test_two_maps_cannot_be_shifted(tmp_path: Path, refusal: Command) -> None:
    found = write_map(tmp_path / "p.tif", (0, 10, 0, 10))
    assert "--pred-shift" in refusal(found, found, "--mpp", 1, "--pred-shift", 1, 0)


def test_region_leaves_out_what_lies_outside(tmp_path: Path, report: Command) -> None:
    # Inside the region of 0 to 100: a pair, a miss, a false one. Outside: a miss and a false one. The pair at
    # the border counts, for its annotation is inside.
    region = write_squares(tmp_path / "r.geojson", (0, 0), side=100)
    truth = write_points(tmp_path / "t.csv", "10,10", "50,50", "99,50", "300,300")
    found = write_points(tmp_path / "p.csv", "11,10", "80,80", "102,50", "500,500")
    points = report(found, truth, "--radius-px", 5, "--region", region)["points"][0]
    assert (points["tp"], points["fp"], points["fn"]) == (2, 1, 1)
    whole = report(found, truth, "--radius-px", 5)["points"][0]
    assert (whole["tp"], whole["fp"], whole["fn"]) == (2, 2, 2)


def test_region_as_a_mask_takes_its_scale_from_a_true_map(
    tmp_path: Path, report: Command, refusal: Command
) -> None:
    truth = write_map(tmp_path / "t.tif", (0, 10, 0, 10), (25, 35, 25, 35))
    region = tmp_path / "r.png"
    Image.fromarray(np.array([[1, 0], [0, 0]], np.uint8)).save(region)  # the upper left quarter
    result = report(truth, truth, "--mpp", 1, "--region", region)
    assert (result["points"][0]["tp"], result["points"][0]["fn"]) == (1, 0)
    assert "hausdorff_um" not in result["areas"]
    assert any("Hausdorff" in note for note in result["notes"])
    points = write_points(tmp_path / "t.csv", "5,5")
    assert str(region) in refusal(truth, points, "--mpp", 1, "--region", region)


def test_areas_in_a_region_are_those_of_its_nuclei(tmp_path: Path, report: Command) -> None:
    # Inside: one found as 10 x 8, and a false one. Outside: one that is missed.
    found = write_map(tmp_path / "p.tif", (0, 10, 0, 8), (12, 14, 0, 10), (30, 32, 30, 40))
    truth = write_map(tmp_path / "t.tif", (0, 10, 0, 10), (20, 40, 0, 10))
    region = write_squares(tmp_path / "r.geojson", (-0.5, -0.5), side=20)
    areas = report(found, truth, "--mpp", 1, "--region", region)["areas"]
    assert areas["aji"] == pytest.approx(80 / (100 + 20))
    assert (areas["dq"], areas["dice"]) == pytest.approx((2 / 3, 160 / 200))
    moved = write_squares(tmp_path / "p.geojson", (2, 0), (11.5, 0), (60, 0))  # 0.5 wide lies on the first
    outlines = write_squares(tmp_path / "t.geojson", (0, 0), (50, 50))
    areas = report(moved, outlines, "--mpp", 1, "--region", region)["areas"]
    # The second prediction keeps 9.5 x 10, what the first does not cover.
    assert areas["aji"] == pytest.approx(80 / (120 + 95))


def test_match_table_names_rows_as_the_files_do(tmp_path: Path, evaluate: Command) -> None:
    found = write_nuclei(tmp_path / "n.parquet", [(900, 900), (0, 0), (50, 50)], [0.9, 0.8, 0.7], mpp="0.25")
    truth = write_points(tmp_path / "t.csv", "70,70,x", "500,0,x", "2,0,y", header="x,y,class")
    region = write_squares(tmp_path / "r.geojson", (-50, -50), side=700)
    matches = tmp_path / "m.parquet"
    evaluate(found, truth, "--radius", 1, "--region", region, "--matches", matches)
    table = pd.read_parquet(matches)
    assert table["kind"].tolist() == ["TP", "FP", "FN", "FN"]
    assert table["nucleus_id"].fillna(-1).tolist() == [2, 3, -1, -1]
    assert table["annotation_id"].fillna(-1).tolist() == [2, -1, 0, 1]
    assert table["truth_class"].tolist() == ["y", "", "x", "x"]
    assert table["class_name"].tolist() == ["", "", "", ""]
    assert table["distance_um"][0] == pytest.approx(0.5)


def test_classes_of_a_nuclei_table_are_read(tmp_path: Path, report: Command) -> None:
    path = write_nuclei(tmp_path / "n.parquet", [(0, 0), (90, 0)], [0.9, 0.8], mpp="0.25")
    pq.write_table(pq.read_table(path).append_column("class_name", pa.array(["a", None])), path)
    assert report(path, path)["points"][0]["classes"]["names"] == ["a", "(none)"]


def test_gzipped_files_are_known_by_the_extension_below(tmp_path: Path, report: Command) -> None:
    for name, plain in (
        ("p.csv.gz", write_points(tmp_path / "p.csv", "5,5")),
        ("p.geojson.gz", write_squares(tmp_path / "p.geojson", (0, 0))),
    ):
        packed = tmp_path / name
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        assert report(packed, plain, "--radius-px", 1)["points"][0]["tp"] == 1


def test_ambiguous_extension_asks_for_the_format(tmp_path: Path, refusal: Command, report: Command) -> None:
    path, truth = tmp_path / "p.mat", write_points(tmp_path / "t.csv", "1,1")
    scipy.io.savemat(path, {"detection": np.array([[1.0, 1.0], [9.0, 9.0]])})
    message = refusal(path, truth, "--radius-px", 1)
    assert "--pred-format" in message
    assert "instance_mat, points_mat" in message
    points = report(path, truth, "--radius-px", 1, "--pred-format", "points_mat")["points"][0]
    assert (points["tp"], points["fp"]) == (1, 1)
    assert "--truth-format" in refusal(truth, path, "--radius-px", 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --mpp"),
        (("--radius", "0", "--mpp", "1"), "--radius is 0"),
        (("--radius-px", "nan"), "--radius-px is nan"),
        (("--mpp", "-1"), "--mpp is -1"),
        (("--mpp", "1", "--pred-mpp", "inf"), "--pred-mpp is inf"),
        (("--radius-px", "4", "--pred-mpp", "1"), "give --mpp"),
        (("--radius-px", "4", "--matches", "m.parquet"), "give --mpp"),
        (("--mpp", "1", "--matches", "m.csv"), "m.csv"),
        (("--mpp", "1", "--pred-shift", "nan", "0"), "--pred-shift"),
        (("--mpp", "1", "--pred-format", "coco"), "nuclei_parquet, instance_png"),
        (("--mpp", "1", "--region", "r.json"), "r.json"),
    ],
)
def test_options_that_make_no_sense_are_named(
    tmp_path: Path, refusal: Command, options: tuple[str, ...], said: str
) -> None:
    path = write_points(tmp_path / "p.csv", "1,1")
    assert said in refusal(path, path, *options)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"x": [1.0], "y": [1.0]}, "no column nucleus_id, probability"),
        ({"nucleus_id": [1], "x": [math.nan], "y": [1.0], "probability": [0.5]}, "row 0: x is nan"),
        ({"nucleus_id": [1], "x": ["one"], "y": [1.0], "probability": [0.5]}, "'one'"),
    ],
    ids=["a column is missing", "not a number", "text"],
)
def test_bad_nuclei_table_is_named(
    tmp_path: Path, refusal: Command, table: dict[str, list], said: str
) -> None:
    path = tmp_path / "n.parquet"
    pq.write_table(pa.table(table), path)
    message = refusal(path, write_points(tmp_path / "t.csv", "1,1"), "--mpp", 1)
    assert str(path) in message
    assert said in message


def test_damaged_nuclei_table_is_named(tmp_path: Path, refusal: Command) -> None:
    path = tmp_path / "n.parquet"
    path.write_bytes(b"PAR1 but no more")
    truth = write_points(tmp_path / "t.csv", "1,1")
    assert str(path) in refusal(path, truth, "--mpp", 1)
    assert str(path) in refusal(path, truth)


@pytest.mark.parametrize("name", ["gone.parquet", "gone.xml", "gone.geojson", "gone.csv", "gone.png"])
def test_missing_file_is_named(tmp_path: Path, refusal: Command, name: str) -> None:
    truth = write_points(tmp_path / "t.csv", "1,1")
    assert name in refusal(tmp_path / name, truth, "--mpp", 1)
    assert name in refusal(truth, tmp_path / name, "--mpp", 1)
