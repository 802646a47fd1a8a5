"""Input made to do harm: refused quickly, in bounded memory, with nothing written outside `results/`."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from karyon.cohort.configuration import complete_config
from karyon.errors import KaryonError, SheetError, SlideError
from karyon.io.annotations import read_points
from karyon.io.sheets import read_sheet
from karyon.io.slides import PatchedSlide, open_slide
from karyon.models.card import file_sha256, model_folder
from karyon.models.weights import load_model

HOSTILE_IDS = [
    "..",
    "../up",
    "a/b",
    "/etc/passwd",
    "a\0b",
    "-rf",
    "--config=x",
    "a..b",
    ".hidden",
    "~root",
    "a b",
]


def in_little_memory(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run some code with little more memory than importing Karyon takes, and ten seconds of CPU."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))

    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def test_ids_that_could_leave_results_are_all_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"any")
    rows = "".join(f"{slide_id}\ta.svs\n" for slide_id in HOSTILE_IDS)
    (tmp_path / "cohort.tsv").write_text("slide_id\tpath\n" + rows)
    with pytest.raises(SheetError) as caught:
        read_sheet(tmp_path / "cohort.tsv")
    message = str(caught.value)
    for row, slide_id in enumerate(HOSTILE_IDS, start=2):
        assert f"row {row}: slide_id is {slide_id!r}; expected a safe file name" in message
    assert "\0" not in message


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_a_cohorts_name_cannot_leave_results_either(name: str) -> None:
    with pytest.raises(SheetError, match=r"cohort is .*expected a safe file name"):
        complete_config({"cohort": name, "sheet": "cohort.tsv"})


def test_ten_million_columns_are_refused_in_little_time_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "cohort.tsv"
    path.write_bytes(b"slide_id\tpath\n" + b"\t" * 10_000_000 + b"\n")
    code = (
        "import sys; from pathlib import Path; from karyon.errors import SheetError\n"
        "from karyon.io.sheets import read_sheet\n"
        "try: read_sheet(Path(sys.argv[1]))\n"
        "except SheetError as error: print(error)"
    )
    result = in_little_memory(code, str(path))
    assert (
        result.stdout
        == f"{path}, row 2: more than 1000 columns or 1,048,576 bytes; this is not a sheet of slides.\n"
    )


def test_expanding_entities_are_refused_unexpanded(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY l{k + 1} "{f"&l{k};" * 10}">' for k in range(12))
    path = tmp_path / "laughs.xml"
    path.write_text(f'<!DOCTYPE Annotations [<!ENTITY l0 "ha">{laughs}]><Annotations>&l12;</Annotations>')
    code = (
        "import sys; from pathlib import Path; from karyon.errors import SlideError\n"
        "from karyon.io.annotations import read_points\n"
        "try: read_points(Path(sys.argv[1]), 'imagescope_xml', (10, 10))\n"
        "except SlideError as error: print(error)"
    )
    result = in_little_memory(code, str(path))
    assert f"{path}: declares entities or external references, which are refused" in result.stdout


def test_an_external_entity_does_not_read_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret text")
    path = tmp_path / "a.xml"
    path.write_text(
        f'<!DOCTYPE Annotations [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><Annotations>&x;</Annotations>'
    )
    with pytest.raises(SlideError, match="declares entities") as caught:
        read_points(path, "imagescope_xml", None)
    assert "secret text" not in str(caught.value)


def test_a_pickle_that_poses_as_weights_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    card = yaml.safe_load((model_folder("switch_unet") / "card.yaml").read_text())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(pickle.dumps({"weight": Trap()}))
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({**card, "sha256": file_sha256(weights)}))
    with pytest.raises(KaryonError, match=r"model\.safetensors: not the weights of"):
        load_model(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.svs")
    with pytest.raises(SlideError, match=r"a\.svs: that is a device or pipe; expected a file"):
        open_slide(tmp_path / "a.svs", mpp=0.5)


def test_an_mpp_at_which_the_slide_would_be_larger_than_any_glass_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    Image.new("L", (20_000, 10)).save(path)
    with open_slide(path, mpp=12.0) as slide:
        assert slide.facts.mpp == 12.0
    with pytest.raises(SlideError, match=r"at 20 microns per pixel \(from sheet\) it would be 400 mm long"):
        open_slide(path, mpp=20.0)


@pytest.fixture
def holed(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A slide of 10 x 10 tiles of 64 pixels of which one, in row 4 and column 6, cannot be decoded."""
    pixels = np.random.default_rng(3).integers(0, 200, (640, 640, 3), dtype=np.uint8)
    path = tmp_path / "holed.tif"
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        start, length = tiff.pages[0].dataoffsets[46], tiff.pages[0].databytecounts[46]
    content = bytearray(path.read_bytes())
    content[start : start + length] = bytes(length)
    path.write_bytes(content)
    return path, pixels


def test_an_overview_loses_only_what_lies_near_a_broken_tile(holed: tuple[Path, np.ndarray]) -> None:
    path, pixels = holed
    with PatchedSlide(open_slide(path, mpp=0.5), limit=0.2) as slide:
        overview = slide.read(0, 0, 0, 640, 640)
    lost = (overview == 255).all(axis=-1)
    np.testing.assert_array_equal(overview[~lost], pixels[~lost])
    assert lost[256:320, 384:448].all()
    assert slide.lost == pytest.approx(lost.mean())
    assert lost.sum() <= 128 * 128


def test_an_overview_of_which_too_much_is_lost_is_refused(holed: tuple[Path, np.ndarray]) -> None:
    path, _ = holed
    with (
        PatchedSlide(open_slide(path, mpp=0.5), limit=0.009) as slide,
        pytest.raises(SlideError, match=r"More than 1% of the slide cannot be read: .*copy it again"),
    ):
        slide.read(0, 0, 0, 640, 640)
