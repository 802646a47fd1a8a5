"""`karyon ask`: answers by hand and by brute force."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from karyon.cli.main import main
from karyon.cohort.questions import ANY_CLASS, density_maps

CLASSES = np.array(["tumour", "stroma"])


def nuclei_of(slide: str, number: int, seed: int, classes: bool) -> pa.Table:
    random = np.random.default_rng(seed)
    columns: dict[str, object] = {
        "slide_id": pa.array([slide] * number, pa.dictionary(pa.int32(), pa.string())),
        "x_um": random.random(number) * 500,
        "y_um": random.random(number) * 300,
    }
    if classes:
        names = CLASSES[random.integers(0, 2, number)] if number > 5 else ["tumour"] * number
        columns["class_name"] = pa.array(names, pa.string()).dictionary_encode()
    return pa.table(columns)


def make_cohort(folder: Path, classes: bool) -> Path:
    """Slides `a` of 60 nuclei, `b` of 5 tumour nuclei, `c` of none, and `d`, which failed."""
    (folder / "nuclei").mkdir(parents=True)
    for seed, (slide, number) in enumerate({"a": 60, "b": 5, "c": 0}.items()):
        pq.write_table(nuclei_of(slide, number, seed, classes), folder / "nuclei" / f"{slide}.parquet")
    pd.DataFrame(
        {
            "slide_id": list("abcd"),
            "status": ["done"] * 3 + ["failed"],
            "tissue_mm2": [2.0, 0.5, 1.0, np.nan],
            "width": 1000,
            "height": 600,
            "mpp": 0.5,
        }
    ).to_parquet(folder / "slides.parquet")
    return folder


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return make_cohort(tmp_path / "cohort", classes=True)


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., pd.DataFrame]:
    def run(*words: object) -> pd.DataFrame:
        assert main(["ask", *map(str, words)]) == 0
        return pd.read_csv(io.StringIO(capsys.readouterr().out))

    return run


def test_counts_are_of_every_class_on_every_slide(answer: Callable[..., pd.DataFrame], cohort: Path) -> None:
    found = answer(cohort, "counts").set_index(["slide_id", "class_name"])
    tumour = pq.read_table(cohort / "nuclei" / "a.parquet")["class_name"].to_pylist().count("tumour")
    assert found["nuclei"].to_dict() == {
        ("a", "stroma"): 60 - tumour,
        ("a", "tumour"): tumour,
        ("b", "stroma"): 0,
        ("b", "tumour"): 5,
        ("c", "stroma"): 0,
        ("c", "tumour"): 0,
    }
    assert found.loc[("a", "tumour"), "nuclei_per_mm2"] == pytest.approx(tumour / 2, rel=1e-5)
    assert found["fraction"].tolist()[:4] == pytest.approx([1 - tumour / 60, tumour / 60, 0, 1], rel=1e-5)
    assert found["fraction"].tail(2).isna().all()


def test_distances_are_those_of_all_pairs(answer: Callable[..., pd.DataFrame], cohort: Path) -> None:
    found = answer(cohort, "distances").set_index(["slide_id", "class_name", "nearest"])
    table = pq.read_table(cohort / "nuclei" / "a.parquet").to_pandas()
    x, y = table["x_um"].to_numpy(), table["y_um"].to_numpy()
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(apart, np.inf)
    for one in CLASSES:
        for other in CLASSES:
            nearest = apart[table["class_name"] == one][:, table["class_name"] == other].min(axis=1)
            expected = [len(nearest), nearest.mean(), *np.percentile(nearest, [25, 50, 75])]
            np.testing.assert_allclose(found.loc[("a", one, other)], expected, rtol=1e-5)
    assert found.loc["b"].index.tolist() == [("tumour", "tumour")]
    assert "c" not in found.index


def test_model_without_classes_has_one(answer: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "points", classes=False)
    counts = answer(cohort, "counts", "--slide", "b", "c")
    assert counts[["slide_id", "class_name", "nuclei"]].to_numpy().tolist() == [
        ["b", ANY_CLASS, 5],
        ["c", ANY_CLASS, 0],
    ]
    assert answer(cohort, "distances")["nuclei"].tolist() == [60, 5]


def test_density_is_of_every_cell_of_the_slide(cohort: Path) -> None:
    maps = density_maps(cohort / "nuclei" / "a.parquet", 500, 300)
    table = pq.read_table(cohort / "nuclei" / "a.parquet").to_pandas()
    assert set(maps) == {ANY_CLASS, *CLASSES}
    for name, density in maps.items():
        chosen = table if name == ANY_CLASS else table[table["class_name"] == name]
        edges = (np.arange(0, 301, 100), np.arange(0, 501, 100))
        expected = np.histogram2d(chosen["y_um"], chosen["x_um"], bins=edges)[0]
        np.testing.assert_allclose(density, expected * 100)  # a hundred cells of 100 um make a mm2


def test_the_last_cells_of_a_slide_end_with_it(cohort: Path) -> None:
    table = pq.read_table(cohort / "nuclei" / "a.parquet").to_pandas()
    # Of 440 um the rest joins the fourth cell; 270 um have a third cell of 70.
    edges = (np.array([0, 100, 200, 300]), np.array([0, 100, 200, 300, 500]))
    counted = np.histogram2d(table["y_um"], table["x_um"], bins=edges)[0]
    area_mm2 = np.outer([0.1, 0.1, 0.07], [0.1, 0.1, 0.1, 0.14])
    density = density_maps(cohort / "nuclei" / "a.parquet", 440, 270)[ANY_CLASS]
    np.testing.assert_allclose(density, counted / area_mm2)


def test_heatmaps_are_written_for_every_slide(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(cohort), "heatmaps"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths == [cohort / "heatmaps" / f"{slide}.png" for slide in "abc"]
    sizes = []
    for path in paths:
        with Image.open(path) as picture:
            sizes.append(picture.size)
    (wide, high), (two, _), (one, low) = sizes
    assert (wide, two, high) == (3 * one, 2 * one, low)


def test_slide_that_failed_is_refused(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(cohort), "counts", "--slide", "a", "d"]) == 1
    assert "slides.parquet: no finished slide d" in capsys.readouterr().err


# Held back until the end, or written at once as every long answer is.
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_command_whose_reader_is_gone_ends_quietly(cohort: Path, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "karyon.cli.main", "ask", str(cohort), "counts"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
