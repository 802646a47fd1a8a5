"""Mistakes in the sheet or the configuration: a clear message, and nothing is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml
from conftest import SETTINGS, Workflow, new_workflow

from karyon.models.card import file_sha256, model_folder

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


def test_a_pickle_that_poses_as_weights_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(pickle.dumps({"weight": Trap()}))
    card = yaml.safe_load((model_folder("switch_unet") / "card.yaml").read_text())
    (weights.parent / "card.yaml").write_text(yaml.safe_dump({**card, "sha256": file_sha256(weights)}))
    _, output = run_sheet(tmp_path / "work", "a\ta.svs\t0.25\t\t\n", {"model": str(weights.parent)})
    assert f"{weights}: not the weights of" in output
    assert not (tmp_path / "sprung").exists()


def test_hostile_ids_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    rows = "".join(
        f"{slide_id}\ta.svs\t0.25\t\t\n" for slide_id in ("..", "../../b", "/tmp/c", "d\0e", "-rf")
    )
    workflow, output = run_sheet(tmp_path / "work", rows)
    assert output.count("expected a safe file name") == 5
    assert {path.name for path in tmp_path.iterdir()} == {"work"}
    assert not (workflow.folder / "-rf.tsv").exists()


def test_ten_million_columns_are_refused(tmp_path: Path) -> None:
    _, output = run_sheet(tmp_path / "work", "\t" * 10_000_000 + "\n")
    assert "cohort.tsv, row 2: more than 1000 columns" in output


def test_missing_slides_may_be_left_to_the_run(tmp_path: Path) -> None:
    workflow = new_workflow(tmp_path / "work")
    (workflow.folder / "cohort.tsv").write_text(HEADER + "a\tnone.svs\t0.25\t\t\n")
    planned = workflow.planned(settings={**SETTINGS, "missing_slides": "record"})
    assert "tissue" in planned


def test_a_missing_sheet_says_how_to_write_one(tmp_path: Path) -> None:
    workflow = new_workflow(tmp_path / "work")
    result = workflow.run("--dry-run")
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "cohort.tsv" in output
    assert "Traceback" not in output
