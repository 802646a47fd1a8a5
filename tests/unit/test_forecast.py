"""`karyon plan`: sizes from a sample, rates from records, and what they add up to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from karyon.cli.main import main
from karyon.cohort.configuration import complete_config, read_configuration
from karyon.cohort.forecast import INFER_THREADS, START_SECONDS, Forecast, forecast
from karyon.cohort.plan import SlideRow, slides_of, write_plan
from karyon.cohort.rates import MEGABYTES, SECONDS, assumed_rates, earlier_runs, most_alike
from karyon.cohort.sizes import SlideSizes, slide_sizes
from karyon.errors import KaryonError, SheetError
from karyon.io.schemas import REPOSITORY
from karyon.io.sheets import read_sheet
from karyon.models.card import Decoding, ModelCard

CARD = ModelCard("m", "unet", {}, "H-C", 0.5, 8, 2, "probability", Decoding("components", 0.5))


@pytest.fixture
def cohort(tmp_path: Path) -> Callable[[list[tuple[int, int]]], list[SlideRow]]:
    """Uncompressed images of these sizes at 0.5 microns per pixel, as slides of a sheet."""

    def make(sizes: list[tuple[int, int]]) -> list[SlideRow]:
        lines = ["slide_id\tpath\tmpp"]
        for number, (width, height) in enumerate(sizes):
            tifffile.imwrite(tmp_path / f"{number:03d}.tif", np.zeros((height, width, 3), np.uint8))
            lines.append(f"s{number:03d}\t{number:03d}.tif\t0.5")
        (tmp_path / "sheet.tsv").write_text("\n".join([*lines, ""]))
        return slides_of(read_sheet(tmp_path / "sheet.tsv"))

    return make


def test_small_cohort_is_measured_header_by_header(cohort: Any) -> None:
    sizes = slide_sizes(cohort([(300, 200), (100, 50)]))
    np.testing.assert_allclose(sizes.gigapixels, [6e-5, 5e-6])
    # 300 x 200 pixels of half a micron are 0.15 mm by 0.1 mm.
    np.testing.assert_allclose(sizes.area_mm2, [0.015, 0.00125])
    assert (sizes.opened, sizes.unreadable, sizes.error) == (2, 0, 0.0)


def test_large_cohort_is_estimated_from_a_sample_within_the_stated_error(cohort: Any) -> None:
    random = np.random.default_rng(3)
    true = [(int(width), int(height)) for width, height in random.integers(100, 400, (60, 2))]
    sizes = slide_sizes(cohort(true), sample=12)
    pixels = sum(width * height for width, height in true) / 1e9
    assert sizes.opened == 12
    assert 0 < sizes.error < 0.02 * pixels  # uncompressed: bytes tell pixels but for the files' heads
    assert abs(sizes.gigapixels.sum() - pixels) <= sizes.error


def test_slides_that_cannot_be_opened_are_counted_and_taken_to_be_like_the_others(cohort: Any) -> None:
    slides = cohort([(200, 200)] * 4)
    Path(slides[2].path).write_bytes(Path(slides[2].path).read_bytes()[4:])
    sizes = slide_sizes(slides)
    assert (sizes.opened, sizes.unreadable) == (4, 1)
    np.testing.assert_allclose(sizes.gigapixels, [4e-5] * 4)
    for slide in slides:
        Path(slide.path).write_bytes(b"no slide")
    with pytest.raises(KaryonError, match=r"none of 4 slides can be opened, such as .*000\.tif"):
        slide_sizes(slides)


def write_records(
    cohort: Path, slides: int, device: str = "cpu", side: int = 10_000, infer_s: float = 30
) -> None:
    """Records of slides of ``side`` pixels of 1 micron: 100 square millimetres each at 10,000."""
    megabytes = {"stain": ("stain", 1), "infer": ("tiles", 200)}
    megabytes |= {"stitch": ("maps", 50), "nuclei": ("nuclei", 9)}
    for number in range(slides):
        for stage, seconds in {"tissue": 1, "stain": 2, "infer": infer_s, "stitch": 4, "nuclei": 5}.items():
            row: dict[str, Any] = {"seconds": seconds, "status": "done"}
            row |= {"width": side, "height": side, "mpp": 1.0} if stage == "tissue" else {}
            row |= {"device": device, "threads": 4, "model": "m"} if stage == "infer" else {}
            folder, size = megabytes.get(stage, ("tissue", 0))
            content = {"row": row, "outputs": {f"{folder}/{number}.x": size * 1_000_000}}
            path = cohort / "records" / stage / f"{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))


def test_rates_are_what_the_records_add_up_to(tmp_path: Path) -> None:
    write_records(tmp_path / "pilot", 3)
    (run,) = earlier_runs(tmp_path)
    assert (run.device, run.model, run.mean_mm2) == ("cpu", "m", 100.0)
    # infer: 30 s on four threads are 120 core-seconds for 100 mm2.
    expected = {"tissue": 0.01, "stain": 0.02, "infer": 1.2, "stitch": 0.04, "nuclei": 0.05}
    assert run.seconds == pytest.approx(expected)
    assert run.megabytes == pytest.approx({"tiles": 2.0, "maps": 0.5, "rest": 0.1})
    assert run.files == 10  # an output and a record of each of five stages


def test_a_gpus_seconds_are_its_own_and_unfinished_slides_do_not_count(tmp_path: Path) -> None:
    write_records(tmp_path / "pilot", 2, "NVIDIA H200")
    (tmp_path / "pilot" / "records" / "stitch" / "1.json").unlink()
    (run,) = earlier_runs(tmp_path)
    assert run.seconds["infer"] == pytest.approx(0.3)
    assert run.source == f"as 1 slides of {tmp_path / 'pilot'} took on NVIDIA H200"


def test_the_run_with_the_most_similar_slides_is_taken_and_none_that_is_unlike(tmp_path: Path) -> None:
    write_records(tmp_path / "small", 1, side=5_000)
    write_records(tmp_path / "large", 1, side=20_000)
    runs, otherwise = earlier_runs(tmp_path), assumed_rates(CARD, gpu=False)
    assert "large" in most_alike(runs, 300.0, otherwise).source
    assert "small" in most_alike(runs, 30.0, otherwise).source
    assert most_alike(runs, 2.0, otherwise) is otherwise


def test_what_is_assumed_grows_with_the_maps_and_their_pixels() -> None:
    centres = assumed_rates(CARD, gpu=False)
    assert (centres.megabytes, centres.seconds) == (MEGABYTES, SECONDS)
    two = assumed_rates(replace(CARD, maps=("nucleus", "distance")), gpu=False)
    six = assumed_rates(
        replace(CARD, maps=("background", "contour", *(f"inside:{name}" for name in "abcd")), mpp=0.25),
        gpu=False,
    )
    for part in ("tiles", "maps"):
        assert two.megabytes[part] > 2 * centres.megabytes[part]
        assert six.megabytes[part] == pytest.approx(3 * 4 * two.megabytes[part])  # maps times pixels
    assert six.megabytes["rest"] == two.megabytes["rest"] > 2 * centres.megabytes["rest"]
    assert six.seconds["nuclei"] == pytest.approx(4 * two.seconds["nuclei"])
    assert two.seconds["nuclei"] > centres.seconds["nuclei"]


def test_runs_of_other_models_tell_nothing_of_the_disk(tmp_path: Path) -> None:
    assert "pilot" in forecast_by_hand(tmp_path, gpu=True).disk.source
    other = forecast_by_hand(tmp_path, gpu=True, card=replace(CARD, name="other"))
    assert other.disk.source.startswith("assumed, as of switch_unet")


def forecast_by_hand(
    folder: Path, gpu: bool, infer_s: float = 30, card: ModelCard = CARD, **settings: Any
) -> Forecast:
    """Four slides of 100 mm2, each a shard, after a pilot of three."""
    write_records(folder / "pilot", 3, "NVIDIA H200" if gpu else "cpu", infer_s=infer_s)
    columns = dict.fromkeys(("organ", "stain", "patient", "split", "label_quality"), "")
    files = dict.fromkeys(("annotations", "annotation_format", "region", "region_format"), "")
    sheet = pd.DataFrame({"slide_id": list("abcd"), "path": "", "mpp": 1.0, "annotation_mpp": math.nan})
    slides = slides_of(sheet.assign(**columns, **files))
    sizes = SlideSizes(np.full(4, 0.1), np.full(4, 100.0), 4, 0, 0.0)
    config = complete_config({"cohort": "new", "sheet": "none", "shard_size": 1, **settings})
    return forecast(slides, sizes, config, card, folder, gpu, at_once=2)


def test_a_forecast_worked_by_hand(tmp_path: Path) -> None:
    cost = forecast_by_hand(tmp_path, gpu=True)
    assert (cost.jobs, dict(cost.shards)) == (4 * 6 + 3, dict.fromkeys("abcd", 1))
    assert cost.infer_hours == pytest.approx(4 * 30 / 3600)
    others = 4 * (1 + 2 + 4 + 5) + cost.jobs * START_SECONDS
    assert cost.cpu_hours == pytest.approx((4 * 30 * INFER_THREADS + others) / 3600)
    assert cost.longest_hours == pytest.approx(30 / 3600)
    assert cost.gigabytes == pytest.approx({"maps": 4 * 0.05, "rest": 4 * 0.010})
    assert cost.temporary_gb == pytest.approx(2 * 0.2)  # the tile predictions of two slides
    assert cost.files == 40
    on_cpus = forecast_by_hand(tmp_path / "cpu", gpu=False)
    assert on_cpus.infer_hours == pytest.approx(4 * 120 / INFER_THREADS / 3600)


def test_jobs_that_share_a_shard_are_more_and_shorter(tmp_path: Path) -> None:
    cost = forecast_by_hand(tmp_path, gpu=True, jobs_per_shard=3)
    assert cost.jobs == 4 * (5 + 3 + 1) + 3  # three jobs of infer, and one that gathers
    assert cost.infer_hours == pytest.approx(4 * 30 / 3600)
    assert cost.mean_hours == cost.longest_hours == pytest.approx(10 / 3600)


def test_maps_that_are_not_kept_are_temporary(tmp_path: Path) -> None:
    cost = forecast_by_hand(tmp_path, gpu=True, keep_maps=False)
    assert cost.gigabytes == pytest.approx({"maps": 0.0, "rest": 0.04})
    assert cost.temporary_gb == pytest.approx(2 * 0.25)


@pytest.mark.parametrize(
    ("minutes", "advice"),
    [
        (1, "shard_size 1 will do: all of infer takes less than an hour"),
        (45, "shard_size 2 would give jobs of 1.5 hours"),
        (90, "shard_size 1 is good"),
        (300, "shard_size 1 is as good as it gets"),
    ],
)
def test_advice_is_a_shard_size_whose_jobs_take_one_to_two_hours(
    tmp_path: Path, minutes: int, advice: str
) -> None:
    assert forecast_by_hand(tmp_path, gpu=True, infer_s=60 * minutes).advice == advice


def test_the_command_prints_and_writes_nothing(
    cohort: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort([(300, 200)] * 3)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"cohort": "my", "sheet": "sheet.tsv", "shard_size": 2}))
    before = sorted(tmp_path.rglob("*"))
    assert main(["plan", "my.yaml"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^slides +3$", said, re.MULTILINE)
    assert re.search(r"^jobs +\d+, of ", said, re.MULTILINE)
    assert "assumed" in said
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["plan", "sheet.tsv", "--cpu"]) == 0
    assert "of a job with 8 threads" in capsys.readouterr().out


def test_shards_are_those_that_the_workflow_would_plan(cohort: Any, tmp_path: Path) -> None:
    slides = cohort([(100, 100)] * 9)
    config = complete_config({"cohort": "my", "sheet": "none", "shard_size": 2})
    cost = forecast(slides, slide_sizes(slides), config, CARD, tmp_path / "results", True, 200)
    plan = tmp_path / "results" / "my" / "plan"
    assert write_plan(read_sheet(tmp_path / "sheet.tsv"), plan, 2) == sorted(cost.shards)


def test_infer_has_the_threads_of_its_rule() -> None:
    rule = (REPOSITORY / "workflow" / "rules" / "infer.smk").read_text()
    assert f"threads: {INFER_THREADS}\n" in rule


def test_a_configuration_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("cohort: [")
    for name in ("my.yaml", "none.yaml"):
        with pytest.raises(SheetError, match=rf"{name}: cannot be read as a configuration"):
            read_configuration(tmp_path / name)
