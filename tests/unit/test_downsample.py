"""Images at a lower magnification: pixels that average the old ones, annotations that still fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from karyon.cli.main import main
from karyon.errors import KaryonError
from karyon.io.annotations import read_points
from karyon.io.sheets import read_sheet


def cohort(folder: Path, **columns: str) -> Path:
    """One image of 40 x 32 pixels at 0.25 um with three nuclei, as label image and picture."""
    rows, across = np.mgrid[:32, :40]
    labels = np.zeros((32, 40), np.uint16)
    for number, (x, y) in enumerate([(8, 8), (29, 9), (20, 24)], start=1):
        labels[(across - x) ** 2 + (rows - y) ** 2 <= 9] = number
    pixels = np.where(labels[..., None] > 0, 40, 220).repeat(3, axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "field.png")
    Image.fromarray(labels).save(folder / "labels.png")
    row = {
        "slide_id": "field",
        "path": "field.png",
        "mpp": "0.25",
        "annotations": "labels.png",
        "annotation_format": "instance_png",
        **columns,
    }
    sheet = folder / "sheet.tsv"
    sheet.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
    return sheet


def test_pixels_are_averages_and_nuclei_stay_where_they_are(tmp_path: Path) -> None:
    sheet = cohort(tmp_path, organ="lung", patient="P1")
    assert main(["downsample", str(sheet), str(tmp_path / "coarse"), "--mpp", "0.5"]) == 0
    row = read_sheet(tmp_path / "coarse" / "cohort.tsv").iloc[0]
    assert (row["slide_id"], row["organ"], row["patient"]) == ("field", "lung", "P1")
    assert row["mpp"] == 0.5
    pixels = np.asarray(Image.open(row["path"]))
    assert pixels.shape == (16, 20, 3)
    # The kernel of an antialiased bilinear halving has weights 1, 3, 3, 1 in each direction.
    before = np.asarray(Image.open(tmp_path / "field.png"), np.float64)[..., 0]
    kernel = np.array([1, 3, 3, 1]) / 8
    expected = kernel @ before[7:11, 15:19] @ kernel
    assert pixels[4, 8, 0] == pytest.approx(expected, abs=1)
    points = read_points(
        row["annotations"], row["annotation_format"], (20, 16), row["annotation_mpp"] / row["mpp"]
    ).points
    # Pixel centres are whole numbers: (8 + 0.5) / 2 - 0.5 = 3.75.
    np.testing.assert_allclose(points, [(3.75, 3.75), (14.25, 4.25), (9.75, 11.75)], atol=1e-9)


def test_an_image_that_is_coarser_already_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = cohort(tmp_path)
    assert main(["downsample", str(sheet), str(tmp_path / "finer"), "--mpp", "0.2"]) == 1
    assert "slide field: has 0.25 microns per pixel, coarser than 0.2 already" in capsys.readouterr().err
    assert not (tmp_path / "finer" / "cohort.tsv").exists()


def test_a_region_is_refused_as_its_pixels_are_the_old_ones(tmp_path: Path) -> None:
    from karyon.cohort.downsample import downsample_cohort

    sheet = cohort(tmp_path, region="labels.png", region_format="instance_png")
    with pytest.raises(KaryonError, match="slide field: only its region is annotated"):
        downsample_cohort(sheet, 0.5, tmp_path / "coarse")
