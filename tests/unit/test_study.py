"""Studies: runs from a file, mistakes by name, done once, and a table that adds up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from karyon.cli.main import main
from karyon.errors import KaryonError
from karyon.io.schemas import REPOSITORY
from karyon.study.definition import chosen_runs, read_study
from karyon.study.table import study_table

STUDIES = sorted((REPOSITORY / "config" / "studies").glob("*.yaml"))


def write_study(folder: Path, **changes: Any) -> Path:
    base = {
        "name": "base",
        "datasets": [{"sheet": str(folder / "sheet.tsv"), "train_splits": ["a"], "validation_splits": ["b"]}],
        "mpp": 0.5,
        "input": "RGB",
        "architecture": "unet",
        "arguments": {"width": 2, "depth": 1},
        "target": "shrunken_mask",
        "loss": "switching",
        "loss_arguments": {"weight": 0.7},
        "decoding": "components",
        "steps": 9,
        "batch": 2,
        "crop_px": 32,
        "optimiser": {"name": "adam", "learning_rate": 0.01},
        "schedule": {"name": "constant"},
        "validate_every": 9,
        "licence": "",
    }
    study = {
        "name": "tiny",
        "base": "base.yaml",
        "settings": {"steps": 3, "validate_every": 3},
        "variants": {"first": {}, "dice": {"loss": "dice", "loss_arguments": {}}},
        "test_splits": ["c"],
        "seeds": [1, 2],
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "study.yaml").write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return folder / "study.yaml"


def test_every_variant_changes_the_base_with_every_seed(tmp_path: Path) -> None:
    _, runs = read_study(write_study(tmp_path))
    assert [run.name for run in runs] == ["first-1", "dice-1", "first-2", "dice-2"]
    assert {run.experiment.steps for run in runs} == {3}
    assert [run.experiment.seed for run in runs] == [1, 1, 2, 2]
    first, dice = (run.experiment for run in runs[:2])
    assert (first.loss, first.loss_arguments) == ("switching", {"weight": 0.7})
    assert (dice.loss, dice.loss_arguments) == ("dice", {})
    assert [run.name for run in chosen_runs(runs, ["dice"])] == ["dice-1", "dice-2"]


def test_mistakes_of_all_variants_are_named_at_once(tmp_path: Path) -> None:
    path = write_study(tmp_path, variants={"one": {"los": "dice"}, "two": {"mpp": -1}}, seeds=[])
    with pytest.raises(KaryonError, match="seeds is empty"):
        read_study(path)
    path = write_study(tmp_path, variants={"one": {"los": "dice"}, "two": {"mpp": -1}})
    with pytest.raises(KaryonError) as error:
        read_study(path)
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "variant one: los is an unknown key (did you mean 'loss'?)" in lines[0]
    assert "variant two: mpp is -1; expected a number greater than 0" in lines[1]


def test_a_variant_that_is_not_there_is_named(tmp_path: Path) -> None:
    _, runs = read_study(write_study(tmp_path))
    with pytest.raises(KaryonError, match="is not of this study"):
        chosen_runs(runs, ["dise"])


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_come_along_are_sound(path: Path) -> None:
    study, runs = read_study(path)
    assert study.name == path.stem
    assert len({(run.experiment.steps, run.experiment.batch, run.experiment.crop_px) for run in runs}) == 1


def scores(*rows: tuple[str, int, str, str, int, int, int]) -> pd.DataFrame:
    names = ["variant", "seed", "image_id", "test_group", "tp", "fp", "fn"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(patient=table["image_id"], distance_um=1.5)


def test_the_table_by_hand() -> None:
    table = study_table(
        scores(
            ("plain", 1, "i1", "x", 8, 2, 2),
            ("plain", 1, "i2", "y", 1, 1, 3),
            ("plain", 2, "i1", "x", 6, 4, 4),
            ("plain", 2, "i2", "y", 3, 1, 1),
            ("better", 1, "i1", "x", 10, 0, 0),
            ("better", 1, "i2", "y", 4, 0, 0),
        )
    ).set_index(["group", "variant"])
    plain = table.loc[("all", "plain")]
    # Over both seeds 18 found, 8 false, 10 missed: F1 36 / 54, precision 18 / 26, recall 18 / 28.
    assert plain["f1"] == pytest.approx(36 / 54)
    assert plain["precision"] == pytest.approx(18 / 26)
    assert plain["recall"] == pytest.approx(18 / 28)
    # Seed by seed 9 of 18 pairs and 3, 5 wrong, then 9 and 5, 5: 18 / 26 and 18 / 28.
    assert plain["f1_seeds"] == pytest.approx([18 / 26, 18 / 28])
    # Images: 28 / 40 and 8 / 14.
    assert plain["mean_image_f1"] == pytest.approx((28 / 40 + 8 / 14) / 2)
    assert plain["distance_um"] == pytest.approx(1.5)
    assert math.isnan(plain["difference"])
    better = table.loc[("all", "better")]
    assert better["f1"] == 1
    assert better["difference"] == pytest.approx(1 - 36 / 54)
    assert better["seeds"] == 1
    assert table.loc[("x", "plain"), "f1"] == pytest.approx(28 / 40)
    assert table.loc[("y", "better"), "images"] == 1


def test_runs_are_done_once_and_scored_on_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    rows, across = np.mgrid[:64, :64]
    labels = np.zeros((64, 64), np.uint16)
    for number, (x, y) in enumerate([(16, 16), (46, 18), (20, 46), (48, 48)], start=1):
        labels[(across - x) ** 2 + (rows - y) ** 2 <= 36] = number
    grey = np.random.default_rng(0).integers(-20, 20, (64, 64)) + np.where(labels > 0, 90, 220)
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)).save(tmp_path / "i.png")
    Image.fromarray(labels).save(tmp_path / "l.png")
    lines = ["slide_id\tpath\tmpp\tsplit\tannotations\tannotation_format"]
    lines += [f"{split}\ti.png\t0.5\t{split}\tl.png\tinstance_png" for split in "abc"]
    (tmp_path / "sheet.tsv").write_text("\n".join(lines) + "\n")
    command = [
        "study",
        str(write_study(tmp_path, seeds=[1])),
        "--output",
        str(tmp_path / "out"),
        "--threads",
        "1",
    ]
    assert main([*command, "--only", "first"]) == 0
    assert "dice" not in capsys.readouterr().out
    scored = pd.read_parquet(tmp_path / "out" / "first-1" / "scores.parquet")
    assert scored["image_id"].tolist() == ["c"]
    assert int(scored["tp"].iloc[0] + scored["fn"].iloc[0]) == 4
    written = (tmp_path / "out" / "first-1" / "scores.parquet").stat().st_mtime_ns
    assert main(command) == 0
    assert "dice" in capsys.readouterr().out
    assert (tmp_path / "out" / "first-1" / "scores.parquet").stat().st_mtime_ns == written
    table = pd.read_parquet(tmp_path / "out" / "table.parquet")
    assert table["variant"].tolist() == ["first", "dice"]
