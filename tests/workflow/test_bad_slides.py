"""Every kind of bad slide in one cohort with good ones: the good complete, the others say why."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from conftest import REPOSITORY, SETTINGS, SNAKEMAKE, Workflow, new_workflow
from PIL import Image

from karyon.demo.cohort import render_cohort

DATA = Path(os.environ.get("KARYON_DATA", REPOSITORY.parent / "shared" / "data"))
UNOPENABLE = DATA / "slides" / "openslide-python_unopenable.tiff"
BAD_SETTINGS = {**SETTINGS, "shard_size": 64, "missing_slides": "record"}
ODD_NAME = "a 'quoted' \"slide\" $HOME * Größe 漢字.svs"

# What becomes of each slide, and what its row says of the reason: words of `error`, or of `warning`.
DONE = {
    "good": "",
    "odd_path": "",
    "single_level": "",
    "alpha": "",
    "palette": "",
    "cmyk": "",
    "gray": "a gray or single-stain slide",
    "larger": "",
    "broken_tile": "% of the tissue could not be decoded",
}
NO_TISSUE = {"blank": "no tissue: the slide is blank", "minute": "no tissue: the slide is blank, or no piece"}
FAILED = {
    "empty": "the file is empty (0 bytes); copy it again",
    "text": "damaged, incomplete or not a slide: copy it again",
    "truncated": "damaged, incomplete or not a slide: copy it again",
    "half_lost": "More than 5% of the slide cannot be read",
    "black": "not a bright-field slide (fluorescence, or black)",
    "fluorescence": "not a bright-field slide (fluorescence, or black)",
    "no_mpp": "does not state its microns per pixel. Give it in the sheet's column mpp",
    "mpp_1000": "mpp from metadata is 1000; expected 0.05 to 20",
    "sixteen_bit": "convert it to 8-bit RGB",
    "missing": "No such file or directory); check the path in the sheet",
    "locked": "Permission denied); ask whoever owns the file for the right to read it",
    "folder": "Is a directory); name the slide's file in the sheet, not a folder",
    "bomb": "too large for a plain image",
}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The file of each slide, all made from one good slide of 900 x 700 pixels."""
    folder = tmp_path_factory.mktemp("bad")
    render_cohort(folder, slides=1, width=900, height=700, mpp=0.5, seed=7)
    # Of this one a tile of the file is less than 5 %.
    render_cohort(folder / "larger", slides=1, width=2000, height=1600, mpp=0.5, seed=8)
    larger = folder / "larger" / "slides" / "demo-1.svs"
    good = folder / "slides" / "demo-1.svs"
    with openslide.OpenSlide(good) as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    return {
        "good": good,
        "larger": larger,
        "broken_tile": with_broken_tiles(larger, folder / "broken_tile.svs", [19]),
        "odd_path": Path(shutil.copy(good, folder / ODD_NAME)),
        **damaged_copies(folder, good),
        **plain_images(folder, pixels[200:456, 300:556]),
        **paintings(folder),
        "single_level": tiled_tiff(folder / "single_level.tif", pixels),
        "half_lost": with_broken_tiles(
            tiled_tiff(folder / "whole.tif", pixels), folder / "half_lost.tif", range(6)
        ),
        "missing": folder / "missing.svs",
        "folder": folder / "slides",
    }


