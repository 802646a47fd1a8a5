"""Mistakes in the sheet or the configuration: a clear message, and nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SETTINGS, Workflow, new_workflow

HEADER = "slide_id\tpath\tmpp\tannotations\tannotation_format\n"


def run_sheet(folder: Path, rows: str, settings: dict | None = None) -> tuple[Workflow, str]:
    workflow = new_workflow(folder)
    (workflow.folder / "a.svs").write_bytes(b"any")
    (workflow.folder / "cohort.tsv").write_text(HEADER + rows)
    result = workflow.run("--dry-run", settings={**SETTINGS, **(settings or {})})
    assert result.returncode != 0
    output = result.stdout + result.stderr
    assert "Traceback" not in output
    assert not (workflow.folder / "results").exists()
    return workflow, output


def test_all_mistakes_of_a_sheet_are_reported_at_once(tmp_path: Path) -> None:
    rows = (
        "a\ta.svs\t0,25\t\t\n"  # decimal comma
        "a\ta.svs\t0.25\t\t\n"  # duplicate id
        "../b\ta.svs\t0.25\t\t\n"  # leaves results/
        "c\tmissing.svs\t0.25\t\t\n"  # no such file
        "d\ta.svs\t0.25\ta.svs\t\n"  # annotations without a format
    )
    _, output = run_sheet(tmp_path / "work", rows)
    for fragment in (
        "row 2",
        "0,25",
        "row 3",
        "row 4",
        "../b",
        "row 5",
        "missing.svs",
        "row 6",
        "annotation_format",
    ):
        assert fragment in output, f"{fragment} not in:\n{output}"


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ({"modle": "switch_unet"}, ("modle", "model")),
        ({"tissue": {"method": "otso"}}, ("tissue.method", "otso", "otsu", "white_share")),
        ({"infer": {"tile_px": 100}}, ("infer.tile_px", "100", "32")),
        ({"model": "nosuch"}, ("nosuch", "switch_unet")),
    ],
)
def test_mistakes_of_the_configuration_name_key_and_choices(
    tmp_path: Path, settings: dict, fragments: tuple[str, ...]
) -> None:
    _, output = run_sheet(tmp_path / "work", "a\ta.svs\t0.25\t\t\n", settings)
    for fragment in fragments:
        assert fragment in output, f"{fragment} not in:\n{output}"


def test_a_missing_sheet_says_how_to_write_one(tmp_path: Path) -> None:
    workflow = new_workflow(tmp_path / "work")
    result = workflow.run("--dry-run")
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "cohort.tsv" in output
    assert "Traceback" not in output
