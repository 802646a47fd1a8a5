"""`karyon bench`: its lines, what it draws to measure on, and how it measures memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from karyon.bench.catalogue import BENCHES
from karyon.bench.material import NUCLEUS_CONCENTRATION, trivial_model
from karyon.bench.measurement import Measurement
from karyon.bench.memory import process_peak_mb
from karyon.bench.postprocess import THRESHOLD
from karyon.bench.predictions import draw_nuclei, paint_window
from karyon.cli.main import main
from karyon.errors import KaryonError
from karyon.models.weights import load_model

KEYS = ["name", "value", "unit", "peer", "peer_value", "ratio", "goal", "met"]


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a bench by the command line; gives its lines by name."""

    def run(name: str, side: int) -> dict[str, dict[str, Any]]:
        assert main(["bench", name, "--size", str(side), "--cache", str(tmp_path)]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert all(list(line) == KEYS for line in lines)
        assert all(line["name"].startswith(f"{name}.") for line in lines)
        return {line["name"]: line for line in lines}

    return run


def test_list_names_every_bench(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(BENCHES)


def test_unknown_bench_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "speed"]) == 1
    assert "no bench 'speed'; expected one of memory," in capsys.readouterr().err


def test_line_has_figures_of_four_digits_and_everything_else_as_it_is() -> None:
    line = Measurement("a.b", 1234.567, "s", "peer", 0.000123456, 2.0, "ratio >= 8", False).to_json()
    expected = ["a.b", 1235.0, "s", "peer", 0.0001235, 2.0, "ratio >= 8", False]
    assert json.loads(line) == dict(zip(KEYS, expected, strict=True))


def test_stain_bench_divides_speeds_and_reports_the_error(bench: Any) -> None:
    lines = bench("stain", 256)
    speed, error = lines["stain.concentrations"], lines["stain.error"]
    assert speed["ratio"] == pytest.approx(speed["value"] / speed["peer_value"], rel=2e-3)
    assert speed["met"] == (speed["ratio"] >= 50)
    assert 0 < error["value"] <= 1e-5
    assert error["met"] is True


def test_postprocess_bench_finds_what_was_drawn_and_a_missed_goal_is_no_error(bench: Any) -> None:
    side = 1500
    lines = bench("postprocess", side)
    _, drawn = ndimage.label(paint_window(draw_nuclei(side), 0, 0, side, side) >= THRESHOLD)
    assert f" {drawn:,} nuclei " in lines["postprocess.whole"]["unit"]
    # 90 s for 40,000 x 40,000, by area.
    assert lines["postprocess.whole"]["goal"] == "<= 0.127 s"
    assert lines["postprocess.whole"]["met"] == (
        lines["postprocess.whole"]["value"] <= 90 * (1500 / 40000) ** 2
    )
    assert lines["postprocess.components"]["peer"].startswith("skimage")


def test_slide_bench_accounts_for_the_whole_chain(bench: Any) -> None:
    lines = bench("slide", 1200)
    for model in ("switch_unet", "trivial"):
        share = {name.split(".")[2]: line["ratio"] for name, line in lines.items() if f".{model}." in name}
        stages = sum(share[stage] for stage in ("tissue", "stain", "infer", "stitch", "nuclei"))
        assert stages == pytest.approx(1, abs=2e-3)
        rest = lines[f"slide.{model}.rest"]
        assert rest["value"] == pytest.approx(1 - share["network"], abs=2e-3)
    assert (lines["slide.switch_unet.rest"]["goal"], rest["goal"], rest["met"]) == ("<= 0.15", "", None)


def test_drawn_predictions_agree_where_windows_overlap() -> None:
    nuclei = draw_nuclei(300)
    whole = paint_window(nuclei, 0, 0, 300, 300)
    np.testing.assert_array_equal(paint_window(nuclei, 70, 90, 120, 100), whole[70:190, 90:190])
    beyond = paint_window(nuclei, -56, 250, 112, 106)
    np.testing.assert_array_equal(beyond[56:, :50], whole[:56, 250:])


def test_drawn_nuclei_are_discs_about_their_centres() -> None:
    nuclei = draw_nuclei(400)
    assert nuclei.shape == (10, 10, 3)  # a million on 40,000 x 40,000
    y, x = np.mgrid[:400, :400]
    inside = np.zeros((400, 400), bool)
    for row, column, radius in nuclei.reshape(-1, 3):
        inside |= np.hypot(y - row, x - column) < radius - 0.05
    found = paint_window(nuclei, 0, 0, 400, 400) >= THRESHOLD
    assert found[inside].all()
    assert found.sum() <= 1.02 * inside.sum()


def test_trivial_model_thresholds_the_input_after_two_means(tmp_path: Path) -> None:
    network, card = load_model(trivial_model(tmp_path))
    pixels = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    with torch.inference_mode():
        nucleus = (network(torch.from_numpy(pixels)[None, None])[0, 0] > 0).numpy()
    twice = ndimage.uniform_filter(ndimage.uniform_filter(pixels, 3), 3)
    inner = np.s_[card.halo_px : -card.halo_px, card.halo_px : -card.halo_px]
    clear = np.abs(twice[inner] - NUCLEUS_CONCENTRATION) > 1e-4
    assert (nucleus[inner] == (twice[inner] > NUCLEUS_CONCENTRATION))[clear].all()
    assert 0.2 < nucleus[inner].mean() < 0.8


def test_peak_memory_is_that_of_the_process_itself() -> None:
    held = np.ones(1_000_000_000, np.uint8)  # the measuring process is larger than both measured ones
    little, much = (process_peak_mb(np.ones, size, np.uint8) for size in (1, 300_000_000))
    assert held.nbytes == 1e9
    assert little < 700
    assert much - little == pytest.approx(300, abs=15)


def test_work_that_fails_in_its_process_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KaryonError, match="ones failed in its process"):
        process_peak_mb(np.ones, -1)
    assert "negative dimensions" in capfd.readouterr().err