def damaged_copies(folder: Path, good: Path) -> dict[str, Path]:
    content = good.read_bytes()
    contents = {
        "empty": b"",
        "text": b"version https://git-lfs.github.com/spec/v1\n",
        "truncated": content[: len(content) * 6 // 10],
        "mpp_1000": content.replace(b"MPP = 0.5", b"MPP = 1e3"),
        "locked": content,
    }
    paths = {name: folder / f"{name}.svs" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    paths["locked"].chmod(0)
    return paths


def with_broken_tiles(source: Path, target: Path, numbers: range | list[int]) -> Path:
    """A copy in which some tiles of level 0 hold no JPEG any more."""
    content = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[0]
        for number in numbers:
            start, length = page.dataoffsets[number], page.databytecounts[number]
            content[start : start + length] = b"\xa5" * length
    target.write_bytes(content)
    return target


def plain_images(folder: Path, pixels: np.ndarray) -> dict[str, Path]:
    image = Image.fromarray(pixels)
    images = {
        "alpha.png": image.convert("RGBA"),
        "palette.png": image.quantize(256),
        "cmyk.tif": image.convert("CMYK"),
        "gray.png": image.convert("L"),
        "no_mpp.png": image,
        "minute.png": image.resize((16, 16)),
    }
    for name, variant in images.items():
        variant.save(folder / name)
    tifffile.imwrite(folder / "sixteen_bit.tif", pixels.astype(np.uint16) * 257, photometric="rgb")
    return {Path(name).stem: folder / name for name in (*images, "sixteen_bit.tif")}


def paintings(folder: Path) -> dict[str, Path]:
    y, x = np.mgrid[:600, :600]
    cells = ((x % 60 - 30) ** 2 + (y % 60 - 30) ** 2 < 15**2)[..., None]  # a fifth of the area
    pictures = {
        "blank": np.full((600, 600, 3), 244, np.uint8),
        "black": np.zeros((600, 600, 3), np.uint8),
        "fluorescence": np.where(cells, (90, 130, 250), (9, 5, 12)).astype(np.uint8),
    }
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    (folder / "bomb.png").write_bytes(png_header(200_000, 200_000))
    return {name: folder / f"{name}.png" for name in (*pictures, "bomb")}


def png_header(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that says it is 120 GB of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiled_tiff(path: Path, pixels: np.ndarray) -> Path:
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="jpeg")
    return path


def sheet_of(slides: dict[str, Path]) -> pd.DataFrame:
    from_file = ("no_mpp", "mpp_1000")
    rows = [(name, str(path), None if name in from_file else 0.5) for name, path in slides.items()]
    return pd.DataFrame(rows, columns=["slide_id", "path", "mpp"])


def bound_by_permissions() -> tuple[str, ...]:
    """What to put before a command for the permissions of files to bind it: root overrides them."""
    if os.geteuid():
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("tests run as root, and there is no setpriv to give up root's right to read anything")
    lacking = "-dac_override,-dac_read_search"
    return ("setpriv", "--inh-caps", lacking, "--bounding-set", lacking)


@pytest.fixture(scope="module")
def finished_with_bad(slides: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The cohort after a run in which any share of the slides may fail."""
    workflow = new_workflow(tmp_path_factory.mktemp("cohort") / "work")
    extra = {"unopenable": UNOPENABLE} if UNOPENABLE.exists() else {}
    workflow.write_sheet(sheet_of({**slides, **extra}))
    workflow.write_settings({**BAD_SETTINGS, "max_failed_fraction": 1.0})
    command = [*bound_by_permissions(), *SNAKEMAKE]
    result = subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True, check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "Traceback" not in output
    assert "will be tried again" not in output  # none of this passes by itself
    return workflow


@pytest.fixture(scope="module")
def table(finished_with_bad: Workflow) -> pd.DataFrame:
    return pd.read_parquet(finished_with_bad.folder / "results" / "tiny" / "slides.parquet").set_index(
        "slide_id"
    )


@pytest.mark.slow
@pytest.mark.parametrize("slide_id", DONE)
def test_good_slides_beside_bad_ones_complete(
    finished_with_bad: Workflow, table: pd.DataFrame, slide_id: str
) -> None:
    row = table.loc[slide_id]
    assert (row["status"], row["error"]) == ("done", "")
    assert DONE[slide_id] in row["warning"]
    assert bool(row["warning"]) == bool(DONE[slide_id])
    results = finished_with_bad.folder / "results" / "tiny"
    assert len(pd.read_parquet(results / "nuclei" / f"{slide_id}.parquet")) == row["nuclei"] >= 10
    assert (results / "report" / "Overlays" / f"{slide_id}.png").is_file()


@pytest.mark.slow
def test_the_name_of_a_file_does_not_change_its_nuclei(table: pd.DataFrame) -> None:
    assert table.loc["odd_path", "path"].endswith(ODD_NAME)
    assert table.loc["odd_path", "nuclei"] == table.loc["good", "nuclei"]


@pytest.mark.slow
def test_a_broken_tile_costs_only_the_nuclei_near_it(
    finished_with_bad: Workflow, table: pd.DataFrame
) -> None:
    # Several tiles' halos reach into it, or none does.
    assert 0 < table.loc["broken_tile", "lost_share"] < 0.05
    folder = finished_with_bad.folder / "results" / "tiny" / "nuclei"
    tile, reach = (768, 512, 1024, 768), 64 + 112  # of the box that is given up, and of the network

    def far(name: str) -> int:
        points = pd.read_parquet(folder / f"{name}.parquet")[["x", "y"]].to_numpy()
        left, top, right, bottom = tile
        return int((np.maximum([left, top] - points, points - [right, bottom]).max(axis=1) > reach).sum())

    assert far("larger") > 1000
    assert far("broken_tile") == pytest.approx(far("larger"), rel=0.02)  # the stain fit lacks some pixels
    assert table.loc["broken_tile", "nuclei"] < table.loc["larger", "nuclei"]


@pytest.mark.slow
@pytest.mark.parametrize("slide_id", NO_TISSUE)
def test_slides_without_tissue_say_so_and_do_not_count_as_failed(table: pd.DataFrame, slide_id: str) -> None:
    row = table.loc[slide_id]
    assert (row["status"], row["error"]) == ("no_tissue", "")
    assert NO_TISSUE[slide_id] in row["warning"]


@pytest.mark.slow
@pytest.mark.parametrize("slide_id", [*FAILED, "unopenable"])
def test_rows_of_bad_slides_say_what_is_wrong_and_what_to_do(
    slides: dict[str, Path], table: pd.DataFrame, slide_id: str
) -> None:
    if slide_id == "unopenable" and not UNOPENABLE.exists():
        pytest.skip(f"no real data: {UNOPENABLE} is missing (set KARYON_DATA)")
    row = table.loc[slide_id]
    assert (row["status"], row["failed_stage"]) == ("failed", "tissue")
    assert FAILED.get(slide_id, "damaged, incomplete or not a slide: copy it again") in row["error"]
    assert row["error"].startswith(f"{row['path']}: ")
    assert "Error: " not in row["error"]  # no name of an exception


@pytest.mark.slow
def test_too_many_bad_slides_are_an_error_that_lists_them(
    finished_with_bad: Workflow, table: pd.DataFrame, tmp_path: Path
) -> None:
    workflow = finished_with_bad.copy(tmp_path / "work")
    failed = int((table["status"] == "failed").sum())
    just_less = (failed - 0.5) / len(table)
    result = workflow.run(settings={**BAD_SETTINGS, "max_failed_fraction": just_less})
    output = result.stdout + result.stderr
    assert result.returncode == 1
    assert f"{failed} of {len(table)} slides failed" in output
    assert "mend the slides and start again, only they are redone" in output
    for slide_id in FAILED:
        assert f"{slide_id}: tissue: " in output


@pytest.mark.slow
def test_mended_slides_are_picked_up_and_nothing_else_is_redone(
    finished_with_bad: Workflow, slides: dict[str, Path], tmp_path: Path
) -> None:
    workflow = finished_with_bad.copy(tmp_path / "work")
    records = workflow.folder / "results" / "tiny" / "records"
    before = {path: path.stat().st_mtime_ns for path in records.rglob("*.json")}
    shutil.copy(slides["good"], slides["missing"])
    slides["locked"].chmod(0o644)
    # The right to read a file is none of its times: Snakemake has to be told.
    result = workflow.run("--forcerun", "tissue")
    assert result.returncode == 0, result.stdout + result.stderr
    table = pd.read_parquet(workflow.folder / "results" / "tiny" / "slides.parquet").set_index("slide_id")
    assert list(table.loc[["missing", "locked"], "status"]) == ["done", "done"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
